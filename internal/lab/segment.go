// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// segment is a network of the lab: a bridge in the switch, and those who are
// plugged in there. Its number stands in all its addresses: segment 20 is
// 192.168.20.0/24 and fd00:20::/64.
type segment int

// The segments. The client is outside of them, behind the router.
const (
	front  segment = 20 // router, director and the VIP; real servers too, save where they have another
	inside segment = 10 // of nat-two-arm: director and real servers
	behind segment = 30 // of tun-routed: real server n is in segment 30+n
)

var (
	vip4      = netip.MustParseAddr("192.168.20.100")
	vip6      = netip.MustParseAddr("fd00:20::100")
	outsideIP = pair("203.0.113.1/24", "2001:db8:113::1/64")
	clientIP  = pair("203.0.113.9/24", "2001:db8:113::9/64")
)

func pair(v4, v6 string) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}
}

// ofFamily returns the address of that family of a pair.
func ofFamily(pair []netip.Prefix, family int) netip.Addr {
	if family == 6 {
		return pair[1].Addr()
	}
	return pair[0].Addr()
}

// VIP returns the virtual address, the same in all topologies, in family 4 or 6.
func VIP(family int) netip.Addr {
	if family == 6 {
		return vip6
	}
	return vip4
}

func (s segment) address(last4, last6 string) []netip.Prefix {
	return pair(fmt.Sprintf("192.168.%d.%s/24", s, last4), fmt.Sprintf("fd00:%d::%s/64", s, last6))
}

func (s segment) director() []netip.Prefix { return s.address("1", "1") }
func (s segment) router() []netip.Prefix   { return s.address("254", "fe") }

// realServer gives rs1 .11 and ::11, rs2 .12 and ::12, ….
func (s segment) realServer(i int) []netip.Prefix {
	last := fmt.Sprint(10 + i)
	return s.address(last, last)
}

// segmentMAC makes a MAC address that reads like the IPv4 address: 192.168.20.11
// has 02:00:00:00:20:0b.
func segmentMAC(addresses []netip.Prefix) MAC {
	ip := addresses[0].Addr().As4()
	return MAC{0x02, 0, 0, 0, ip[2]/10<<4 | ip[2]%10, ip[3]}
}

// segmentOf returns the segment of the i-th real server.
func (l *Lab) segmentOf(i int) segment {
	switch l.Name {
	case NATTwoArm:
		return inside
	case TunRouted:
		return behind + segment(i)
	}
	return front
}

// DirectorAddress returns the address by which the real servers know the
// director: the one in their own segment, if it has one there.
func (l *Lab) DirectorAddress(family int) netip.Addr {
	if l.Name == NATTwoArm {
		return ofFamily(inside.director(), family)
	}
	return ofFamily(front.director(), family)
}

// buildOutside joins client and router.
func (l *Lab) buildOutside() error {
	return l.Connect(
		End{l.Host(Client), "eth0", MAC{0x02, 0, 0, 0, 0x13, 9}, clientIP},
		End{l.Host(Router), "eth0", MAC{0x02, 0, 0, 0, 0x13, 1}, outsideIP})
}

// buildSegments joins everyone but the client by a switch that has a bridge for
// each segment and a port for each interface.
func (l *Lab) buildSegments() error {
	if err := silence(l.Host(Switch)); err != nil {
		return err
	}
	// The director owns the VIP on the side of the clients: it answers ARP and
	// neighbour solicitations for it, the real servers must not.
	vips := []netip.Prefix{netip.PrefixFrom(vip4, 32), netip.PrefixFrom(vip6, 128)}
	err := l.buildSegment(front,
		End{Host: l.Host(Router), Addresses: front.router()},
		End{Host: l.Host(Director), Addresses: append(front.director(), vips...)})
	if err != nil {
		return err
	}
	built := []segment{front}
	for i := 1; i <= l.options.RealServers; i++ {
		s := l.segmentOf(i)
		if !slices.Contains(built, s) {
			built = append(built, s)
			if err := l.buildSegment(s, l.gatewayEnd(s)); err != nil {
				return err
			}
		}
		if err := l.plugIn(s, End{Host: l.Host(RealServerName(i)), Addresses: s.realServer(i)}); err != nil {
			return err
		}
	}
	return l.faceXDPHosts()
}

// gatewayEnd is who leads out of a segment other than the front.
func (l *Lab) gatewayEnd(s segment) End {
	if s == inside {
		return End{Host: l.Host(Director), Addresses: s.director()}
	}
	return End{Host: l.Host(Router), Addresses: s.router()}
}

func (l *Lab) buildSegment(s segment, members ...End) error {
	if err := l.addBridge(l.Host(Switch), s); err != nil {
		return err
	}
	for _, m := range members {
		if err := l.plugIn(s, m); err != nil {
			return err
		}
	}
	return nil
}

// plugIn gives a host's next interface a port of the switch.
func (l *Lab) plugIn(s segment, member End) error {
	member.Name = fmt.Sprintf("eth%d", len(member.Host.Interfaces))
	member.MAC = segmentMAC(member.Addresses)
	mac := member.MAC
	mac[4] |= 0x80 // the port's own, which no frame carries
	port := End{Host: l.Host(Switch), Name: l.portName(member), MAC: mac}
	if err := l.Connect(member, port); err != nil {
		return err
	}
	return plug(port.Host, port.Name, s)
}

// portName is that of the host, and for its second port on, with the interface
// that it leads to: "director", "director-eth1".
func (l *Lab) portName(member End) string {
	taken := slices.ContainsFunc(l.Host(Switch).Interfaces, func(i Interface) bool { return i.Name == member.Host.Name })
	if taken {
		return member.Host.Name + "-" + member.Name
	}
	return member.Host.Name
}

// hostOf returns the host that a port of the switch leads to.
func hostOf(port string) string {
	host, _, _ := strings.Cut(port, "-")
	return host
}

// faceXDPHosts readies all ports to hosts that run native XDP.
func (l *Lab) faceXDPHosts() error {
	for _, i := range l.Host(Switch).Interfaces {
		if !slices.Contains(l.options.XDPHosts, hostOf(i.Name)) {
			continue
		}
		if err := l.Host(Switch).FaceXDP(i.Name); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) setRoutes() error {
	forward := []sysctl{{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}}
	if err := l.Host(Router).Do(func() error { return setSysctls(forward) }); err != nil {
		return fmt.Errorf("host %s: %w", Router, err)
	}
	gateways := map[string][]netip.Prefix{Client: outsideIP, Director: front.router()}
	for i := 1; i <= l.options.RealServers; i++ {
		// In nat-two-arm only joining gives them a way out.
		if l.Name != NATTwoArm {
			gateways[RealServerName(i)] = l.segmentOf(i).router()
		}
	}
	for _, h := range l.hosts {
		if err := h.Do(func() error { return addDefaultRoutes(gateways[h.Name]) }); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	if l.Name != NATTwoArm {
		return nil
	}
	// What the real servers ask of others has to find back.
	return l.Host(Router).Do(func() error { return addRoutes(inside.director(), front.director()) })
}

// addDefaultRoutes leads everything by way of these.
func addDefaultRoutes(gateways []netip.Prefix) error {
	everywhere := pair("0.0.0.0/0", "::/0")
	return addRoutes(everywhere[:len(gateways)], gateways)
}

// addRoutes leads each destination by way of the gateway at its side.
func addRoutes(destinations, gateways []netip.Prefix) error {
	for i, g := range gateways {
		d := destinations[i].Masked()
		to := &net.IPNet{IP: d.Addr().AsSlice(), Mask: net.CIDRMask(d.Bits(), d.Addr().BitLen())}
		if err := netlink.RouteAdd(&netlink.Route{Dst: to, Gw: g.Addr().AsSlice()}); err != nil {
			return fmt.Errorf("route to %s by %s: %w", d, g.Addr(), err)
		}
	}
	return nil
}
