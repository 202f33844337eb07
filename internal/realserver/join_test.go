// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

func changed(steps []Step) bool {
	for _, s := range steps {
		if s.Changed {
			return true
		}
	}
	return false
}

func TestJoinThenLeaveRestores(t *testing.T) {
	server, _ := lan(t)
	before := server.snapshot()
	o := server.options(vip, other, vip6)
	got := texts(server.join(o))
	want := []string{
		"net.ipv4.conf.all.arp_ignore 0 → 1",
		"net.ipv4.conf.all.arp_announce 0 → 2",
		"VIP 192.0.2.100/32 added to lo",
		"VIP 192.0.2.101/32 added to lo",
		"VIP 2001:db8::100/128 added to lo",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("join (-want +got):\n%s", diff)
	}
	if bad := wrong(server.status(Options{Root: server.dir})); len(bad) != 0 {
		t.Errorf("status after join: %v", bad)
	}
	joined := server.snapshot()
	again := server.join(o)
	if changed(again) || len(again) != len(want) {
		t.Errorf("the second join: %v", texts(again))
	}
	if diff := cmp.Diff(joined, server.snapshot()); diff != "" {
		t.Errorf("the second join changed something:\n%s", diff)
	}
	// The VIPs go first: without the sysctls this host would answer for them.
	want = []string{
		"VIP 192.0.2.100/32 removed from lo",
		"VIP 192.0.2.101/32 removed from lo",
		"VIP 2001:db8::100/128 removed from lo",
		"net.ipv4.conf.all.arp_announce 2 → 0",
		"net.ipv4.conf.all.arp_ignore 1 → 0",
	}
	if diff := cmp.Diff(want, texts(server.leave(Options{Root: server.dir}))); diff != "" {
		t.Errorf("leave (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
	if steps := server.leave(Options{Root: server.dir}); changed(steps) {
		t.Errorf("the second leave: %v", texts(steps))
	}
}

func TestJoinBringsLoUp(t *testing.T) {
	server := newMachine(t)
	server.do(func() error {
		lo, err := netlink.LinkByName(loopback)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(lo)
	})
	if got := texts(server.join(server.options(vip))); got[0] != "lo down → up" {
		t.Errorf("join: %v", got)
	}
	if bad := wrong(server.status(server.options())); len(bad) != 0 {
		t.Errorf("status after join: %v", bad)
	}
}

// TestOperatorsValues joins where the operator has set something already.
func TestOperatorsValues(t *testing.T) {
	for _, test := range []struct {
		name          string
		link, key     string
		value, joined int // of conf/link/key
		allJoined     int // of conf/all/key
		fixed         bool
	}{
		{"a stricter all stays", all, "arp_ignore", 2, 2, 2, false},
		{"8 answers nobody and stays", all, "arp_ignore", 8, 8, 8, false},
		{"3 answers for lo", all, "arp_ignore", 3, 1, 1, true},
		{"a reserved value acts as 0", all, "arp_ignore", 5, 1, 1, true},
		{"3 on an interface beats all", "eth0", "arp_ignore", 3, 1, 1, true},
		{"2 on an interface is fine", "eth0", "arp_ignore", 2, 2, 1, true},
		{"announce above 2 acts as 0", all, "arp_announce", 3, 2, 2, true},
		{"announce above 2 on an interface", "eth0", "arp_announce", 7, 2, 2, true},
		{"default is for interfaces to come", "default", "arp_ignore", 3, 1, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, neighbour := lan(t)
			server.set(test.link, test.key, test.value)
			before := server.snapshot()
			server.join(server.options(vip))
			if got := server.get(test.link, test.key); got != test.joined {
				t.Errorf("conf/%s/%s is %d after join, want %d", test.link, test.key, got, test.joined)
			}
			if got := server.get(all, test.key); got != test.allJoined {
				t.Errorf("conf/all/%s is %d after join, want %d", test.key, got, test.allJoined)
			}
			if bad := wrong(server.status(server.options())); len(bad) != 0 {
				t.Errorf("status after join: %v", bad)
			}
			if test.allJoined != 8 && neighbour.asks(vip) {
				t.Error("ARP for the VIP is answered")
			}
			server.leave(server.options())
			if diff := cmp.Diff(before, server.snapshot()); diff != "" {
				t.Errorf("leave did not restore (-before +after):\n%s", diff)
			}
		})
	}
}

func TestSysctlsStayForTheLastVIP(t *testing.T) {
	server, _ := lan(t)
	before := server.snapshot()
	server.join(server.options(vip))
	server.join(server.options(other, vip6))
	server.leave(server.options(vip))
	if got := server.get(all, "arp_ignore"); got != 1 {
		t.Errorf("arp_ignore is %d while a VIP is joined", got)
	}
	server.leave(server.options(other))
	if got := server.get(all, "arp_ignore"); got != 0 {
		t.Errorf("arp_ignore is %d though only an IPv6 VIP is left", got)
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("the last leave did not restore (-before +after):\n%s", diff)
	}
}

func TestLeaveRespectsLaterChange(t *testing.T) {
	server, _ := lan(t)
	server.join(server.options(vip))
	server.set(all, "arp_ignore", 2)
	steps := server.leave(server.options())
	if got := server.get(all, "arp_ignore"); got != 2 {
		t.Errorf("leave overwrote somebody's arp_ignore with %d", got)
	}
	if text := strings.Join(texts(steps), "\n"); !strings.Contains(text, "arp_ignore stays 2") {
		t.Errorf("leave does not say that arp_ignore stays:\n%s", text)
	}
	if got := server.get(all, "arp_announce"); got != 0 {
		t.Errorf("arp_announce is %d after leave", got)
	}
}

// TestJoinAgainMends joins again after somebody has undone a part of it.
func TestJoinAgainMends(t *testing.T) {
	server, _ := lan(t)
	server.join(server.options(vip))
	server.set(all, "arp_ignore", 3)
	server.do(func() error {
		lo, err := netlink.LinkByName(loopback)
		if err != nil {
			return err
		}
		return netlink.AddrDel(lo, address(vip))
	})
	bad := wrong(server.status(server.options()))
	if fact := bad["VIP 192.0.2.100/32 on lo"]; fact.Effective != "absent" || fact.Fix != "lvx realserver join --vip 192.0.2.100" {
		t.Errorf("status without the VIP: %+v", fact)
	}
	if fact := bad["arp_ignore on eth0"]; fact.Effective != "3" || fact.Fix != "sysctl -w net.ipv4.conf.all.arp_ignore=1" {
		t.Errorf("status with arp_ignore 3: %+v", fact)
	}
	server.join(server.options(vip))
	if bad := wrong(server.status(server.options())); len(bad) != 0 {
		t.Errorf("status after the second join: %v", bad)
	}
	server.leave(server.options())
	if got := server.get(all, "arp_ignore"); got != 3 {
		t.Errorf("arp_ignore is %d after leave, want what somebody set, 3", got)
	}
}

func TestLeaveKeepsVIPFromBefore(t *testing.T) {
	server, _ := lan(t)
	server.addAddress(loopback, host32(vip))
	before := server.snapshot()
	server.join(server.options(vip, other))
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

func TestLeaveWithoutState(t *testing.T) {
	server, _ := lan(t)
	server.join(server.options(vip))
	if err := os.RemoveAll(filepath.Join(server.dir, "run")); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(texts(server.leave(server.options(vip))), "\n")
	for _, want := range []string{"VIP 192.0.2.100/32 removed from lo", "arp_ignore stays 1", "sysctl -w net.ipv4.conf.all.arp_announce=0"} {
		if !strings.Contains(text, want) {
			t.Errorf("leave without state does not say %q:\n%s", want, text)
		}
	}
}

func TestLeaveRefusesForeignVIP(t *testing.T) {
	server, _ := lan(t)
	server.join(server.options(vip))
	server.addAddress(loopback, host32(other))
	before := server.snapshot()
	err := server.try(func() error { _, err := Leave(server.options(vip, other)); return err })
	if err == nil || !strings.Contains(err.Error(), "ip addr del 192.0.2.101/32 dev lo") {
		t.Errorf("leave of a VIP that lvx did not add: %v", err)
	}
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("a refused leave changed something:\n%s", diff)
	}
}

func TestJoinRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*machine)
		options Options
		want    string
	}{
		{"VIP on eth0", func(m *machine) { m.addAddress("eth0", netip.PrefixFrom(vip, 24)) }, Options{VIPs: []netip.Addr{other, vip}}, "ip addr del 192.0.2.100/24 dev eth0"},
		{"the host's own address", nil, Options{VIPs: []netip.Addr{rip.Addr()}}, "is an address of eth0"},
		{"shorter prefix on lo", func(m *machine) { m.addAddress(loopback, netip.PrefixFrom(vip, 24)) }, Options{VIPs: []netip.Addr{vip}}, "ip addr del 192.0.2.100/24 dev lo"},
		{"no IPv6 on lo", disableIPv6, Options{VIPs: []netip.Addr{vip, vip6}}, "sysctl -w net.ipv6.conf.lo.disable_ipv6=0"},
		{"method fullnat", nil, Options{VIPs: []netip.Addr{vip}, Method: lvs.FullNAT}, "method fullnat: not in this version"},
		{"no VIP", nil, Options{}, "no VIP given"},
		{"VIP is the director's", nil, Options{VIPs: []netip.Addr{vip}, Directors: []netip.Addr{vip}}, "director 192.0.2.100 is not possible: it is one of the VIPs"},
		{"loopback", nil, Options{VIPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}, "cannot be reached"},
		{"loopback of IPv6", nil, Options{VIPs: []netip.Addr{netip.IPv6Loopback()}}, "cannot be reached"},
		{"broadcast everywhere", nil, Options{VIPs: []netip.Addr{netip.MustParseAddr("255.255.255.255")}}, "address of one host"},
		{"broadcast", nil, Options{VIPs: []netip.Addr{vip, netip.MustParseAddr("192.0.2.255")}}, "VIP 192.0.2.255 is the broadcast address of 192.0.2.0/24 on eth0"},
		{"network address", nil, Options{VIPs: []netip.Addr{netip.MustParseAddr("192.0.2.0")}}, "VIP 192.0.2.0 is the network address of 192.0.2.0/24 on eth0"},
		{"anycast", add6, Options{VIPs: []netip.Addr{netip.MustParseAddr("2001:db8::")}}, "VIP 2001:db8:: is the subnet-router anycast address of 2001:db8::/64 on eth0"},
		{"gateway", withRoute("192.0.2.1"), Options{VIPs: []netip.Addr{client.Addr()}}, "VIP 192.0.2.1 is this host's default gateway on eth0"},
		{"one of two gateways", withRoute("192.0.2.2", "192.0.2.1"), Options{VIPs: []netip.Addr{client.Addr()}}, "VIP 192.0.2.1 is this host's default gateway on eth0"},
		{"gateway of IPv6", withRoute("2001:db8::1"), Options{VIPs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}, "VIP 2001:db8::1 is this host's default gateway on eth0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, _ := lan(t)
			if test.prepare != nil {
				test.prepare(server)
			}
			before := server.snapshot()
			test.options.Root = server.dir
			err := server.try(func() error { _, err := Join(test.options); return err })
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, test.want)
			}
			if diff := cmp.Diff(before, server.snapshot()); diff != "" {
				t.Errorf("a refused join changed something:\n%s", diff)
			}
		})
	}
}

func disableIPv6(m *machine) {
	m.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6", []byte("1"), 0) })
}

// add6 gives eth0 an IPv6 subnet.
func add6(m *machine) {
	m.do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		p := netip.MustParsePrefix("2001:db8::11/64")
		return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD})
	})
}

// withRoute makes a default route through the gateways.
func withRoute(gateways ...string) func(*machine) {
	return func(m *machine) {
		add6(m)
		m.do(func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			r := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gateways[0])}
			if len(gateways) > 1 {
				r = &netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}
				for _, g := range gateways {
					r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(g)})
				}
			}
			return netlink.RouteAdd(r)
		})
	}
}

// TestFailureUndoes makes the last change of all fail.
func TestFailureUndoes(t *testing.T) {
	server, _ := lan(t)
	server.join(server.options(other))
	// No directory can be made below a file.
	server.write("etc", "in the way")
	server.set("eth0", "arp_ignore", 3)
	before := server.snapshot()
	o := server.options(vip, vip6)
	o.Persist = true
	err := server.try(func() error { _, err := Join(o); return err })
	if err == nil {
		t.Fatal("join succeeded without a place for its files")
	}
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("a failed join changed something:\n%s\n%v", diff, err)
	}
}

// TestEveryFailureUndoes makes each change of a join fail in turn.
func TestEveryFailureUndoes(t *testing.T) {
	server, _ := lan(t)
	o := server.options(vip, vip6)
	o.Persist = true
	server.failEach(o, 6)
}

// failEach makes each change of a join fail in turn, of which there are at least
// so many.
func (m *machine) failEach(o Options, least int) {
	m.t.Helper()
	before := m.snapshot()
	broken := errors.New("broken on purpose")
	for i := 0; ; i++ {
		count := 0
		err := m.try(func() error {
			h, err := openToChange(o)
			if err != nil {
				return err
			}
			defer h.close()
			changes, err := h.planJoin()
			if err != nil {
				return err
			}
			if count = len(changes); i < count {
				changes[i].do = func() error { return broken }
				_, err = run(changes)
			}
			return err
		})
		if i == count && err == nil {
			if i < least {
				m.t.Errorf("only %d changes were tried", i)
			}
			return
		}
		if !errors.Is(err, broken) {
			m.t.Fatalf("change %d: %v", i, err)
		}
		if diff := cmp.Diff(before, m.snapshot()); diff != "" {
			m.t.Fatalf("change %d failed and something stayed:\n%s", i, diff)
		}
	}
}

func TestStateOfAnotherNamespace(t *testing.T) {
	one, two := newMachine(t), newMachine(t)
	path := filepath.Join(one.dir, "state.json")
	one.join(Options{VIPs: []netip.Addr{vip}, StatePath: path})
	err := two.try(func() error {
		_, err := Join(Options{VIPs: []netip.Addr{vip}, StatePath: path})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "another network namespace") {
		t.Errorf("join with another namespace's state: %v", err)
	}
	var a, b string
	one.do(func() error { a = DefaultStatePath(); return nil })
	two.do(func() error { b = DefaultStatePath(); return nil })
	if a == b || a == "/run/lvx/realserver.json" {
		t.Errorf("two namespaces keep their state in %s and %s", a, b)
	}
}

func TestWithoutPrivilege(t *testing.T) {
	server := newMachine(t)
	server.do(func() error {
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		return unix.Capset(&header, &data[0])
	})
	for name, change := range map[string]func(Options) ([]Step, error){"join": Join, "leave": Leave} {
		if err := server.try(func() error { _, err := change(server.options(vip)); return err }); !errors.Is(err, ErrNoPrivilege) {
			t.Errorf("%s without capabilities: %v", name, err)
		}
	}
	server.status(server.options(vip)) // needs none
}

// write writes a file below the machine's own root.
func (m *machine) write(path, text string) {
	m.t.Helper()
	path = filepath.Join(m.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}
