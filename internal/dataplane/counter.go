// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// Services returns the services as Load does, with what was counted and with the
// next hops. The lock is not held while statistics are read.
func (p *Plane) Services() ([]lvs.ServiceStatus, error) {
	readings, err := p.read()
	if err != nil {
		return nil, err
	}
	var ids, servers uint32 // how many of each table there are to be read
	for _, r := range readings {
		if r.found {
			ids = max(ids, r.id+1)
		}
		for _, seat := range r.seats {
			servers = max(servers, seat.ID+1)
		}
	}
	services, err := readStats(p.objects.ServiceStats, p.objects.ServiceZeros, ids)
	if err != nil {
		return nil, err
	}
	each, err := readStats(p.objects.ServerStats, p.objects.ServerZeros, servers)
	if err != nil {
		return nil, err
	}
	direct, routed := p.hops.statuses(true), p.hops.statuses(false)
	list := make([]lvs.ServiceStatus, 0, len(readings))
	for _, r := range readings {
		list = append(list, p.serviceStatus(r, services, each, func(s lvs.RealServer) (lvs.NextHop, bool) {
			hops := routed
			if s.Method == lvs.DR {
				hops = direct
			}
			hop, known := hops[s.Address.Addr()]
			return hop, known
		}))
	}
	return list, nil
}

func (p *Plane) serviceStatus(r reading, services, servers []lvs.Stats, hopOf func(lvs.RealServer) (lvs.NextHop, bool)) lvs.ServiceStatus {
	s := lvs.ServiceStatus{
		ServiceKey: r.service.ServiceKey, Scheduler: r.service.Scheduler, Flags: r.service.Flags,
		RealServers: make([]lvs.RealServerStatus, 0, len(r.seats)),
	}
	if r.found {
		s.Stats = services[r.id]
	}
	for i, seat := range r.seats {
		server := lvs.RealServerStatus{
			RealServer: r.service.RealServers[i],
			Counts:     decodeCounts(atomic.LoadUint64(&p.arrays.counts.items[seat.ID])),
			Stats:      servers[seat.ID],
			NextHop:    lvs.NextHop{State: lvs.NextHopUnresolved},
		}
		if hop, known := hopOf(server.RealServer); known {
			server.NextHop = hop
		}
		s.RealServers = append(s.RealServers, server)
	}
	return s
}

// readStats returns the statistics of the first n ids since each was last set to 0.
func readStats(stats, zeros *ebpf.Map, n uint32) ([]lvs.Stats, error) {
	// The zeros first: what they are subtracted from only grows meanwhile.
	zero, err := readArray[bpfStats](zeros, n, 1)
	if err != nil {
		return nil, err
	}
	cpus := ebpf.MustPossibleCPU()
	counted, err := readArray[bpfStats](stats, n, cpus)
	if err != nil {
		return nil, err
	}
	list := make([]lvs.Stats, n)
	for id := range list {
		list[id] = decodeStats(addStats(sumStats(counted[id*cpus:][:cpus]), zero[id], -1))
	}
	return list, nil
}

// sumStats adds up the statistics of all CPUs.
func sumStats(cpus []bpfStats) (sum bpfStats) {
	for _, s := range cpus {
		sum = addStats(sum, s, 1)
	}
	return sum
}

// zeroStats notes what the statistics of some ids stand at: the counters themselves
// are never reset, since packets are counting.
func zeroStats(stats, zeros *ebpf.Map, ids []uint32) error {
	if len(ids) == 0 {
		return nil
	}
	sums := make([]bpfStats, len(ids))
	for i, id := range ids {
		var cpus []bpfStats
		if err := stats.Lookup(id, &cpus); err != nil {
			return fmt.Errorf("read statistics: %w", err)
		}
		sums[i] = sumStats(cpus)
	}
	if _, err := zeros.BatchUpdate(ids, sums, nil); err != nil {
		return fmt.Errorf("zero statistics: %w", err)
	}
	return nil
}

// Reasons returns every reason with its count, in the order of their numbers.
func (p *Plane) Reasons() ([]lvs.Reason, error) {
	list := make([]lvs.Reason, 0, len(reasons))
	for number, r := range reasons {
		if number == int(bpfReasonREASON_UNDECIDED) {
			continue
		}
		var cpus []uint64
		if err := p.objects.Reasons.Lookup(uint32(number), &cpus); err != nil {
			return nil, fmt.Errorf("read reasons: %w", err)
		}
		for _, n := range cpus {
			r.Packets += n
		}
		list = append(list, r)
	}
	return list, nil
}

// Status returns what the data plane knows of itself: interfaces, table usage
// and timeouts. Connections are those counted: the ones whose time is up count
// until the next sweep.
func (p *Plane) Status() (s lvs.Status, err error) {
	if s.Timeouts, err = p.Timeouts(); err != nil {
		return s, err
	}
	s.Instance = p.instance.name
	s.Interfaces = p.ports.interfaces()
	s.Warnings = slices.Concat(p.ports.warnings(), p.hops.warnings(), p.notes)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Connections.Capacity = uint64(connections(p.sets()))
	s.Services = lvs.Usage{Used: uint64(len(p.table.services)), Capacity: uint64(p.objects.Services.MaxEntries())}
	s.RealServers = lvs.Usage{Used: uint64(len(p.table.servers)), Capacity: uint64(p.objects.RealServers.MaxEntries())}
	for _, id := range p.table.servers {
		c := decodeCounts(atomic.LoadUint64(&p.arrays.counts.items[id]))
		s.Connections.Used += uint64(c.Active) + uint64(c.Inactive)
	}
	return s, nil
}
