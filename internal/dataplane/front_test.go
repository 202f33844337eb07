// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lvx/internal/lvs"
)

// people is how many slots of a table are not free, from a set on.
func (r *rig) people(six bool, others uint32) (n int) {
	count := func(slots *[ways]bpfSlot) {
		for way := range slots {
			if decodeWord(slots[way].Word).state != bpfConnStateSTATE_NONE {
				n++
			}
		}
	}
	for set := others; set < r.sets(); set++ {
		if six {
			count(&r.arrays.six.items[set].Slots)
		} else {
			count(&r.arrays.four.items[set].Slots)
		}
	}
	return n
}

// held is all connections, by client and virtual service.
func (r *rig) held() map[[2]netip.AddrPort]lvs.Connection {
	r.t.Helper()
	all := map[[2]netip.AddrPort]lvs.Connection{}
	for _, c := range r.connections() {
		flow := [2]netip.AddrPort{c.Client, c.Virtual}
		if _, twice := all[flow]; twice {
			r.t.Errorf("%v is listed twice", flow)
		}
		all[flow] = c
	}
	return all
}

// Whatever state a connection is in, it leaves the front as it was, and goes on.
func TestSettle(t *testing.T) {
	for name, family := range bothFamilies {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.again(Options{Connections: 64, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
			others := r.sets() - 2
			r.generatorWith(others, 2, "test_direct", "lvs_sweep").drive()
			one := serverName(family.server, 1)
			tcp := r.service("tcp "+family.vip+":80", lvs.RR, server(one, 1))
			udp := r.service("udp "+family.vip+":80", lvs.RR, server(one, 1))
			packet := func(port int, f frame) {
				t.Helper()
				f.client, f.vip = fmt.Sprintf("%s:%d", family.client, port), family.vip+":80"
				if verdict, _ := r.send(f.bytes(t)); verdict != xdpTX {
					t.Errorf("port %d %q: verdict %d, reasons %v", port, f.flags, verdict, r.reasons())
				}
			}
			packet(1, frame{})
			for _, flags := range []string{"S", "A"} {
				packet(2, frame{flags: flags})
			}
			for _, flags := range []string{"S", "A", "FA"} {
				packet(3, frame{flags: flags})
			}
			packet(4, frame{udp: true, payload: 4})

			six := family.six
			before, inFront := r.held(), r.people(six, others)
			counts := [2]lvs.Counts{r.counts(tcp, one), r.counts(udp, one)}
			if swept := r.sweep(); swept.Moved != 0 || inFront != 4 {
				t.Errorf("of %d connections in the front the sweep moved %d, though it is their place", inFront, swept.Moved)
			}
			crowd := &r.arrays.crowds.items[0]
			if six {
				crowd = &r.arrays.crowds.items[1]
			}
			atomic.StoreUint64(&crowd.Fill, uint64(bpfFillFILL_SETS))
			if swept := r.sweep(); swept.Moved != 4 || swept.Ended != 0 || r.people(six, others) != 0 || crowd.Inside != uint64(bpfInsideINSIDE_NOBODY) {
				t.Errorf("%+v: %d are in the front, inside %d", swept, r.people(six, others), crowd.Inside)
			}
			if after := r.held(); !maps.Equal(before, after) {
				t.Errorf("before %v\nafter %v", before, after)
			}
			if got := [2]lvs.Counts{r.counts(tcp, one), r.counts(udp, one)}; got != counts {
				t.Errorf("counts %+v, before %+v", got, counts)
			}
			packet(1, frame{flags: "A"})
			packet(2, frame{flags: "FA"})
			packet(3, frame{flags: "A"})
			packet(4, frame{udp: true, payload: 4})
			if n := len(r.connections()); n != 4 {
				t.Errorf("%d connections, not 4", n)
			}
		})
	}
}

// Few connections are in the front. When there are more, they leave it and stay what
// they are; who lists them meanwhile sees each once. When there is no other room, it
// is used again, for as long as it has to be.
func TestFront(t *testing.T) {
	const size, few, more, most = 150_000, 60_000, 120_000, 400_000
	r := newRig(t)
	r.again(Options{Connections: size, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	r.serve(lvs.RR, 1)
	g := r.generator("test_flood")
	others, _ := split(r.sets())
	for family, six := range []bool{false, true} {
		crowd := &r.arrays.crowds.items[family]
		open := func(flows uint64) { // and those before
			t.Helper()
			g.flood(traffic{class: classEstablished, flags: flagSYN, handshake: true, six: six}, 2*flows)
		}
		known := func(flows uint64) uint64 {
			t.Helper()
			return g.flood(traffic{class: classEstablished, flags: flagACK, six: six}, flows)
		}
		if crowd.Inside != uint64(bpfInsideINSIDE_NOBODY) {
			t.Fatalf("inside of an empty table: %d", crowd.Inside)
		}

		open(few)
		if swept := r.sweep(); swept.Moved != 0 || crowd.Inside == uint64(bpfInsideINSIDE_NOBODY) {
			t.Errorf("of few connections the sweep moved %d; inside %d", swept.Moved, crowd.Inside)
		}
		if n := r.people(six, others); n < few*8/10 {
			t.Errorf("%d of %d connections are in the front", n, few)
		}

		atomic.StoreUint64(&crowd.Inside, uint64(bpfInsideINSIDE_NOBODY)) // not by lvx
		if r.sweep(); known(few) != few {
			t.Error("connections in the front stay lost after somebody wrote that there are none")
		}

		open(more)
		if crowd.Fill != uint64(bpfFillFILL_TIGHT) {
			t.Fatalf("of %d connections, fill %d", more, crowd.Fill)
		}
		inFront, before := r.people(six, others), r.held()
		if len(before) != more {
			t.Fatalf("%d connections, not %d", len(before), more)
		}
		r.settling.RLock() // as a listing does
		if swept := r.sweep(); swept.Moved != 0 || r.people(six, others) != inFront {
			t.Errorf("moved %d past a listing", swept.Moved)
		}
		r.settling.RUnlock()
		// Those stay whose other sets are both full.
		if swept, left := r.sweep(), r.people(six, others); int(swept.Moved)+left != inFront || swept.Ended != 0 || left > inFront/100 || crowd.Fill != uint64(bpfFillFILL_SETS) {
			t.Errorf("of %d in the front the sweep moved %d and ended %d; %d are left, fill %d", inFront, swept.Moved, swept.Ended, left, crowd.Fill)
		}
		if after := r.held(); !maps.Equal(before, after) {
			t.Error("connections are not what they were before they were moved")
		}
		if got := known(more); got != more {
			t.Errorf("%d of %d were served", got, more)
		}

		open(most)
		full := r.held()
		if n := r.people(six, others); len(full) < 2*size || n == 0 || crowd.Inside != uint64(bpfInsideINSIDE_SOMEBODY) {
			t.Errorf("%d connections in a table for %d; %d in the front, inside %d", len(full), size, n, crowd.Inside)
		}
		if swept := r.sweep(); swept.Ended != 0 || crowd.Inside == uint64(bpfInsideINSIDE_NOBODY) {
			t.Errorf("the sweep of a full table ended %d; inside %d", swept.Ended, crowd.Inside)
		}
		if after := r.held(); !maps.Equal(full, after) {
			t.Error("connections of a full table are not what they were")
		}
		if _, err := r.Flush(); err != nil {
			t.Fatal(err)
		}
		if r.sweep(); crowd.Inside != uint64(bpfInsideINSIDE_NOBODY) || crowd.Fill != uint64(bpfFillFILL_FRONT) {
			t.Errorf("after a flush: inside %d, fill %d", crowd.Inside, crowd.Fill)
		}
	}
}

// A table that fills slowly, a few thousand between two sweeps, leaves its front as
// one does that fills at once, and has room for as many. Handshakes that are under way
// when the sweep comes are finished.
func TestFrontFillsSlowly(t *testing.T) {
	const size, step = 150_000, 5_000
	r := newRig(t)
	r.again(Options{Connections: size, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	r.serve(lvs.RR, 1)
	g := r.generator("test_flood")
	crowd := &r.arrays.crowds.items[0]
	for held := uint64(0); held < size; held += step {
		for _, flags := range []uint32{flagSYN, flagACK} {
			if got := g.flood(traffic{class: classEstablished, flags: flags, from: held}, step); got != step {
				t.Fatalf("with %d connections and fill %d, of %d packets with flags %#x %d were served: %v", held, crowd.Fill, step, flags, got, r.reasons())
			}
			r.sweep()
		}
	}
	if n := r.reasons()["STATELESS"] + r.reasons()["NO_CONNECTION"]; n != 0 || crowd.Fill != uint64(bpfFillFILL_SETS) || len(r.held()) != size {
		t.Errorf("%d packets went without a connection; fill %d, %d connections", n, crowd.Fill, len(r.held()))
	}
}

// Who reads for long does not keep connections from moving for ever.
func TestHoldStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Plane{}
		moves := func() bool {
			if !p.settling.TryLock() {
				return false
			}
			p.settling.Unlock()
			return true
		}
		short, long := p.holdStill(), p.holdStill()
		short()
		if moves() {
			t.Error("moves past a listing")
		}
		time.Sleep(mostStill)
		synctest.Wait()
		if !moves() {
			t.Error("waits for a listing that takes for ever")
		}
		long()
		if !moves() {
			t.Error("does not move when the listing is over")
		}
	})
}

// Of half-open connections of which one has to go, the older one does, in the front
// as well: else a flood would leave its first ones there for a minute.
func TestFrontInAFlood(t *testing.T) {
	const size = 150_000
	r := newRig(t)
	r.again(Options{Connections: size, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	g := r.generator("test_flood")
	others, _ := split(r.sets())
	g.flood(traffic{class: classFlood, flags: flagSYN}, 20*size)
	crowd := &r.arrays.crowds.items[0]
	if crowd.Fill != uint64(bpfFillFILL_TIGHT) || r.people(false, others) == 0 {
		t.Fatalf("in a flood: fill %d, %d in the front", crowd.Fill, r.people(false, others))
	}
	if swept := r.sweep(); swept.Ended+swept.Moved != 0 {
		t.Errorf("before a flood was seen the sweep made room: %+v", swept)
	}
	swept := r.sweep()
	if n := r.people(false, others); n != 0 || crowd.Inside != uint64(bpfInsideINSIDE_NOBODY) || crowd.Fill != uint64(bpfFillFILL_TIGHT) {
		t.Errorf("after the sweep %+v: %d in the front, inside %d, fill %d", swept, n, crowd.Inside, crowd.Fill)
	}
	if active := r.counts(key, "10.0.0.1:80").Active; int(active) != len(r.connections()) {
		t.Errorf("%d connections are counted as %d", len(r.connections()), active)
	}
}
