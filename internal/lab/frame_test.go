// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
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
	for name, c := range map[string]struct {
		frame Frame
		want  Packet
	}{
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

// FuzzDecode: no input may panic.
func FuzzDecode(f *testing.F) {
	for _, parts := range []string{ethernet4 + ipv4 + syn, twice4 + ipv4 + ack, ethernet6 + udp6 + udp} {
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
	service := netip.MustParseAddrPort("192.168.20.100:80")
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
	if r := CountReplies(frames, service); r != (Replies{ToRouter: 1}) {
		t.Errorf("replies: %+v", r)
	}
	frames = append(frames, at(reply, Director, true))
	if r := CountReplies(frames, service); r != (Replies{ToRouter: 1, ThroughDirector: 1}) {
		t.Errorf("replies with one through the director: %+v", r)
	}
	if hops := walk(nil, service); hops != nil {
		t.Errorf("a walk of nothing: %+v", hops)
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
