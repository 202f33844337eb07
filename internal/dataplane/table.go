// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// table is what the daemon knows of the maps: which ids are whose. All of it can
// be read back from the maps (adopt), so that a killed daemon loses nothing.
type table struct {
	services map[lvs.ServiceKey]*serviceEntry
	servers  map[serverKey]uint32 // id; listed or removed
	vips     vipTable             // what `addresses` holds
	backends backendTable         // what `backends` holds

	order    uint64               // of the service added last
	removals uint64               // how often a real server was taken out
	removed  map[serverKey]uint64 // those that are in no service: which removal it was
	departed bool                 // a VIP may be needed no more

	serviceIDs, serverIDs, pools, seats extents
	retired                             retired
}

// serverKey names a real server of a service, also when the service is gone.
type serverKey struct {
	service lvs.ServiceKey
	address netip.AddrPort
}

// serviceEntry is a service as it was written, which is not always what the maps
// still say: anybody may change them with bpftool.
type serviceEntry struct {
	id      uint32
	order   uint64
	pool    uint32
	head    bpfPool // pools[pool]
	sum     uint64  // of its seats
	service lvs.Service
	servers []uint32 // the ids of service.RealServers, one for one
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
	return p.change(s)
}

// change is put with the lock held.
func (p *Plane) change(s lvs.Service) error {
	u := &undo{}
	defer u.run()
	seats, err := p.seat(s, u)
	if err != nil {
		return err
	}
	old := p.table.services[s.ServiceKey]
	before := old
	if old != nil && !p.untouched(old) {
		before = nil // somebody changed the pool: where it stood says nothing
	}
	pool, err := p.writePool(s, seats, before, u)
	if err != nil {
		return err
	}
	e := p.newEntry(s, pool, seats)
	if old == nil {
		err = p.insert(e, u)
	} else {
		e.id, e.order = old.id, old.order
		err = p.replace(e, u)
	}
	if err != nil {
		return err
	}
	u.forget()
	p.table.services[s.ServiceKey] = e
	if old != nil {
		p.retirePool(old)
		p.unlist(old.keys(e))
	}
	return nil
}

// newEntry notes what was just written into a pool.
func (p *Plane) newEntry(s lvs.Service, pool uint32, seats []sched.Seat) *serviceEntry {
	e := &serviceEntry{pool: pool, head: p.arrays.pools.items[pool], service: s.Clone()}
	e.sum = p.sumSeats(e.head)
	e.servers = make([]uint32, len(seats))
	for i, seat := range seats {
		e.servers[i] = seat.ID
	}
	return e
}

// untouched tells whether the pool and its seats are still as they were written.
func (p *Plane) untouched(e *serviceEntry) bool {
	head, ok := p.poolHead(e.pool)
	head.Cursor = e.head.Cursor // packets move it
	return ok && head == e.head && p.sumSeats(head) == e.sum
}

var seatsSeed = maphash.MakeSeed()

func (p *Plane) sumSeats(head bpfPool) uint64 {
	return maphash.Bytes(seatsSeed, p.arrays.seats.bytes(head.First, head.Servers+head.Turns+head.Ring))
}

// undo is what to take back, last first, if a change does not come to its end.
type undo struct {
	steps []func()
	fresh []uint32 // real servers made on the way: their statistics are still another's
}

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
		seats = append(seats, sched.Seat{ID: id, Address: r.Address, Weight: r.Weight})
	}
	return seats, nil
}

func (p *Plane) newServer(key serverKey, r lvs.RealServer, u *undo) (uint32, error) {
	id, err := p.table.serverIDs.take(1)
	if err != nil {
		return 0, err
	}
	u.add(func() { p.table.serverIDs.put(id, 1) })
	u.fresh = append(u.fresh, id)
	record := &p.arrays.servers.items[id]
	*record = bpfRealServer{
		Addr: encodeAddr(r.Address.Addr()), Port: encodePort(r.Address.Port()),
		Service: encodeKey(key.service), Generation: record.Generation,
		State: bpfServerStateSERVER_REMOVED, Method: methods[r.Method],
	}
	storeTunnel(record, r.Tunnel)
	u.add(func() { storeState(record, bpfServerStateSERVER_FREE) })
	if err := p.hops.acquire(r.Address.Addr(), id); err != nil {
		return 0, err
	}
	p.table.servers[key] = id
	u.add(func() {
		p.hops.release(r.Address.Addr(), id)
		delete(p.table.servers, key)
		delete(p.table.removed, key)
	})
	return id, nil
}

// insert makes a new service visible: its VIP, its record, its real servers, and
// last its key.
func (p *Plane) insert(e *serviceEntry, u *undo) (err error) {
	if e.id, err = p.table.serviceIDs.take(1); err != nil {
		return err
	}
	u.add(func() { p.table.serviceIDs.put(e.id, 1) })
	if p.arrays.services.items[e.id].Key != encodeKey(e.service.ServiceKey) {
		atomic.StoreUint64(&p.arrays.until.items[e.id], 0) // it was another's, who had no room
	}
	if err := p.zeroAll(e); err != nil {
		return err
	}
	if err := p.addAddress(asVIP(e.service.Address.Addr()), u); err != nil {
		return err
	}
	if err := p.bindBackends(e, u); err != nil {
		return err
	}
	e.order = p.table.order + 1
	p.writeRecord(e)
	p.list(e)
	u.add(func() { p.unlist(e.keys(nil)) })
	if err := p.writeID(e); err != nil {
		return err
	}
	p.table.order = e.order
	return nil
}

// replace gives a service its new pool. What packets look at before it is written
// again if somebody changed it.
func (p *Plane) replace(e *serviceEntry, u *undo) error {
	if err := zeroStats(p.objects.ServerStats, p.objects.ServerZeros, u.fresh); err != nil {
		return err
	}
	if err := p.addAddress(asVIP(e.service.Address.Addr()), u); err != nil {
		return err
	}
	if err := p.bindBackends(e, u); err != nil {
		return err
	}
	if err := p.writeID(e); err != nil {
		return err
	}
	p.list(e)
	p.unbindBackends(e)
	p.writeRecord(e)
	return nil
}

// writeID makes the service's key lead to its id.
func (p *Plane) writeID(e *serviceEntry) error {
	key := encodeKey(e.service.ServiceKey)
	var id uint32
	if p.objects.ServiceIds.Lookup(key, &id) == nil && id == e.id {
		return nil
	}
	if err := p.objects.ServiceIds.Put(key, e.id); err != nil {
		return fmt.Errorf("write service_ids: %w", err)
	}
	return nil
}

// writeRecord writes services[id], the pool last: from then on packets see it.
func (p *Plane) writeRecord(e *serviceEntry) {
	record := &p.arrays.services.items[e.id]
	if key := encodeKey(e.service.ServiceKey); record.Key != key {
		record.Key = key
	}
	record.Order = e.order
	atomic.StoreUint32(&record.Pool, e.pool)
}

// zeroAll sets the statistics of a service and its real servers to 0.
func (p *Plane) zeroAll(e *serviceEntry) error {
	if err := zeroStats(p.objects.ServerStats, p.objects.ServerZeros, e.servers); err != nil {
		return err
	}
	return zeroStats(p.objects.ServiceStats, p.objects.ServiceZeros, []uint32{e.id})
}

// list lets packets reach the real servers of a service.
func (p *Plane) list(e *serviceEntry) {
	for i, id := range e.servers {
		r := e.service.RealServers[i]
		p.mend(id, r)
		p.bind(id, e, r.Address.Addr())
		delete(p.table.removed, serverKey{e.service.ServiceKey, r.Address})
	}
}

// mend makes a real server's record say again what Load reads in it.
func (p *Plane) mend(id uint32, r lvs.RealServer) {
	record := &p.arrays.servers.items[id]
	addr, port := encodeAddr(r.Address.Addr()), encodePort(r.Address.Port())
	if record.Addr != addr || record.Port != port {
		record.Addr, record.Port = addr, port
	}
	storeTunnel(record, r.Tunnel)
	atomic.StoreUint32((*uint32)(&record.Method), uint32(methods[r.Method]))
}

// storeTunnel writes how a real server is tunnelled to, all of it at once.
func storeTunnel(record *bpfRealServer, t lvs.Tunnel) {
	var is bpfRealServer
	encodeTunnel(&is, t)
	word := func(r *bpfRealServer) *uint32 { return (*uint32)(unsafe.Pointer(&r.Tunnel)) }
	atomic.StoreUint32(word(record), *word(&is))
}

// bind makes a real server a listed one of its service, with the next hop of its
// address. It tells whether anything of it was different.
func (p *Plane) bind(id uint32, e *serviceEntry, addr netip.Addr) (changed bool) {
	record := &p.arrays.servers.items[id]
	key := encodeKey(e.service.ServiceKey)
	changed = record.Service != key || record.ServiceId != e.id || record.State != bpfServerStateSERVER_LISTED
	if changed {
		record.Service = key
		atomic.StoreUint32(&record.ServiceId, e.id)
	}
	changed = p.hops.bind(addr, id) || changed
	storeState(record, bpfServerStateSERVER_LISTED)
	return changed
}

// unlist takes real servers out: their connections' packets are dropped until
// they are put back, and their ids live as long.
func (p *Plane) unlist(keys []serverKey) {
	for _, key := range keys {
		p.table.removals++
		p.table.removed[key] = p.table.removals
		storeState(&p.arrays.servers.items[p.table.servers[key]], bpfServerStateSERVER_REMOVED)
	}
}

func storeState(record *bpfRealServer, state bpfServerState) {
	atomic.StoreUint32((*uint32)(&record.State), uint32(state))
}

// keys returns the real servers, without those that next has too; it may be nil.
func (e *serviceEntry) keys(next *serviceEntry) (keys []serverKey) {
	kept := map[uint32]bool{}
	if next != nil {
		for _, id := range next.servers {
			kept[id] = true
		}
	}
	for i, id := range e.servers {
		if !kept[id] {
			keys = append(keys, serverKey{e.service.ServiceKey, e.service.RealServers[i].Address})
		}
	}
	return keys
}

// Delete takes a service out. Its real servers' connections stay in the table
// and get their real servers back if it is added again.
//
// Returns lvs.ErrNoService if there is none.
func (p *Plane) Delete(key lvs.ServiceKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.services[key]
	err := p.objects.ServiceIds.Delete(encodeKey(key))
	if errors.Is(err, ebpf.ErrKeyNotExist) && e != nil {
		err = nil // somebody else did it
	}
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("service %s: %w", key, lvs.ErrNoService)
	case err != nil:
		return fmt.Errorf("service %s: delete from service_ids: %w", key, err)
	case e == nil:
		return nil // an entry that somebody made by hand
	}
	p.unlist(e.keys(nil))
	delete(p.table.services, key)
	p.table.departed = true
	p.retirePool(e)
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
	return p.zeroAll(e)
}
