// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"slices"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// This file takes over what Load reads. A daemon that was killed in the middle of a
// change may have left a real server that is in no pool: it counts as taken out; one
// that is in a pool counts as listed. What somebody damaged while no daemon ran is
// written anew, as far as it can be read.

// adopt makes the daemon's memory what the maps say.
//
// Returns lvs.ErrFull if what was damaged has no room.
func (p *Plane) adopt() error {
	readings, err := p.read()
	if err != nil {
		return err
	}
	t, m := &p.table, &p.objects.bpfMaps
	t.services = make(map[lvs.ServiceKey]*serviceEntry, len(readings))
	t.servers = map[serverKey]uint32{}
	t.removed = map[serverKey]uint64{}
	t.serviceIDs = newExtents("services", 0, m.Services.MaxEntries())
	t.serverIDs = newExtents("real servers", 0, m.RealServers.MaxEntries())
	t.pools = newExtents("services", 0, m.Pools.MaxEntries())
	t.seats = newExtents("places in schedulers' tables", 0, m.Seats.MaxEntries())
	p.hops = newHopTable(p)

	var damaged []lvs.Service
	for _, r := range slices.Backward(readings) {
		if r.found && !p.adoptService(r) {
			damaged = append(damaged, r.service)
		}
	}
	if err := p.adoptServers(); err != nil {
		return err
	}
	for _, e := range t.services {
		p.list(e)
	}
	if err := p.adoptAddresses(); err != nil {
		return err
	}
	for _, s := range damaged {
		if err := p.rewrite(s); err != nil {
			return err
		}
	}
	return nil
}

// rewrite writes a damaged service anew. What cannot be one is left as it is, for
// Load to show and for Put or Delete to mend.
func (p *Plane) rewrite(s lvs.Service) error {
	if err := s.Validate(); err != nil {
		p.log.Warn("a service is damaged in the maps", "err", err)
		return nil
	}
	p.log.Warn("a service was damaged in the maps, and is written anew", "service", s.ServiceKey)
	return p.Put(s)
}

// adoptService takes over a service whose id is its own. It tells whether all of it
// is sound: what is not is left to others.
func (p *Plane) adoptService(r reading) (sound bool) {
	t := &p.table
	// Numbered anew, the oldest first: there is always a greater one for the next.
	t.order++
	p.arrays.services.items[r.id].Order = t.order
	t.serviceIDs.reserve(r.id, 1)
	e := &serviceEntry{id: r.id, order: t.order, pool: sched.None}
	e.service = lvs.Service{ServiceKey: r.service.ServiceKey, Scheduler: r.service.Scheduler, Flags: r.service.Flags}
	t.services[e.service.ServiceKey] = e
	if r.pool != sched.None && t.pools.reserve(r.pool, 1) {
		e.pool = r.pool
		if t.seats.reserve(r.head.First, r.head.room()) {
			e.head, e.sum = r.head, p.sumSeats(r.head)
			sound = r.whole && p.turnsSound(r)
		}
	}
	for i, seat := range r.seats {
		server := r.service.RealServers[i]
		if !p.claim(serverKey{e.service.ServiceKey, server.Address}, seat.ID) {
			sound = false
			continue
		}
		e.servers = append(e.servers, seat.ID)
		e.service.RealServers = append(e.service.RealServers, server)
	}
	return sound
}

// claim takes over a real server of a service, unless its record says that it is
// another's, or the service has one of that address.
func (p *Plane) claim(key serverKey, id uint32) bool {
	_, twice := p.table.servers[key]
	if twice || p.arrays.servers.items[id].Service != encodeKey(key.service) {
		return false
	}
	p.table.servers[key] = id
	p.table.serverIDs.reserve(id, 1)
	return true
}

// turnsSound tells whether the turns of a pool and its ring are those that its seats
// make. Of mh, which takes long to reckon, it only looks whether they are seats.
func (p *Plane) turnsSound(r reading) bool {
	places := p.places(r.head)
	if r.service.Scheduler == lvs.MH {
		known := make(map[bpfSeat]bool, len(places.seats))
		for i, s := range places.seats {
			known[s] = r.seats[i].Last > 0
		}
		strange := func(turn bpfSeat) bool { return !known[turn] }
		weighed := func(s sched.Seat) bool { return s.Last > 0 }
		return r.head.Ring == 0 && len(places.turns) > 0 == slices.ContainsFunc(r.seats, weighed) && !slices.ContainsFunc(places.turns, strange)
	}
	want := sched.NewPool(sched.Wanted{Scheduler: r.service.Scheduler, Flags: r.service.Flags, Seats: r.seats, Secret: p.secrets[bpfSecretUseSECRET_CLIENT]})
	same := func(turn bpfSeat, at uint32) bool { return turn == places.seats[at] }
	return r.head.Zero == 0 && slices.EqualFunc(places.turns, want.Turns, same) && slices.EqualFunc(places.ring, want.Ring, same)
}

// adoptServers takes over the next hops of those that are listed, and of the others
// what is not free.
func (p *Plane) adoptServers() error {
	listed := make(map[uint32]bool, len(p.table.servers))
	for _, id := range p.table.servers {
		listed[id] = true
	}
	for i := range p.arrays.servers.items {
		id, record := uint32(i), &p.arrays.servers.items[i]
		switch {
		case listed[id]:
		case record.State == bpfServerStateSERVER_FREE:
			continue
		case !p.adoptRemoved(id):
			continue
		}
		if err := p.hops.adopt(decodeAddr(record.Addr), id, record.NextHop); err != nil {
			return err
		}
	}
	return nil
}

// adoptRemoved keeps a real server that is in no pool until its last connection
// ends. If another has its name it waits, without one, until a daemon finds it alone.
func (p *Plane) adoptRemoved(id uint32) bool {
	record := &p.arrays.servers.items[id]
	storeState(record, bpfServerStateSERVER_REMOVED)
	p.table.serverIDs.reserve(id, 1)
	key := serverKey{decodeKey(record.Service), decodeAddrPort(record.Addr, record.Port)}
	if _, taken := p.table.servers[key]; taken {
		return false
	}
	p.table.servers[key], p.table.removed[key] = id, 0
	return true
}

// adoptAddresses takes over the addresses that packets look for, and forgets those that
// nothing needs. Repair writes those that lack.
func (p *Plane) adoptAddresses() error {
	p.table.vips = newVIPTable()
	p.adoptBackends()
	for c := range p.neededAddresses() {
		p.noteAddress(c)
	}
	err := walk(p.objects.Addresses, func(addr bpfAddr, roles uint32) error {
		for _, c := range []concern{asVIP(decodeAddr(addr)), asSource(decodeAddr(addr))} {
			if roles&uint32(c.role) != 0 {
				p.noteAddress(c)
			}
		}
		return nil
	})
	p.dropAddresses()
	return err
}
