// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// Addresses. The low 32 bits of a destination are the same in both families, so that
// the generator reckons with one number.
var (
	vips     = prefix{netip.MustParseAddr("198.18.0.0"), netip.MustParseAddr("2001:db8:1::c612:0")}
	foreign  = prefix{netip.MustParseAddr("203.0.113.0"), netip.MustParseAddr("2001:db8:3::cb00:7100")}
	clients  = prefix{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("2001:db8:c::a00:0")}
	passers  = prefix{netip.MustParseAddr("10.64.0.0"), netip.MustParseAddr("2001:db8:c::a40:0")} // never seen before
	reals    = prefix{netip.MustParseAddr("192.168.1.0"), netip.MustParseAddr("2001:db8:2::c0a8:100")}
	director = prefix{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("2001:db8:2::1")}
)

// prefix is where a range of addresses begins, in each family.
type prefix struct{ four, six netip.Addr }

// at returns the nth address of the range.
func (p prefix) at(six bool, n int) netip.Addr {
	addr := p.four
	if six {
		addr = p.six
	}
	raw := addr.AsSlice()
	low := raw[len(raw)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)+uint32(n))
	addr, _ = netip.AddrFromSlice(raw)
	return addr
}

func (p prefix) low() uint32 { return binary.BigEndian.Uint32(p.four.AsSlice()) }

const (
	portName  = "bench0"
	vipPort   = 80
	mostReals = 1000
)

var serverMAC = net.HardwareAddr{2, 0, 0, 0, 0, 3}

// port is the interface that packets come in by and leave by. Its other end leads
// nowhere: no packet is sent.
type port struct {
	index int
	mac   net.HardwareAddr
}

func newPort() (port, error) {
	const other = "bench1"
	near, _, err := newPair(portName, other)
	if err != nil {
		return port{}, err
	}
	// Duplicate address detection would take a second, and the other end is to be silent.
	for file, text := range map[string]string{portName + "/accept_dad": "0", other + "/disable_ipv6": "1"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+file, []byte(text), 0); err != nil {
			return port{}, fmt.Errorf("set up IPv6: %w", err)
		}
	}
	for _, name := range []string{portName, other} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return port{}, fmt.Errorf("set %s up: %w", name, err)
		}
	}
	p := port{index: near.Attrs().Index, mac: near.Attrs().HardwareAddr}
	return p, p.settle(near)
}

// newPair makes two interfaces that are each other's other end, and down.
func newPair(near, far string) (a, b netlink.Link, err error) {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: far}
	veth.Name = near
	if err = netlink.LinkAdd(veth); err == nil {
		a, err = netlink.LinkByName(near)
	}
	if err == nil {
		b, err = netlink.LinkByName(far)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make the veth pair %s: %w", near, err)
	}
	return a, b, nil
}

// settle gives the port its addresses, and the real servers neighbour entries.
func (p port) settle(link netlink.Link) error {
	for six, bits := range map[bool]int{false: 16, true: 64} {
		addr := director.at(six, 0)
		network := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: network}); err != nil {
			return fmt.Errorf("add %s: %w", addr, err)
		}
		for i := range mostReals {
			neighbour := &netlink.Neigh{
				LinkIndex: p.index, State: netlink.NUD_PERMANENT,
				IP: reals.at(six, i).AsSlice(), HardwareAddr: serverMAC,
			}
			if err := netlink.NeighSet(neighbour); err != nil {
				return fmt.Errorf("add neighbour %s: %w", neighbour.IP, err)
			}
		}
	}
	return nil
}
