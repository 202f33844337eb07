// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"lvx/internal/lvs"
)

// Each case is a good packet with one thing changed, and what became of it: the
// verdict, the one reason counted, and the frame that left.
func TestPackets(t *testing.T) {
	vip6 := "[2001:db8::1]:80"
	client6 := "[2001:db8:9::9]:40000"
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }
	set16 := func(at int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], v); return b }
	}
	hopByHop := []byte{6, 0, 1, 4, 0, 0, 0, 0} // next TCP, length 8, PadN
	for _, c := range []struct {
		name    string
		frame   frame
		verdict uint32
		reason  string
	}{
		{"a SYN to a service", frame{}, xdpTX, "FORWARDED"},
		{"IPv6", frame{vip: vip6, client: client6}, xdpTX, "FORWARDED"},
		{"UDP", frame{udp: true, vip: "198.51.100.1:53"}, xdpTX, "FORWARDED"},
		{"UDP over IPv6", frame{udp: true, vip: "[2001:db8::1]:53", client: client6}, xdpTX, "FORWARDED"},
		{"empty UDP", frame{udp: true, vip: "198.51.100.1:53", payload: 0}, xdpTX, "FORWARDED"},
		{"a VLAN tag is kept", frame{vlans: []uint16{10}}, xdpTX, "FORWARDED"},
		{"two VLAN tags are kept", frame{vlans: []uint16{10, 20}}, xdpTX, "FORWARDED"},
		{"a VLAN tag, IPv6", frame{vlans: []uint16{10}, vip: vip6, client: client6}, xdpTX, "FORWARDED"},
		{"three VLAN tags", frame{vlans: []uint16{10, 20, 30}}, xdpPass, "NOT_IP"},
		{"payload", frame{payload: 1200}, xdpTX, "FORWARDED"},
		{"a frame of 9000 bytes, in several buffers", frame{payload: 8900}, xdpTX, "FORWARDED"},
		{"a frame of 9000 bytes, IPv6", frame{payload: 8900, vip: vip6, client: client6}, xdpTX, "FORWARDED"},
		{"padding behind a short packet", frame{raw: func(b []byte) []byte { return append(b, make([]byte, 6)...) }}, xdpTX, "FORWARDED"},
		{"IP options", frame{mutateIP4: func(ip *layers.IPv4) {
			ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
		}}, xdpTX, "FORWARDED"},
		{"40 bytes of IP options", frame{mutateIP4: func(ip *layers.IPv4) {
			ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 40, OptionData: make([]byte, 38)}}
		}}, xdpTX, "FORWARDED"},
		{"a hop-by-hop header", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6HopByHop, extensions: []gopacket.SerializableLayer{gopacket.Payload(hopByHop)}}, xdpTX, "FORWARDED"},
		{"an atomic fragment (RFC 6946)", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6Fragment, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 0, 0, 0, 0, 0, 1}}}, xdpTX, "FORWARDED"},
		{"don't fragment", frame{mutateIP4: func(ip *layers.IPv4) { ip.Flags = layers.IPv4DontFragment }}, xdpTX, "FORWARDED"},

		{"another port", frame{vip: "198.51.100.1:22"}, xdpPass, "NOT_OURS"},
		{"another protocol on the port", frame{udp: true}, xdpPass, "NOT_OURS"},
		{"another address", frame{vip: "198.51.100.2:80"}, xdpPass, "NOT_OURS"},
		{"ping of the VIP", frame{mutateIP4: func(ip *layers.IPv4) { ip.Protocol = layers.IPProtocolICMPv4 }}, xdpPass, "NOT_OURS"},
		{"ARP", frame{raw: set16(12, 0x0806)}, xdpPass, "NOT_IP"},
		{"a frame for another machine", frame{to: serverMAC}, xdpPass, "OTHER_HOST"},
		{"a broadcast frame", frame{to: net.HardwareAddr{255, 255, 255, 255, 255, 255}}, xdpPass, "OTHER_HOST"},
		{"an ACK without a connection", frame{flags: "A"}, xdpPass, "NO_CONNECTION"},
		{"a RST without a connection", frame{flags: "R"}, xdpPass, "NO_CONNECTION"},
		{"a FIN without a connection", frame{flags: "FA"}, xdpPass, "NO_CONNECTION"},
		{"a SYN-ACK without a connection", frame{flags: "SA"}, xdpPass, "NO_CONNECTION"},
		{"no flag at all", frame{flags: "-"}, xdpPass, "NO_CONNECTION"},
		{"a routing header with segments left", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6Routing, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 4, 1, 0, 0, 0, 0}}}, xdpPass, "NOT_OURS"},
		{"seven extension headers", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6HopByHop, extensions: []gopacket.SerializableLayer{
			gopacket.Payload{60, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0, 60, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0, 60, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0, 60, 0, 1, 4},
			gopacket.Payload{0, 0, 0, 0, 60, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0, 60, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0, 6, 0, 1, 4}, gopacket.Payload{0, 0, 0, 0}}}, xdpPass, "NOT_OURS"},

		{"the first fragment of a service", frame{mutateIP4: func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }}, xdpDrop, "FRAGMENT"},
		{"the first fragment, IPv6", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6Fragment, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 0, 1, 0, 0, 0, 1}}}, xdpDrop, "FRAGMENT"},
		{"the first fragment of no service", frame{vip: "198.51.100.1:81", mutateIP4: func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }}, xdpPass, "NOT_OURS"},
		{"a later fragment", frame{mutateIP4: func(ip *layers.IPv4) { ip.FragOffset = 100 }}, xdpPass, "FRAGMENT_TAIL"},
		{"a later fragment, IPv6", frame{vip: vip6, client: client6, next: layers.IPProtocolIPv6Fragment, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 0x01, 0x90, 0, 0, 0, 1}}}, xdpPass, "FRAGMENT_TAIL"},

		{"an IP header cut short", frame{raw: func(b []byte) []byte { return b[:30] }}, xdpPass, "BAD_IP"},
		{"an IPv6 header cut short", frame{vip: vip6, client: client6, raw: func(b []byte) []byte { return b[:50] }}, xdpPass, "BAD_IP"},
		{"a frame shorter than the packet says", frame{payload: 100, raw: cut(50)}, xdpPass, "BAD_IP"},
		{"a frame shorter than the packet says, IPv6", frame{vip: vip6, client: client6, payload: 100, raw: cut(50)}, xdpPass, "BAD_IP"},
		{"a wrong IP checksum", frame{raw: func(b []byte) []byte { b[24] ^= 1; return b }}, xdpPass, "BAD_IP"},
		{"IP version 5", frame{raw: func(b []byte) []byte { b[14] = 0x55; return b }}, xdpPass, "BAD_IP"},
		{"a header length of 16", frame{raw: func(b []byte) []byte { b[14] = 0x44; return b }}, xdpPass, "BAD_IP"},
		{"a TCP header cut short", frame{mutateTCP: nil, raw: func(b []byte) []byte { return shortenIP4(b, 10) }}, xdpDrop, "MALFORMED"},
		{"a TCP header length of 16", frame{raw: func(b []byte) []byte { b[46] = 0x40; return b }}, xdpDrop, "MALFORMED"},
		{"a TCP header longer than the packet", frame{raw: func(b []byte) []byte { b[46] = 0xf0; return b }}, xdpDrop, "MALFORMED"},
		{"the same to no service", frame{vip: "198.51.100.1:81", raw: func(b []byte) []byte { b[46] = 0xf0; return b }}, xdpPass, "NOT_OURS"},
		{"a UDP length below 8", frame{udp: true, vip: "198.51.100.1:53", raw: set16(38, 7)}, xdpDrop, "MALFORMED"},
		{"a UDP length above the packet", frame{udp: true, vip: "198.51.100.1:53", raw: set16(38, 900)}, xdpDrop, "MALFORMED"},
		{"an IPv4-mapped source", frame{vip: vip6, client: client6, raw: func(b []byte) []byte {
			mapped := netip.MustParseAddr("::ffff:192.0.2.9").As16()
			copy(b[22:], mapped[:])
			return b
		}}, xdpDrop, "V4_MAPPED"},
		{"an IPv4-mapped VIP", frame{vip: vip6, client: client6, raw: func(b []byte) []byte {
			mapped := netip.MustParseAddr("::ffff:198.51.100.1").As16()
			copy(b[38:], mapped[:])
			return b
		}}, xdpDrop, "V4_MAPPED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			tcp := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
			r.service("udp 198.51.100.1:53", lvs.RR, server("10.0.0.1:53", 1))
			r.service("tcp [2001:db8::1]:80", lvs.RR, server("[2001:db8:1::1]:80", 1))
			r.service("udp [2001:db8::1]:53", lvs.RR, server("[2001:db8:1::1]:53", 1))
			in := c.frame.bytes(t)
			verdict, out := r.send(in)
			if verdict != c.verdict {
				t.Errorf("verdict %d, want %d", verdict, c.verdict)
			}
			if diff := cmp.Diff(map[string]uint64{c.reason: 1}, r.reasons()); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			want, made := in, 0
			if c.reason == "FORWARDED" {
				want, made = forwarded(in, serverMAC, directorMAC), 1
			}
			r.wantBytes(out, want)
			if n := len(r.connections()); n != made {
				t.Errorf("%d connections, want %d", n, made)
			}
			if c.name == "a SYN to a service" {
				wantStats := lvs.Stats{Connections: 1, InPackets: 1, InBytes: 40}
				if got := r.status(tcp, "10.0.0.1:80"); got.Stats != wantStats || got.Counts != (lvs.Counts{Active: 1}) {
					t.Errorf("counted %+v %+v", got.Stats, got.Counts)
				}
			}
			if c.reason != "FORWARDED" {
				for _, s := range r.list() {
					if s.Stats != (lvs.Stats{}) {
						t.Errorf("%s was counted: %+v", s.ServiceKey, s.Stats)
					}
				}
			}
		})
	}
}

// shortenIP4 makes the IP packet end n bytes into its transport header, with
// lengths and checksum that agree.
func shortenIP4(b []byte, n int) []byte {
	b = b[:34+n]
	binary.BigEndian.PutUint16(b[16:], uint16(20+n))
	b[24], b[25] = 0, 0
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum+sum>>16))
	return b
}

// Whatever the next hop says, nothing is written before it is known to be good:
// the packet leaves as it came, and no connection is made.
func TestNextHops(t *testing.T) {
	keep := uint16(bpfHopStateVLAN_KEEP)
	for _, c := range []struct {
		name    string
		path    path
		frame   frame
		verdict uint32
		reason  string
	}{
		{"unresolved", path{state: bpfHopStateHOP_UNRESOLVED}, frame{}, xdpDrop, "NO_NEIGHBOUR"},
		{"off link", path{state: bpfHopStateHOP_OFF_LINK}, frame{}, xdpDrop, "OFF_LINK"},
		{"no route", path{state: bpfHopStateHOP_NO_ROUTE}, frame{}, xdpDrop, "NO_ROUTE"},
		{"the director itself", path{state: bpfHopStateHOP_LOCAL}, frame{}, xdpPass, "LOCAL"},
		{"an interface that is gone", path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: 99, vlan: keep, mtu: 1500}, frame{}, xdpDrop, "NO_ROUTE"},
		{"a smaller MTU", path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: keep, mtu: 1000}, frame{payload: 961}, xdpDrop, "TOO_BIG"},
		{"two tags to a VLAN", path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: 7, mtu: 1500}, frame{vlans: []uint16{1, 2}}, xdpDrop, "BAD_VLAN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
			r.hop(netip.MustParseAddr("10.0.0.1"), c.path)
			in := c.frame.bytes(t)
			verdict, out := r.send(in)
			if verdict != c.verdict {
				t.Errorf("verdict %d, want %d", verdict, c.verdict)
			}
			r.wantBytes(out, in)
			if diff := cmp.Diff(map[string]uint64{c.reason: 1}, r.reasons()); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if n := len(r.connections()); (n == 1) != (c.reason == "LOCAL") {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A packet of exactly the MTU fits.
func TestMTUFits(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 1000})
	if verdict, _ := r.send(frame{payload: 960}.bytes(t)); verdict != xdpTX {
		t.Errorf("verdict %d", verdict)
	}
}

// Out through another interface: its own MAC address is the source.
func TestRedirect(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: outIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 1500})
	in := frame{}.bytes(t)
	verdict, out := r.send(in)
	if verdict != xdpRedirect {
		t.Errorf("verdict %d, want a redirect", verdict)
	}
	r.wantBytes(out, forwarded(in, serverMAC, outMAC))
}

// Where the real server is in another VLAN, the tag becomes that VLAN's.
func TestVLANs(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []uint16
		want uint16 // of the next hop
		out  []uint16
	}{
		{"no tag to a VLAN", nil, 20, []uint16{20}},
		{"from one VLAN to another", []uint16{10}, 20, []uint16{20}},
		{"the same VLAN", []uint16{20}, 20, []uint16{20}},
		{"a VLAN to no tag", []uint16{10}, 0, nil},
		{"no tag to no tag", nil, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
			r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: c.want, mtu: 1500})
			verdict, out := r.send(frame{vlans: c.in, payload: 10}.bytes(t))
			want := forwarded(frame{vlans: c.out, payload: 10}.bytes(t), serverMAC, directorMAC)
			if c.in == nil && c.out != nil {
				want[14] = 0 // a new tag has priority 0
			}
			if verdict != xdpTX {
				t.Errorf("verdict %d", verdict)
			}
			r.wantBytes(out, want)
		})
	}
}

// A tag that came in by one port says nothing on another: out through a port
// without VLANs the frame has none.
func TestRedirectTakesTheTagOff(t *testing.T) {
	r := newRig(t)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: outIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 1500})
	verdict, out := r.send(frame{vlans: []uint16{10}, payload: 10}.bytes(t))
	if verdict != xdpRedirect {
		t.Errorf("verdict %d, want a redirect", verdict)
	}
	r.wantBytes(out, forwarded(frame{payload: 10}.bytes(t), serverMAC, outMAC))
}
