// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

// follower keeps a Pool as the data plane does and picks from it as bpf/sched.h
// does, so that the oracle can be compared without a kernel.
type follower struct {
	scheduler lvs.Scheduler
	seats     []Seat
	pool      Pool
}

func (f *follower) change(scheduler lvs.Scheduler, seats []Seat) {
	f.scheduler, f.seats = scheduler, seats
	old := f.pool
	f.pool = NewPool(scheduler, append([]Seat(nil), seats...), &old)
}

func (f *follower) pick() (uint32, bool) {
	if len(f.pool.Turns) == 0 {
		return None, false
	}
	turn := f.pool.Turns[f.pool.Cursor%uint64(len(f.pool.Turns))]
	f.pool.Cursor++
	return f.pool.Seats[turn].ID, true
}

// The sequences of kernel 6.1, recorded with servers a b c d added one by one.
func TestTurnsAreTheKernels(t *testing.T) {
	for _, c := range []struct {
		scheduler lvs.Scheduler
		weights   []uint32
		want      string
	}{
		{lvs.RR, []uint32{1, 1, 1, 1}, "dcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcba"},
		{lvs.RR, []uint32{4, 3, 2, 1}, "dcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcba"},
		{lvs.WRR, []uint32{4, 3, 2, 1}, "dcbaabacbadcbaabacbadcbaabacbadcbaabacbadcbaabac"},
		{lvs.WRR, []uint32{5, 1, 1, 0}, "cbaaaaacbaaaaacbaaaaacbaaaaacbaaaaacbaaaaacbaaaa"},
	} {
		t.Run(fmt.Sprint(c.scheduler, c.weights), func(t *testing.T) {
			f, o := &follower{scheduler: c.scheduler}, NewOracle(c.scheduler)
			var seats []Seat
			for i, w := range c.weights {
				seat := Seat{ID: uint32('a' + i), Weight: w}
				seats = append([]Seat{seat}, seats...)
				f.change(c.scheduler, seats)
				o.Add(seat)
			}
			var got, oracle string
			for range c.want {
				id, _ := f.pick()
				got += string(rune(id))
				id, _ = o.Pick(nil)
				oracle += string(rune(id))
			}
			if got != c.want || oracle != c.want {
				t.Errorf("\n   got %s\noracle %s\nkernel %s", got, oracle, c.want)
			}
		})
	}
}

// Whatever changes in between, pools pick what the kernel's schedulers pick.
func TestPoolFollowsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scheduler := rapid.SampledFrom([]lvs.Scheduler{lvs.RR, lvs.WRR}).Draw(t, "scheduler")
		f, o := &follower{}, NewOracle(scheduler)
		f.change(scheduler, nil)
		weight := rapid.Uint32Range(0, 12)
		next := uint32(0)
		index := func() int { return rapid.IntRange(0, len(f.seats)-1).Draw(t, "index") }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				seat := Seat{ID: next, Weight: weight.Draw(t, "weight")}
				next++
				f.change(scheduler, append([]Seat{seat}, f.seats...))
				o.Add(seat)
			},
			"remove": func(t *rapid.T) {
				if len(f.seats) == 0 {
					t.Skip("no seat")
				}
				i := index()
				o.Remove(f.seats[i].ID)
				f.change(scheduler, append(append([]Seat(nil), f.seats[:i]...), f.seats[i+1:]...))
			},
			"weight": func(t *rapid.T) {
				if len(f.seats) == 0 {
					t.Skip("no seat")
				}
				i := index()
				seats := append([]Seat(nil), f.seats...)
				seats[i].Weight = weight.Draw(t, "weight")
				o.SetWeight(seats[i].ID, seats[i].Weight)
				f.change(scheduler, seats)
			},
			"pick": func(t *rapid.T) {
				got, ok := f.pick()
				want, wantOK := o.Pick(nil)
				if got != want || ok != wantOK {
					t.Fatalf("picked %d %v, the oracle %d %v", got, ok, want, wantOK)
				}
			},
		})
	})
}

// A cycle too long for a pool is scaled down and keeps the shares.
func TestLongCyclesAreScaled(t *testing.T) {
	seats := []Seat{{1, 3_000_000}, {2, 1_000_001}, {3, 1}}
	p := NewPool(lvs.WRR, seats, nil)
	if len(p.Turns) > MaxTurns {
		t.Fatalf("%d turns", len(p.Turns))
	}
	n := map[uint32]int{}
	for _, turn := range p.Turns {
		n[turn]++
	}
	if share := float64(n[0]) / float64(n[1]); share < 2.99 || share > 3.01 {
		t.Errorf("shares 1:2 are %.3f, want 3", share)
	}
	if n[2] == 0 {
		t.Error("a server with a tiny weight got no turn")
	}
}
