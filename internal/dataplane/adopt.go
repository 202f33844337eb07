// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"

	"lvx/internal/lvs"
)

// adopt reads the maps. A daemon that was killed in the middle of a change may
// have left a real server that is in no pool: it counts as taken out; one that is
// in a pool counts as listed.
func (t *table) adopt(p *Plane) {
	m := &p.objects.bpfMaps
	t.services = map[lvs.ServiceKey]*serviceEntry{}
	t.servers = map[serverKey]uint32{}
	t.vips = map[netip.Addr]bool{}
	t.removed = map[uint32]uint64{}
	t.serviceIDs = newExtents("services", 0, m.Services.MaxEntries())
	t.serverIDs = newExtents("real servers", 0, m.RealServers.MaxEntries())
	t.pools = newExtents("services", 0, m.Pools.MaxEntries())
	t.seats = newExtents("real servers", 0, m.Seats.MaxEntries())
	p.hops = newHopTable(p)

	listed := t.adoptServices(p)
	t.adoptServers(p, listed)
	var vip bpfAddr
	var unused uint32
	for all := m.Addresses.Iterate(); all.Next(&vip, &unused); {
		t.vips[decodeAddr(vip)] = true
	}
	p.dropAddresses()
}

// adoptServices returns the ids of the real servers that pools hold.
func (t *table) adoptServices(p *Plane) map[uint32]bool {
	listed := map[uint32]bool{}
	var raw bpfServiceKey
	var id uint32
	for all := p.objects.ServiceIds.Iterate(); all.Next(&raw, &id); {
		index := p.arrays.services.items[id].Pool
		pool := p.readPool(index)
		order := p.arrays.services.items[id].Order
		e := &serviceEntry{id: id, pool: index, order: order, service: lvs.Service{ServiceKey: decodeKey(raw), Scheduler: pool.Scheduler}}
		t.order = max(t.order, order)
		p.list(e, pool.Seats)
		for _, seat := range pool.Seats {
			listed[seat.ID] = true
			record := &p.arrays.servers.items[seat.ID]
			e.service.RealServers = append(e.service.RealServers, lvs.RealServer{
				Address: decodeAddrPort(record.Addr, record.Port),
				Method:  decodeName(methods, record.Method), Weight: seat.Weight,
			})
		}
		t.services[e.service.ServiceKey] = e
		t.serviceIDs.reserve(id, 1)
		t.pools.reserve(index, 1)
		head := &p.arrays.pools.items[index]
		t.seats.reserve(head.First, head.Servers+head.Turns)
	}
	return listed
}

// adoptServers takes over the real servers that have ids. One that has no next
// hop yet was being made when its daemon was killed: nothing points to it.
func (t *table) adoptServers(p *Plane, listed map[uint32]bool) {
	for i := range p.arrays.servers.items {
		id, record := uint32(i), &p.arrays.servers.items[i]
		if record.State == bpfServerStateSERVER_FREE {
			continue
		}
		if record.NextHop == 0 {
			storeState(record, bpfServerStateSERVER_FREE)
			continue
		}
		if !listed[id] {
			storeState(record, bpfServerStateSERVER_REMOVED)
		}
		address := decodeAddrPort(record.Addr, record.Port)
		t.servers[serverKey{decodeKey(record.Service), address}] = id
		t.serverIDs.reserve(id, 1)
		p.hops.adopt(address.Addr(), id, record.NextHop)
	}
}
