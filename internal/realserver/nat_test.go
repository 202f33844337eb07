// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

var (
	dip  = netip.MustParseAddr("192.0.2.9")
	dip2 = netip.MustParseAddr("192.0.2.8")
	dip6 = netip.MustParseAddr("2001:db8::9")
)

// nat returns options that make the directors the default gateways.
func (m *machine) nat(directors ...netip.Addr) Options {
	return Options{Method: lvs.NAT, Directors: directors, Root: m.dir}
}

// addRoutes makes routes on eth0.
func (m *machine) addRoutes(list ...netlink.Route) {
	m.t.Helper()
	m.do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, r := range list {
			if len(r.MultiPath) == 0 {
				r.LinkIndex = eth0.Attrs().Index
			}
			for _, hop := range r.MultiPath {
				hop.LinkIndex = eth0.Attrs().Index
			}
			if err := netlink.RouteAppend(&r); err != nil {
				return err
			}
		}
		return nil
	})
}

// defaultRoutes returns what the default routes of a family are, in order.
func (m *machine) defaultRoutes(family int) (list []string) {
	m.t.Helper()
	m.do(func() error {
		h, err := open(Options{StatePath: "none"})
		if err != nil {
			return err
		}
		defer h.close()
		routes, err := h.defaults(family)
		for _, r := range routes {
			list = append(list, r.Text)
		}
		return err
	})
	return list
}

func (m *machine) setAny(path string, value int) {
	m.t.Helper()
	m.do(func() error { return os.WriteFile(netDir+path, []byte(strconv.Itoa(value)), 0) })
}

// natLan is a real server with many a default route, and a director.
func natLan(t *testing.T) *machine {
	server, _ := lan(t)
	add6(server)
	for _, path := range []string{"/ipv4/conf/all/", "/ipv4/conf/eth0/", "/ipv6/conf/eth0/"} {
		server.setAny(path+redirectKey, 1)
	}
	anywhere, anywhere6 := ipNet(netip.MustParsePrefix("0.0.0.0/0")), ipNet(netip.MustParsePrefix("::/0"))
	one := net.ParseIP("192.0.2.1")
	server.addRoutes(
		netlink.Route{Dst: anywhere, Gw: one, Src: rip.Addr().AsSlice(), Protocol: unix.RTPROT_STATIC},
		netlink.Route{Dst: anywhere, Gw: net.ParseIP("192.0.2.3"), Protocol: unix.RTPROT_BOOT}, // the same metric
		netlink.Route{Dst: anywhere, Gw: one, Tos: 8},
		netlink.Route{Dst: anywhere, Gw: net.ParseIP("192.0.2.2"), Priority: 100, Protocol: unix.RTPROT_DHCP, AdvMSS: 1300, MTU: 1400, MTULock: true},
		netlink.Route{Dst: anywhere, Priority: 200, MultiPath: []*netlink.NexthopInfo{{Gw: one, Hops: 2}, {Gw: net.ParseIP("192.0.2.4")}}},
		netlink.Route{Dst: anywhere, Gw: net.ParseIP("198.51.100.1"), Priority: 300, Flags: int(netlink.FLAG_ONLINK)},
		netlink.Route{Dst: anywhere6, Gw: net.ParseIP("2001:db8::1"), Protocol: unix.RTPROT_STATIC},
		netlink.Route{Dst: anywhere6, Gw: net.ParseIP("2001:db8::2"), Priority: 512, Hoplimit: 9},
		netlink.Route{Dst: anywhere6, Priority: 2048, MultiPath: []*netlink.NexthopInfo{{Gw: net.ParseIP("2001:db8::3")}, {Gw: net.ParseIP("2001:db8::4")}}},
		netlink.Route{Dst: ipNet(netip.MustParsePrefix("203.0.113.0/24")), Gw: one},
	)
	return server
}

func TestNATThenLeaveRestores(t *testing.T) {
	server := natLan(t)
	before := server.snapshot()
	o := server.nat(dip, dip6, dip)
	got := texts(server.join(o))
	if len(got) != 3+2+6+3 || got[0] != "net.ipv4.conf.all.accept_redirects 1 → 0" || got[2] != "route added: default via 192.0.2.9 dev eth0" {
		t.Errorf("join:\n%s", strings.Join(got, "\n"))
	}
	for family, want := range map[int]string{unix.AF_INET: "default via 192.0.2.9 dev eth0", unix.AF_INET6: "default via 2001:db8::9 dev eth0 metric 1"} {
		if got := server.defaultRoutes(family); len(got) != 1 || got[0] != want {
			t.Errorf("after join the default routes are %q, want %q", got, want)
		}
	}
	if facts := server.status(Options{Root: server.dir}); len(facts) != 4 || len(wrong(facts)) != 0 {
		t.Errorf("status after join: %v", facts)
	}
	joined := server.snapshot()
	if steps := server.join(o); changed(steps) || len(steps) != 5 {
		t.Errorf("the second join: %v", texts(steps))
	}
	if diff := cmp.Diff(joined, server.snapshot()); diff != "" {
		t.Errorf("the second join changed something:\n%s", diff)
	}
	server.leave(Options{Root: server.dir})
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
	if steps := server.leave(Options{Root: server.dir}); changed(steps) {
		t.Errorf("the second leave: %v", texts(steps))
	}
}

func TestNATEveryFailureUndoes(t *testing.T) {
	server := natLan(t)
	o := server.nat(dip, dip6)
	o.Persist = true
	server.failEach(o, 14)
}

// TestNATEveryFailedLeaveUndoes makes each change of a leave fail in turn.
func TestNATEveryFailedLeaveUndoes(t *testing.T) {
	server := natLan(t)
	server.join(server.nat(dip, dip6))
	before := server.snapshot()
	broken := errors.New("broken on purpose")
	for i := range 14 {
		err := server.try(func() error {
			h, err := openToChange(server.options())
			if err != nil {
				return err
			}
			defer h.close()
			changes, err := h.planLeave(true)
			if err != nil {
				return err
			}
			changes[i].do = func() error { return broken }
			_, err = run(changes)
			return err
		})
		if !errors.Is(err, broken) {
			t.Fatalf("change %d: %v", i, err)
		}
		if diff := cmp.Diff(before, server.snapshot()); diff != "" {
			t.Fatalf("change %d failed and something stayed:\n%s", i, diff)
		}
	}
}

func TestNATToAnotherDirector(t *testing.T) {
	server := natLan(t)
	before := server.snapshot()
	server.join(server.nat(dip))
	server.join(server.nat(dip2))
	if got := server.defaultRoutes(unix.AF_INET); len(got) != 1 || got[0] != "default via 192.0.2.8 dev eth0" {
		t.Errorf("the default routes are %q", got)
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

func TestNATAndDRTogether(t *testing.T) {
	server := natLan(t)
	before := server.snapshot()
	server.join(server.nat(dip))
	server.join(server.options(vip))
	if bad := wrong(server.status(server.options())); len(bad) != 0 {
		t.Errorf("status of both: %v", bad)
	}
	server.leave(server.options(vip))
	if got := server.defaultRoutes(unix.AF_INET); len(got) != 1 || server.get(all, redirectKey) != 0 || server.get(all, "arp_ignore") != 0 {
		t.Errorf("after the VIP left: default routes %q, accept_redirects %d, arp_ignore %d", got, server.get(all, redirectKey), server.get(all, "arp_ignore"))
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

func TestNATKeepsTheOperatorsRoute(t *testing.T) {
	server, _ := lan(t)
	withRoute(dip.String())(server)
	before := server.snapshot()
	if text := strings.Join(texts(server.join(server.nat(dip))), "\n"); !strings.Contains(text, "default route of IPv4 is default via 192.0.2.9 dev eth0: already so") {
		t.Errorf("join:\n%s", text)
	}
	if text := strings.Join(texts(server.leave(server.options())), "\n"); !strings.Contains(text, "stays, it was there before join") {
		t.Errorf("leave:\n%s", text)
	}
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

func TestNATLeaveRespectsLaterChange(t *testing.T) {
	server, _ := lan(t)
	withRoute("192.0.2.1")(server)
	server.join(server.nat(dip))
	server.do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP("192.0.2.7")})
	})
	bad := wrong(server.status(server.options()))["default route of IPv4"]
	if bad.Effective != "default via 192.0.2.7 dev eth0" || bad.Fix != "lvx realserver join --method nat --director 192.0.2.9" {
		t.Errorf("status: %+v", bad)
	}
	text := strings.Join(texts(server.leave(server.options())), "\n")
	if !strings.Contains(text, "stays default via 192.0.2.7 dev eth0") || !strings.Contains(text, "before join it was: default via 192.0.2.1 dev eth0") {
		t.Errorf("leave:\n%s", text)
	}
	if got := server.defaultRoutes(unix.AF_INET); len(got) != 1 || got[0] != "default via 192.0.2.7 dev eth0" {
		t.Errorf("the default routes are %q", got)
	}
}

// TestNATAgainMends joins again after routes came back by themselves.
func TestNATAgainMends(t *testing.T) {
	server := natLan(t)
	before := server.snapshot()
	server.join(server.nat(dip))
	server.addRoutes(netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Gw: net.ParseIP("192.0.2.2"), Priority: 100, Protocol: unix.RTPROT_DHCP, AdvMSS: 1300, MTU: 1400, MTULock: true})
	server.join(server.nat(dip))
	if got := server.defaultRoutes(unix.AF_INET); len(got) != 1 {
		t.Errorf("the default routes are %q", got)
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

// TestNATWhatCannotBeRestored leaves when an interface has gone.
func TestNATWhatCannotBeRestored(t *testing.T) {
	server, _ := lan(t)
	aside := newMachine(t)
	server.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth1"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(aside.fd)})
	})
	server.setUp("eth1")
	server.do(func() error {
		eth1, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth1.Attrs().Index, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Scope: unix.RT_SCOPE_LINK})
	})
	server.join(server.nat(dip))
	server.do(func() error {
		eth1, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.LinkDel(eth1)
	})
	text := strings.Join(texts(server.leave(server.options())), "\n")
	if !strings.Contains(text, "there is no interface eth1 any more; to have it back: ip route add default dev eth1") {
		t.Errorf("leave:\n%s", text)
	}
	if got := server.defaultRoutes(unix.AF_INET); len(got) != 0 {
		t.Errorf("the default routes are %q", got)
	}
}

func TestNATRefuses(t *testing.T) {
	for _, test := range []struct {
		name      string
		directors string
		want      string
	}{
		{"no director", "", "method nat needs the director's address"},
		{"two of one family", "192.0.2.9 192.0.2.8", "directors 192.0.2.9 and 192.0.2.8 are not possible together"},
		{"behind a router", "203.0.113.9", "director 203.0.113.9 is behind a router"},
		{"behind the default gateway", "198.51.100.9", "give the director's address on a network of this host"},
		{"unreachable", "2001:db8:1::9", "give the director's address on a network of this host"},
		{"this host", "192.0.2.11", "is an address of this host itself"},
		{"the second is wrong", "192.0.2.9 2001:db8:1::9", "director 2001:db8:1::9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := natLan(t)
			var list []netip.Addr
			for _, text := range strings.Fields(test.directors) {
				list = append(list, netip.MustParseAddr(text))
			}
			before := server.snapshot()
			err := server.try(func() error { _, err := Join(server.nat(list...)); return err })
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, test.want)
			}
			if diff := cmp.Diff(before, server.snapshot()); diff != "" {
				t.Errorf("a refused join changed something:\n%s", diff)
			}
		})
	}
}

func TestNATPersist(t *testing.T) {
	server := natLan(t)
	server.write(interfacesFile, "source /etc/network/interfaces.d/*\n")
	before := server.snapshot()
	o := server.nat(dip, dip6)
	o.Persist = true
	var warnings []string
	for _, s := range server.join(o) {
		if s.Warning {
			warnings = append(warnings, s.Text)
		}
	}
	want := []string{
		"the default route will not come back after a reboot until the stanza of eth0 in /etc/network/interfaces has this, and no other gateway: gateway 192.0.2.9",
		"the default route will not come back after a reboot until the stanza of eth0 in /etc/network/interfaces has this, and no other gateway: gateway 2001:db8::9",
	}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	text := header + `# Replies have to pass the director 192.0.2.9: no redirect is to lead them past it.
-net.ipv4.conf.all.accept_redirects = 0
-net.ipv4.conf.eth0.accept_redirects = 0
# Replies have to pass the director 2001:db8::9: no redirect is to lead them past it.
-net.ipv6.conf.eth0.accept_redirects = 0
`
	if diff := cmp.Diff(text, server.read(sysctlFile)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", sysctlFile, diff)
	}
	if bad := wrong(server.status(server.options())); len(bad) != 0 {
		t.Errorf("status after join: %v", bad)
	}
	// After a reboot there are only the files of /etc, and leave knows the way back.
	if err := os.RemoveAll(filepath.Join(server.dir, "run")); err != nil {
		t.Fatal(err)
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

// TestNATIgnoresRedirects has the director send a redirect, as a router does
// whose packet goes back where it came from.
func TestNATIgnoresRedirects(t *testing.T) {
	for _, joined := range []bool{false, true} {
		server, director := lan(t)
		director.addAddress("eth0", netip.PrefixFrom(dip, 24))
		server.setAny("/ipv4/conf/eth0/"+redirectKey, 1)
		server.setAny("/ipv4/conf/all/"+redirectKey, 1)
		if joined {
			server.join(server.nat(dip))
		} else {
			withRoute(dip.String())(server)
		}
		// Else the kernel believes only in gateways that it knows, and asks for them first.
		server.setAny("/ipv4/conf/eth0/secure_redirects", 0)
		server.setAny("/ipv4/conf/all/secure_redirects", 0)
		server.knows(client.Addr())
		far := netip.MustParseAddr("203.0.113.7")
		director.do(func() error { return sendRedirect(dip, rip.Addr(), client.Addr(), far) })
		taught := false
		for deadline := time.Now().Add(300 * time.Millisecond); !taught && time.Now().Before(deadline); {
			server.do(func() error {
				list, err := netlink.RouteGet(far.AsSlice())
				if err == nil {
					taught = !list[0].Gw.Equal(net.IP(dip.AsSlice()))
				}
				return err
			})
		}
		if taught == joined {
			t.Errorf("joined %v: the redirect taught the real server another way: %v", joined, taught)
		}
	}
}

// knows gives a machine a neighbour on eth0, at any MAC address.
func (m *machine) knows(a netip.Addr) {
	m.t.Helper()
	m.do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	})
}

// sendRedirect tells a host that there is a shorter way to a third one, about an
// echo reply that it may have sent.
func sendRedirect(from, to, gateway, far netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return err
	}
	message := append([]byte{5, 1, 0, 0}, gateway.AsSlice()...)
	quoted := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 63, 1, 0, 0}
	quoted = append(append(quoted, to.AsSlice()...), far.AsSlice()...)
	binary.BigEndian.PutUint16(quoted[10:], checksum(quoted))
	message = append(append(message, quoted...), make([]byte, 8)...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return unix.Sendto(fd, message, 0, &unix.SockaddrInet4{Addr: to.As4()})
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, octet := range b {
		sum += uint32(octet) << (8 * uint(1-i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
