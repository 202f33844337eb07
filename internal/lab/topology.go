// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// The hosts of topology dr. Real servers are rs1, rs2, ….
const (
	Client   = "client"
	Router   = "router"
	Switch   = "switch"
	Director = "director"
)

// Topology is a network that can be built by name.
type Topology struct {
	Name string `json:"name"`
	Text string `json:"text"` // one line
}

// Topologies lists those there are.
func Topologies() []Topology {
	return []Topology{
		{DR, "client - router - switch - director, rs1, rs2: direct routing, the real servers answer straight through the router"},
	}
}

// DR is the name of the topology for direct routing.
const DR = "dr"

// The addresses of topology dr: one LAN, and the client behind the router.
// Interface eth0 of each, save the router, whose eth1 is on the LAN.
var (
	vip4       = netip.MustParseAddr("192.168.20.100")
	vip6       = netip.MustParseAddr("fd00:20::100")
	directorIP = pair("192.168.20.1/24", "fd00:20::1/64")
	routerIP   = pair("192.168.20.254/24", "fd00:20::fe/64")
	outsideIP  = pair("203.0.113.1/24", "2001:db8:113::1/64")
	clientIP   = pair("203.0.113.9/24", "2001:db8:113::9/64")
)

var switchMAC = MAC{0x02, 0, 0, 0, 0xff, 0}

func pair(v4, v6 string) []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix(v4), netip.MustParsePrefix(v6)}
}

// VIP returns the virtual address of topology dr in family 4 or 6.
func VIP(family int) netip.Addr {
	if family == 6 {
		return vip6
	}
	return vip4
}

// RealServerName returns the name of the i-th real server, from 1.
func RealServerName(i int) string { return fmt.Sprintf("rs%d", i) }

// realServerIP gives rs1 .11 and ::11, rs2 .12 and ::12, ….
func realServerIP(i int) []netip.Prefix {
	return pair(fmt.Sprintf("192.168.20.%d/24", 10+i), fmt.Sprintf("fd00:20::%d/64", 10+i))
}

// lanMAC makes a MAC address that reads like the IPv4 address: 192.168.20.11
// has 02:00:00:00:20:0b.
func lanMAC(addresses []netip.Prefix) MAC {
	ip := addresses[0].Addr().As4()
	return MAC{0x02, 0, 0, 0, 0x20, ip[3]}
}

// BuildDR builds topology dr: hosts, wires, addresses and routes of both
// families. Nothing of lvx runs in it yet. It takes about half a second.
func BuildDR(ctx context.Context, options Options) (*Lab, error) {
	l, err := New(options)
	if err != nil {
		return nil, err
	}
	l.Name = DR
	if err := l.buildDR(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) buildDR(ctx context.Context) error {
	names := []string{Client, Router, Switch, Director}
	for i := range l.options.RealServers {
		names = append(names, RealServerName(i+1))
	}
	for _, name := range names {
		if _, err := l.AddHost(ctx, name); err != nil {
			return err
		}
	}
	for _, build := range []func() error{l.buildOutside, l.buildLAN, l.setRoutes} {
		if err := build(); err != nil {
			return err
		}
	}
	return nil
}

// buildOutside joins client and router.
func (l *Lab) buildOutside() error {
	return l.Connect(
		End{l.Host(Client), "eth0", MAC{0x02, 0, 0, 0, 0x13, 9}, clientIP},
		End{l.Host(Router), "eth0", MAC{0x02, 0, 0, 0, 0x13, 1}, outsideIP})
}

// buildLAN joins everyone but the client by a switch with one port per host,
// named after it.
func (l *Lab) buildLAN() error {
	if err := l.addBridge(l.Host(Switch)); err != nil {
		return err
	}
	// The director owns the VIP on the LAN's side: it answers ARP and
	// neighbour solicitations for it, the real servers must not.
	vips := []netip.Prefix{netip.PrefixFrom(vip4, 32), netip.PrefixFrom(vip6, 128)}
	members := []End{
		{l.Host(Router), "eth1", lanMAC(routerIP), routerIP},
		{l.Host(Director), "eth0", lanMAC(directorIP), append(directorIP[:2:2], vips...)},
	}
	for i := range l.options.RealServers {
		ip := realServerIP(i + 1)
		members = append(members, End{l.Host(RealServerName(i + 1)), "eth0", lanMAC(ip), ip})
	}
	for _, m := range members {
		if err := l.plugIn(m); err != nil {
			return err
		}
	}
	for _, name := range l.options.XDPHosts {
		if err := l.Host(Switch).FaceXDP(name); err != nil {
			return err
		}
	}
	return nil
}

// plugIn gives a host a port of the switch.
func (l *Lab) plugIn(member End) error {
	mac := member.MAC
	mac[4] = 0xff // the port's own, which no frame carries
	port := End{Host: l.Host(Switch), Name: member.Host.Name, MAC: mac}
	if err := l.Connect(member, port); err != nil {
		return err
	}
	return plug(port.Host, port.Name)
}

func (l *Lab) setRoutes() error {
	forward := []sysctl{{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"}}
	if err := l.Host(Router).Do(func() error { return setSysctls(forward) }); err != nil {
		return fmt.Errorf("host %s: %w", Router, err)
	}
	for _, h := range l.hosts {
		gateways := routerIP
		switch h.Name {
		case Router, Switch:
			continue
		case Client:
			gateways = outsideIP
		}
		if err := h.Do(func() error { return addDefaultRoutes(gateways) }); err != nil {
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
	}
	return nil
}

func addDefaultRoutes(gateways []netip.Prefix) error {
	for _, g := range gateways {
		everywhere := &net.IPNet{IP: make(net.IP, g.Addr().BitLen()/8), Mask: make(net.IPMask, g.Addr().BitLen()/8)}
		if err := netlink.RouteAdd(&netlink.Route{Dst: everywhere, Gw: g.Addr().AsSlice()}); err != nil {
			return fmt.Errorf("default route by %s: %w", g.Addr(), err)
		}
	}
	return nil
}
