// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"sync/atomic"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// writePool writes a pool that nothing points to yet.
func (p *Plane) writePool(s lvs.Service, seats []sched.Seat, old *serviceEntry, u *undo) (uint32, error) {
	wanted := sched.Wanted{
		Scheduler: s.Scheduler, Flags: s.Flags, Seats: seats,
		MHTable: p.options.MHTable, Secret: p.secrets[bpfSecretUseSECRET_CLIENT],
	}
	if old != nil {
		wanted.Before = p.readPool(old.pool)
	}
	pool := sched.NewPool(wanted)
	index, err := p.table.pools.take(1)
	if err != nil {
		return 0, err
	}
	u.add(func() { p.table.pools.put(index, 1) })
	head := bpfPool{
		Scheduler: schedulers[pool.Scheduler], Flags: encodeFlags(pool.Scheduler, pool.Flags),
		Servers: uint32(len(pool.Seats)), Turns: uint32(len(pool.Turns)), Ring: uint32(len(pool.Ring)),
		Cursor: pool.Cursor, Start: pool.Start, Last: pool.Last,
	}
	if head.First, err = head.take(&p.table.seats); err != nil {
		return 0, explainSeats(err, s.Scheduler, p.options.MHTable)
	}
	u.add(func() { p.table.seats.put(head.First, head.room()) })
	places := p.places(head)
	for i, s := range pool.Seats {
		places.seats[i] = bpfSeat{RealServer: s.ID, Weight: encodeWeight(s)}
	}
	for i, seat := range pool.Turns {
		places.turns[i] = places.seats[seat]
	}
	for i, seat := range pool.Ring {
		places.ring[i] = places.seats[seat]
	}
	p.arrays.pools.items[index] = head
	return index, nil
}

// readPool reads a pool back, its cursor as it is now; of sh and mh without the
// turns, and of all others without the ring, which nothing goes on from. It returns
// nil if there is no such pool.
func (p *Plane) readPool(index uint32) *sched.Pool {
	head, ok := p.poolHead(index)
	if !ok {
		return nil
	}
	pool := &sched.Pool{
		Scheduler: decodeName(schedulers, head.Scheduler), Seats: p.readSeats(head),
		Start: head.Start, Cursor: head.Cursor, Last: head.Last,
	}
	pool.Flags = decodeFlags(pool.Scheduler, head.Flags)
	if pool.Scheduler == lvs.SH || pool.Scheduler == lvs.MH {
		return pool
	}
	at := make(map[uint32]uint32, len(pool.Seats))
	for i, s := range pool.Seats {
		at[s.ID] = uint32(i)
	}
	for _, s := range p.places(head).turns {
		pool.Turns = append(pool.Turns, at[s.RealServer])
	}
	return pool
}

// poolHead returns what a pool says of itself. It is not ok if the pool or its
// seats are outside of their maps: anybody may have written them with bpftool.
func (p *Plane) poolHead(index uint32) (head bpfPool, ok bool) {
	if index >= uint32(len(p.arrays.pools.items)) {
		return head, false
	}
	head = p.arrays.pools.items[index]
	head.Cursor = atomic.LoadUint64(&p.arrays.pools.items[index].Cursor)
	end := uint64(head.First) + uint64(head.Servers) + uint64(head.Turns) + uint64(head.Ring)
	return head, end <= uint64(len(p.arrays.seats.items))
}

// places are the parts of a pool in the map seats, in this order.
type places struct{ seats, turns, ring []bpfSeat }

// places returns those of a pool that is inside its maps.
func (p *Plane) places(head bpfPool) (parts places) {
	rest := p.arrays.seats.items[head.First:]
	parts.seats, rest = rest[:head.Servers], rest[head.Servers:]
	parts.turns, rest = rest[:head.Turns], rest[head.Turns:]
	parts.ring = rest[:head.Ring]
	return parts
}

// readSeats reads the seats of a pool that is inside its maps.
func (p *Plane) readSeats(head bpfPool) []sched.Seat {
	seats := make([]sched.Seat, head.Servers)
	for i, s := range p.places(head).seats {
		seats[i] = decodeSeat(s)
	}
	return seats
}

// block is what large pools are rounded up to, in seats.
const block = 1024

// room returns how many seats a pool takes. With many turns they are whole blocks, so
// that a table of mh fits where one with fewer servers was.
func (b bpfPool) room() uint32 {
	if b.Turns <= block {
		return b.Servers + b.Turns + b.Ring
	}
	return blocks(b.Servers+b.Ring) + blocks(b.Turns)
}

func blocks(n uint32) uint32 { return (n + block - 1) / block * block }

// take takes the room for a pool: for a table of mh or a large ring from the other
// end than for all others, which else break up the long runs that those need.
func (b bpfPool) take(seats *extents) (uint32, error) {
	if b.Scheduler == bpfSchedulerSCHEDULER_MH || b.Ring > block {
		return seats.takeLast(b.room())
	}
	return seats.take(b.room())
}

// seatCapacity returns how many seats the options ask for; one takes 8 bytes. All
// real servers fit, with their turns of rr, and the same once more while a change
// is made; for every service sh's 256 turns, or the smallest ring, which is no
// larger; larger rings for all real servers, and the two largest that there are while
// they are changed; 8 long cycles of wrr; and mh's tables for 64 services, or a 64th
// of them if that is more, and two that are replaced. By default these are 7.5
// million seats, 60 MB, 20 of them for pools without a long cycle or mh; of the
// rings alone are 640 bytes for every real server, 10.5 MB.
func (o *Options) seatCapacity() uint64 {
	servers, services := uint64(o.RealServers), uint64(o.Services)
	rings := sched.SlotsPerServer*servers + 2*sched.MaxRing
	tables := min(services, max(64, services/64)) + 2
	table := uint64(bpfPool{Servers: block, Turns: o.MHTable}.room())
	return 4*servers + 256*services + rings + min(8*sched.MaxTurns, 64*servers) + tables*table
}

// maxSeats bounds the map to the 4 GB that the kernel gives an array.
const maxSeats = 1<<29 - block

// explainSeats says what gives more room.
func explainSeats(err error, scheduler lvs.Scheduler, table uint32) error {
	if !errors.Is(err, lvs.ErrFull) {
		return err
	}
	fix := "raise director.capacity.real_servers"
	if scheduler == lvs.MH {
		fix = fmt.Sprintf("raise director.capacity.services, or lower director.mh_table (%d)", table)
	}
	return fmt.Errorf("%w; %s, and load the data plane anew (lvx director unload), for tables that are pinned keep their size", err, fix)
}
