// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"slices"

	"lvx/internal/lvs"
)

// MaxMHTable is the largest size of mh's lookup tables. More slots share out more
// evenly, and take 8 bytes each for every service.
const MaxMHTable = 1 << 24

// CheckMHTable tells why a table of mh cannot have this many slots, or returns
// nil. Each server has an order of all slots, which takes dividing modulo their
// number: it has to be a prime.
func CheckMHTable(slots uint32) error {
	switch {
	case slots > MaxMHTable:
		return fmt.Errorf("a table of %d slots for mh: at most %d are possible", slots, MaxMHTable)
	case !big.NewInt(int64(slots)).ProbablyPrime(0): // without doubt below 2^64
		return fmt.Errorf("a table of %d slots for mh: it has to be a prime, for instance %d or 655373", slots, lvs.DefaultMHTable)
	}
	return nil
}

// mhTurns fills mh's table. As in the kernel it is the last weight above 0 that
// counts: a server that is quiesced keeps its slots, and one that never had a weight
// has none.
func mhTurns(seats []Seat, slots uint32, secret Secret) []uint32 {
	claims := newClaims(seats, slots, secret, func(s Seat) uint32 { return s.Last })
	if len(claims) == 0 {
		return nil
	}
	return maglev(claims, inverses(slots))
}

// maglev fills a table as Maglev does ("Maglev: A Fast and Reliable Software
// Network Load Balancer", NSDI 2016, section 3.4): each server has an order of
// its own in which it wants the slots (filling.take), and they take turns in
// taking the first that is free, by weight (claim.due). Neither depends on the
// other servers or on the order of the list: they keep nearly all slots when one
// comes or goes.
func maglev(claims []claim, inverse []uint32) []uint32 {
	turns := make([]uint32, len(inverse))
	f := newFilling(inverse)
	line := make(queue, len(claims))
	for i := range line {
		line[i].claim = uint32(i)
	}
	for range turns {
		c := &claims[line[0].claim]
		turns[f.take(c)] = c.seat
		line.back(c.due())
	}
	return turns
}

// claim is a server that is taking its part of the table.
type claim struct {
	seat         uint32
	hash         uint64
	offset, step uint64 // its order of the slots
	seen         uint32 // how far down that order it has come
	taken        uint32
	weight       float64
}

// newClaims returns the servers that have a part, those of a weight above 0, in an
// order that is everywhere the same: by hash.
func newClaims(seats []Seat, slots uint32, secret Secret, weight func(Seat) uint32) []claim {
	claims := make([]claim, 0, len(seats))
	for i, s := range seats {
		w := weight(s)
		if w == 0 {
			continue
		}
		h := secret.addressAndPort(s.Address)
		claims = append(claims, claim{
			seat: uint32(i), hash: h, weight: float64(w),
			offset: uint64(uint32(h) % slots), step: (h>>32)%uint64(slots-1) + 1,
		})
	}
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), seats[a.seat].Address.Compare(seats[b.seat].Address))
	})
	return claims
}

// filling is a table that is being filled.
type filling struct {
	slots   uint64
	over    uint64   // 2^64 / slots
	inverse []uint32 // 1/n modulo slots
	used    []bool
	left    uint64
	last    []uint64 // the free slots, once they are few
}

func newFilling(inverse []uint32) filling {
	slots := uint64(len(inverse))
	return filling{slots: slots, over: math.MaxUint64 / slots, inverse: inverse, used: make([]bool, slots), left: slots}
}

// take takes the first free slot in the server's order, offset + step/n for n from
// 0 on. The paper has step·n. But the strides of two servers can run alongside each
// other for a long way, and then half of their slots change hands whoever else
// comes or goes: of 100 servers that left, some moved 1.2 % of the others' slots,
// where 0.6 % is usual and with step/n the most that was seen.
func (f *filling) take(c *claim) uint64 {
	c.taken++
	if f.left*f.left <= f.slots {
		return f.takeLast(c)
	}
	f.left--
	for {
		slot := f.modulo(c.offset + c.step*uint64(f.inverse[c.seen]))
		c.seen++
		if !f.used[slot] {
			f.used[slot] = true
			return slot
		}
	}
}

// takeLast does the same among so few free slots that it is faster to look at each
// than to go on past those that are taken: the first in the server's order is that
// of the least n, which is step / (slot - offset).
func (f *filling) takeLast(c *claim) uint64 {
	if f.last == nil {
		f.last = make([]uint64, 0, f.left)
		for slot, used := range f.used {
			if !used {
				f.last = append(f.last, uint64(slot))
			}
		}
	}
	first, least := 0, f.slots
	for i, slot := range f.last {
		if n := f.modulo(c.step * uint64(f.inverse[f.modulo(slot+f.slots-c.offset)])); n < least {
			first, least = i, n
		}
	}
	slot := f.last[first]
	f.last = slices.Delete(f.last, first, first+1)
	return slot
}

// modulo returns n modulo the number of slots without a division, which takes much
// longer than two multiplications: the quotient is at most one too small.
func (f *filling) modulo(n uint64) uint64 {
	quotient, _ := bits.Mul64(n, f.over)
	rest := n - quotient*f.slots
	if rest >= f.slots {
		rest -= f.slots
	}
	return rest
}

// inverses returns 1/n modulo a prime for every n below it, and 0 for 0.
func inverses(prime uint32) []uint32 {
	list := make([]uint32, prime)
	list[1] = 1
	for n := uint32(2); n < prime; n++ {
		list[n] = uint32(uint64(prime-prime/n) * uint64(list[prime%n]) % uint64(prime))
	}
	return list
}

// due tells when the server takes its next slot. All take the first at 0, so that
// nobody goes without; after that it is Webster's method of sharing out seats:
// whenever the table is full, each has its share of it, rounded.
func (c *claim) due() float64 { return (float64(c.taken) + 0.5) / c.weight }

// queue is a heap of claims, the next to take a slot first.
type queue []struct {
	due   float64
	claim uint32 // of two that are due at once the lower comes first
}

func (q queue) before(a, b int) bool {
	return q[a].due < q[b].due || q[a].due == q[b].due && q[a].claim < q[b].claim
}

// back sends the first to where it belongs when it is due again.
func (q queue) back(due float64) {
	q[0].due = due
	for at := 0; ; {
		next := 2*at + 1
		if next >= len(q) {
			return
		}
		if next+1 < len(q) && q.before(next+1, next) {
			next++
		}
		if q.before(at, next) {
			return
		}
		q[at], q[next] = q[next], q[at]
		at = next
	}
}
