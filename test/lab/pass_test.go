// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"lvx/internal/lab"
)

// TestTheRestPasses asks the VIP and the director for what is no service, while
// there is one: all of it has to work as if there were no data plane.
func TestTheRestPasses(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	client, director := b.Host(lab.Client), b.Host(lab.Director)
	for _, family := range families {
		b.join(family)
		b.add(tcp(family, 80), "rr", 1, 1)
		own := netip.AddrPortFrom(director.Addr(family), 80)
		for _, v := range []virtual{
			tcp(family, 22), udp(family, 80), // of the VIP, but no service
			{own, "-t"}, {own, "-u"}, // the service's port, but the director's own address
		} {
			serve(t, director, v)
			k := b.call(v)
			b.must(fmt.Sprintf("%s %s", v.network(), v), k.say("hello"))
			if k.server != lab.Director {
				t.Errorf("%s %s: %s answers", v.network(), v, k.server)
			}
			if v.flag == "-t" {
				b.must("much data", k.exchange(noise(1<<20)))
			}
		}
		for _, address := range []netip.Addr{lab.VIP(family), director.Addr(family)} {
			b.must(fmt.Sprint("ping ", address), ping(client, address))
		}
		if k := b.call(tcp(family, 80)); k.server == lab.Director {
			t.Error("the director answers for the service")
		}
	}
	b.record()
	for _, family := range families {
		// The real servers are asked for their own addresses after the VIP: had
		// they anything to say of it, they would have said it before.
		b.forgetNeighbours(b.Host(lab.Router))
		for _, address := range []netip.Addr{lab.VIP(family), b.Host("rs1").Addr(family), b.Host("rs2").Addr(family)} {
			b.must(fmt.Sprint("ping ", address), ping(client, address))
		}
	}
	frames := b.frames()
	for _, family := range families {
		checkAnswerers(t, frames, lab.VIP(family), lab.Director)
		checkAnswerers(t, frames, b.Host("rs1").Addr(family), "rs1")
	}
}

// forgetNeighbours makes a host ask for all its neighbours again.
func (b *bed) forgetNeighbours(h *lab.Host) {
	b.t.Helper()
	b.must("forget neighbours", h.Do(func() error {
		list, err := netlink.NeighList(0, 0)
		for _, n := range list {
			if n.State&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) == 0 && err == nil {
				err = netlink.NeighDel(&n)
			}
		}
		return err
	}))
}

// checkAnswerers looks for all ARP replies and neighbour advertisements that tell
// where an address is: there has to be one, by that host.
func checkAnswerers(t *testing.T, frames []lab.Frame, address netip.Addr, host string) {
	t.Helper()
	hosts, macs := map[string]bool{}, map[lab.MAC]bool{}
	for _, f := range frames {
		target, mac := told(f)
		if !f.ToHost && target == address {
			hosts[f.Port], macs[mac] = true, true
			if mac != f.Decode().SourceMAC {
				t.Errorf("%s: %s says that it is at %s", address, f.Decode().SourceMAC, mac)
			}
		}
	}
	if len(hosts) != 1 || !hosts[host] || len(macs) != 1 {
		t.Errorf("%s: answered by %v with %v, want %s alone", address, hosts, macs, host)
	}
}

// told reads which address a frame tells to be at which MAC address.
func told(f lab.Frame) (netip.Addr, lab.MAC) {
	const arp, reply, icmpv6, advertisement = 0x0806, 2, 58, 136
	p, d := f.Decode(), f.Data
	switch {
	case p.Type == arp && len(d) >= 42 && binary.BigEndian.Uint16(d[20:]) == reply:
		return netip.AddrFrom4([4]byte(d[28:32])), lab.MAC(d[22:28])
	case p.Protocol == icmpv6 && len(d) >= 14+40+32 && d[54] == advertisement:
		return netip.AddrFrom16([16]byte(d[62:78])), lab.MAC(d[80:86])
	}
	return netip.Addr{}, lab.MAC{}
}

// ping sends an ICMP echo request from the host and waits for the reply.
func ping(from *lab.Host, to netip.Addr) error {
	network, any, request, reply := "ip4:icmp", "0.0.0.0", byte(8), byte(0)
	if to.Is6() {
		network, any, request, reply = "ip6:ipv6-icmp", "::", 128, 129
	}
	c, err := from.ListenPacket(network, any)
	if err != nil {
		return err
	}
	defer c.Close()
	message := append([]byte{request, 0, 0, 0, 0x12, 0x34, 0, 1}, "lvx is there?"...)
	if to.Is4() { // the kernel does it for ICMPv6
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	}
	if _, err := c.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return err
	}
	return hearReply(c, to, reply, message[4:])
}

// hearReply waits for the echo of what was sent.
func hearReply(c net.PacketConn, from netip.Addr, kind byte, sent []byte) error {
	deadline(c)
	data := make([]byte, 1500)
	for {
		n, sender, err := c.ReadFrom(data)
		if err != nil {
			return err
		}
		if sender.String() == from.String() && n > 4 && data[0] == kind && slices.Equal(data[4:n], sent) {
			return nil
		}
	}
}

// checksum is the Internet checksum (RFC 1071).
func checksum(data []byte) uint16 {
	var sum uint32
	for i, octet := range data {
		sum += uint32(octet) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
