// SPDX-License-Identifier: Apache-2.0

// Package sched computes what the data plane's schedulers look up: the order of
// turns of rr and wrr, and where a changed pool goes on. Oracle is kernel IPVS's
// schedulers in plain Go, which the C ones are tested against, pick for pick.
//
// It is not for picking at run time: bpf/sched.h does that.
package sched

import (
	"slices"

	"lvx/internal/lvs"
)

// MaxTurns bounds the turns of one pool. Weights whose cycle is longer are
// scaled down in proportion, each to 1 at least.
const MaxTurns = 1 << 16

// None is the id of no real server.
const None = ^uint32(0)

// Seat is one real server in a pool.
type Seat struct {
	ID     uint32 // of the real server in the data plane
	Weight uint32
}

// Pool is a service's real servers as the data plane looks them up.
type Pool struct {
	Scheduler lvs.Scheduler
	Seats     []Seat   // in scheduling order
	Turns     []uint32 // rr, wrr: indexes into Seats, in the order of picks
	Start     uint64   // the cursor's first value
	Cursor    uint64   // the next turn, modulo len(Turns)
	Last      uint32   // rr: id picked last before this pool, or None
}

// NewPool makes the pool for seats. With the old pool of the same service and
// scheduler it goes on where kernel IPVS would: rr after the server that it
// picked last, wrr at the head of the list in the round of weights it was in.
func NewPool(scheduler lvs.Scheduler, seats []Seat, old *Pool) Pool {
	p := Pool{Scheduler: scheduler, Seats: seats, Last: None}
	if old != nil && old.Scheduler != scheduler {
		old = nil
	}
	switch scheduler {
	case lvs.RR:
		p.Turns = usable(seats)
		p.Last = lastKept(old, seats)
		p.Start = uint64(p.turnAfter(p.Last))
	case lvs.WRR:
		rounds := newRounds(seats)
		p.Turns = rounds.turns(seats)
		p.Start = uint64(rounds.offset(seats, rounds.resume(old)))
	}
	p.Cursor = p.Start
	return p
}

func usable(seats []Seat) (turns []uint32) {
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
