// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"slices"

	"lvx/internal/lvs"
)

// Oracle picks as kernel IPVS's schedulers do (net/netfilter/ipvs/ip_vs_rr.c,
// _wrr.c, _lc.c, _wlc.c), step by step with their own state. It is slow and
// plain, and exists for tests alone. Not safe for concurrent use.
type Oracle struct {
	scheduler lvs.Scheduler
	list      []Seat // scheduling order: the kernel adds at the front
	last      int    // rr: index picked last; wrr: where the walk stands; -1 is the head
	bar       int64  // wrr: current weight
}

// NewOracle returns an oracle for a service without real servers.
func NewOracle(scheduler lvs.Scheduler) *Oracle {
	o := &Oracle{}
	o.SetScheduler(scheduler)
	return o
}

// SetScheduler changes the scheduler, which forgets the old one's state.
func (o *Oracle) SetScheduler(scheduler lvs.Scheduler) {
	o.scheduler = scheduler
	o.last = -1
	o.bar = o.top()
}

// Add puts a real server at the front.
func (o *Oracle) Add(s Seat) {
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
	o.list[find(o.list, id)].Weight = weight
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

// changed is wrr's: the walk goes back to the head, the bar stays near.
func (o *Oracle) changed() {
	if o.scheduler != lvs.WRR {
		return
	}
	o.last = -1
	if d := o.divisor(); o.bar > o.top() || o.bar == 0 {
		o.bar = o.top()
	} else if d > 1 {
		o.bar = o.bar/d*d + 1
	}
}

// Pick returns the id of the server that the next connection gets, given each
// server's connections, or false if nobody takes one.
func (o *Oracle) Pick(counts func(id uint32) lvs.Counts) (uint32, bool) {
	switch o.scheduler {
	case lvs.RR:
		return o.pickRR()
	case lvs.WRR:
		return o.pickWRR()
	case lvs.LC:
		return o.pickLeast(counts, func(Seat) uint64 { return 1 })
	default:
		return o.pickLeast(counts, func(s Seat) uint64 { return uint64(s.Weight) })
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
