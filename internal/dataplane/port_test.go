// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// These tests attach to real interfaces, in the network namespace that TestMain
// made for this process.

// newVeth makes a pair of interfaces that are up.
func newVeth(t *testing.T, name, peer string) netlink.Link {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: peer}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(veth) })
	for _, n := range []string{name, peer} {
		l, err := netlink.LinkByName(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func acquire(t *testing.T) *Instance {
	t.Helper()
	needRoot(t)
	i, err := Acquire(DefaultBPFFS, "ports")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Unload(); err != nil {
			t.Error(err)
		}
		i.Release()
	})
	return i
}

var smallTables = Options{Connections: 1024, Services: 16, RealServers: 64}

func open(t *testing.T, i *Instance, interfaces ...string) *Plane {
	t.Helper()
	o := smallTables
	o.Interfaces = interfaces
	p, err := i.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func xdpOn(t *testing.T, name string) bool {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
}

func offload(t *testing.T, name string) bool {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	features, err := tool.Features(name)
	if err != nil {
		t.Fatal(err)
	}
	return features["rx-vlan-hw-parse"]
}

// eventually polls, since the kernel tells of changes in its own time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Errorf("%s did not come about", what)
}

func running(t *testing.T, p *Plane) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		p.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		p.Close()
	})
}

// A daemon that is told fewer interfaces than the one before lets the others go;
// unload gives all of them back as they were.
func TestFewerInterfaces(t *testing.T) {
	i := acquire(t)
	newVeth(t, "v0", "v0p")
	newVeth(t, "v1", "v1p")
	before := offload(t, "v1")
	p := open(t, i, "v0", "v1")
	if !xdpOn(t, "v0") || !xdpOn(t, "v1") || offload(t, "v1") {
		t.Error("not attached to both, or an offload is on that hides tags")
	}
	p.Close()
	if !xdpOn(t, "v0") {
		t.Error("the data plane went with its daemon")
	}
	p = open(t, i, "v0")
	if xdpOn(t, "v1") || offload(t, "v1") != before {
		t.Error("v1 is attached to still, or its offloads are not as they were")
	}
	if names := interfaceNames(t, p); !slices.Equal(names, []string{"v0"}) {
		t.Errorf("status names %v", names)
	}
	p.Close()
	if err := i.Unload(); err != nil {
		t.Fatal(err)
	}
	if xdpOn(t, "v0") || offload(t, "v0") != before {
		t.Error("unload left v0 changed")
	}
	if err := i.Unload(); err != nil {
		t.Errorf("unload of nothing: %v", err)
	}
}

func interfaceNames(t *testing.T, p *Plane) (names []string) {
	t.Helper()
	s, err := p.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range s.Interfaces {
		names = append(names, i.Name)
	}
	return names
}

// Interfaces come, go, change their names and addresses, with a daemon and
// without.
func TestInterfacesComeAndGo(t *testing.T) {
	i := acquire(t)
	newVeth(t, "v0", "v0p")
	p := open(t, i)
	running(t, p)
	v1 := newVeth(t, "v1", "v1p")
	eventually(t, "attaching to a new interface", func() bool { return slices.Contains(interfaceNames(t, p), "v1") && xdpOn(t, "v1") })

	mac := net.HardwareAddr{2, 7, 7, 7, 7, 7}
	if err := netlink.LinkSetHardwareAddr(v1, mac); err != nil {
		t.Fatal(err)
	}
	eventually(t, "learning a MAC address", func() bool {
		var entry bpfInterface
		return p.objects.Interfaces.Lookup(uint32(v1.Attrs().Index), &entry) == nil && slices.Equal(entry.Mac[:], mac)
	})
	// Older kernels rename only what is down.
	if err := errors.Join(netlink.LinkSetDown(v1), netlink.LinkSetName(v1, "uplink"), netlink.LinkSetUp(v1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "learning a name", func() bool { return slices.Contains(interfaceNames(t, p), "uplink") })
	if err := netlink.LinkDel(v1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgetting an interface", func() bool {
		return !slices.Contains(interfaceNames(t, p), "uplink") && !slices.Contains(i.links(), v1.Attrs().Index)
	})
}

// An interface that was made anew while no daemon ran.
func TestInterfaceMadeAnew(t *testing.T) {
	i := acquire(t)
	old := newVeth(t, "v0", "v0p")
	open(t, i, "v0").Close()
	if err := netlink.LinkDel(old); err != nil {
		t.Fatal(err)
	}
	fresh := newVeth(t, "v0", "v0p")
	p := open(t, i, "v0")
	defer p.Close()
	if !xdpOn(t, "v0") {
		t.Error("not attached")
	}
	if links := i.links(); !slices.Equal(links, []int{fresh.Attrs().Index}) {
		t.Errorf("pinned links of %v", links)
	}
	var index uint32
	var entry bpfInterface
	for all := p.objects.Interfaces.Iterate(); all.Next(&index, &entry); {
		if int(index) != fresh.Attrs().Index {
			t.Errorf("an entry of interface %d is left", index)
		}
	}
}

func TestModes(t *testing.T) {
	i := acquire(t)
	newVeth(t, "v0", "v0p")
	for _, mode := range []Mode{Generic, Native, Auto} {
		o := smallTables
		o.Mode, o.Interfaces = mode, []string{"v0"}
		p, err := i.Open(o)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		s, err := p.Status()
		if err != nil {
			t.Fatal(err)
		}
		want := lvs.XDPNative
		if mode == Generic {
			want = lvs.XDPGeneric
		}
		if got := s.Interfaces[0]; got.Mode != want || (want == lvs.XDPGeneric) != (got.Why != "") {
			t.Errorf("%s: attached as %+v", mode, got)
		}
		p.Close()
	}
}

// A mode that cannot be had is refused, and forwarding goes on in the one that was.
func TestRefusedModeKeepsForwarding(t *testing.T) {
	i := acquire(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}} // its driver has no native XDP
	if err := netlink.LinkAdd(bridge); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no bridge device")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) })
	newVeth(t, "v0", "v0p")
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatal(err)
	}
	open(t, i, "br0").Close()
	o := smallTables
	o.Mode, o.Interfaces = Native, []string{"v0", "br0"}
	if p, err := i.Open(o); err == nil {
		p.Close()
		t.Error("a bridge was attached to in native mode")
	}
	if !xdpOn(t, "br0") {
		t.Error("forwarding ended")
	}
	if xdpOn(t, "v0") || !offload(t, "v0") {
		t.Error("v0, which was not attached to before, is changed")
	}
	p := open(t, i, "br0")
	defer p.Close()
	if s, err := p.Status(); err != nil || s.Interfaces[0].Mode != lvs.XDPGeneric {
		t.Errorf("attached as %+v %v", s.Interfaces, err)
	}
}

// A port that joins and leaves a bridge stays attached: the kernel tells of the
// leaving as of a deletion.
func TestLeavingABridge(t *testing.T) {
	i := acquire(t)
	v0 := newVeth(t, "v0", "v0p")
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := netlink.LinkAdd(bridge); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("this kernel has no bridge device")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(bridge) })
	p := open(t, i, "v0")
	running(t, p)
	flags := p.interfaceFlags(v0.Attrs().Index)
	if err := errors.Join(netlink.LinkSetMaster(v0, bridge), netlink.LinkSetNoMaster(v0)); err != nil {
		t.Fatal(err)
	}
	// The next event that is told of has to come after those of the bridge.
	mac := net.HardwareAddr{2, 7, 7, 7, 7, 8}
	if err := netlink.LinkSetHardwareAddr(v0, mac); err != nil {
		t.Fatal(err)
	}
	eventually(t, "learning a MAC address", func() bool {
		var entry bpfInterface
		return p.objects.Interfaces.Lookup(uint32(v0.Attrs().Index), &entry) == nil && slices.Equal(entry.Mac[:], mac)
	})
	if got := p.interfaceFlags(v0.Attrs().Index); got != flags || !xdpOn(t, "v0") {
		t.Errorf("flags %x, before %x; attached %v", got, flags, xdpOn(t, "v0"))
	}
}

// What cannot be opened leaves nothing behind, and says what to do.
func TestOpenRefused(t *testing.T) {
	i := acquire(t)
	for text, o := range map[string]Options{
		"interface nosuch: there is none of that name; see: ip link": {Interfaces: []string{"nosuch"}},
		"no Ethernet interface is up to attach to":                   {},
		`xdp mode "fast" is not one of auto, native, generic`:        {Mode: "fast"},
		"2000000 real servers: at most 1048576 are possible":         {RealServers: 2_000_000},
		"67108865 connections: at most 67108864 are possible":        {Connections: lvs.MaxConnections + 1},
	} {
		o.Services = 16
		if o.Connections == 0 {
			o.Connections = 64
		}
		if o.RealServers == 0 {
			o.RealServers = 64
		}
		p, err := i.Open(o)
		if err == nil {
			p.Close()
		}
		if err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("got  %v\nwant %s", err, text)
		}
		if left, err := os.ReadDir(i.root()); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	if err := os.MkdirAll(i.root()+"/v99", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Open(Options{}); err == nil || !strings.Contains(err.Error(), "lvx director unload --instance ports") {
		t.Errorf("another version: %v", err)
	}
}

// Next hops come from the kernel's routes and neighbours, and follow them.
func TestNextHopsFollowTheKernel(t *testing.T) {
	i := acquire(t)
	v0 := newVeth(t, "v0", "v0p")
	for _, a := range []string{"10.9.0.1/24", "2001:db8:9::1/64"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(v0, addr); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, i, "v0")
	running(t, p)
	service := lvs.Service{ServiceKey: parseKey("tcp 198.51.100.1:80"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{
		server("10.9.0.2:80", 1), server("10.9.0.1:80", 1), server("203.0.113.5:80", 1),
	}}
	six := lvs.Service{ServiceKey: parseKey("tcp [2001:db8::1]:80"), Scheduler: lvs.RR, RealServers: []lvs.RealServer{server("[2001:db8:9::2]:80", 1)}}
	for _, s := range []lvs.Service{service, six} {
		if err := p.Put(s); err != nil {
			t.Fatal(err)
		}
	}
	hop := func(addr string) lvs.NextHop {
		return p.hops.status(netip.MustParseAddr(addr))
	}
	if a, b, c := hop("10.9.0.2").State, hop("10.9.0.1").State, hop("203.0.113.5").State; a != lvs.NextHopUnresolved || b != lvs.NextHopLocal || c != lvs.NextHopNoRoute {
		t.Errorf("states %s %s %s", a, b, c)
	}
	neighbour := func(addr string, mac net.HardwareAddr, state int) {
		t.Helper()
		n := &netlink.Neigh{LinkIndex: v0.Attrs().Index, IP: net.ParseIP(addr), HardwareAddr: mac, State: state, Family: family(netip.MustParseAddr(addr))}
		if err := netlink.NeighSet(n); err != nil {
			t.Fatal(err)
		}
	}
	first, second := net.HardwareAddr{2, 0, 0, 0, 9, 1}, net.HardwareAddr{2, 0, 0, 0, 9, 2}
	neighbour("10.9.0.2", first, netlink.NUD_REACHABLE)
	eventually(t, "a neighbour that answers", func() bool {
		return hop("10.9.0.2") == lvs.NextHop{State: lvs.NextHopReady, Interface: "v0", MAC: first.String()}
	})
	neighbour("10.9.0.2", second, netlink.NUD_REACHABLE)
	eventually(t, "another MAC address", func() bool { return hop("10.9.0.2").MAC == second.String() })
	neighbour("10.9.0.2", nil, netlink.NUD_FAILED)
	eventually(t, "a neighbour that failed", func() bool { return hop("10.9.0.2").State == lvs.NextHopUnresolved })
	neighbour("2001:db8:9::2", first, netlink.NUD_PERMANENT)
	eventually(t, "an IPv6 neighbour", func() bool { return hop("2001:db8:9::2").MAC == first.String() })

	// A gateway appears: what is behind it is off link.
	gateway := &netlink.Route{LinkIndex: v0.Attrs().Index, Dst: &net.IPNet{IP: net.IP{203, 0, 113, 0}, Mask: net.CIDRMask(24, 32)}, Gw: net.IP{10, 9, 0, 254}}
	if err := netlink.RouteAdd(gateway); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a route", func() bool { return hop("203.0.113.5").State == lvs.NextHopOffLink })

	// Forgotten with its last user; what the operator set stays.
	if err := errors.Join(p.Delete(service.ServiceKey), p.Delete(six.ServiceKey)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "forgetting the neighbours", func() bool {
		p.reclaim()
		n, err := getNeighbour(v0.Attrs().Index, netip.MustParseAddr("10.9.0.2"))
		return err == nil && n == nil
	})
	if n, err := getNeighbour(v0.Attrs().Index, netip.MustParseAddr("2001:db8:9::2")); err != nil || n == nil || n.State != netlink.NUD_PERMANENT {
		t.Errorf("the operator's neighbour is now %+v %v", n, err)
	}
}

// Entries of `interfaces` that somebody changed with bpftool are written again.
func TestRepairInterfaces(t *testing.T) {
	p, v0 := networked(t)
	defer p.Close()
	index := uint32(v0.Attrs().Index)
	var before bpfInterface
	if err := p.objects.Interfaces.Lookup(index, &before); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		damage func() error
		words  string
	}{
		{func() error { return p.objects.Interfaces.Delete(index) }, "interface v0 was missing from the map interfaces"},
		{func() error { return p.objects.Interfaces.Put(index, bpfInterface{Mac: [6]byte{2, 9}}) }, "interface v0 was changed in the map interfaces"},
		{func() error { return p.objects.Interfaces.Put(uint32(4242), before) }, "interface 4242 had no place in the map interfaces"},
	} {
		if err := c.damage(); err != nil {
			t.Fatal(err)
		}
		repaired, err := p.Repair()
		if err != nil || !slices.Equal(repaired, []string{c.words}) {
			t.Errorf("repaired %q %v, want %q", repaired, err, c.words)
		}
		after := map[uint32]bpfInterface{}
		err = walk(p.objects.Interfaces, func(index uint32, entry bpfInterface) error {
			after[index] = entry
			return nil
		})
		if err != nil || len(after) != 1 || after[index] != before {
			t.Errorf("%s: now %v %v", c.words, after, err)
		}
	}
}

// Tables that are pinned keep their size, and the operator is told of each.
func TestPinnedTablesKeepTheirSize(t *testing.T) {
	i := acquire(t)
	newVeth(t, "v0", "v0p")
	open(t, i, "v0").Close()
	notes := func(o Options) (objects []string) {
		p, err := i.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for _, n := range p.notes {
			objects = append(objects, n.Object)
			if !strings.Contains(n.Text, "were asked for, but the table that is pinned holds") || !strings.Contains(n.Fix, "lvx director unload") {
				t.Errorf("%+v", n)
			}
		}
		return objects
	}
	if got := notes(Options{Connections: 2048, Services: 32, RealServers: 128}); !slices.Equal(got, []string{"connection table", "service table", "real server table"}) {
		t.Errorf("all others: notes about %q", got)
	}
	if got := notes(Options{Connections: 1024, Services: 16, RealServers: 128}); !slices.Equal(got, []string{"real server table"}) {
		t.Errorf("more real servers: notes about %q", got)
	}
	if got := append(notes(smallTables), notes(Options{})...); len(got) > 0 {
		t.Errorf("the same, and none in particular: notes about %q", got)
	}
}
