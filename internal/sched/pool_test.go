// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

// follower keeps a Pool as the data plane does and picks from it as bpf/sched.h
// does, so that the oracle can be compared without a kernel.
type follower struct {
	wanted Wanted
	seats  []Seat
	pool   Pool
}

func (f *follower) change(seats []Seat) {
	before := f.pool
	f.seats, f.wanted.Seats, f.wanted.Before = seats, seats, &before
	f.pool = NewPool(f.wanted)
}

func (f *follower) pick(client netip.AddrPort) (uint32, bool) {
	turns := uint64(len(f.pool.Turns))
	if turns == 0 {
		return None, false
	}
	var turn uint64
	switch f.wanted.Scheduler {
	case lvs.SH:
		turn = kernelHash(client, f.wanted.Flags.Port())
	case lvs.MH:
		turn = f.wanted.Secret.address(client.Addr())
		if f.wanted.Flags.Port() {
			turn = f.wanted.Secret.addressAndPort(client)
		}
	default:
		turn = f.pool.Cursor
		f.pool.Cursor++
	}
	if s := f.pool.Seats[f.pool.Turns[turn%turns]]; s.Weight > 0 {
		return s.ID, true
	}
	return None, false
}

var secret = Secret{0x0123456789abcdef, 0xfedcba9876543210}

// seat returns a server whose address comes from its id.
func seat(id, weight uint32) Seat {
	return Seat{ID: id, Address: address(id), Weight: weight}
}

func address(id uint32) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)}), 80)
}

// The sequences of kernel 6.1, recorded with servers a b c d added one by one and
// clients that come from eight addresses in turn, each time from another port.
func TestTurnsAreTheKernels(t *testing.T) {
	for _, c := range []struct {
		scheduler lvs.Scheduler
		flags     lvs.SchedulerFlags
		weights   []uint32
		port      uint16
		want      string
	}{
		{lvs.RR, "", []uint32{1, 1, 1, 1}, 0, "dcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcba"},
		{lvs.RR, "", []uint32{4, 3, 2, 1}, 0, "dcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcbadcba"},
		{lvs.WRR, "", []uint32{4, 3, 2, 1}, 0, "dcbaabacbadcbaabacbadcbaabacbadcbaabacbadcbaabac"},
		{lvs.WRR, "", []uint32{5, 1, 1, 0}, 0, "cbaaaaacbaaaaacbaaaaacbaaaaacbaaaaacbaaaaacbaaaa"},
		{lvs.SH, "", []uint32{1, 1, 1, 1}, 30200, "bdbdbacabdbdbacabdbdbacabdbdbacabdbdbacabdbdbaca"},
		{lvs.SH, "", []uint32{4, 3, 2, 1}, 30300, "cbcdcaaacbcdcaaacbcdcaaacbcdcaaacbcdcaaacbcdcaaa"},
		{lvs.SH, "sh-port", []uint32{1, 1, 1, 1}, 31000, "cddaabbbabbbccddccddaaabaaabbccdbccdddaaddaabbcc"},
		{lvs.SH, "sh-port", []uint32{4, 3, 2, 1}, 31100, "aaaabbccbbccaaaaaaaacccdcccddabbdabbbdaabdaaabbb"},
		{lvs.SH, "sh-fallback,sh-port", []uint32{4, 3, 2, 0}, 31400, "bbaaaabbaabbbccabccaaaacaaaccccacccabbbbbbbbbaab"},
	} {
		t.Run(fmt.Sprint(c.scheduler, c.flags, c.weights), func(t *testing.T) {
			wanted := Wanted{Scheduler: c.scheduler, Flags: c.flags}
			f, o := &follower{wanted: wanted}, NewOracle(wanted)
			var seats []Seat
			for i, w := range c.weights {
				s := seat(uint32('a'+i), w)
				seats = append([]Seat{s}, seats...)
				f.change(seats)
				o.Add(s)
			}
			var got, oracle string
			for i := range c.want {
				client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i%8)}), c.port+uint16(i))
				id, _ := f.pick(client)
				got += string(rune(id))
				id, _ = o.Pick(client, nil)
				oracle += string(rune(id))
			}
			if got != c.want || oracle != c.want {
				t.Errorf("\n   got %s\noracle %s\nkernel %s", got, oracle, c.want)
			}
		})
	}
}

// drawClient draws a client of either family.
var drawClient = rapid.Custom(func(t *rapid.T) netip.AddrPort {
	length := rapid.SampledFrom([]int{4, 16}).Draw(t, "length")
	a, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), length, length).Draw(t, "address"))
	return netip.AddrPortFrom(a.Unmap(), rapid.Uint16().Draw(t, "port"))
})

// drawWanted draws one of these schedulers, with any flags that it has.
func drawWanted(t *rapid.T, schedulers ...lvs.Scheduler) Wanted {
	w := Wanted{Scheduler: rapid.SampledFrom(schedulers).Draw(t, "scheduler"), MHTable: 251, Secret: secret}
	names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"flag-1", "flag-2", "flag-3"}), rapid.ID).Draw(t, "flags")
	w.Flags, _ = lvs.ParseSchedulerFlags(w.Scheduler, names)
	return w
}

// Whatever changes in between, pools pick what the kernel's schedulers pick.
func TestPoolFollowsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wanted := drawWanted(t, lvs.RR, lvs.WRR, lvs.SH, lvs.MH)
		f, o := &follower{wanted: wanted}, NewOracle(wanted)
		f.change(nil)
		weight := rapid.Uint32Range(0, 12)
		next := uint32(0)
		index := func() int { return rapid.IntRange(0, len(f.seats)-1).Draw(t, "index") }
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				s := seat(next, weight.Draw(t, "weight"))
				next++
				f.change(append([]Seat{s}, f.seats...))
				o.Add(s)
			},
			"remove": func(t *rapid.T) {
				if len(f.seats) == 0 {
					t.Skip("no seat")
				}
				i := index()
				o.Remove(f.seats[i].ID)
				f.change(append(append([]Seat(nil), f.seats[:i]...), f.seats[i+1:]...))
			},
			"weight": func(t *rapid.T) {
				if len(f.seats) == 0 {
					t.Skip("no seat")
				}
				i := index()
				seats := append([]Seat(nil), f.seats...)
				seats[i].Weight = weight.Draw(t, "weight")
				o.SetWeight(seats[i].ID, seats[i].Weight)
				f.change(seats)
			},
			"pick": func(t *rapid.T) {
				client := drawClient.Draw(t, "client")
				got, ok := f.pick(client)
				want, wantOK := o.Pick(client, nil)
				if got != want || ok != wantOK {
					t.Fatalf("picked %d %v, the oracle %d %v", got, ok, want, wantOK)
				}
			},
		})
	})
}

// A cycle too long for a pool is scaled down and keeps the shares.
func TestLongCyclesAreScaled(t *testing.T) {
	seats := []Seat{seat(1, 3_000_000), seat(2, 1_000_001), seat(3, 1)}
	p := NewPool(Wanted{Scheduler: lvs.WRR, Seats: seats})
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
