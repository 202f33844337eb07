// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"lvx/internal/lvs"
)

// tinyTables has two sets, so that every connection may lie in every slot.
var tinyTables = Options{Connections: 4, Services: 64, RealServers: 1024, MHTable: 251, detached: true}

var bothFamilies = map[string]struct {
	vip, client, server string
	six                 bool
}{
	"IPv4": {"198.51.100.1", "192.0.2.9", "10.0.0.", false},
	"IPv6": {"[2001:db8::1]", "[2001:db8:9::9]", "[2001:db8:1::", true},
}

func serverName(prefix string, n int) string {
	if prefix[0] == '[' {
		return fmt.Sprintf("%s%d]:80", prefix, n)
	}
	return fmt.Sprintf("%s%d:80", prefix, n)
}

// A new connection takes the place of an old one by rank: what is over, then the
// oldest half-open one, then the oldest datagram that had no second; never one that
// is established.
func TestReplacement(t *testing.T) {
	for name, family := range bothFamilies {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.again(tinyTables)
			tcp := r.service("tcp "+family.vip+":80", lvs.RR, server(serverName(family.server, 1), 1))
			udp := r.service("udp "+family.vip+":80", lvs.RR, server(serverName(family.server, 1), 1))
			packet := func(port int, f frame) string {
				t.Helper()
				f.client, f.vip = fmt.Sprintf("%s:%d", family.client, port), family.vip+":80"
				before := r.reasons()
				r.send(f.bytes(t))
				for reason, n := range r.reasons() {
					if n != before[reason] {
						return reason
					}
				}
				return ""
			}
			has := func(port uint16, protocol lvs.Protocol) bool {
				for _, c := range r.connections() {
					if c.Client.Port() == port && c.Protocol == protocol {
						return true
					}
				}
				return false
			}
			for port := range 3 { // 3 established
				packet(100+port, frame{})
				packet(100+port, frame{flags: "A"})
			}
			r.now += time.Second
			packet(200, frame{udp: true, payload: 4}) // 2 datagrams: the second flow has another in a later tick
			packet(201, frame{udp: true, payload: 4})
			r.now += time.Second
			packet(201, frame{udp: true, payload: 4})
			packet(300, frame{}) // 3 half-open, 300 the oldest
			r.now += time.Second
			packet(301, frame{})
			packet(302, frame{})
			if n := len(r.connections()); n != 8 {
				t.Fatalf("%d connections fill 8 slots", n)
			}
			order := []struct {
				port     uint16
				protocol lvs.Protocol
			}{{300, lvs.TCP}, {301, lvs.TCP}, {302, lvs.TCP}, {400, lvs.TCP}, {401, lvs.TCP}}
			for i, gone := range order[:2] {
				r.now += time.Second
				if got := packet(400+i, frame{}); got != "FORWARDED" {
					t.Fatalf("new connection %d: %s", i, got)
				}
				if i == 0 && has(gone.port, gone.protocol) {
					t.Errorf("%v is still there", gone)
				}
			}
			packet(302, frame{flags: "A"}) // whichever of 301 and 302 is left
			packet(301, frame{flags: "A"})
			packet(400, frame{flags: "A"})
			packet(401, frame{flags: "A"})
			// Now 3+1+2 are established, and one UDP flow is, and one is new.
			if !has(200, lvs.UDP) {
				t.Error("the new datagram went before half-open connections")
			}
			if got := packet(500, frame{}); got != "FORWARDED" || has(200, lvs.UDP) {
				t.Errorf("instead of the new datagram: %s, it is there: %v", got, has(200, lvs.UDP))
			}
			packet(500, frame{flags: "A"})
			for port := range 20 {
				if got := packet(600+port, frame{}); got != "STATELESS" {
					t.Fatalf("with all established: %s", got)
				}
			}
			for _, port := range []uint16{100, 101, 102, 400, 401, 500} {
				if !has(port, lvs.TCP) {
					t.Errorf("%d is gone, though established", port)
				}
			}
			if !has(201, lvs.UDP) {
				t.Error("the UDP flow of two ticks is gone")
			}
			if a, b := r.counts(tcp, serverName(family.server, 1)), r.counts(udp, serverName(family.server, 1)); a != (lvs.Counts{Active: 7}) || b != (lvs.Counts{Inactive: 1}) {
				t.Errorf("counts %+v and %+v", a, b)
			}
			r.now += 904 * time.Second
			if got := packet(700, frame{}); got != "FORWARDED" || len(r.connections()) != 1 {
				t.Errorf("when all are over: %s, %d connections", got, len(r.connections()))
			}
			r.sweep()
			if a := r.counts(tcp, serverName(family.server, 1)); a != (lvs.Counts{Active: 1}) {
				t.Errorf("counts %+v", a)
			}
		})
	}
}

// With the table full of established connections, new flows go by the ring, the
// whole of each to one real server, in proportion to the weights; what is known is
// not touched, and no connection is counted.
func TestStateless(t *testing.T) {
	for _, scheduler := range lvs.Schedulers() {
		t.Run(string(scheduler), func(t *testing.T) {
			r := newRig(t)
			r.again(tinyTables)
			key := r.service("tcp 198.51.100.1:80", scheduler, server("10.0.0.1:80", 1), server("10.0.0.2:80", 3))
			for i := 1; i <= 2; i++ {
				mac := serverMAC
				mac = append(mac[:5:5], byte(i))
				r.hop(netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)), path{state: bpfHopStateHOP_READY, mac: mac, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 9000})
			}
			for i := range 40 {
				r.send(frame{client: fmt.Sprintf("192.0.2.%d:1000", i)}.bytes(t))
				r.send(frame{client: fmt.Sprintf("192.0.2.%d:1000", i), flags: "A"}.bytes(t))
			}
			full := r.connections()
			if len(full) != 8 {
				t.Fatalf("%d connections fill 8 slots", len(full))
			}
			before := r.status(key, "10.0.0.1:80").Stats.Connections + r.status(key, "10.0.0.2:80").Stats.Connections
			to := map[byte]int{}
			for i := range 400 {
				client := fmt.Sprintf("203.0.113.%d:%d", i%250, 2000+i)
				verdict, out := r.send(frame{client: client}.bytes(t))
				if verdict != xdpTX {
					t.Fatalf("verdict %d, reasons %v", verdict, r.reasons())
				}
				to[out[5]]++
				for _, flags := range []string{"A", "FA", "A", "R", "S"} {
					if _, next := r.send(frame{client: client, flags: flags, payload: 3}.bytes(t)); next[5] != out[5] {
						t.Fatalf("%s: %s went to %d, the SYN to %d", client, flags, next[5], out[5])
					}
				}
			}
			if scheduler != lvs.SH && (to[2] < 2*to[1] || to[2] > 5*to[1]) {
				t.Errorf("weights 1 and 3 got %v", to)
			}
			if after := r.connections(); len(after) != 8 {
				t.Errorf("%d connections", len(after))
			}
			if after := r.status(key, "10.0.0.1:80").Stats.Connections + r.status(key, "10.0.0.2:80").Stats.Connections; after != before {
				t.Errorf("%d connections counted that are none", after-before)
			}
			// Another service has made none without: its strays pass.
			r.service("tcp 198.51.100.1:81", lvs.RR, server("10.0.0.1:81", 1))
			if verdict, _ := r.send(frame{vip: "198.51.100.1:81", flags: "A"}.bytes(t)); verdict != xdpPass {
				t.Errorf("a stray of another service: verdict %d", verdict)
			}
			// The TCP timeout after, the service is as before.
			r.now += 904 * time.Second
			if verdict, _ := r.send(frame{client: "203.0.113.1:2001", flags: "A"}.bytes(t)); verdict != xdpPass {
				t.Errorf("a stray, long after: verdict %d", verdict)
			}
		})
	}
}

// A connection whose slot another CPU writes for ever is dropped, and nothing is lost.
func TestContended(t *testing.T) {
	r := newRig(t)
	r.again(tinyTables)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.send(frame{}.bytes(t))
	for at, set := range r.arrays.four.items {
		for way := range set.Slots {
			if w := decodeWord(set.Slots[way].Word); w.alive() {
				set.Slots[way].Word &^= uint64(bpfConnBitsCONN_STATE_MASK) << bpfConnBitsCONN_STATE_SHIFT
				set.Slots[way].Word |= uint64(bpfConnStateSTATE_TENTATIVE) << bpfConnBitsCONN_STATE_SHIFT
				if err := r.objects.Connections4.Put(uint32(at), set); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, flags := range []string{"S", "A"} {
		if verdict, _ := r.send(frame{flags: flags}.bytes(t)); verdict != xdpDrop {
			t.Errorf("%s: verdict %d, reasons %v", flags, verdict, r.reasons())
		}
	}
	if r.reasons()["CONTENDED"] != 2 {
		t.Errorf("reasons %v", r.reasons())
	}
	if got := r.counts(key, "10.0.0.1:80"); got != (lvs.Counts{Active: 1}) {
		t.Errorf("counts %+v: the loser took or left something", got)
	}
}

// Insert, DeleteConnection and Flush keep the books like packets do.
func TestInsertDeleteFlush(t *testing.T) {
	for name, family := range bothFamilies {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.now = coarseNow()
			one := serverName(family.server, 1)
			key := r.service("tcp "+family.vip+":80", lvs.RR, server(one, 1), server(serverName(family.server, 2), 1))
			c := lvs.Connection{
				Protocol: lvs.TCP, Client: netip.MustParseAddrPort(family.client + ":40000"), Virtual: key.Address,
				RealServer: netip.MustParseAddrPort(one), State: lvs.StateEstablished,
			}
			insert := func(c lvs.Connection, want bool) {
				t.Helper()
				if made, err := r.Insert(c); err != nil || made != want {
					t.Errorf("insert: %v %v", made, err)
				}
			}
			insert(c, true)
			insert(c, false)
			if list := r.connections(); len(list) != 1 || list[0].Client != c.Client || list[0].Virtual != c.Virtual || list[0].RealServer != c.RealServer || list[0].State != c.State {
				t.Errorf("connections %+v", list)
			}
			if verdict, _ := r.send(frame{client: c.Client.String(), vip: c.Virtual.String(), flags: "A"}.bytes(t)); verdict != xdpTX {
				t.Errorf("a packet of it: verdict %d", verdict)
			}
			if got := r.counts(key, one); got != (lvs.Counts{Active: 1}) {
				t.Errorf("counts %+v", got)
			}
			for _, want := range []bool{true, false} {
				if was, err := r.DeleteConnection(c); err != nil || was != want {
					t.Errorf("delete: %v %v", was, err)
				}
			}
			if got := r.counts(key, one); got != (lvs.Counts{}) || len(r.connections()) != 0 {
				t.Errorf("after delete: counts %+v, %d connections", got, len(r.connections()))
			}
			for port := range uint16(100) {
				c.Client = netip.AddrPortFrom(c.Client.Addr(), 1000+port)
				insert(c, true)
			}
			if swept, err := r.Flush(); err != nil || swept.Seen != 100 || swept.Ended != 100 {
				t.Errorf("flush: %+v %v", swept, err)
			}
			if got := r.counts(key, one); got != (lvs.Counts{}) || len(r.connections()) != 0 {
				t.Errorf("after flush: counts %+v, %d connections", got, len(r.connections()))
			}
			c.RealServer = netip.MustParseAddrPort(serverName(family.server, 9))
			if _, err := r.Insert(c); err == nil {
				t.Error("a connection to a real server that is none was made")
			}
		})
	}
}
