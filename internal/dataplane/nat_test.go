// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// natClients is where clients are: a segment of its own, which replies leave by.
var natClients = map[int]struct{ client, stranger, vip, server string }{
	4: {"192.0.2.9:40000", "192.0.2.77:40000", "198.51.100.1:80", "10.0.0.1:8080"},
	6: {"[2001:db8:2::9]:40000", "[2001:db8:2::77]:40000", "[2001:db8::1]:80", "[fd00::1]:8080"},
}

// outside makes the clients' segment: replies go by the kernel's routes. It returns its
// interface.
func (r *rig) outside() netlink.Link {
	r.t.Helper()
	link := newOutside(r.t)
	index := uint32(link.Attrs().Index)
	if err := r.objects.Exits.Put(index, bpfExit{Ifindex: index, Vlan: uint16(bpfHopStateVLAN_KEEP), Mtu: 1500}); err != nil {
		r.t.Fatal(err)
	}
	return link
}

func newOutside(t testing.TB) netlink.Link {
	t.Helper()
	for _, knob := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+knob, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "outside", HardwareAddr: outMAC}, PeerName: "outsidep"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(pair) })
	for _, name := range []string{"outside", "outsidep"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName("outside")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.1/24", "2001:db8:2::1/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []string{"192.0.2.9", "2001:db8:2::9"} {
		addr := netip.MustParseAddr(a)
		n := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: family(addr), IP: addr.AsSlice(), HardwareAddr: clientMAC, State: netlink.NUD_PERMANENT}
		if err := netlink.NeighSet(n); err != nil {
			t.Fatal(err)
		}
	}
	return link
}

func natServer(address string, weight uint32) lvs.RealServer {
	return lvs.RealServer{Address: netip.MustParseAddrPort(address), Method: lvs.NAT, Weight: weight}
}

// hops sets the time to live of a frame and its source's MAC address, and makes the
// IPv4 checksum anew.
func hops(in []byte, ttl byte, from net.HardwareAddr) []byte {
	out := append([]byte(nil), in...)
	copy(out[6:], from)
	ip := 14
	for binary.BigEndian.Uint16(out[ip-2:]) == 0x8100 {
		ip += 4
	}
	if out[ip]>>4 == 6 {
		out[ip+7] = ttl
		return out
	}
	out[ip+8] = ttl
	header := out[ip : ip+int(out[ip]&15)*4]
	header[10], header[11] = 0, 0
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	return out
}

// noChecksum takes the UDP checksum out of a frame.
func noChecksum(ip int) func([]byte) []byte {
	return func(f []byte) []byte {
		at := 14 + ip + 6
		f[at], f[at+1] = 0, 0
		return f
	}
}

// Every kind of packet leaves with the addresses, ports and checksums that a frame built
// for the other end from nothing has: there, and back.
func TestNATPackets(t *testing.T) {
	options := func(ip *layers.IPv4) {
		ip.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}, {OptionType: 1}}
	}
	mss := func(tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{5, 0xb4}}}
	}
	extension := []gopacket.SerializableLayer{gopacket.Payload([]byte{6, 0, 1, 4, 0, 0, 0, 0})}
	extensionUDP := []gopacket.SerializableLayer{gopacket.Payload([]byte{17, 0, 1, 4, 0, 0, 0, 0})}
	cases := map[string]frame{
		"SYN":                 {},
		"SYN with options":    {mutateTCP: mss},
		"data":                {flags: "A", payload: 1000},
		"an odd length":       {flags: "A", payload: 333},
		"FIN":                 {flags: "FA"},
		"RST":                 {flags: "R"},
		"a tag":               {vlans: []uint16{10}, flags: "A", payload: 9},
		"IPv4 options":        {flags: "A", payload: 5, mutateIP4: options},
		"an extension":        {flags: "A", payload: 5, extensions: extension, next: layers.IPProtocolIPv6Destination},
		"UDP":                 {udp: true, payload: 100},
		"UDP, odd":            {udp: true, payload: 101},
		"UDP, empty":          {udp: true},
		"UDP, no checksum":    {udp: true, payload: 20, raw: noChecksum(20)},
		"UDP behind a header": {udp: true, payload: 20, extensions: extensionUDP, next: layers.IPProtocolIPv6Destination},
	}
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			r := newRig(t)
			r.outside()
			a := natClients[family]
			r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
			r.service("udp "+a.vip, lvs.RR, natServer(a.server, 1))
			for name, f := range cases {
				if family == 4 && f.extensions == nil || family == 6 && f.mutateIP4 == nil && f.raw == nil {
					r.bothWays(name, family, f)
				}
			}
		})
	}
}

// bothWays sends a packet of a connection of its own there, and the same back.
func (r *rig) bothWays(name string, family int, f frame) {
	r.t.Helper()
	a := natClients[family]
	client := netip.MustParseAddrPort(a.client)
	a.client = netip.AddrPortFrom(client.Addr(), uint16(1000+len(r.connections()))).String()
	open := frame{client: a.client, vip: a.vip, udp: f.udp}
	if verdict, _ := r.send(open.bytes(r.t)); verdict != xdpTX {
		r.t.Fatalf("%s: opening it: verdict %d, reasons %v", name, verdict, r.reasons())
	}
	key := parseKey(map[bool]string{false: "tcp ", true: "udp "}[f.udp] + a.vip)
	before := r.status(key, a.server).Stats

	f.client, f.vip = a.client, a.vip
	there := f
	there.vip, there.to = a.server, serverMAC
	verdict, out := r.send(f.bytes(r.t))
	if verdict != xdpTX {
		r.t.Errorf("%s: there: verdict %d, reasons %v", name, verdict, r.reasons())
	}
	r.wantBytes(out, hops(there.bytes(r.t), 63, directorMAC))

	f.client, f.vip = a.server, a.client
	back := f
	back.client, back.to, back.vlans = a.vip, clientMAC, nil
	verdict, out = r.send(f.bytes(r.t))
	if verdict != xdpRedirect {
		r.t.Errorf("%s: back: verdict %d, reasons %v", name, verdict, r.reasons())
	}
	r.wantBytes(out, hops(back.bytes(r.t), 63, outMAC))
	s := r.status(key, a.server).Stats
	if s.InPackets != before.InPackets+1 || s.OutPackets != before.OutPackets+1 || s.Connections != before.Connections || s.OutBytes <= before.OutBytes {
		r.t.Errorf("%s: statistics %+v, before %+v", name, s, before)
	}
}

// What comes from a real server and belongs to no connection is the kernel's, bit for bit;
// and so is what comes from somebody else.
func TestNATLeavesTheRest(t *testing.T) {
	r := newRig(t)
	r.outside()
	a := natClients[4]
	r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
	r.send(frame{client: a.client, vip: a.vip}.bytes(t))
	for name, f := range map[string]frame{
		"another port":            {client: "10.0.0.1:8081", vip: a.client, flags: "SA"},
		"another client":          {client: a.server, vip: a.stranger, flags: "SA"},
		"another port there":      {client: a.server, vip: "192.0.2.9:40001", flags: "SA"},
		"its own connection":      {client: "10.0.0.1:50000", vip: "203.0.113.5:443"},
		"UDP":                     {client: a.server, vip: a.client, udp: true},
		"another machine":         {client: "10.0.0.2:8080", vip: a.client, flags: "SA"},
		"cut short":               {client: "10.0.0.1:8081", vip: a.client, flags: "SA", raw: func(b []byte) []byte { return b[:40] }},
		"for another MAC address": {client: a.server, vip: a.client, flags: "SA", to: outMAC},
	} {
		in := f.bytes(t)
		verdict, out := r.send(in)
		if verdict != xdpPass {
			t.Errorf("%s: verdict %d", name, verdict)
		}
		r.wantBytes(out, in)
	}
	if got := r.reasons()["NOT_OURS"]; got != 6 {
		t.Errorf("reasons %v", r.reasons())
	}
}

// A connection of which both directions are seen goes through IPVS's states for NAT.
func TestNATStates(t *testing.T) {
	type packet struct {
		reply bool
		flags string
		state lvs.State
		idle  time.Duration
	}
	for name, packets := range map[string][]packet{
		"opened, and closed by the client": {
			{false, "S", lvs.StateSynRecv, time.Minute}, {true, "SA", lvs.StateSynRecv, time.Minute}, {false, "A", lvs.StateEstablished, 15 * time.Minute},
			{true, "A", lvs.StateEstablished, 15 * time.Minute}, {false, "FA", lvs.StateCloseWait, time.Minute}, {true, "FA", lvs.StateTimeWait, 2 * time.Minute},
			{false, "A", lvs.StateTimeWait, 2 * time.Minute},
		},
		"closed by the real server": {
			{false, "S", lvs.StateSynRecv, time.Minute}, {false, "A", lvs.StateEstablished, 15 * time.Minute}, {true, "FA", lvs.StateFinWait, 2 * time.Minute},
			{false, "A", lvs.StateFinWait, 2 * time.Minute}, {false, "FA", lvs.StateTimeWait, 2 * time.Minute},
		},
		"refused":       {{false, "S", lvs.StateSynRecv, time.Minute}, {true, "RA", lvs.StateClose, 10 * time.Second}},
		"reset by both": {{false, "S", lvs.StateSynRecv, time.Minute}, {false, "A", lvs.StateEstablished, 15 * time.Minute}, {true, "R", lvs.StateClose, 10 * time.Second}, {false, "R", lvs.StateClose, 10 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.outside()
			a := natClients[4]
			key := r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
			for i, p := range packets {
				r.now += 5 * time.Second
				f := frame{client: a.client, vip: a.vip, flags: p.flags}
				if p.reply {
					f.client, f.vip = a.server, a.client
				}
				if verdict, _ := r.send(f.bytes(t)); verdict != xdpTX && verdict != xdpRedirect {
					t.Fatalf("packet %d: verdict %d, reasons %v", i, verdict, r.reasons())
				}
				list := r.connections()
				if len(list) != 1 || list[0].State != p.state || time.Duration(list[0].Expires) != p.idle {
					t.Fatalf("packet %d: %+v, want %s for %v", i, list, p.state, p.idle)
				}
				want := lvs.Counts{Inactive: 1}
				if p.state.Active() {
					want = lvs.Counts{Active: 1}
				}
				if got := r.counts(key, a.server); got != want {
					t.Errorf("packet %d: counts %+v, want %+v", i, got, want)
				}
			}
		})
	}
}

// What a real server says does not make its client's UDP flow one that was heard of twice.
func TestNATRepliesDoNotEstablishUDP(t *testing.T) {
	r := newRig(t)
	r.outside()
	a := natClients[4]
	r.service("udp "+a.vip, lvs.RR, natServer(a.server, 1))
	r.send(frame{client: a.client, vip: a.vip, udp: true}.bytes(t))
	state := func() bpfConnState {
		t.Helper()
		for i := range r.arrays.four.items {
			for _, slot := range r.arrays.four.items[i].Slots {
				if w := decodeWord(slot.Word); w.alive() {
					return w.state
				}
			}
		}
		t.Fatal("no connection")
		return 0
	}
	for range 3 {
		r.now += 5 * time.Second
		r.send(frame{client: a.server, vip: a.client, udp: true, payload: 4}.bytes(t))
	}
	if got := state(); got != bpfConnStateSTATE_UDP_NEW {
		t.Errorf("state %d after replies", got)
	}
	r.now += 3 * time.Minute
	r.send(frame{client: a.server, vip: a.client, udp: true, payload: 4}.bytes(t))
	if left := time.Duration(r.connections()[0].Expires); left != 5*time.Minute {
		t.Errorf("idle time %v after replies", left)
	}
	r.now += tick
	r.send(frame{client: a.client, vip: a.vip, udp: true}.bytes(t))
	if got := state(); got != bpfConnStateSTATE_UDP {
		t.Errorf("state %d after the client's second packet", got)
	}
}

// A router's part: the last hop, a client that is not known, and forwarding that is off.
func TestNATRefusals(t *testing.T) {
	r := newRig(t)
	link := r.outside()
	a := natClients[4]
	r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
	last := func(ip *layers.IPv4) { ip.TTL = 1 }
	if verdict, _ := r.send(frame{client: a.client, vip: a.vip, mutateIP4: last}.bytes(t)); verdict != xdpDrop || r.reasons()["TTL_EXPIRED"] != 1 {
		t.Errorf("a SYN's last hop: verdict %d, reasons %v", verdict, r.reasons())
	}
	if n := len(r.connections()); n != 0 {
		t.Errorf("it made %d connections", n)
	}
	for _, client := range []string{a.client, a.stranger} {
		r.send(frame{client: client, vip: a.vip}.bytes(t))
	}
	r.wantSought(a.stranger, link) // before its first reply
	if verdict, _ := r.send(frame{client: a.server, vip: a.client, flags: "SA", mutateIP4: last}.bytes(t)); verdict != xdpDrop || r.reasons()["TTL_EXPIRED"] != 2 {
		t.Errorf("a reply's last hop: verdict %d, reasons %v", verdict, r.reasons())
	}
	if verdict, _ := r.send(frame{client: a.server, vip: a.stranger, flags: "SA"}.bytes(t)); verdict != xdpDrop || r.reasons()["NO_NEIGHBOUR"] != 1 {
		t.Errorf("an unknown client: verdict %d, reasons %v", verdict, r.reasons())
	}
	r.wantSought(a.stranger, link)
	big := frame{client: a.server, vip: a.client, flags: "A", payload: 1461}
	if verdict, _ := r.send(big.bytes(t)); verdict != xdpDrop || r.reasons()["TOO_BIG"] != 1 {
		t.Errorf("a reply of 1501 bytes: verdict %d, reasons %v", verdict, r.reasons())
	}
	forward := func(value string) {
		t.Helper()
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/lo/forwarding", []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	forward("0")
	defer forward("1")
	if verdict, _ := r.send(frame{client: a.server, vip: a.client, flags: "SA"}.bytes(t)); verdict != xdpDrop || r.reasons()["NOT_FORWARDING"] != 1 {
		t.Errorf("without forwarding: verdict %d, reasons %v", verdict, r.reasons())
	}
}

// wantSought has the kernel asked for a client's MAC address, as Run does.
func (r *rig) wantSought(client string, link netlink.Link) {
	r.t.Helper()
	asked := make(chan netip.Addr, 1)
	ctx, cancel := context.WithCancel(r.t.Context())
	var reader sync.WaitGroup
	reader.Go(func() {
		r.soughtLoop(ctx, func(addr netip.Addr, index int) {
			if index != link.Attrs().Index {
				return
			}
			select {
			case asked <- addr:
			default: // one is enough
			}
		})
	})
	defer reader.Wait() // or it takes what the next one waits for
	defer cancel()
	select {
	case addr := <-asked:
		if addr != netip.MustParseAddrPort(client).Addr() {
			r.t.Errorf("asked for %s", addr)
		}
	case <-time.After(5 * time.Second):
		r.t.Error("nobody was asked for")
	}
}

// Two services with one real server, address and port: each reply goes back as the VIP
// that its client asked, and a client that asks both from one port is told apart.
func TestNATSharedRealServer(t *testing.T) {
	r := newRig(t)
	r.outside()
	a := natClients[4]
	first := r.service("tcp 198.51.100.1:80", lvs.RR, natServer(a.server, 1))
	r.service("tcp 198.51.100.2:443", lvs.RR, natServer(a.server, 1))
	r.send(frame{client: a.client, vip: "198.51.100.1:80"}.bytes(t))
	r.send(frame{client: "192.0.2.9:40001", vip: "198.51.100.2:443"}.bytes(t))
	for client, vip := range map[string]string{a.client: "198.51.100.1:80", "192.0.2.9:40001": "198.51.100.2:443"} {
		verdict, out := r.send(frame{client: a.server, vip: client, flags: "SA"}.bytes(t))
		if verdict != xdpRedirect {
			t.Errorf("%s: verdict %d, reasons %v", vip, verdict, r.reasons())
		}
		r.wantBytes(out, hops(frame{client: vip, vip: client, flags: "SA", to: clientMAC}.bytes(t), 63, outMAC))
	}
	if verdict, _ := r.send(frame{client: a.client, vip: "198.51.100.2:443"}.bytes(t)); verdict != xdpDrop || r.reasons()["TUPLE_TAKEN"] != 1 {
		t.Errorf("both from one port: verdict %d, reasons %v", verdict, r.reasons())
	}
	if n := len(r.connections()); n != 2 {
		t.Errorf("%d connections", n)
	}

	// Without its service the first connection's replies go on; without its connection they are the kernel's.
	if err := r.Delete(first); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	reply := frame{client: a.server, vip: a.client, flags: "A"}.bytes(t)
	if verdict, _ := r.send(reply); verdict != xdpRedirect {
		t.Errorf("after the service: verdict %d, reasons %v", verdict, r.reasons())
	}
	if repaired, err := r.Repair(); len(repaired) > 0 || err != nil {
		t.Errorf("repaired %q %v", repaired, err)
	}
	r.now += time.Hour
	r.sweep()
	r.reclaim()
	if verdict, _ := r.send(reply); verdict != xdpPass {
		t.Errorf("after the connection: verdict %d", verdict)
	}
	if repaired, err := r.Repair(); len(repaired) > 0 || err != nil {
		t.Errorf("repaired %q %v", repaired, err)
	}
}

// What packets need for replies is there while they are needed: after a restart, a change
// of the method, with the last real server, and when somebody damages it.
func TestNATMaps(t *testing.T) {
	r := newRig(t)
	r.outside()
	a := natClients[4]
	key := r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
	reply := frame{client: a.server, vip: a.client, flags: "SA"}.bytes(t)
	r.send(frame{client: a.client, vip: a.vip}.bytes(t))
	passes := func(when string, want uint32) {
		t.Helper()
		if verdict, _ := r.send(reply); verdict != want {
			t.Errorf("%s: verdict %d, want %d; reasons %v", when, verdict, want, r.reasons())
		}
	}
	passes("at first", xdpRedirect)
	r.reopen(r.options)
	passes("after a restart", xdpRedirect)
	for what, damage := range map[string]func() error{
		"real server tcp 10.0.0.1:8080 was missing from the map backends": func() error {
			return r.objects.Backends.Delete(r.backendKey(r.table.servers[serverKey{key, netip.MustParseAddrPort(a.server)}]))
		},
		"address 10.0.0.1 was changed in the map addresses": func() error {
			return r.objects.Addresses.Put(encodeAddr(netip.MustParseAddr("10.0.0.1")), uint32(bpfGlanceVIP_DESTINATION))
		},
		"what is in use was changed in the map uses": func() error { return r.objects.Uses.Put(uint32(0), bpfUses{}) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if repaired, err := r.Repair(); err != nil || len(repaired) != 1 || repaired[0] != what {
			t.Errorf("repaired %q %v, want %q", repaired, err, what)
		}
		passes("after "+what, xdpRedirect)
	}
	direct := lvs.Service{ServiceKey: parseKey("tcp 198.51.100.3:8080"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{natServer(a.server, 1)}}
	if err := r.Put(direct); err != nil {
		t.Fatal(err)
	}
	direct.RealServers[0].Method = lvs.DR
	if err := r.Put(direct); err != nil {
		t.Fatal(err)
	}
	passes("after another service's method changed", xdpRedirect)
	if n := len(r.table.backends[r.backendKey(0)]); n != 1 {
		t.Errorf("%d real servers that replies may be of", n)
	}
	if _, err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []lvs.ServiceKey{key, direct.ServiceKey} {
		if err := r.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
	r.reclaim()
	passes("after all", xdpPass)
	if r.arrays.uses.items[0].Nat != 0 || len(r.table.backends) != 0 || len(r.table.vips.all) != 0 {
		t.Errorf("left: uses %d, %v, %v", r.arrays.uses.items[0].Nat, r.table.backends, r.table.vips.all)
	}
}

// More services than a reply is looked for in are refused, and nothing is left of it.
func TestNATTooManyServices(t *testing.T) {
	r := newRig(t)
	service := func(n int) lvs.Service {
		return lvs.Service{ServiceKey: parseKey(fmt.Sprintf("tcp 198.51.100.%d:80", n)), Scheduler: lvs.RR, RealServers: []lvs.RealServer{natServer("10.0.0.1:8080", 1)}}
	}
	for n := range 7 {
		if err := r.Put(service(1 + n)); err != nil {
			t.Fatal(err)
		}
	}
	err := r.Put(service(8))
	if err == nil || len(r.load()) != 7 || len(r.table.servers) != 7 {
		t.Errorf("an eighth: %v; %d services, %d real servers", err, len(r.load()), len(r.table.servers))
	}
	t.Log(err)
	if repaired, err := r.Repair(); len(repaired) > 0 || err != nil {
		t.Errorf("repaired %q %v", repaired, err)
	}
}

// Nobody asks from where replies come from, or from a service: forged, it would have two
// servers answer each other. And what the director itself asked is the kernel's.
func TestNATForgedSources(t *testing.T) {
	r := newRig(t)
	r.outside()
	for _, protocol := range []string{"tcp", "udp"} {
		r.service(protocol+" 198.51.100.1:80", lvs.RR, natServer("10.0.0.1:8080", 1), natServer("10.0.0.2:8080", 1))
	}
	for _, udp := range []bool{false, true} {
		for _, from := range []string{"198.51.100.1:80", "10.0.0.1:8080", "10.0.0.2:8080"} {
			if verdict, _ := r.send(frame{client: from, vip: "198.51.100.1:80", udp: udp}.bytes(t)); verdict != xdpDrop {
				t.Errorf("from %s: verdict %d, reasons %v", from, verdict, r.reasons())
			}
		}
	}
	if n := len(r.connections()); n != 0 || r.reasons()["TUPLE_TAKEN"] != 6 {
		t.Errorf("%d connections, reasons %v", n, r.reasons())
	}
	r.send(frame{client: "192.0.2.1:5000", vip: "198.51.100.1:80"}.bytes(t)) // forged: the director's own address
	own := frame{client: "10.0.0.1:8080", vip: "192.0.2.1:5000", flags: "SA"}.bytes(t)
	verdict, out := r.send(own)
	if verdict != xdpPass {
		t.Errorf("a reply to the director itself: verdict %d, reasons %v", verdict, r.reasons())
	}
	r.wantBytes(out, own)
}

// A route's MTU counts for replies as it does for the kernel's own forwarding, if it is
// locked; and the director itself cannot be a real server of nat.
func TestNATWays(t *testing.T) {
	r := newRig(t)
	link := r.outside()
	a := natClients[4]
	r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
	r.send(frame{client: a.client, vip: a.vip}.bytes(t))
	narrow := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IP{192, 0, 2, 9}, Mask: net.CIDRMask(32, 32)}, MTU: 1280, MTULock: true}
	if err := netlink.RouteAdd(narrow); err != nil {
		t.Fatal(err)
	}
	for payload, want := range map[int]uint32{1240: xdpRedirect, 1241: xdpDrop} {
		if verdict, _ := r.send(frame{client: a.server, vip: a.client, flags: "A", payload: payload}.bytes(t)); verdict != want {
			t.Errorf("%d bytes: verdict %d, reasons %v", 40+payload, verdict, r.reasons())
		}
	}
	r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_LOCAL})
	if verdict, _ := r.send(frame{client: "192.0.2.9:41000", vip: a.vip}.bytes(t)); verdict != xdpDrop || r.reasons()["NO_ROUTE"] != 1 || len(r.connections()) != 1 {
		t.Errorf("to itself: verdict %d, reasons %v, %d connections", verdict, r.reasons(), len(r.connections()))
	}
}
