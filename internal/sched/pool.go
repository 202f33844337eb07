// SPDX-License-Identifier: Apache-2.0

// Package sched computes what the data plane's schedulers look up: the order of
// turns of rr and wrr, where a changed pool goes on, the tables of sh and mh, and
// the rings of flows that there is no connection for. Oracle is kernel IPVS's
// schedulers in plain Go, which the C ones are tested against, pick for pick.
//
// It is not for picking at run time: bpf/sched.h does that.
package sched

import (
	"net/netip"
	"slices"

	"lvx/internal/lvs"
)

// MaxTurns bounds the turns of one pool of wrr. Weights whose cycle is longer are
// scaled down in proportion, each to 1 at least.
const MaxTurns = 1 << 16

// None is the id of no real server.
const None = ^uint32(0)

// Seat is one real server in a pool.
type Seat struct {
	ID      uint32         // of the real server in the data plane
	Address netip.AddrPort // for mh: its slots come from it
	Weight  uint32
	// Last is the weight above 0 that it had last: Weight, or that from before it
	// was quiesced, or 0 if it never had one.
	Last uint32
}

// Pool is a service's real servers as the data plane looks them up.
type Pool struct {
	Scheduler lvs.Scheduler
	Flags     lvs.SchedulerFlags
	Seats     []Seat // in scheduling order
	// Turns are indexes into Seats: of rr and wrr in the order of picks, of sh and
	// mh by the client's hash.
	Turns  []uint32
	Start  uint64 // the cursor's first value
	Cursor uint64 // rr, wrr: the next turn, modulo len(Turns)
	Last   uint32 // rr: id picked last before this pool, or None
	// Ring are indexes into Seats by a flow's hash, of rr, wrr, lc and wlc: who gets
	// a flow that there is no connection for. sh and mh have their turns for that.
	Ring []uint32
}

// Wanted is what a pool is made of.
type Wanted struct {
	Scheduler lvs.Scheduler
	Flags     lvs.SchedulerFlags
	Seats     []Seat // in scheduling order; NewPool finds out each Last
	Before    *Pool  // the service's pool until now, or nil
	MHTable   uint32 // slots of a table of mh; see CheckMHTable
	Secret    Secret // for mh and the ring
}

// NewPool makes a pool. With the same scheduler as before it goes on where kernel
// IPVS would: rr after the server that it picked last, wrr at the head of the list
// in the round of weights it was in.
func NewPool(w Wanted) Pool {
	p := Pool{Scheduler: w.Scheduler, Flags: w.Flags, Seats: withLast(w.Seats, w.Before), Last: None}
	before := w.Before
	if before != nil && before.Scheduler != w.Scheduler {
		before = nil
	}
	switch w.Scheduler {
	case lvs.RR:
		p.Turns = usable(p.Seats)
		p.Last = lastKept(before, p.Seats)
		p.Start = uint64(p.turnAfter(p.Last))
	case lvs.WRR:
		rounds := newRounds(p.Seats)
		p.Turns = rounds.turns(p.Seats)
		p.Start = uint64(rounds.offset(p.Seats, rounds.resume(before)))
	case lvs.SH:
		p.Turns = shTurns(p.Seats)
	case lvs.MH:
		p.Turns = mhTurns(p.Seats, w.MHTable, w.Secret)
	}
	if w.Flags.Fallback() {
		fallBack(p.Turns, p.Seats)
	}
	if w.Scheduler != lvs.SH && w.Scheduler != lvs.MH {
		p.Ring = newRing(p.Seats, w.Secret)
	}
	p.Cursor = p.Start
	return p
}

// withLast returns the seats with the weights above 0 that they had last. A server
// that was not in the pool before has no past.
func withLast(seats []Seat, before *Pool) []Seat {
	last := map[uint32]uint32{}
	if before != nil {
		for _, s := range before.Seats {
			last[s.ID] = s.Last
		}
	}
	seats = slices.Clone(seats)
	for i := range seats {
		s := &seats[i]
		if s.Last = s.Weight; s.Weight == 0 {
			s.Last = last[s.ID]
		}
	}
	return seats
}

func usable(seats []Seat) []uint32 {
	turns := make([]uint32, 0, len(seats))
	for i, s := range seats {
		if s.Weight > 0 {
			turns = append(turns, uint32(i))
		}
	}
	return turns
}

// taken tells whether a turn was taken since the pool was made.
func (p *Pool) taken() bool { return p.Cursor != p.Start && len(p.Turns) > 0 }

// lastTurn returns the index in Turns of the turn taken last.
func (p *Pool) lastTurn() int { return int((p.Cursor - 1) % uint64(len(p.Turns))) }

// lastKept returns the id of the last server picked that is still seated: as in
// the kernel, a server that is taken out hands its place to the one before it
// (ip_vs_rr_del_dest).
func lastKept(old *Pool, seats []Seat) uint32 {
	if old == nil {
		return None
	}
	last := old.Last
	if old.taken() {
		last = old.Seats[old.Turns[old.lastTurn()]].ID
	}
	for i := find(old.Seats, last); i >= 0; i-- {
		if find(seats, old.Seats[i].ID) >= 0 {
			return old.Seats[i].ID
		}
	}
	return None
}

func find(seats []Seat, id uint32) int {
	return slices.IndexFunc(seats, func(s Seat) bool { return s.ID == id })
}

// turnAfter returns the index in Turns of the first usable seat behind that of
// the server id, or 0: the list is walked round.
func (p *Pool) turnAfter(id uint32) int {
	seat := find(p.Seats, id)
	for turn, index := range p.Turns {
		if int(index) > seat {
			return turn
		}
	}
	return 0
}

// rounds is what wrr of the kernel knows of a list: it goes round the list with
// a bar that starts at the greatest weight and comes down by the common
// divisor, and takes each server whose weight reaches the bar.
type rounds struct {
	weights []uint32
	divisor uint32
	top     uint32 // the first bar; 0 if nobody is usable
}

func newRounds(seats []Seat) rounds {
	r := rounds{weights: scale(seats)}
	for _, w := range r.weights {
		r.divisor = gcd(r.divisor, w)
	}
	if r.divisor > 0 {
		r.top = slices.Max(r.weights) - (r.divisor - 1)
	}
	return r
}

// scale returns the weights, made smaller if a cycle would be above MaxTurns.
func scale(seats []Seat) []uint32 {
	weights := make([]uint32, len(seats))
	var divisor uint32
	var sum uint64
	for i, s := range seats {
		weights[i] = s.Weight
		divisor = gcd(divisor, s.Weight)
		sum += uint64(s.Weight)
	}
	if divisor == 0 || sum/uint64(divisor) <= MaxTurns {
		return weights
	}
	room := uint64(max(MaxTurns-len(seats), 1)) // rounding up to 1 adds one turn a server at most
	for i, w := range weights {
		if w > 0 {
			weights[i] = uint32(max(uint64(w)*room/sum, 1))
		}
	}
	return weights
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bars calls each with every bar from the top down, while it returns true.
func (r rounds) bars(each func(bar uint32) bool) {
	for bar := int64(r.top); bar > 0; bar -= int64(r.divisor) {
		if !each(uint32(bar)) {
			return
		}
	}
}

// turns writes one cycle down.
func (r rounds) turns(seats []Seat) (turns []uint32) {
	r.bars(func(bar uint32) bool {
		for i := range seats {
			if r.weights[i] >= bar {
				turns = append(turns, uint32(i))
			}
		}
		return true
	})
	return turns
}

// offset returns the turn at which the round with this bar begins.
func (r rounds) offset(seats []Seat, bar uint32) (turn int) {
	r.bars(func(b uint32) bool {
		if b <= bar {
			return false
		}
		for i := range seats {
			if r.weights[i] >= b {
				turn++
			}
		}
		return true
	})
	return turn
}

// resume returns the bar to go on with after old (ip_vs_wrr_dest_changed).
func (r rounds) resume(old *Pool) uint32 {
	if old == nil || len(old.Turns) == 0 {
		return r.top
	}
	bar := old.bar()
	switch {
	case bar > r.top:
		return r.top
	case r.divisor > 1:
		return bar/r.divisor*r.divisor + 1
	}
	return bar
}

// bar returns the bar of the round that the last turn was in, or that a pool
// without a turn yet begins with.
func (p *Pool) bar() (bar uint32) {
	at := p.Start % uint64(len(p.Turns))
	if p.taken() {
		at = uint64(p.lastTurn())
	}
	r := newRounds(p.Seats)
	end := 0
	r.bars(func(b uint32) bool {
		bar = b
		for _, w := range r.weights {
			if w >= b {
				end++
			}
		}
		return uint64(end) <= at
	})
	return bar
}
