// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// sumStats adds up the statistics of all CPUs.
func sumStats(stats *ebpf.Map, id uint32) (sum bpfStats, err error) {
	var cpus []bpfStats
	if err := stats.Lookup(id, &cpus); err != nil {
		return sum, fmt.Errorf("read statistics: %w", err)
	}
	for _, s := range cpus {
		sum = addStats(sum, s, 1)
	}
	return sum, nil
}

// readStats returns the statistics since they were last set to 0.
func readStats(stats, zeros *ebpf.Map, id uint32) (lvs.Stats, error) {
	var zero bpfStats
	if err := zeros.Lookup(id, &zero); err != nil {
		return lvs.Stats{}, fmt.Errorf("read statistics: %w", err)
	}
	sum, err := sumStats(stats, id)
	return decodeStats(addStats(sum, zero, -1)), err
}

// zeroStats notes what the statistics stand at: the counters themselves are
// never reset, since packets are counting.
func zeroStats(stats, zeros *ebpf.Map, id uint32) error {
	sum, err := sumStats(stats, id)
	if err != nil {
		return err
	}
	if err := zeros.Put(id, sum); err != nil {
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
	s.Connections.Capacity = uint64(p.objects.Connections.MaxEntries())
	s.Services = lvs.Usage{Used: uint64(len(p.table.services)), Capacity: uint64(p.objects.Services.MaxEntries())}
	s.RealServers = lvs.Usage{Used: uint64(len(p.table.servers)), Capacity: uint64(p.objects.RealServers.MaxEntries())}
	for _, id := range p.table.servers {
		c := decodeCounts(atomic.LoadUint64(&p.arrays.counts.items[id]))
		s.Connections.Used += uint64(c.Active) + uint64(c.Inactive)
	}
	return s, nil
}
