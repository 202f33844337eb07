// SPDX-License-Identifier: Apache-2.0

package director

import (
	"net/netip"
	"sync"
	"time"

	"lvx/internal/lvs"
)

// ratePeriod is how often rates are brought up to date, as in the kernel
// (net/netfilter/ipvs/ip_vs_est.c).
const ratePeriod = 2 * time.Second

// rateTable keeps the rates of services and real servers. Safe for concurrent use.
type rateTable struct {
	mu   sync.Mutex
	at   time.Time // of the last sample
	list map[serverOf]rate
}

// rate is an average and what it was made of last.
type rate struct {
	stats lvs.Stats
	rates lvs.Rates
}

// sample takes new statistics in; what is no more there is forgotten.
func (t *rateTable) sample(now time.Time, services []lvs.ServiceStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seconds := now.Sub(t.at).Seconds()
	list := make(map[serverOf]rate, len(t.list))
	for _, s := range services {
		key := serverOf{service: s.ServiceKey}
		list[key] = t.list[key].next(s.Stats, seconds)
		for _, r := range s.RealServers {
			key.address = r.Address
			list[key] = t.list[key].next(r.Stats, seconds)
		}
	}
	t.list, t.at = list, now
}

// fill puts the rates into services.
func (t *rateTable) fill(services []lvs.ServiceStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range services {
		s := &services[i]
		s.Rates = t.list[serverOf{s.ServiceKey, netip.AddrPort{}}].rates
		for j := range s.RealServers {
			s.RealServers[j].Rates = t.list[serverOf{s.ServiceKey, s.RealServers[j].Address}].rates
		}
	}
}

// next moves the averages a quarter of the way to what was counted since.
func (r rate) next(now lvs.Stats, seconds float64) rate {
	move := func(average float64, was, is uint64) float64 {
		counted := 0.0
		if is > was { // else nothing was, or statistics were set to 0
			counted = float64(is-was) / seconds
		}
		return average + (counted-average)/4
	}
	old, last := r.rates, r.stats
	return rate{stats: now, rates: lvs.Rates{
		Connections: move(old.Connections, last.Connections, now.Connections),
		InPackets:   move(old.InPackets, last.InPackets, now.InPackets),
		OutPackets:  move(old.OutPackets, last.OutPackets, now.OutPackets),
		InBytes:     move(old.InBytes, last.InBytes, now.InBytes),
		OutBytes:    move(old.OutBytes, last.OutBytes, now.OutBytes),
	}}
}
