// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"net/netip"
	"slices"

	"lvx/internal/lvs"
)

// Oracle picks as kernel IPVS's schedulers do (net/netfilter/ipvs/ip_vs_rr.c,
// _wrr.c, _lc.c, _wlc.c, _sh.c), step by step with their own state, and for mh as
// the Maglev paper says it. It is slow and plain, and exists for tests alone. Not
// safe for concurrent use.
type Oracle struct {
	wanted Wanted
	list   []Seat   // scheduling order: the kernel adds at the front
	last   int      // rr: index picked last; wrr: where the walk stands; -1 is the head
	bar    int64    // wrr: current weight
	table  []uint32 // sh, mh: indexes into list; nil when it has to be made anew
}

// NewOracle returns an oracle for a service without real servers. Of w it takes
// the scheduler, the flags, and for mh the size of the table and the secret.
func NewOracle(w Wanted) *Oracle {
	o := &Oracle{wanted: w, last: -1}
	o.bar = o.top()
	return o
}

// Add puts a real server at the front.
func (o *Oracle) Add(s Seat) {
	s.Last = s.Weight
	o.list = slices.Insert(o.list, 0, s)
	if o.last >= 0 {
		o.last++
	}
	o.changed()
}

// Remove takes a real server out.
func (o *Oracle) Remove(id uint32) {
	i := find(o.list, id)
	o.list = slices.Delete(o.list, i, i+1)
	if o.last >= i {
		o.last--
	}
	o.changed()
}

// SetWeight changes a weight.
func (o *Oracle) SetWeight(id, weight uint32) {
	s := &o.list[find(o.list, id)]
	s.Weight = weight
	if weight > 0 { // __ip_vs_update_dest
		s.Last = weight
	}
	o.changed()
}

func (o *Oracle) divisor() int64 {
	var d uint32
	for _, s := range o.list {
		d = gcd(d, s.Weight)
	}
	return int64(max(d, 1))
}

func (o *Oracle) top() int64 {
	var greatest uint32
	for _, s := range o.list {
		greatest = max(greatest, s.Weight)
	}
	return int64(greatest) - (o.divisor() - 1)
}

// changed forgets the table, and is wrr's: the walk goes back to the head, the bar
// stays near.
func (o *Oracle) changed() {
	o.table = nil
	if o.wanted.Scheduler != lvs.WRR {
		return
	}
	o.last = -1
	if d := o.divisor(); o.bar > o.top() || o.bar == 0 {
		o.bar = o.top()
	} else if d > 1 {
		o.bar = o.bar/d*d + 1
	}
}

// Pick returns the id of the server that the client's next connection gets, given
// each server's connections, or false if nobody takes one.
func (o *Oracle) Pick(client netip.AddrPort, counts func(id uint32) lvs.Counts) (uint32, bool) {
	switch o.wanted.Scheduler {
	case lvs.RR:
		return o.pickRR()
	case lvs.WRR:
		return o.pickWRR()
	case lvs.LC:
		return o.pickLeast(counts, func(Seat) uint64 { return 1 })
	case lvs.WLC:
		return o.pickLeast(counts, func(s Seat) uint64 { return uint64(s.Weight) })
	case lvs.SH:
		return o.pickHashed(kernelHash(client, o.wanted.Flags.Port()), o.fillSH)
	default:
		return o.pickHashed(o.keyedHash(client), o.fillMH)
	}
}

func (o *Oracle) pickRR() (uint32, bool) {
	for step := 1; step <= len(o.list)+1; step++ {
		i := (o.last + step + len(o.list)) % max(len(o.list), 1)
		if o.last < 0 {
			i = step - 1
		}
		if i < len(o.list) && o.list[i].Weight > 0 {
			o.last = i
			return o.list[i].ID, true
		}
	}
	return None, false
}

func (o *Oracle) pickWRR() (uint32, bool) {
	if o.top() <= 0 {
		return None, false
	}
	for {
		for i := o.last + 1; i < len(o.list); i++ {
			if int64(o.list[i].Weight) >= o.bar {
				o.last = i
				return o.list[i].ID, true
			}
		}
		o.last = -1
		if o.bar -= o.divisor(); o.bar <= 0 {
			o.bar = o.top()
		}
	}
}

func (o *Oracle) pickLeast(counts func(uint32) lvs.Counts, weight func(Seat) uint64) (uint32, bool) {
	load := func(s Seat) uint64 {
		c := counts(s.ID)
		return uint64(c.Active)<<8 + uint64(c.Inactive)
	}
	var best *Seat
	for i := range o.list {
		s := &o.list[i]
		if s.Weight > 0 && (best == nil || load(*best)*weight(*s) > load(*s)*weight(*best)) {
			best = s
		}
	}
	if best == nil {
		return None, false
	}
	return best.ID, true
}

// pickHashed looks the client up, and walks on with fallback (ip_vs_sh_get_fallback).
func (o *Oracle) pickHashed(hash uint64, fill func()) (uint32, bool) {
	if o.table == nil {
		fill()
	}
	size := uint64(len(o.table))
	if size == 0 {
		return None, false
	}
	first := hash % size
	s := o.list[o.table[first]]
	for offset := uint64(0); s.Weight == 0; offset++ {
		if !o.wanted.Flags.Fallback() || offset == size {
			return None, false
		}
		s = o.list[o.table[(first+offset+first)%size]]
	}
	return s.ID, true
}

// kernelHash is ip_vs_sh_hashkey without offset, and hash_32 of linux/hash.h.
func kernelHash(client netip.AddrPort, withPort bool) uint64 {
	var fold uint32
	for i, b := range client.Addr().AsSlice() {
		fold ^= uint32(b) << (24 - 8*(i%4))
	}
	if withPort {
		fold += uint32(client.Port())
	}
	return uint64(fold * 0x61C88647 >> (32 - 8))
}

// fillSH is ip_vs_sh_reassign.
func (o *Oracle) fillSH() {
	for i := 0; len(o.list) > 0 && len(o.table) < 256; i = (i + 1) % len(o.list) {
		for range max(o.list[i].Weight, 1) {
			if len(o.table) < 256 {
				o.table = append(o.table, uint32(i))
			}
		}
	}
}

func (o *Oracle) keyedHash(client netip.AddrPort) uint64 {
	if o.wanted.Flags.Port() {
		return o.wanted.Secret.addressAndPort(client)
	}
	return o.wanted.Secret.address(client.Addr())
}

// fillMH is the paper's pseudocode, with weights: the next slot goes to the server
// that has the fewest for its weight.
func (o *Oracle) fillMH() {
	const free = None
	size := uint64(o.wanted.MHTable)
	hashes, wanted, taken := make([]uint64, len(o.list)), make([]uint64, len(o.list)), make([]uint64, len(o.list))
	for i, s := range o.list {
		hashes[i] = o.wanted.Secret.addressAndPort(s.Address)
	}
	preference := func(i int) uint64 {
		low, high := hashes[i]&0xffffffff, hashes[i]>>32
		return (low%size + power(wanted[i], size-2, size)*(high%(size-1)+1)) % size // step/n: see filling.take
	}
	// Has a fewer for its weight than b? Everybody has one before anybody has two.
	comesFirst := func(a, b int) bool {
		if taken[a] == 0 || taken[b] == 0 {
			return taken[a] == 0 && (taken[b] > 0 || hashes[a] < hashes[b])
		}
		ofA, ofB := (2*taken[a]+1)*uint64(o.list[b].Last), (2*taken[b]+1)*uint64(o.list[a].Last)
		return ofA < ofB || ofA == ofB && hashes[a] < hashes[b]
	}
	table := slices.Repeat([]uint32{free}, int(size))
	for range table {
		next := -1
		for i := range o.list {
			if o.list[i].Last > 0 && (next < 0 || comesFirst(i, next)) {
				next = i
			}
		}
		if next < 0 {
			return
		}
		for table[preference(next)] != free {
			wanted[next]++
		}
		table[preference(next)] = uint32(next)
		taken[next]++
	}
	o.table = table
}

// power returns n^exponent modulo size. With exponent size-2, of a prime, it is 1/n.
func power(n, exponent, size uint64) uint64 {
	result := uint64(1)
	for ; exponent > 0; exponent /= 2 {
		if exponent%2 == 1 {
			result = result * n % size
		}
		n = n * n % size
	}
	return result
}
