// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

var drawAddr = rapid.Custom(func(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v4") {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "bytes")))
	}
	return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))).Unmap()
})

// What is encoded is read back as it was: addresses of both families, ports,
// keys, MAC addresses, names.
func TestEncodeRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := lvs.ServiceKey{
			Protocol: rapid.SampledFrom([]lvs.Protocol{lvs.TCP, lvs.UDP}).Draw(t, "protocol"),
			Address:  netip.AddrPortFrom(drawAddr.Draw(t, "vip"), rapid.Uint16().Draw(t, "port")),
		}
		if got := decodeKey(encodeKey(key)); got != key {
			t.Fatalf("key %v became %v", key, got)
		}
		mac := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
		state := rapid.SampledFrom([]bpfHopState{bpfHopStateHOP_UNRESOLVED, bpfHopStateHOP_READY, bpfHopStateHOP_LOCAL}).Draw(t, "state")
		if gotMAC, gotState := decodeMAC(encodeMAC(mac, state)); gotMAC.String() != mac.String() || gotState != state {
			t.Fatalf("next hop %v %v became %v %v", mac, state, gotMAC, gotState)
		}
	})
	for s := range schedulers {
		if got := decodeName(schedulers, schedulers[s]); got != s {
			t.Errorf("scheduler %s became %s", s, got)
		}
		for bits := range uint32(8) {
			if got := encodeFlags(s, decodeFlags(s, bits)); got != bits {
				t.Errorf("scheduler %s: flags %x became %x", s, bits, got)
			}
		}
	}
	if flags := decodeFlags(lvs.SH, uint32(bpfPoolFlagPOOL_PORT)); flags != "sh-port" {
		t.Errorf("the flag for the port is %q", flags)
	}
	for _, s := range []sched.Seat{{ID: 7}, {ID: 7, Weight: lvs.MaxWeight, Last: lvs.MaxWeight}, {ID: 7, Last: lvs.MaxWeight}} {
		if got := decodeSeat(bpfSeat{RealServer: s.ID, Weight: encodeWeight(s)}); got != s {
			t.Errorf("seat %+v became %+v", s, got)
		}
	}
}

// The layout is what bpf/types.h says in words.
func TestEncodeLayout(t *testing.T) {
	if port := encodePort(0x1234); port != 0x3412 {
		t.Errorf("port %x is not in network order", port)
	}
	if a := encodeAddr(netip.MustParseAddr("192.0.2.1")); a.Bytes != [16]byte{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 1} {
		t.Errorf("an IPv4 address is not v4-mapped: %v", a.Bytes)
	}
	w := decodeWord(0x2a_3_12345_000000ff)
	want := connWord{expires: 0xff, server: 0x12345, state: bpfConnStateSTATE_SYN_RECV, version: 0x2a}
	if w != want {
		t.Errorf("word %+v, want %+v", w, want)
	}
	if c := decodeCounts(3<<32 | 5); c != (lvs.Counts{Active: 5, Inactive: 3}) {
		t.Errorf("counts %+v", c)
	}
	if got := encodeTicks(lvs.Duration(time.Millisecond)); got != 1 {
		t.Errorf("a millisecond is %d ticks, want 1 at least", got)
	}
	if got := decodeTicks(encodeTicks(lvs.Duration(lvs.MaxTimeout))); time.Duration(got) != lvs.MaxTimeout {
		t.Errorf("the longest timeout became %v", time.Duration(got))
	}
	sum := addStats(bpfStats{Connections: 5, InBytes: 9}, bpfStats{Connections: 2, InBytes: 10}, -1)
	if sum.Connections != 3 || int64(sum.InBytes) != -1 {
		t.Errorf("difference %+v", sum)
	}
}

// Every state of the program has a name.
func TestStatesHaveNames(t *testing.T) {
	for s := bpfConnStateSTATE_NONE; s <= bpfConnStateSTATE_UDP; s++ {
		if states[s] == "" {
			t.Errorf("state %d has no name", s)
		}
	}
}

// Whatever is taken and given back, no place is handed out twice, and all that is
// given back is one run again.
func TestExtents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 64
		e := newExtents("places", 3, size)
		taken := map[uint32]uint32{}
		used := map[uint32]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				n := rapid.Uint32Range(1, 9).Draw(t, "n")
				take := e.take
				if rapid.Bool().Draw(t, "from the other end") {
					take = e.takeLast
				}
				first, err := take(n)
				if err != nil {
					return
				}
				taken[first] = n
				for i := first; i < first+n; i++ {
					if used[i] || i < 3 || i >= 3+size {
						t.Fatalf("%d was handed out twice, or is outside", i)
					}
					used[i] = true
				}
			},
			"put": func(t *rapid.T) {
				if len(taken) == 0 {
					t.Skip("nothing taken")
				}
				first := rapid.SampledFrom(keys(taken)).Draw(t, "first")
				e.put(first, taken[first])
				for i := first; i < first+taken[first]; i++ {
					delete(used, i)
				}
				delete(taken, first)
			},
			"": func(t *rapid.T) {
				if int(e.left())+len(used) != size {
					t.Fatalf("%d free and %d used of %d", e.left(), len(used), size)
				}
			},
		})
		for first, n := range taken {
			e.put(first, n)
		}
		if len(e.free) != 1 || e.free[0] != (extent{3, size}) {
			t.Fatalf("free runs %v", e.free)
		}
		e.reserve(10, 5)
		if e.left() != size-5 {
			t.Fatalf("%d free after a reservation", e.left())
		}
	})
}

// Runs are taken from either end, and what is in use cannot be reserved.
func TestExtentsFromBothEnds(t *testing.T) {
	e := newExtents("things", 0, 100)
	for _, used := range []uint32{20, 25, 98} { // free: 0-19, 21-24, 26-97, 99
		if !e.reserve(used, 1) {
			t.Fatalf("%d is not free: %v", used, e.free)
		}
	}
	for _, c := range []struct {
		take  func(uint32) (uint32, error)
		n     uint32
		first uint32
	}{{e.take, 3, 0}, {e.takeLast, 2, 96}, {e.takeLast, 1, 99}, {e.take, 18, 26}, {e.takeLast, 52, 44}, {e.takeLast, 17, 3}, {e.take, 4, 21}} {
		if first, err := c.take(c.n); err != nil || first != c.first {
			t.Errorf("a run of %d is at %d %v, want %d", c.n, first, err, c.first)
		}
	}
	if e.left() != 0 || e.reserve(20, 1) {
		t.Errorf("left %v", e.free)
	}
	if _, err := e.takeLast(1); !errors.Is(err, lvs.ErrFull) {
		t.Errorf("from nothing: %v", err)
	}
}

func keys(m map[uint32]uint32) (list []uint32) {
	for k := range m {
		list = append(list, k)
	}
	return list
}
