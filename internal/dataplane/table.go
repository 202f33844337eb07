// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// table is what the daemon knows of the maps: which ids are whose. All of it can
// be read back from the maps (adopt), so that a killed daemon loses nothing.
type table struct {
	services map[lvs.ServiceKey]*serviceEntry
	servers  map[serverKey]uint32 // id; listed or removed
	vips     map[netip.Addr]bool  // what `addresses` holds

	order    uint64            // of the service added last
	removals uint64            // how often a real server was taken out
	removed  map[uint32]uint64 // by id: which of those it was

	serviceIDs, serverIDs, pools, seats extents
	retired                             retired
}

// serverKey names a real server of a service, also when the service is gone.
type serverKey struct {
	service lvs.ServiceKey
	address netip.AddrPort
}

type serviceEntry struct {
	id      uint32
	pool    uint32
	order   uint64
	service lvs.Service
}

// entries returns the services in kernel order: the one added last comes first.
func (t *table) entries() []*serviceEntry {
	return slices.SortedFunc(maps.Values(t.services), func(a, b *serviceEntry) int { return cmp.Compare(b.order, a.order) })
}

// Load returns the services as packets see them, the one added last first.
func (p *Plane) Load() ([]lvs.Service, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]lvs.Service, 0, len(p.table.services))
	for _, e := range p.table.entries() {
		list = append(list, e.service.Clone())
	}
	return list, nil
}

// Services returns the same with what was counted, and with the next hops.
func (p *Plane) Services() ([]lvs.ServiceStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]lvs.ServiceStatus, 0, len(p.table.services))
	for _, e := range p.table.entries() {
		status, err := p.serviceStatus(e)
		if err != nil {
			return nil, err
		}
		list = append(list, status)
	}
	return list, nil
}

func (p *Plane) serviceStatus(e *serviceEntry) (lvs.ServiceStatus, error) {
	s := lvs.ServiceStatus{ServiceKey: e.service.ServiceKey, Scheduler: e.service.Scheduler, RealServers: []lvs.RealServerStatus{}}
	var err error
	if s.Stats, err = readStats(p.objects.ServiceStats, p.objects.ServiceZeros, e.id); err != nil {
		return s, err
	}
	for _, r := range e.service.RealServers {
		id := p.table.servers[serverKey{e.service.ServiceKey, r.Address}]
		stats, err := readStats(p.objects.ServerStats, p.objects.ServerZeros, id)
		if err != nil {
			return s, err
		}
		s.RealServers = append(s.RealServers, lvs.RealServerStatus{
			RealServer: r,
			Counts:     decodeCounts(atomic.LoadUint64(&p.arrays.counts.items[id])),
			Stats:      stats,
			NextHop:    p.hops.status(r.Address.Addr()),
		})
	}
	return s, nil
}

// Put adds a service or replaces it, with all its real servers. Every packet
// sees the service as it was or as it is now, never a mixture. A real server
// that had connections when it was taken out gets them back. With an error
// nothing has changed.
//
// Returns lvs.ErrFull if a table has no room.
func (p *Plane) Put(s lvs.Service) error {
	err := p.put(s)
	if errors.Is(err, lvs.ErrFull) {
		p.reclaim() // what was replaced a moment ago may be the room that lacks
		err = p.put(s)
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", s.ServiceKey, err)
	}
	return nil
}

func (p *Plane) put(s lvs.Service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := &undo{}
	defer u.run()
	seats, err := p.seat(s, u)
	if err != nil {
		return err
	}
	old := p.table.services[s.ServiceKey]
	pool, err := p.writePool(s.Scheduler, seats, old, u)
	if err != nil {
		return err
	}
	entry := &serviceEntry{pool: pool, service: s.Clone()}
	if old == nil {
		err = p.insert(entry, seats, u)
	} else {
		entry.id, entry.order = old.id, old.order
		p.list(entry, seats)
		atomic.StoreUint32(&p.arrays.services.items[entry.id].Pool, pool)
	}
	if err != nil {
		return err
	}
	u.forget()
	p.table.services[s.ServiceKey] = entry
	if old != nil {
		p.retirePool(old.pool)
		p.unlist(p.dropped(old.service, s.RealServers))
	}
	return nil
}

// undo is what to take back, last first, if a change does not come to its end.
type undo struct{ steps []func() }

func (u *undo) add(step func()) { u.steps = append(u.steps, step) }

func (u *undo) forget() { u.steps = nil }

func (u *undo) run() {
	for _, step := range slices.Backward(u.steps) {
		step()
	}
}

// seat finds the id of each real server, or makes one that nothing points to yet.
func (p *Plane) seat(s lvs.Service, u *undo) ([]sched.Seat, error) {
	seats := make([]sched.Seat, 0, len(s.RealServers))
	for _, r := range s.RealServers {
		key := serverKey{s.ServiceKey, r.Address}
		id, known := p.table.servers[key]
		if !known {
			var err error
			if id, err = p.newServer(key, r, u); err != nil {
				return nil, err
			}
		}
		seats = append(seats, sched.Seat{ID: id, Weight: r.Weight})
	}
	return seats, nil
}

func (p *Plane) newServer(key serverKey, r lvs.RealServer, u *undo) (uint32, error) {
	id, err := p.table.serverIDs.take(1)
	if err != nil {
		return 0, err
	}
	u.add(func() { p.table.serverIDs.put(id, 1) })
	if err := zeroStats(p.objects.ServerStats, p.objects.ServerZeros, id); err != nil {
		return 0, err
	}
	record := &p.arrays.servers.items[id]
	*record = bpfRealServer{
		Addr: encodeAddr(r.Address.Addr()), Port: encodePort(r.Address.Port()),
		Service: encodeKey(key.service), Generation: record.Generation,
		State: bpfServerStateSERVER_REMOVED, Method: methods[r.Method],
	}
	u.add(func() { storeState(record, bpfServerStateSERVER_FREE) })
	if err := p.hops.acquire(r.Address.Addr(), id); err != nil {
		return 0, err
	}
	p.table.servers[key] = id
	u.add(func() {
		p.hops.release(r.Address.Addr(), id)
		delete(p.table.servers, key)
	})
	return id, nil
}

// writePool writes a pool that nothing points to yet.
func (p *Plane) writePool(scheduler lvs.Scheduler, seats []sched.Seat, old *serviceEntry, u *undo) (uint32, error) {
	var before *sched.Pool
	if old != nil {
		before = p.readPool(old.pool)
	}
	pool := sched.NewPool(scheduler, seats, before)
	index, err := p.table.pools.take(1)
	if err != nil {
		return 0, err
	}
	u.add(func() { p.table.pools.put(index, 1) })
	length := uint32(len(pool.Seats) + len(pool.Turns))
	first, err := p.table.seats.take(length)
	if err != nil {
		return 0, err
	}
	u.add(func() { p.table.seats.put(first, length) })
	places := p.arrays.seats.items[first : first+length]
	for i, s := range pool.Seats {
		places[i] = bpfSeat{RealServer: s.ID, Weight: s.Weight}
	}
	for i, turn := range pool.Turns {
		places[len(pool.Seats)+i] = places[turn]
	}
	p.arrays.pools.items[index] = bpfPool{
		Scheduler: schedulers[scheduler], First: first,
		Servers: uint32(len(pool.Seats)), Turns: uint32(len(pool.Turns)),
		Cursor: pool.Cursor, Start: pool.Start, Last: pool.Last,
	}
	return index, nil
}

// readPool reads a pool back, its cursor as it is now.
func (p *Plane) readPool(index uint32) *sched.Pool {
	raw := &p.arrays.pools.items[index]
	pool := &sched.Pool{
		Scheduler: decodeName(schedulers, raw.Scheduler),
		Start:     raw.Start, Cursor: atomic.LoadUint64(&raw.Cursor), Last: raw.Last,
	}
	places := p.arrays.seats.items[raw.First : raw.First+raw.Servers+raw.Turns]
	at := map[uint32]uint32{}
	for i, s := range places[:raw.Servers] {
		pool.Seats = append(pool.Seats, sched.Seat{ID: s.RealServer, Weight: s.Weight})
		at[s.RealServer] = uint32(i)
	}
	for _, s := range places[raw.Servers:] {
		pool.Turns = append(pool.Turns, at[s.RealServer])
	}
	return pool
}

// insert makes a new service visible: its record, its VIP, its real servers, and
// last its key.
func (p *Plane) insert(e *serviceEntry, seats []sched.Seat, u *undo) (err error) {
	if e.id, err = p.table.serviceIDs.take(1); err != nil {
		return err
	}
	u.add(func() { p.table.serviceIDs.put(e.id, 1) })
	if err := p.zeroAll(e.id, seats); err != nil {
		return err
	}
	key := encodeKey(e.service.ServiceKey)
	e.order = p.table.order + 1
	p.arrays.services.items[e.id] = bpfService{Key: key, Pool: e.pool, Order: e.order}
	if err := p.addAddress(e.service.Address.Addr()); err != nil {
		return err
	}
	p.list(e, seats)
	u.add(func() { p.unlist(seats) })
	if err := p.objects.ServiceIds.Update(key, e.id, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("write service_ids: %w", err)
	}
	p.table.order = e.order
	return nil
}

// zeroAll sets the statistics of a service and its real servers to 0.
func (p *Plane) zeroAll(service uint32, seats []sched.Seat) error {
	for _, s := range seats {
		if err := zeroStats(p.objects.ServerStats, p.objects.ServerZeros, s.ID); err != nil {
			return err
		}
	}
	return zeroStats(p.objects.ServiceStats, p.objects.ServiceZeros, service)
}

// list lets packets reach the real servers of a service.
func (p *Plane) list(e *serviceEntry, seats []sched.Seat) {
	for _, s := range seats {
		record := &p.arrays.servers.items[s.ID]
		atomic.StoreUint32(&record.ServiceId, e.id)
		storeState(record, bpfServerStateSERVER_LISTED)
	}
}

// unlist takes real servers out: their connections' packets are dropped until
// they are put back, and their ids live as long.
func (p *Plane) unlist(seats []sched.Seat) {
	for _, s := range seats {
		p.table.removals++
		p.table.removed[s.ID] = p.table.removals
		storeState(&p.arrays.servers.items[s.ID], bpfServerStateSERVER_REMOVED)
	}
}

func storeState(record *bpfRealServer, state bpfServerState) {
	atomic.StoreUint32((*uint32)(&record.State), uint32(state))
}

// dropped returns the seats of old's real servers that are not kept.
func (p *Plane) dropped(old lvs.Service, kept []lvs.RealServer) (seats []sched.Seat) {
	for _, r := range old.RealServers {
		if !slices.ContainsFunc(kept, func(k lvs.RealServer) bool { return k.Address == r.Address }) {
			seats = append(seats, sched.Seat{ID: p.table.servers[serverKey{old.ServiceKey, r.Address}]})
		}
	}
	return seats
}

// Delete takes a service out. Its real servers' connections stay in the table
// and get their real servers back if it is added again.
//
// Returns lvs.ErrNoService if there is none.
func (p *Plane) Delete(key lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.services[key]
	if e == nil {
		return fmt.Errorf("service %s: %w", key, lvs.ErrNoService)
	}
	if err := p.objects.ServiceIds.Delete(encodeKey(key)); err != nil {
		return fmt.Errorf("service %s: delete from service_ids: %w", key, err)
	}
	p.unlist(p.dropped(e.service, nil))
	delete(p.table.services, key)
	p.retirePool(e.pool)
	p.table.retired.add(func() { p.table.serviceIDs.put(e.id, 1) })
	return nil
}

// Zero sets the statistics of a service and its real servers to 0.
//
// Returns lvs.ErrNoService if there is none.
func (p *Plane) Zero(key lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.services[key]
	if e == nil {
		return fmt.Errorf("service %s: %w", key, lvs.ErrNoService)
	}
	return p.zeroAll(e.id, p.dropped(e.service, nil))
}

func (p *Plane) addAddress(vip netip.Addr) error {
	if p.table.vips[vip] {
		return nil
	}
	if err := p.objects.Addresses.Put(encodeAddr(vip), uint32(0)); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	p.table.vips[vip] = true
	return nil
}
