// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lvx/internal/lvs"
)

// The parts of frames, written as they stand on the wire.
const (
	ethernet4 = "020000002001 0200000020fe 0800"
	tagged4   = "020000002001 0200000020fe 8100 6014 0800" // VLAN 20, priority 3
	twice4    = "020000002001 0200000020fe 88a8 0007 8100 0014 0800"
	ethernet6 = "020000002001 0200000020fe 86dd"
	ipv4      = "4500 003c 1c46 4000 3f06 0000 cb007109 c0a81464" // 60 bytes, TCP, TTL 63
	later4    = "4500 003c 1c46 0005 3f06 0000 cb007109 c0a81464"
	ipv6      = "60000000 0014 06 3f 20010db8011300000000000000000009 fd000020000000000000000000000100"
	udp6      = "60000000 0008 11 3f 20010db8011300000000000000000009 fd000020000000000000000000000100"
	syn       = "9c40 0050 00000001 00000000 a002 faf0 0000 0000 020405b4 0402080a 00000000 00000000 01030307" // 40 bytes
	ack       = "9c40 0050 00000001 00000002 5010 faf0 0000 0000"                                              // 20 bytes
	udp       = "9c40 0050 0008 0000"

	// Outer headers, from the director to a real server.
	ipip4 = "4500 0050 0000 4000 4004 0000 c0a81401 c0a81f0b"
	sit4  = "4500 0050 0000 4000 4029 0000 c0a81401 c0a81f0b" // IPv6 inside
	ipip6 = "60000000 003c 04 40 fd000020000000000000000000000001 fd000031000000000000000000000011"
	six6  = "60000000 003c 29 40 fd000020000000000000000000000001 fd000031000000000000000000000011"
	gre4  = "4500 0054 0000 4000 402f 0000 c0a81401 c0a81f0b 0000 0800"
	greC6 = "60000000 0044 2f 40 fd000020000000000000000000000001 fd000031000000000000000000000011 8000 86dd ffff 0000" // with checksum
	gue4  = "4500 005c 0000 4000 4011 0000 c0a81401 c0a81f0b d431 17c0 0048 0000 0004 0000"
	gueR4 = "4500 0060 0000 4000 4011 0000 c0a81401 c0a81f0b d431 17c0 004c 0000 0104 0020 00000000" // a word more
	gue14 = "4500 0058 0000 4000 4011 0000 c0a81401 c0a81f0b d431 17c0 0044 0000"                    // version 1
)

func wire(t *testing.T, parts ...string) Frame {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return Frame{Data: data, Length: len(data)}
}

func TestDecode(t *testing.T) {
	macs := Packet{SourceMAC: MAC{2, 0, 0, 0, 0x20, 0xfe}, DestinationMAC: MAC{2, 0, 0, 0, 0x20, 1}}
	with := func(change ...func(*Packet)) Packet {
		p := macs
		for _, c := range change {
			c(&p)
		}
		return p
	}
	v4 := func(p *Packet) {
		p.Type, p.Protocol, p.TTL = typeIPv4, protocolTCP, 63
		p.Source, p.Destination = netip.MustParseAddrPort("203.0.113.9:40000"), netip.MustParseAddrPort("192.168.20.100:80")
	}
	v6 := func(p *Packet) {
		p.Type, p.Protocol, p.TTL = typeIPv6, protocolTCP, 63
		p.Source, p.Destination = netip.MustParseAddrPort("[2001:db8:113::9]:40000"), netip.MustParseAddrPort("[fd00:20::100]:80")
	}
	isSYN := func(p *Packet) { p.Seq, p.Flags = 1, SYN }
	isACK := func(p *Packet) { p.Seq, p.Ack, p.Flags = 1, 2, ACK }
	vlan := func(id uint16) func(*Packet) { return func(p *Packet) { p.VLAN = id } }
	noPorts := func(p *Packet) {
		p.Source, p.Destination = netip.AddrPortFrom(p.Source.Addr(), 0), netip.AddrPortFrom(p.Destination.Addr(), 0)
	}
	in := func(tunnel string, ports ...uint16) func(*Packet) {
		return func(p *Packet) {
			p.Outer = Outer{Tunnel: tunnel, Source: netip.MustParseAddr("192.168.20.1"), Destination: netip.MustParseAddr("192.168.31.11"), TTL: 64}
			if p.Type = typeIPv4; len(ports) > 0 {
				p.Outer.SourcePort, p.Outer.DestinationPort = ports[0], ports[1]
			}
		}
	}
	in6 := func(tunnel string) func(*Packet) {
		return func(p *Packet) {
			p.Outer = Outer{Tunnel: tunnel, Source: netip.MustParseAddr("fd00:20::1"), Destination: netip.MustParseAddr("fd00:31::11"), TTL: 64}
			p.Type = typeIPv6
		}
	}
	for name, c := range map[string]struct {
		frame Frame
		want  Packet
	}{
		"IPv4 in IPv4":         {wire(t, ethernet4, ipip4, ipv4, syn), with(v4, isSYN, in("ipip"))},
		"IPv6 in IPv4":         {wire(t, ethernet4, sit4, ipv6, ack), with(v6, isACK, in("ipip"))},
		"IPv4 in IPv6":         {wire(t, ethernet6, ipip6, ipv4, syn), with(v4, isSYN, in6("ipip"))},
		"IPv6 in IPv6":         {wire(t, ethernet6, six6, ipv6, ack), with(v6, isACK, in6("ipip"))},
		"GRE":                  {wire(t, ethernet4, gre4, ipv4, syn), with(v4, isSYN, in("gre"))},
		"GRE with checksum":    {wire(t, ethernet6, greC6, ipv6, ack), with(v6, isACK, in6("gre"))},
		"GUE":                  {wire(t, ethernet4, gue4, ipv4, syn), with(v4, isSYN, in("gue", 54321, 6080))},
		"GUE with options":     {wire(t, ethernet4, gueR4, ipv4, syn), with(v4, isSYN, in("gue", 54321, 6080))},
		"GUE of version 1":     {wire(t, ethernet4, gue14, ipv4, syn), with(v4, isSYN, in("gue", 54321, 6080))},
		"a tunnel in a VLAN":   {wire(t, tagged4, ipip4, ipv4, syn), with(v4, isSYN, in("ipip"), vlan(20))},
		"half a packet inside": {wire(t, ethernet4, ipip4, "4500"), with(in("ipip"))},
		"nothing inside":       {wire(t, ethernet4, ipip4), with(func(p *Packet) { outerAlone(p, protocolIPv4) })},
		"half a GRE":           {wire(t, ethernet4, gre4[:len(gre4)-5]), with(func(p *Packet) { outerAlone(p, protocolGRE) })},

		"SYN":             {wire(t, ethernet4, ipv4, syn), with(v4, isSYN)},
		"payload":         {wire(t, ethernet4, ipv4, ack), with(v4, isACK, func(p *Packet) { p.Payload = 20 })}, // cut off
		"VLAN":            {wire(t, tagged4, ipv4, syn), with(v4, isSYN, vlan(20))},
		"two tags":        {wire(t, twice4, ipv4, syn), with(v4, isSYN, vlan(7))},
		"later fragment":  {wire(t, ethernet4, later4, syn), with(v4, noPorts)},
		"IPv6":            {wire(t, ethernet6, ipv6, ack), with(v6, isACK)},
		"UDP":             {wire(t, ethernet6, udp6, udp), with(v6, func(p *Packet) { p.Protocol = protocolUDP })},
		"no TCP header":   {wire(t, ethernet4, ipv4, "9c40"), with(v4, noPorts)},
		"half an IP":      {wire(t, ethernet4, "4500"), with(func(p *Packet) { p.Type = typeIPv4 })},
		"ARP":             {wire(t, "020000002001 0200000020fe 0806 0001"), with(func(p *Packet) { p.Type = typeARP })},
		"bad IPv4 header": {wire(t, ethernet4, "41"+ipv4[2:], syn), with(v4, noPorts)},
		"shorter than 14": {wire(t, "020000002001"), Packet{}},
	} {
		if got := c.frame.Decode(); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, c.want)
		}
	}
}

// outerAlone is a packet to a real server in which nothing is found.
func outerAlone(p *Packet, protocol uint8) {
	p.Type, p.Protocol, p.TTL = typeIPv4, protocol, 64
	p.Source, p.Destination = netip.MustParseAddrPort("192.168.20.1:0"), netip.MustParseAddrPort("192.168.31.11:0")
}

// FuzzDecode: no input may panic.
func FuzzDecode(f *testing.F) {
	for _, parts := range []string{ethernet4 + ipv4 + syn, twice4 + ipv4 + ack, ethernet6 + udp6 + udp,
		ethernet4 + ipip4 + ipv4 + syn, ethernet6 + greC6 + ipv6 + ack, ethernet4 + gueR4 + ipv4 + syn} {
		data, err := hex.DecodeString(strings.ReplaceAll(parts, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(_ *testing.T, data []byte) { Frame{Data: data}.Decode() })
}

func TestMACText(t *testing.T) {
	want := MAC{2, 0, 0, 0, 0x20, 0x0b}
	var got MAC
	if err := got.UnmarshalText([]byte("02:00:00:00:20:0b")); err != nil || got != want || got.String() != "02:00:00:00:20:0b" {
		t.Errorf("got %s, %v", got, err)
	}
	if err := got.UnmarshalText([]byte("02:00")); err == nil {
		t.Error("half a MAC address is accepted")
	}
}

func TestTCPFlags(t *testing.T) {
	if s := (SYN | ACK).String(); s != "SYN-ACK" {
		t.Errorf("SYN and ACK are %q", s)
	}
}

// at makes a frame seen at a port.
func at(f Frame, port string, toHost bool) Frame {
	f.Port, f.ToHost, f.Data = port, toHost, slices.Clone(f.Data)
	return f
}

func TestWalkAndReplies(t *testing.T) {
	service := Served{Service: netip.MustParseAddrPort("192.168.20.100:80")}
	in := wire(t, ethernet4, ipv4, syn)
	sent := wire(t, "02000000200b 020000002001 0800", ipv4, syn)
	changed := at(sent, "", false)
	changed.Data[14+8]-- // TTL
	reply := wire(t, "0200000020fe 02000000200b 0800", ipv4[:30], "c0a81464 cb007109", "0050 9c40 00000001 00000002 5012 faf0 0000 0000")
	other := wire(t, ethernet4, strings.Replace(ipv4, "7109", "7108", 1), syn)
	frames := []Frame{
		at(in, Router, false), at(in, Director, true),
		at(other, Router, false), at(other, Director, true),
		at(sent, Director, false), at(sent, "rs1", true),
		at(changed, Director, false), // and lost
		at(reply, "rs1", false), at(reply, Router, true),
	}
	var got []string
	for _, h := range walk(frames, service) {
		same := ""
		if h.Same {
			same = " same"
		}
		got = append(got, h.From+">"+h.To+" "+h.Flags+same)
	}
	want := []string{"router>director SYN", "director>rs1 SYN same", "director> SYN", "rs1>router SYN-ACK"}
	if !slices.Equal(got, want) {
		t.Errorf("walk:\n got %q\nwant %q", got, want)
	}
	if r := CountReplies(frames, service); r != (Replies{FromRealServers: 1, ToRouter: 1}) {
		t.Errorf("replies: %+v", r)
	}
	frames = append(frames, at(reply, Director, true))
	if r := CountReplies(frames, service); r != (Replies{FromRealServers: 1, ToRouter: 1, ThroughDirector: 1}) {
		t.Errorf("replies with one through the director: %+v", r)
	}
	if hops := walk(nil, service); hops != nil {
		t.Errorf("a walk of nothing: %+v", hops)
	}
}

// step is a frame's way: sent by a host, seen at the port of another.
func step(f Frame, from, to string) []Frame { return []Frame{at(f, from, false), at(f, to, true)} }

// The story of a walk, as its hops tell it.
func walkLines(frames []Frame, s Served, method lvs.Method) (lines []string) {
	r := DemoResult{Method: method, Service: s.Service.String(), Walk: walk(frames, s)}
	for _, h := range r.Walk {
		var out strings.Builder
		r.tellHop(&out, h)
		lines = append(lines, fmt.Sprintf("%s>%s %s", h.From, h.To, h.Frame))
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "MAC ") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// TestWalkOfNAT follows SYN and SYN-ACK through a director with two interfaces.
func TestWalkOfNAT(t *testing.T) {
	served := Served{netip.MustParseAddrPort("192.168.20.100:80"), []netip.AddrPort{netip.MustParseAddrPort("192.168.10.11:8080")}}
	const (
		answer    = "00000009 00000002 5012 faf0 0000 0000"
		toReal    = "4500 003c 1c46 4000 3e06 0000 cb007109 c0a80a0b"
		fromReal  = "4500 0028 1c47 4000 4006 0000 c0a80a0b cb007109"
		fromVIP   = "4500 0028 1c47 4000 3f06 0000 c0a81464 cb007109"
		realMACs  = "02000000100b 020000001001 0800"
		backMACs  = "020000001001 02000000100b 0800"
		frontMACs = "0200000020fe 020000002001 0800"
	)
	back := wire(t, backMACs, fromReal, "1f90 9c40", answer)
	frames := slices.Concat(
		step(wire(t, ethernet4, ipv4, syn), Router, Director),
		step(wire(t, realMACs, toReal, strings.Replace(syn, "0050", "1f90", 1)), "director-eth1", "rs1"),
		step(back, "rs1", "director-eth1"),
		step(wire(t, frontMACs, fromVIP, "0050 9c40", answer), Director, Router))
	want := []string{
		"router>director SYN", "IP   203.0.113.9:40000 → 192.168.20.100:80   TTL 63", answersForVIP,
		"director>rs1 SYN", "IP   203.0.113.9:40000 → 192.168.10.11:8080   TTL 62",
		"changed: MAC addresses, destination address, destination port, TTL",
		"the director made the real server's address and port the destination; the client's own stay the source",
		"rs1>director SYN-ACK", "IP   192.168.10.11:8080 → 203.0.113.9:40000   TTL 64",
		"the real server answers as itself, by its default gateway, which is the director",
		"director>router SYN-ACK", "IP   192.168.20.100:80 → 203.0.113.9:40000   TTL 63",
		"changed: MAC addresses, source address, source port, TTL",
		"the director put the VIP and its port back as the source: the client knows no other address",
	}
	if got := walkLines(frames, served, lvs.NAT); !slices.Equal(got, want) {
		t.Errorf("walk:\n got %q\nwant %q", got, want)
	}
	if r := CountReplies(frames, served); r != (Replies{FromRealServers: 1, ThroughDirector: 1, ToRouter: 1}) {
		t.Errorf("replies: %+v", r)
	}
	// A real server that answers past the director.
	past := slices.Concat(frames, step(back, "rs1", Router))
	if r := CountReplies(past, served); r != (Replies{FromRealServers: 2, ThroughDirector: 1, ToRouter: 1, FromRealServerAddress: 1}) {
		t.Errorf("replies with one past the director: %+v", r)
	}
	if lines := walkLines(past, served, lvs.NAT); !strings.Contains(lines[len(lines)-1], "goes past the director") {
		t.Errorf("a reply past the director: %q", lines)
	}
}

// TestWalkOfTun follows SYN and SYN-ACK by way of a tunnel through a router.
func TestWalkOfTun(t *testing.T) {
	served := Served{Service: netip.MustParseAddrPort("192.168.20.100:80")}
	reply := wire(t, "0200000031fe 02000000310b 0800", strings.Replace(ipv4[:30], "003c", "0028", 1), "c0a81464 cb007109", "0050 9c40 00000001 00000002 5012 faf0 0000 0000")
	fewer := strings.Replace(ipip4, "4004", "3f04", 1)
	frames := slices.Concat(
		step(wire(t, ethernet4, ipv4, syn), Router, Director),
		step(wire(t, "0200000020fe 020000002001 0800", ipip4, ipv4, syn), Director, Router),
		step(wire(t, "02000000310b 0200000031fe 0800", fewer, ipv4, syn), "router-eth2", "rs1"),
		step(reply, "rs1", "router-eth2"))
	want := []string{
		"router>director SYN", "IP   203.0.113.9:40000 → 192.168.20.100:80   TTL 63", answersForVIP,
		"director>router SYN", "ipip 192.168.20.1 → 192.168.31.11   TTL 64", "IP   203.0.113.9:40000 → 192.168.20.100:80   TTL 63",
		"changed: MAC addresses, outer header put on",
		"the director put the packet, the same bit for bit, into one to the real server",
		"router>rs1 SYN", "ipip 192.168.20.1 → 192.168.31.11   TTL 63", "IP   203.0.113.9:40000 → 192.168.20.100:80   TTL 63",
		"changed: MAC addresses, outer TTL",
		"the router goes by the outer header alone",
		"rs1>router SYN-ACK", "IP   192.168.20.100:80 → 203.0.113.9:40000   TTL 63",
		"the real server took the packet out and answers as the VIP, straight to its router; the director never sees it",
	}
	if got := walkLines(frames, served, lvs.Tun); !slices.Equal(got, want) {
		t.Errorf("walk:\n got %q\nwant %q", got, want)
	}
	if r := CountReplies(frames, served); r != (Replies{FromRealServers: 1, ToRouter: 1, Tunnelled: 1}) {
		t.Errorf("replies: %+v", r)
	}
	if hops := walk(frames, served); !hops[1].Same || !hops[2].Same || hops[3].Same {
		t.Errorf("which packets are the same: %+v", hops)
	}
}

// TestOuterInJSON: a hop without a tunnel says nothing of one.
func TestOuterInJSON(t *testing.T) {
	plain, err := json.Marshal(Hop{})
	if err != nil || strings.Contains(string(plain), "outer") {
		t.Errorf("%s, %v", plain, err)
	}
	in, err := json.Marshal(Hop{Outer: Outer{Tunnel: "ipip", Source: netip.MustParseAddr("192.0.2.1"), Destination: netip.MustParseAddr("192.0.2.2"), TTL: 63}})
	if want := `"outer":{"tunnel":"ipip","source":"192.0.2.1","destination":"192.0.2.2","ttl":63}`; err != nil || !strings.Contains(string(in), want) {
		t.Errorf("%s, %v", in, err)
	}
}

func TestWritePCAP(t *testing.T) {
	f := wire(t, ethernet4, ipv4, syn)
	f.Time, f.Length = time.Unix(1, 2), 1000
	var out bytes.Buffer
	if err := WritePCAP(&out, []Frame{f}); err != nil {
		t.Fatal(err)
	}
	b := out.Bytes()
	if len(b) != 24+16+len(f.Data) || binary.LittleEndian.Uint32(b) != 0xa1b23c4d || b[20] != 1 {
		t.Fatalf("the file is % x", b)
	}
	for i, want := range []uint32{1, 2, uint32(len(f.Data)), 1000} {
		if got := binary.LittleEndian.Uint32(b[24+4*i:]); got != want {
			t.Errorf("word %d of the record is %d, want %d", i, got, want)
		}
	}
}
