// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"lvx/internal/lvs"
)

// The life of a connection as kernel IPVS's input-only table has it: after each
// packet the state, the idle time, and what it counts as.
func TestTCPStates(t *testing.T) {
	type packet struct {
		flags string
		state lvs.State
		idle  time.Duration
	}
	synRecv := packet{"S", lvs.StateSynRecv, 60 * time.Second}
	established := packet{"A", lvs.StateEstablished, 900 * time.Second}
	finWait := packet{"FA", lvs.StateFinWait, 120 * time.Second}
	for name, packets := range map[string][]packet{
		"a short connection":      {synRecv, established, {"A", lvs.StateEstablished, 900 * time.Second}, finWait, {"A", lvs.StateFinWait, 120 * time.Second}},
		"SYN again":               {synRecv, synRecv, established},
		"SYN on established":      {synRecv, established, {"S", lvs.StateEstablished, 900 * time.Second}},
		"reset":                   {synRecv, established, {"RA", lvs.StateClose, 10 * time.Second}, {"A", lvs.StateClose, 10 * time.Second}},
		"reset during handshake":  {synRecv, {"R", lvs.StateSynRecv, 60 * time.Second}},
		"FIN before ACK":          {synRecv, {"FA", lvs.StateTimeWait, 120 * time.Second}},
		"reset after FIN":         {synRecv, established, finWait, {"R", lvs.StateClose, 10 * time.Second}},
		"a packet without a flag": {synRecv, established, {"-", lvs.StateEstablished, 900 * time.Second}},
		"SYN-ACK on established":  {synRecv, established, {"SA", lvs.StateEstablished, 900 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
			for i, p := range packets {
				r.now += 3 * time.Second
				if verdict, _ := r.send(frame{flags: p.flags}.bytes(t)); verdict != xdpTX {
					t.Fatalf("packet %d (%s): verdict %d", i, p.flags, verdict)
				}
				list := r.connections()
				if len(list) != 1 {
					t.Fatalf("packet %d (%s): %d connections", i, p.flags, len(list))
				}
				if c := list[0]; c.State != p.state || time.Duration(c.Expires) != p.idle {
					t.Errorf("packet %d (%s): %s for %v, want %s for %v", i, p.flags, c.State, time.Duration(c.Expires), p.state, p.idle)
				}
				want := lvs.Counts{Inactive: 1}
				if p.state.Active() {
					want = lvs.Counts{Active: 1}
				}
				if got := r.counts(key, "10.0.0.1:80"); got != want {
					t.Errorf("packet %d (%s): counts %+v, want %+v", i, p.flags, got, want)
				}
			}
			r.now += 904 * time.Second // with the slack of bpf/state.h
			if swept := r.sweep(); swept.Ended != 1 {
				t.Errorf("swept %+v", swept)
			}
			if got := r.counts(key, "10.0.0.1:80"); got != (lvs.Counts{}) {
				t.Errorf("after all is over: %+v", got)
			}
		})
	}
}

// A SYN on a connection that is ending makes a new one at once, and the books
// stay right.
func TestSYNReopens(t *testing.T) {
	for _, ending := range []string{"FA", "RA"} {
		t.Run(ending, func(t *testing.T) {
			r := newRig(t)
			key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1), server("10.0.0.2:80", 1))
			for _, flags := range []string{"S", "A", ending} {
				r.send(frame{flags: flags}.bytes(t))
			}
			r.send(frame{}.bytes(t))
			c := r.connections()
			if len(c) != 1 || c[0].State != lvs.StateSynRecv || c[0].RealServer.String() != "10.0.0.2:80" {
				t.Errorf("connections %+v, want a new one on the next server", c)
			}
			if a, b := r.counts(key, "10.0.0.1:80"), r.counts(key, "10.0.0.2:80"); a != (lvs.Counts{}) || b != (lvs.Counts{Active: 1}) {
				t.Errorf("counts %+v %+v", a, b)
			}
			if s := r.status(key, "10.0.0.2:80").Stats.Connections; s != 1 {
				t.Errorf("%d connections counted on the new server", s)
			}
		})
	}
}

// A connection whose time is up is over for whoever looks, swept or not.
func TestExpiredIsOver(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1), server("10.0.0.2:80", 1))
	r.send(frame{}.bytes(t))
	r.now += 60 * time.Second
	if verdict, _ := r.send(frame{flags: "A"}.bytes(t)); verdict != xdpPass {
		t.Errorf("an ACK after the end: verdict %d, want pass", verdict)
	}
	if len(r.connections()) != 0 {
		t.Error("it is listed still")
	}
	if verdict, _ := r.send(frame{}.bytes(t)); verdict != xdpTX {
		t.Errorf("a SYN after the end: verdict %d", verdict)
	}
	if a, b := r.counts(key, "10.0.0.1:80"), r.counts(key, "10.0.0.2:80"); a != (lvs.Counts{}) || b != (lvs.Counts{Active: 1}) {
		t.Errorf("counts %+v %+v", a, b)
	}
}

func TestUDPConnection(t *testing.T) {
	r := newRig(t)
	key := r.service("udp 198.51.100.1:53", lvs.RR, server("10.0.0.1:53", 1), server("10.0.0.2:53", 1))
	dns := frame{udp: true, vip: "198.51.100.1:53", payload: 30}
	for range 3 {
		r.now += 200 * time.Second
		r.send(dns.bytes(t))
	}
	c := r.connections()
	if len(c) != 1 || c[0].State != lvs.StateUDP || time.Duration(c[0].Expires) != 300*time.Second {
		t.Errorf("connections %+v", c)
	}
	if got := r.counts(key, "10.0.0.1:53"); got != (lvs.Counts{Inactive: 1}) {
		t.Errorf("counts %+v: a UDP connection is never active", got)
	}
	if got, want := r.status(key, "10.0.0.1:53").Stats, (lvs.Stats{Connections: 1, InPackets: 3, InBytes: 3 * 58}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

// Timeouts can be set; a connection has the new one from its next packet on.
func TestTimeouts(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	if err := r.SetTimeouts(lvs.Timeouts{TCP: lvs.Duration(7 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.send(frame{}.bytes(t))
	r.send(frame{flags: "A"}.bytes(t))
	if left := time.Duration(r.connections()[0].Expires); left != 7*time.Second {
		t.Errorf("expires in %v", left)
	}
	want := lvs.Timeouts{TCP: lvs.Duration(7 * time.Second), TCPFin: lvs.Duration(120 * time.Second), UDP: lvs.Duration(300 * time.Second)}
	if got, err := r.Timeouts(); err != nil || got != want {
		t.Errorf("timeouts %+v %v", got, err)
	}
}

// No change of the table moves a connection: not weights, not another scheduler,
// not deleting and adding again.
func TestConnectionStays(t *testing.T) {
	r := newRig(t)
	one, two := server("10.0.0.1:80", 1), server("10.0.0.2:80", 1)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, one, two)
	r.send(frame{}.bytes(t))
	ack := frame{flags: "A", payload: 10}.bytes(t)
	r.send(ack)
	stays := func(what string, verdict uint32, reason string) {
		t.Helper()
		before := r.reasons()[reason]
		if got, _ := r.send(ack); got != verdict || r.reasons()[reason] != before+1 {
			t.Errorf("%s: verdict %d, reasons %v, want %d %s", what, got, r.reasons(), verdict, reason)
		}
		if c := r.connections(); len(c) != 1 || c[0].RealServer != one.Address {
			t.Errorf("%s: connections %+v", what, c)
		}
	}
	put := func(scheduler lvs.Scheduler, servers ...lvs.RealServer) {
		t.Helper()
		if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: scheduler, RealServers: servers}); err != nil {
			t.Fatal(err)
		}
	}
	stays("nothing changed", xdpTX, "FORWARDED")
	put(lvs.RR, server("10.0.0.1:80", 0), two)
	stays("weight 0", xdpTX, "FORWARDED")
	put(lvs.WLC, two, one)
	stays("another scheduler", xdpTX, "FORWARDED")
	put(lvs.WLC, two)
	r.reclaim()
	stays("server deleted", xdpDrop, "SERVER_REMOVED")
	put(lvs.WLC, one, two)
	stays("server added again", xdpTX, "FORWARDED")
	if got := r.counts(key, "10.0.0.1:80"); got != (lvs.Counts{Active: 1}) {
		t.Errorf("its counts came back as %+v", got)
	}
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	stays("service deleted", xdpDrop, "SERVER_REMOVED")
	r.reopen(r.options)
	stays("daemon started again", xdpDrop, "SERVER_REMOVED")
	put(lvs.RR, two, one)
	stays("service added again", xdpTX, "FORWARDED")
	if got := r.status(key, "10.0.0.1:80"); got.Counts != (lvs.Counts{Active: 1}) {
		t.Errorf("its counts came back as %+v", got.Counts)
	}
}

// With its last connection a removed server gives its id back, and a VIP that
// nothing needs is nobody's any more.
func TestRemovedServerIsFreed(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.send(frame{}.bytes(t))
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	if len(r.table.servers) != 1 || len(r.table.vips.all) != 1 {
		t.Errorf("with a connection: %d servers, %d VIPs", len(r.table.servers), len(r.table.vips.all))
	}
	r.now += 61 * time.Second
	r.sweep()
	r.reclaim()
	if len(r.table.servers) != 0 || len(r.table.vips.all) != 0 || len(r.hops.hops) != 0 {
		t.Errorf("without: %d servers, %d VIPs, %d next hops", len(r.table.servers), len(r.table.vips.all), len(r.hops.hops))
	}
	for what, e := range map[string]extents{"services": r.table.serviceIDs, "servers": r.table.serverIDs, "pools": r.table.pools, "seats": r.table.seats, "hops": r.hops.indexes} {
		if len(e.free) != 1 {
			t.Errorf("%s: free runs %v", what, e.free)
		}
	}
}

// One that came back stays, however long it has no connection then.
func TestServerThatCameBackStays(t *testing.T) {
	r := newRig(t)
	one, two := server("10.0.0.1:80", 1), server("10.0.0.2:80", 0)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, one, two)
	r.send(frame{}.bytes(t))
	for _, servers := range [][]lvs.RealServer{{two}, {one, two}} {
		if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR, RealServers: servers}); err != nil {
			t.Fatal(err)
		}
		r.reclaim()
	}
	r.now += time.Hour
	r.sweep()
	r.reclaim()
	r.send(frame{}.bytes(t))
	if verdict, _ := r.send(frame{flags: "A"}.bytes(t)); verdict != xdpTX || len(r.table.servers) != 2 {
		t.Errorf("verdict %d, %d real servers, reasons %v", verdict, len(r.table.servers), r.reasons())
	}
}

// One that came back and went again while a grace period was waited for may be seen by
// packets from its last time: it is not freed yet.
func TestServerThatWentTwiceIsNotFreed(t *testing.T) {
	r := newRig(t)
	one := server("10.0.0.1:80", 1)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, one)
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	removed := r.removedServers()
	if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR, RealServers: []lvs.RealServer{one}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	r.freeRemoved(removed[0])
	if len(r.table.servers) != 1 {
		t.Error("it was freed")
	}
	r.freeRemoved(r.removedServers()[0])
	if len(r.table.servers) != 0 {
		t.Error("it is never freed")
	}
}

// What a next hop was for its last address it is not for another.
func TestNextHopUsedAgain(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	r.reclaim()
	if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR, RealServers: []lvs.RealServer{server("10.0.0.2:80", 1)}}); err != nil {
		t.Fatal(err)
	}
	if verdict, _ := r.send(frame{}.bytes(t)); verdict != xdpDrop || r.reasons()["NO_NEIGHBOUR"] != 1 || r.hops.hops[netip.MustParseAddr("10.0.0.2")].index != 1 {
		t.Errorf("verdict %d, reasons %v", verdict, r.reasons())
	}
}

// A new owner of an id does not inherit connections, should any have stayed.
func TestGenerations(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.send(frame{}.bytes(t))
	r.arrays.servers.items[0].Generation++
	if verdict, _ := r.send(frame{flags: "A"}.bytes(t)); verdict != xdpPass {
		t.Errorf("an ACK of the old owner's connection: verdict %d", verdict)
	}
}

// Statistics begin at 0 with the service, and again at Zero; what the maps hold
// is never reset.
func TestZero(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1), server("10.0.0.2:80", 1))
	r.send(frame{}.bytes(t))
	r.send(frame{client: "192.0.2.9:40001"}.bytes(t))
	if err := r.Zero(key); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also after a restart
		if s := r.list()[0]; s.Stats != (lvs.Stats{}) || s.RealServers[0].Stats != (lvs.Stats{}) || s.RealServers[1].Stats != (lvs.Stats{}) {
			t.Errorf("after zero: %+v", s)
		}
		r.reopen(r.options)
	}
	r.send(frame{flags: "A"}.bytes(t))
	want := lvs.Stats{InPackets: 1, InBytes: 40}
	if s := r.list()[0]; s.Stats != want || s.RealServers[0].Stats != want {
		t.Errorf("one packet later: %+v", s)
	}
}

// A real server that gets the id of one that was freed does not inherit what was
// counted for it.
func TestStatisticsOfAnIDUsedAgain(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.send(frame{}.bytes(t))
	if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR}); err != nil {
		t.Fatal(err)
	}
	r.now += time.Hour
	r.sweep()
	r.reclaim()
	r.service(key.String(), lvs.RR, server("10.0.0.2:80", 1))
	if s := r.status(key, "10.0.0.2:80"); s.Stats != (lvs.Stats{}) || r.table.servers[serverKey{key, s.Address}] != 0 {
		t.Errorf("it has %+v", s)
	}
	if s := r.list()[0].Stats; s.Connections != 1 {
		t.Errorf("and the service has %+v", s)
	}
}

// A daemon that starts finds everything that another one left: services in their
// order, connections, counts, statistics, timeouts.
func TestAdopt(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.WRR, server("10.0.0.1:80", 3), server("10.0.0.2:80", 0), server("10.0.0.3:80", 2))
	r.service("udp [2001:db8::1]:53", lvs.LC, server("[2001:db8:1::1]:53", 5))
	r.service("tcp 198.51.100.1:443", lvs.WLC)
	for i := range 7 {
		r.send(frame{client: fmt.Sprintf("192.0.2.9:%d", 1000+i)}.bytes(t))
	}
	if err := r.SetTimeouts(lvs.Timeouts{UDP: lvs.Duration(33 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	services, connections, reasons := r.list(), len(r.connections()), r.reasons()
	timeouts, _ := r.Timeouts()
	free := r.table.seats.left()
	old := r.Plane
	r.reopen(r.options)
	old.Close()
	if diff := cmp.Diff(services, r.list(), cmp.Comparer(func(a, b lvs.RealServerStatus) bool { return a == b }), cmp.Comparer(func(a, b lvs.ServiceKey) bool { return a == b })); diff != "" {
		t.Errorf("services (-before +after):\n%s", diff)
	}
	if n := len(r.connections()); n != connections || n != 7 {
		t.Errorf("%d connections, %d before", n, connections)
	}
	if diff := cmp.Diff(reasons, r.reasons()); diff != "" {
		t.Errorf("reasons (-before +after):\n%s", diff)
	}
	if got, _ := r.Timeouts(); got != timeouts {
		t.Errorf("timeouts %+v, before %+v", got, timeouts)
	}
	if left := r.table.seats.left(); left != free {
		t.Errorf("%d seats free, %d before", left, free)
	}
}

// Two packets of a flow on two CPUs: the one that loses the race for the word has
// its say all the same, so that a FIN is never lost.
func TestConcurrentPacketsKeepTheFIN(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	syn, ack, fin := frame{}.bytes(t), frame{flags: "A"}.bytes(t), frame{flags: "FA"}.bytes(t)
	for trial := range 3000 {
		r.now += time.Second
		r.send(syn)
		r.send(ack)
		r.now += time.Second
		if err := r.clock.Set(uint64(r.now)); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		for _, packet := range [][]byte{ack, fin} {
			both.Go(func() {
				if _, err := r.program.Run(&ebpf.RunOptions{Data: packet, DataOut: make([]byte, 400)}); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if c := r.connections(); len(c) != 1 || c[0].State != lvs.StateFinWait {
			t.Fatalf("trial %d: %+v", trial, c)
		}
		if got := r.counts(key, "10.0.0.1:80"); got != (lvs.Counts{Inactive: 1}) {
			t.Fatalf("trial %d: counts %+v", trial, got)
		}
	}
}

// Services are listed newest first, however many came and went.
func TestServicesAreListedNewestFirst(t *testing.T) {
	r := newRig(t)
	for i := range 200 { // three times the table: ids are used again
		key := parseKey(fmt.Sprintf("tcp 198.51.100.1:%d", 1000+i))
		if err := r.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR}); err != nil {
			t.Fatal(err)
		}
		if list := r.list(); list[0].ServiceKey != key {
			t.Fatalf("service %d is listed behind %s", i, list[0].ServiceKey)
		}
		if i > 0 {
			if err := r.Delete(parseKey(fmt.Sprintf("tcp 198.51.100.1:%d", 1000+i-1))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A table that is full of what was just replaced is not full: Put waits for the
// grace period that another has begun.
func TestReplacingNeverFillsTheTable(t *testing.T) {
	r := newRig(t)
	stop := make(chan struct{})
	var reclaiming sync.WaitGroup
	reclaiming.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				r.reclaim()
			}
		}
	})
	for i := range 2000 {
		s := lvs.Service{ServiceKey: parseKey("tcp 198.51.100.1:80"), Scheduler: lvs.WRR, RealServers: []lvs.RealServer{server("10.0.0.1:80", uint32(1+i%7)), server("10.0.0.2:80", 3)}}
		if err := r.Put(s); err != nil {
			t.Errorf("change %d: %v", i, err)
			break
		}
	}
	close(stop)
	reclaiming.Wait()
}

// Daemons that were killed between two writes leave nothing that the next one
// cannot mend.
func TestAdoptHalfAChange(t *testing.T) {
	t.Run("a real server in no pool", func(t *testing.T) {
		r := newRig(t)
		key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
		seats, err := r.seat(lvs.Service{ServiceKey: key, RealServers: []lvs.RealServer{server("10.0.0.2:80", 1)}}, &undo{})
		if err != nil {
			t.Fatal(err)
		}
		r.bind(seats[0].ID, r.table.services[key], netip.MustParseAddr("10.0.0.2"))
		r.reopen(r.options)
		if s := r.list(); len(s) != 1 || len(s[0].RealServers) != 1 || s[0].RealServers[0].Address.String() != "10.0.0.1:80" {
			t.Errorf("services %+v", s)
		}
		r.reclaim()
		if len(r.table.servers) != 1 {
			t.Errorf("%d servers hold ids", len(r.table.servers))
		}
	})
	t.Run("a service whose real servers are not listed", func(t *testing.T) {
		r := newRig(t)
		r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
		storeState(&r.arrays.servers.items[0], bpfServerStateSERVER_REMOVED)
		r.reopen(r.options)
		r.reclaim()
		if verdict, _ := r.send(frame{}.bytes(t)); verdict != xdpTX {
			t.Errorf("verdict %d, reasons %v", verdict, r.reasons())
		}
		if len(r.table.servers) != 1 {
			t.Errorf("%d servers hold ids", len(r.table.servers))
		}
	})
	t.Run("a next hop that half of its users had moved to", func(t *testing.T) {
		r := newRig(t)
		r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
		r.service("tcp 198.51.100.1:81", lvs.RR, server("10.0.0.1:81", 1))
		r.arrays.servers.items[1].NextHop = 9
		r.reopen(r.options)
		if a, b := r.arrays.servers.items[0].NextHop, r.arrays.servers.items[1].NextHop; a != b {
			t.Errorf("one address has next hops %d and %d", a, b)
		}
	})
	t.Run("a real server without a next hop", func(t *testing.T) {
		r := newRig(t)
		key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
		stub := r.arrays.servers.items[0]
		stub.Addr, stub.NextHop, stub.State = encodeAddr(netip.MustParseAddr("10.0.0.2")), 0, bpfServerStateSERVER_REMOVED
		r.arrays.servers.items[5] = stub
		r.reopen(r.options)
		r.service(key.String(), lvs.RR, server("10.0.0.2:80", 1))
		if verdict, _ := r.send(frame{}.bytes(t)); verdict != xdpTX {
			t.Errorf("verdict %d, reasons %v", verdict, r.reasons())
		}
	})
	t.Run("a timeout that was not written", func(t *testing.T) {
		r := newRig(t)
		if err := r.objects.Timeouts.Put(bpfConnStateSTATE_UDP, uint32(0)); err != nil {
			t.Fatal(err)
		}
		r.reopen(r.options)
		if got, err := r.Timeouts(); err != nil || got != lvs.DefaultTimeouts() {
			t.Errorf("timeouts %+v %v", got, err)
		}
	})
}

// An instance has one master at a time, and unload leaves nothing.
func TestInstanceIsExclusive(t *testing.T) {
	needRoot(t)
	first, err := Acquire(DefaultBPFFS, "exclusive")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(DefaultBPFFS, "exclusive"); !errors.Is(err, ErrRunning) {
		t.Errorf("a second one: %v", err)
	}
	other, err := Acquire(DefaultBPFFS, "another")
	if err != nil {
		t.Errorf("another instance: %v", err)
	}
	other.Release()
	first.Release()
	again, err := Acquire(DefaultBPFFS, "exclusive")
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again.Release()
	if left, _ := filepath.Glob(filepath.Join(DefaultBPFFS, "lvx", "e*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, bad := range []string{"", "a/b", "..", "a.b", strings.Repeat("x", 33)} {
		if _, err := Acquire(DefaultBPFFS, bad); err == nil {
			t.Errorf("instance %q was taken", bad)
		}
	}
}

// Maps that contradict each other are an error of ours, and harm nobody.
func TestInternal(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.arrays.services.items[0].Pool = 1 << 30
	in := frame{}.bytes(t)
	verdict, out := r.send(in)
	if verdict != xdpDrop || r.reasons()["INTERNAL"] != 1 {
		t.Errorf("verdict %d, reasons %v", verdict, r.reasons())
	}
	r.wantBytes(out, in)
	r.arrays.services.items[0].Pool = 0
}
