// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"lvx/internal/lvs"
)

// icmpFrame is an ICMP message of either family around so much of a packet.
func icmpFrame(t testing.TB, from, to string, code uint16, inside []byte, mac net.HardwareAddr) []byte {
	t.Helper()
	source, destination := netip.MustParseAddr(from), netip.MustParseAddr(to)
	eth := &layers.Ethernet{SrcMAC: clientMAC, DstMAC: mac, EthernetType: layers.EthernetTypeIPv4}
	stack := []gopacket.SerializableLayer{eth}
	if source.Is4() {
		stack = append(stack,
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: source.AsSlice(), DstIP: destination.AsSlice()},
			&layers.ICMPv4{TypeCode: layers.ICMPv4TypeCode(code), Id: 0, Seq: 1400})
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: source.AsSlice(), DstIP: destination.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.ICMPv6TypeCode(code)}
		_ = icmp.SetNetworkLayerForChecksum(ip)
		stack = append(stack, ip, icmp, gopacket.Payload{0, 0, 5, 0x78})
	}
	stack = append(stack, gopacket.Payload(inside))
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// tooBig is what a router says to a packet that is larger than its next MTU.
var tooBig = map[int]uint16{4: 3<<8 | 4, 6: 2 << 8}

var routers = map[int]string{4: "203.0.113.77", 6: "2001:db8:77::1"}

func addressOf(addrPort string) string { return netip.MustParseAddrPort(addrPort).Addr().String() }

// An error about a packet of a connection goes where the connection goes: by dr as it is,
// by nat as one about the packet that the real server sent. Nothing of the connection
// changes.
func TestICMPErrors(t *testing.T) {
	for _, method := range []lvs.Method{lvs.DR, lvs.NAT} {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s, IPv%d", method, family), func(t *testing.T) {
				r := newRig(t)
				r.outside()
				a := natClients[family]
				server := lvs.RealServer{Address: netip.MustParseAddrPort(a.server), Method: method, Weight: 1}
				if method == lvs.DR {
					server.Address = netip.AddrPortFrom(server.Address.Addr(), 80)
				}
				for _, protocol := range []string{"tcp ", "udp "} {
					r.service(protocol+a.vip, lvs.RR, server)
				}
				// So many bytes of TCP or UDP the error has.
				for _, keep := range []int{1000, 18, 16, 8} {
					r.wantError(method, family, false, keep)
				}
				for _, keep := range []int{1000, 8} {
					r.wantError(method, family, true, keep)
				}
			})
		}
	}
}

// wantError sends an error about a packet of a new connection.
func (r *rig) wantError(method lvs.Method, family int, udp bool, keep int) {
	r.t.Helper()
	a := natClients[family]
	r.send(frame{client: a.client, vip: a.vip, udp: udp}.bytes(r.t))
	before := r.connections()
	r.now += 10 * time.Second

	// The packet that was too big, as the client's side and as the real server's has it.
	sent := frame{client: a.vip, vip: a.client, udp: udp, flags: "A", payload: 333}
	meant := sent
	to, ttl := addressOf(a.vip), byte(64)
	if method == lvs.NAT {
		meant.client, ttl = a.server, 63
	}
	verdict, out := r.send(icmpFrame(r.t, routers[family], to, tooBig[family], cut(r.t, sent, keep), directorMAC))
	if verdict != xdpTX {
		r.t.Fatalf("%d bytes: verdict %d, reasons %v", keep, verdict, r.reasons())
	}
	if method == lvs.NAT {
		to = addressOf(a.server)
	}
	r.wantBytes(out, hops(icmpFrame(r.t, routers[family], to, tooBig[family], cut(r.t, meant, keep), serverMAC), ttl, directorMAC))
	after := r.connections()
	if len(after) != 1 || after[0].State != before[0].State || after[0].Expires > before[0].Expires-lvs.Duration(8*time.Second) {
		r.t.Errorf("%d bytes: the connection was %+v and is %+v", keep, before, after)
	}
	if _, err := r.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// cut returns a packet with so many bytes behind its IP header.
func cut(t testing.TB, f frame, keep int) []byte {
	t.Helper()
	packet := f.bytes(t)[14:]
	header := 20
	if packet[0]>>4 == 6 {
		header = 40
	}
	return packet[:min(len(packet), header+keep)]
}

// An error from nat's real server about its client's packet comes back as one from the VIP.
func TestICMPErrorsBack(t *testing.T) {
	for _, family := range []int{4, 6} {
		for _, keep := range []int{8, 1000} {
			t.Run(fmt.Sprintf("IPv%d, %d bytes", family, keep), func(t *testing.T) {
				r := newRig(t)
				r.outside()
				a := natClients[family]
				r.service("udp "+a.vip, lvs.RR, natServer(a.server, 1))
				sent := frame{client: a.client, vip: a.vip, udp: true, payload: 90}
				r.send(sent.bytes(t))
				got := sent
				got.vip = a.server
				unreachable := map[int]uint16{4: 3<<8 | 3, 6: 1<<8 | 4}[family]
				client := addressOf(a.client)
				verdict, out := r.send(icmpFrame(t, addressOf(a.server), client, unreachable, cut(t, got, keep), directorMAC))
				if verdict != xdpRedirect {
					t.Fatalf("verdict %d, reasons %v", verdict, r.reasons())
				}
				r.wantBytes(out, hops(icmpFrame(t, addressOf(a.vip), client, unreachable, cut(t, sent, keep), clientMAC), 63, outMAC))
			})
		}
	}
}

// Everything else is the kernel's, bit for bit: what is no error, and errors about packets
// that are none of ours, or about errors.
func TestICMPLeavesTheRest(t *testing.T) {
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) { icmpOfOthers(t, family) })
	}
}

func icmpOfOthers(t *testing.T, family int) {
	r := newRig(t)
	r.outside()
	a := natClients[family]
	r.service("tcp "+a.vip, lvs.RR, natServer(a.server, 1))
	r.send(frame{client: a.client, vip: a.vip}.bytes(t))
	vip, router := addressOf(a.vip), routers[family]
	packet := func(f frame) []byte { return f.bytes(t)[14:] }
	reply := frame{client: a.vip, vip: a.client, flags: "A"}
	echo := map[int]uint16{4: 8 << 8, 6: 128 << 8}[family]
	fragment := packet(reply)
	if family == 4 {
		fragment[7] = 9
	} else {
		fragment[6] = 44
	}
	other := frame{client: a.vip, vip: a.stranger, flags: "A"}
	elsewhere := frame{client: a.server, vip: a.client, flags: "A"}
	for name, f := range map[string][]byte{
		"an echo request":                   icmpFrame(t, router, vip, echo, packet(reply), directorMAC),
		"about another flow":                icmpFrame(t, router, vip, tooBig[family], packet(other), directorMAC),
		"about a packet that we never sent": icmpFrame(t, router, vip, tooBig[family], packet(elsewhere), directorMAC),
		"about an error":                    icmpFrame(t, router, vip, tooBig[family], icmpFrame(t, vip, router, tooBig[family], packet(reply), directorMAC)[14:], directorMAC),
		"about a fragment":                  icmpFrame(t, router, vip, tooBig[family], fragment, directorMAC),
		"with too little of the packet":     icmpFrame(t, router, vip, tooBig[family], packet(reply)[:map[int]int{4: 22, 6: 42}[family]], directorMAC),
		"with nothing of it":                icmpFrame(t, router, vip, tooBig[family], nil, directorMAC),
		"from a real server about others":   icmpFrame(t, addressOf(a.server), addressOf(a.client), tooBig[family], packet(frame{client: a.client, vip: a.stranger, flags: "A"}), directorMAC),
	} {
		verdict, out := r.send(f)
		if verdict != xdpPass {
			t.Errorf("%s: verdict %d, reasons %v", name, verdict, r.reasons())
		}
		r.wantBytes(out, f)
	}
}
