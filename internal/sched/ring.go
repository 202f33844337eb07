// SPDX-License-Identifier: Apache-2.0

package sched

import "sync"

// MaxRing is the size of the largest ring.
const MaxRing = 65521

// SlotsPerServer bounds the rings: that of n servers has n times as many slots, or
// the 251 of the smallest.
const SlotsPerServer = 80

// ringSizes are the sizes that rings have, primes as those of mh's tables. They are
// far apart: where a service grows out of one nearly every flow changes its slot.
var ringSizes = []ringSize{newRingSize(251), newRingSize(1021), newRingSize(4093), newRingSize(16381), newRingSize(MaxRing)}

type ringSize struct {
	slots    uint32
	inverses func() []uint32 // reckoned once: it takes a fifth of the time of a small ring
}

func newRingSize(slots uint32) ringSize {
	return ringSize{slots, sync.OnceValue(func() []uint32 { return inverses(slots) })}
}

// ringFor returns the smallest size that has 20 slots for each server, so that one
// slot more or less is 5 % of a fair share at most, or the largest size. Those that
// are quiesced count as well: a server that fails for a while changes no size.
func ringFor(servers int) ringSize {
	for _, size := range ringSizes {
		if int(size.slots) >= 20*servers {
			return size
		}
	}
	return ringSizes[len(ringSizes)-1]
}

// RingSlots returns the size of the ring of so many servers that take connections.
func RingSlots(servers int) uint32 {
	if servers < 2 {
		return uint32(servers)
	}
	return ringFor(servers).slots
}

// newRing fills the table by which flows are sent that the data plane cannot keep a
// connection of: a table as mh's, small, and of those servers alone that take new
// connections, since nobody remembers who was whose. One server has one slot.
func newRing(seats []Seat, secret Secret) []uint32 {
	awake := usable(seats)
	if len(awake) < 2 {
		return awake
	}
	size := ringFor(len(seats))
	return maglev(newClaims(seats, size.slots, secret, func(s Seat) uint32 { return s.Weight }), size.inverses())
}

// RingPick returns the id of the server that the ring gives a flow of this hash, or
// false if there is none.
func (p *Pool) RingPick(hash uint64) (id uint32, some bool) {
	if len(p.Ring) == 0 {
		return None, false
	}
	return p.Seats[p.Ring[hash%uint64(len(p.Ring))]].ID, true
}
