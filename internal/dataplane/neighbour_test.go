// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// networked opens a plane on v0, on which 10.9.0.0/24 is.
func networked(t *testing.T) (*Plane, netlink.Link) {
	t.Helper()
	i := acquire(t)
	v0 := newVeth(t, "v0", "v0p")
	addr, err := netlink.ParseAddr("10.9.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(v0, addr); err != nil {
		t.Fatal(err)
	}
	return open(t, i, "v0"), v0
}

func setNeighbour(t *testing.T, on netlink.Link, addr string, mac net.HardwareAddr) {
	t.Helper()
	n := &netlink.Neigh{LinkIndex: on.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: mac, State: netlink.NUD_PERMANENT, Family: unix.AF_INET}
	if err := netlink.NeighSet(n); err != nil {
		t.Fatal(err)
	}
}

// An interface that packets only leave by is nothing to repair. The next daemon keeps
// it as well, also before it has found out who needs it.
func TestOutputInterfaceIsKept(t *testing.T) {
	p, _ := networked(t)
	v1 := newVeth(t, "v1", "v1p")
	addr, err := netlink.ParseAddr("10.9.1.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(v1, addr); err != nil {
		t.Fatal(err)
	}
	setNeighbour(t, v1, "10.9.1.2", net.HardwareAddr{2, 0, 0, 0, 9, 1})
	key := parseKey("tcp 198.51.100.1:80")
	if err := p.Put(lvs.Service{ServiceKey: key, Scheduler: lvs.RR, RealServers: []lvs.RealServer{server("10.9.1.2:80", 1)}}); err != nil {
		t.Fatal(err)
	}
	kept := func(when string) {
		t.Helper()
		var entry bpfInterface
		if err := p.objects.Interfaces.Lookup(uint32(v1.Attrs().Index), &entry); err != nil || entry.Flags != flagOutputOnly {
			t.Errorf("%s: its entry is %+v %v", when, entry, err)
		}
		if repaired, err := p.Repair(); err != nil || len(repaired) > 0 {
			t.Errorf("%s: repaired %q %v", when, repaired, err)
		}
	}
	kept("at first")
	if hop := p.hops.status(netip.MustParseAddr("10.9.1.2")); hop.Interface != "v1" || hop.State != lvs.NextHopReady {
		t.Errorf("next hop %+v", hop)
	}
	if err := p.Delete(key); err != nil {
		t.Fatal(err)
	}
	p.reclaim()
	i := p.instance
	p.Close()
	p = open(t, i, "v0")
	defer p.Close()
	kept("by the next daemon")
}

// A next hop that somebody changed with bpftool is written again with the next look
// at the kernel, wherever its entry then is.
func TestRefreshHealsNextHops(t *testing.T) {
	p, v0 := networked(t)
	defer p.Close()
	mac := net.HardwareAddr{2, 0, 0, 0, 9, 1}
	setNeighbour(t, v0, "10.9.0.2", mac)
	if err := p.Put(lvs.Service{ServiceKey: parseKey("tcp 198.51.100.1:80"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{server("10.9.0.2:80", 1)}}); err != nil {
		t.Fatal(err)
	}
	want := *p.hops.item(p.arrays.servers.items[0].NextHop)
	if want.MacState != encodeMAC(mac, bpfHopStateHOP_READY) {
		t.Fatalf("next hop %+v", want)
	}
	for what, damage := range map[string]func(*bpfNextHop){
		"MAC":       func(n *bpfNextHop) { n.MacState++ },
		"state":     func(n *bpfNextHop) { n.MacState = encodeMAC(nil, bpfHopStateHOP_LOCAL) },
		"interface": func(n *bpfNextHop) { n.Ifindex++ },
		"VLAN":      func(n *bpfNextHop) { n.Vlan = 7 },
		"MTU":       func(n *bpfNextHop) { n.Mtu = 100 },
		"all":       func(n *bpfNextHop) { *n = bpfNextHop{} },
	} {
		index := p.arrays.servers.items[0].NextHop
		entry := *p.hops.item(index)
		damage(&entry)
		if err := p.objects.NextHops.Put(index, entry); err != nil {
			t.Fatal(err)
		}
		p.hops.refreshAll()
		if got := *p.hops.item(p.arrays.servers.items[0].NextHop); got != want {
			t.Errorf("%s: next hop %+v, want %+v", what, got, want)
		}
	}
}

// Neighbours have what the kernel knows of them, and who stands there.
func TestNeighbours(t *testing.T) {
	p, v0 := networked(t)
	defer p.Close()
	mac := net.HardwareAddr{2, 0, 0, 0, 9, 1}
	setNeighbour(t, v0, "10.9.0.20", mac)
	http := lvs.Service{ServiceKey: parseKey("tcp 198.51.100.1:80"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{
		server("10.9.0.20:80", 1), server("10.9.0.3:80", 1), server("10.9.0.1:80", 1), server("203.0.113.5:80", 1),
	}}
	dns := lvs.Service{ServiceKey: parseKey("udp 198.51.100.1:53"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{server("10.9.0.20:53", 1)}}
	want := []lvs.Neighbour{
		{Address: netip.MustParseAddr("10.9.0.1"), NextHop: lvs.NextHop{State: lvs.NextHopLocal}, RealServers: 1},
		{Address: netip.MustParseAddr("10.9.0.3"), NextHop: lvs.NextHop{State: lvs.NextHopUnresolved, Interface: "v0"}, MTU: 1500, RealServers: 1},
		{Address: netip.MustParseAddr("10.9.0.20"), NextHop: lvs.NextHop{State: lvs.NextHopReady, Interface: "v0", MAC: mac.String()}, MTU: 1500, RealServers: 2},
		{Address: netip.MustParseAddr("203.0.113.5"), NextHop: lvs.NextHop{State: lvs.NextHopNoRoute}, RealServers: 1},
	}
	compare := func(what string) {
		t.Helper()
		if got, err := p.Neighbours(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s:\n%+v %v\nwant\n%+v", what, got, err, want)
		}
	}
	if err := errors.Join(p.Put(http), p.Put(dns)); err != nil {
		t.Fatal(err)
	}
	compare("all")
	if err := p.Delete(dns.ServiceKey); err != nil {
		t.Fatal(err)
	}
	want[2].RealServers = 1
	compare("after a service went")
}
