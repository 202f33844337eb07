// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// tun returns options that take tunnels of these directors off. The BPF file system
// is the machine's own, and goes with it.
func (m *machine) tun(directors []netip.Addr, vips ...netip.Addr) Options {
	o := m.own()
	o.VIPs, o.Method, o.Directors = vips, lvs.Tun, directors
	return o
}

// own returns options whose files and pins are the machine's own.
func (m *machine) own() Options {
	m.t.Helper()
	dir := m.bpffs()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	m.do(func() error {
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil || fs.Type == unix.BPF_FS_MAGIC {
			return err
		}
		return unix.Mount("bpf", dir, "bpf", 0, "")
	})
	return Options{Root: m.dir, BPFFS: dir}
}

// bpffs is where the machine has its BPF file system.
func (m *machine) bpffs() string { return m.dir + "-bpf" }

// attachOther puts a program of somebody else's on eth0.
func attachOther(m *machine, _ *Options) {
	m.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}})
		if err != nil {
			return err
		}
		defer program.Close()
		return netlink.LinkSetXdpFdWithFlags(l, program.FD(), unix.XDP_FLAGS_DRV_MODE)
	})
}

// pinned returns the pins there are.
func (m *machine) pinned() (list []string) {
	m.t.Helper()
	dir := m.own().BPFFS
	m.do(func() error {
		return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !strings.HasSuffix(path, ".debug") { // those are the kernel's own
				list = append(list, strings.TrimPrefix(path, dir))
			}
			return err
		})
	})
	return list
}

// wire joins two machines by a pair of interfaces of these names, with offloads off:
// what a program sees is what a real cable would carry.
func wire(t *testing.T, a *machine, nameA string, b *machine, nameB string) {
	t.Helper()
	a.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.fd)})
	})
	for m, name := range map[*machine]string{a: nameA, b: nameB} {
		m.setUp(name)
		m.do(func() error {
			tool, err := ethtool.NewEthtool()
			if err != nil {
				return err
			}
			defer tool.Close()
			return tool.Change(name, map[string]bool{"tx-checksum-ip-generic": false, "tx-generic-segmentation": false})
		})
	}
}

func (m *machine) addAll(link string, prefixes ...string) {
	m.t.Helper()
	m.do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		for _, text := range prefixes {
			if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix(text)), Flags: unix.IFA_F_NODAD}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m *machine) addDefaults(gateways ...string) {
	m.t.Helper()
	m.do(func() error {
		for _, text := range gateways {
			if err := netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(text)}); err != nil {
				return fmt.Errorf("default via %s: %w", text, err)
			}
		}
		return nil
	})
}

// site is a client, a director that wraps, and a real server behind it. Answers go
// from the real server to the client by the director's machine as a router.
type site struct {
	t                        *testing.T
	client, director, server *machine
	serverMAC                net.HardwareAddr
}

func newSite(t *testing.T) *site {
	s := &site{t: t, client: newMachine(t), director: newMachine(t), server: newMachine(t)}
	for _, m := range []*machine{s.client, s.director, s.server} {
		m.setAny("/ipv6/conf/default/dad_transmits", 0) // nobody else has the addresses
	}
	wire(t, s.client, "eth0", s.director, "eth0")
	wire(t, s.director, "eth1", s.server, "eth0")
	s.client.addAll("eth0", "203.0.113.5/24", "2001:db8:5::5/64")
	s.director.addAll("eth0", "203.0.113.1/24", "2001:db8:5::1/64")
	s.director.addAll("eth1", "192.0.2.9/24", "2001:db8::9/64")
	s.server.addAll("eth0", "192.0.2.11/24", "2001:db8::11/64")
	s.client.addDefaults("203.0.113.1", "2001:db8:5::1")
	s.server.addDefaults("192.0.2.9", "2001:db8::9")
	for _, path := range []string{"/ipv4/conf/all/forwarding", "/ipv6/conf/all/forwarding"} {
		s.director.setAny(path, 1)
	}
	s.director.do(func() error { // the kernel leaves the VIPs to us
		for _, a := range []netip.Addr{vip, vip6} {
			if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(host32(a)), Type: unix.RTN_BLACKHOLE}); err != nil {
				return err
			}
		}
		return nil
	})
	s.server.do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			s.serverMAC = l.Attrs().HardwareAddr
		}
		return err
	})
	return s
}

// packets is a packet socket on an interface.
func packets(name string) (fd, index int, err error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return 0, 0, err
	}
	protocol := int(binary.NativeEndian.Uint16(be16(unix.ETH_P_ALL)))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
		return 0, 0, err
	}
	index = l.Attrs().Index
	timeout := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
	return fd, index, errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<24),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(protocol), Ifindex: index}))
}

// direct wraps what the client sends to a VIP until the test ends, and returns a
// function that tells the largest packet it sent and the MSS that the real server
// offered.
func (s *site) direct(kind tunnelled) func() (largest, mss int) {
	var in, out int
	s.director.do(func() (err error) {
		if in, _, err = packets("eth0"); err == nil {
			out, _, err = packets("eth1")
		}
		return err
	})
	done := make(chan struct{})
	var wait sync.WaitGroup
	var largest, mss int
	wait.Go(func() {
		each := func(frame []byte) {
			vips := map[uint16]netip.Addr{unix.ETH_P_IP: vip, unix.ETH_P_IPV6: vip6}
			family := map[uint16]int{unix.ETH_P_IP: 4, unix.ETH_P_IPV6: 6}[binary.BigEndian.Uint16(frame[12:])]
			want, known := vips[binary.BigEndian.Uint16(frame[12:])]
			if !known || family != kind.inner || destination(frame) != want {
				return
			}
			p := kind
			p.content = slices.Clone(frame[14:])
			packet := p.outerPacket()
			largest = max(largest, len(packet))
			if _, err := unix.Write(out, ethernet(s.serverMAC, p.tags, p.outer, packet)); err != nil {
				s.t.Errorf("send %d bytes: %v", len(packet), err)
			}
		}
		listen(in, done, each)
	})
	wait.Go(func() {
		listen(out, done, func(frame []byte) { mss = max(mss, offeredMSS(frame)) })
	})
	stop := func() (int, int) {
		select {
		case <-done:
		default:
			close(done)
			wait.Wait()
			unix.Close(in)
			unix.Close(out)
		}
		return largest, mss
	}
	s.t.Cleanup(func() { stop() })
	return stop
}

func listen(fd int, done chan struct{}, f func(frame []byte)) {
	buffer := make([]byte, 1<<16)
	for {
		select {
		case <-done:
			return
		default:
		}
		n, from, err := unix.Recvfrom(fd, buffer, 0)
		if l, ok := from.(*unix.SockaddrLinklayer); err == nil && n > 54 && ok && l.Pkttype != unix.PACKET_OUTGOING {
			f(buffer[:n])
		}
	}
}

func destination(frame []byte) netip.Addr {
	if frame[14]>>4 == 4 {
		return netip.AddrFrom4([4]byte(frame[30:34]))
	}
	return netip.AddrFrom16([16]byte(frame[38:54]))
}

// offeredMSS returns the MSS of a SYN-ACK, or 0.
func offeredMSS(frame []byte) int {
	segment := frame[34:]
	if binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IPV6 {
		segment = frame[54:]
	} else if frame[23] != 6 {
		return 0
	}
	if len(segment) < 24 || segment[13] != 0x12 || segment[20] != 2 { // Linux sends it first
		return 0
	}
	return int(binary.BigEndian.Uint16(segment[22:]))
}

// exchange sends bytes to the VIP and has their digest sent back, with the address
// that the real server saw.
func (s *site) exchange(target netip.Addr, size int) {
	s.t.Helper()
	address := netip.AddrPortFrom(target, 80).String()
	var listener net.Listener
	s.server.do(func() (err error) { listener, err = net.Listen("tcp", address); return err })
	defer listener.Close()
	go func() {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		if _, err := io.CopyN(h, c, int64(size)); err == nil {
			fmt.Fprintf(c, "%x %s", h.Sum(nil), c.RemoteAddr().(*net.TCPAddr).IP)
		}
	}()
	body := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz."), size/37+1)[:size]
	var got []byte
	s.client.do(func() error {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			return err
		}
		go func() { _, _ = c.Write(body) }()
		got, err = io.ReadAll(c)
		return err
	})
	want := fmt.Sprintf("%x %s", sha256.Sum256(body), map[bool]string{true: "203.0.113.5", false: "2001:db8:5::5"}[target.Is4()])
	if string(got) != want {
		s.t.Errorf("the real server says %q, want %q", got, want)
	}
}

// TestTunnelsCarryTCP sends real TCP through every kind of tunnel.
func TestTunnelsCarryTCP(t *testing.T) {
	for _, test := range []struct {
		tunnel       string
		outer, inner int
	}{
		{"ipip", 4, 4}, {"ipip", 6, 6}, {"ipip", 6, 4}, {"ipip", 4, 6},
		{"gre", 4, 4}, {"gre-csum", 6, 6}, {"gue", 6, 4}, {"gue-csum", 4, 4},
	} {
		t.Run(fmt.Sprintf("%s %d in %d", test.tunnel, test.inner, test.outer), func(t *testing.T) {
			s := newSite(t)
			o := s.server.tun([]netip.Addr{dipOf[test.outer]}, vip, vip6)
			s.server.join(o)
			if bad := wrong(s.server.status(s.server.own())); len(bad) != 0 {
				t.Errorf("status after join: %v", bad)
			}
			stop := s.direct(right(test.tunnel, test.outer, test.inner))
			s.exchange(vipOf[test.inner], 1<<20)
			largest, mss := stop()
			headers := map[int]int{4: 40, 6: 60}[test.inner]
			room := map[int]int{4: 32, 6: 52}[test.outer]
			if want := 1500 - headers - room; mss != want {
				t.Errorf("the real server offered an MSS of %d, want %d", mss, want)
			}
			if largest > 1500 || largest < 1400 {
				t.Errorf("the largest packet in a tunnel had %d bytes", largest)
			}
			outcome := map[string]string{"ipip": "ipip", "gre": "gre", "gre-csum": "gre"}[test.tunnel]
			if outcome == "" {
				outcome = "gue"
			}
			for _, f := range s.server.status(s.server.own()) {
				if f.Object == "packets taken out of "+outcome && f.Effective == "0" {
					t.Errorf("status: %+v", f)
				}
			}
		})
	}
}

// TestTunnelsWithoutJoin is what the tests above prove anything by.
func TestTunnelsWithoutJoin(t *testing.T) {
	s := newSite(t)
	s.server.join(s.server.options(vip))
	s.direct(right("ipip", 4, 4))
	var listener net.Listener
	address := netip.AddrPortFrom(vip, 80).String()
	s.server.do(func() (err error) { listener, err = net.Listen("tcp", address); return err })
	defer listener.Close()
	err := s.client.try(func() error {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err == nil {
			c.Close()
		}
		return err
	})
	if err == nil {
		t.Error("the kernel takes tunnels off by itself: these tests prove nothing")
	}
}

func TestTunThenLeaveRestores(t *testing.T) {
	s := newSite(t)
	server := s.server
	for _, name := range []string{all, "eth0"} {
		server.set(name, reversePathKey, 0)
	}
	before := server.snapshot()
	o := server.tun([]netip.Addr{dip, dip6}, vip, vip6)
	o.TunnelPorts = []uint16{7000}
	steps := server.join(o)
	for _, want := range []string{"tunnel program loaded", "director 192.0.2.9: made known to the program", "tunnel port 7000: made known to the program",
		"tunnel program on eth0: attached", "routes of IPv4 in table 16080: 2, with an MSS that leaves room for tunnels", "rule from 192.0.2.100 lookup 16080: added", "VIP 192.0.2.100/32 added to lo"} {
		if !slices.Contains(texts(steps), want) {
			t.Errorf("join does not say %q:\n%s", want, strings.Join(texts(steps), "\n"))
		}
	}
	if got := steps[len(steps)-1].Text; got != "VIP 2001:db8::100/128 added to lo" {
		t.Errorf("the last step is %q: the VIPs come when all else is there", got)
	}
	facts := server.status(server.own())
	if bad := wrong(facts); len(bad) != 0 {
		t.Errorf("status after join: %v", bad)
	}
	if i := slices.IndexFunc(facts, func(f Fact) bool { return f.Object == "tunnel program on eth0" }); i < 0 || facts[i].Effective != "attached, native" {
		t.Errorf("status: %+v", facts)
	}
	joined := server.snapshot()
	if again := server.join(o); changed(again) || len(again) != len(steps) {
		t.Errorf("the second join: %v", texts(again))
	}
	if diff := cmp.Diff(joined, server.snapshot()); diff != "" {
		t.Errorf("the second join changed something:\n%s", diff)
	}
	server.leave(server.own())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
	if left := server.pinned(); len(left) != 0 {
		t.Errorf("leave left %v", left)
	}
	if again := server.leave(server.own()); changed(again) {
		t.Errorf("the second leave: %v", texts(again))
	}
}

func TestTunEveryFailureUndoes(t *testing.T) {
	s := newSite(t)
	s.server.set("eth0", reversePathKey, 1)
	o := s.server.tun([]netip.Addr{dip, dip6}, vip, vip6)
	o.Persist = true
	s.server.failEach(o, 18)
}

func TestTunEveryFailedLeaveUndoes(t *testing.T) {
	s := newSite(t)
	server := s.server
	server.join(server.tun([]netip.Addr{dip, dip6}, vip, vip6))
	before, pins, own := server.snapshot(), server.pinned(), server.own()
	broken := errors.New("broken on purpose")
	for i, count := 0, 1; i < count; i++ {
		err := server.try(func() error {
			h, err := openToChange(own)
			if err != nil {
				return err
			}
			defer h.close()
			h.VIPs = h.state.addresses()
			changes, err := h.planLeave(true)
			if err != nil {
				return err
			}
			count = len(changes)
			changes[i].do = func() error { return broken }
			_, err = run(changes)
			return err
		})
		if !errors.Is(err, broken) {
			t.Fatalf("change %d: %v", i, err)
		}
		if diff := cmp.Diff(before, server.snapshot()) + cmp.Diff(pins, server.pinned()); diff != "" {
			t.Fatalf("change %d failed and something stayed:\n%s", i, diff)
		}
		if bad := wrong(server.status(server.own())); len(bad) != 0 {
			t.Fatalf("change %d failed, and status says: %v", i, bad)
		}
	}
}

// TestTunOneVIPLeaves takes tunnels for the other still.
func TestTunOneVIPLeaves(t *testing.T) {
	s := newSite(t)
	server := s.server
	before := server.snapshot()
	server.join(server.tun([]netip.Addr{dip}, vip))
	server.join(server.tun([]netip.Addr{dip6}, other))
	o := server.own()
	o.VIPs = []netip.Addr{vip}
	server.leave(o)
	if bad := wrong(server.status(server.own())); len(bad) != 0 {
		t.Errorf("status: %v", bad)
	}
	own := server.own()
	server.do(func() error {
		h, err := open(own)
		if err != nil {
			return err
		}
		defer h.close()
		if h.has(decapMapVips, encode(vip)) || !h.has(decapMapVips, encode(other)) || !h.has(decapMapDirectors, encode(dip)) {
			t.Error("the program knows the wrong VIPs")
		}
		return nil
	})
	server.leave(server.own())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

// TestTunDrift has what join did changed by others, seen by status, and mended by
// the command that it names.
func TestTunDrift(t *testing.T) {
	for _, test := range []struct {
		name, object string
		drift        func(*machine) error
		byJoin       bool
	}{
		{"rule", "rule from 192.0.2.100", func(*machine) error { return netlink.RuleDel(vipRule(vip, firstTable)) }, true},
		{"route changed", "routes of IPv4 in table 16080", func(*machine) error {
			return netlink.RouteReplace(&netlink.Route{Gw: net.ParseIP("192.0.2.8")})
		}, true},
		{"MTU changed", "routes of IPv4 in table 16080", func(*machine) error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(l, 1400)
		}, true},
		{"MAC address", "tunnel program on eth0", func(*machine) error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 0x55})
		}, true},
		{"pins", "tunnel program on eth0", func(m *machine) error { return os.RemoveAll(filepath.Join(m.bpffs(), "lvx")) }, true},
		{"VIP in the program", "tunnels for 192.0.2.100", func(m *machine) error {
			h, err := open(Options{Root: m.dir, BPFFS: m.bpffs()})
			if err != nil {
				return err
			}
			defer h.close()
			return h.drop(decapMapVips, encode(vip))
		}, true},
		{"strict filter", "rp_filter on eth0", func(*machine) error {
			if err := netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}); err != nil {
				return err
			}
			return sysctl{Interface: all, Key: reversePathKey}.write(1)
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			server := s.server
			for _, name := range []string{all, "eth0"} {
				server.set(name, reversePathKey, 0)
			}
			o := server.tun([]netip.Addr{dip}, vip)
			server.join(o)
			server.do(func() error { return test.drift(server) })
			if bad, ok := wrong(server.status(server.own()))[test.object]; !ok || bad.Fix == "" {
				t.Errorf("status: %+v", wrong(server.status(server.own())))
			}
			server.join(o)
			if bad := wrong(server.status(server.own())); len(bad) != 0 {
				t.Errorf("status after the second join: %v", bad)
			}
			server.leave(server.own())
			if left := server.pinned(); len(left) != 0 {
				t.Errorf("leave left %v", left)
			}
		})
	}
}

// TestTunReversePath has the default route on another interface than the tunnels:
// a strict filter would drop the client's packets.
func TestTunReversePath(t *testing.T) {
	s := newSite(t)
	aside := newMachine(t)
	wire(t, s.server, "eth1", aside, "eth0")
	s.server.set("eth0", reversePathKey, 0)
	s.server.set("eth1", reversePathKey, 0)
	s.server.set(all, reversePathKey, 1)
	s.server.addAll("eth1", "198.51.100.1/24")
	before := s.server.snapshot()
	o := s.server.tun([]netip.Addr{dip}, vip)
	o.Interfaces = []string{"eth0"}
	s.server.join(o)
	if got := s.server.get("eth0", reversePathKey); got != 2 {
		t.Errorf("rp_filter of eth0 is %d, want 2", got)
	}
	if got := s.server.get("eth1", reversePathKey); got != 0 {
		t.Errorf("rp_filter of eth1, where no tunnels come in, is %d", got)
	}
	s.direct(right("ipip", 4, 4))
	s.exchange(vip, 1000)
	s.server.leave(s.server.own())
	if diff := cmp.Diff(before, s.server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

// TestTunGeneric takes tunnels off at a bridge, which has no native XDP.
func TestTunGeneric(t *testing.T) {
	s := newSite(t)
	s.server.do(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: s.serverMAC}}); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addresses, err := netlink.AddrList(eth0, unix.AF_INET)
		if err != nil {
			return err
		}
		if err := netlink.AddrDel(eth0, &addresses[0]); err != nil {
			return err
		}
		return netlink.LinkSetMaster(eth0, bridge)
	})
	s.server.setUp("br0")
	s.server.addAll("br0", "192.0.2.11/24")
	s.server.addDefaults("192.0.2.9")
	s.server.join(s.server.tun([]netip.Addr{dip}, vip))
	facts := s.server.status(s.server.own())
	if i := slices.IndexFunc(facts, func(f Fact) bool { return f.Object == "tunnel program on br0" }); i < 0 || facts[i].Effective != "attached, generic" {
		t.Errorf("status: %+v", facts)
	}
	for _, tunnel := range []string{"ipip", "gre-csum", "gue-csum"} {
		stop := s.direct(right(tunnel, 4, 4))
		s.exchange(vip, 1<<20)
		stop()
	}
}

func TestTunRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*machine, *Options)
		want   string
	}{
		{"no director", func(_ *machine, o *Options) { o.Directors = nil }, "method tun needs the addresses that directors send from"},
		{"no VIP", func(_ *machine, o *Options) { o.VIPs = nil }, "no VIP given"},
		{"no BPF file system", func(m *machine, o *Options) { o.BPFFS = m.dir }, "mount one with: mount -t bpf bpf"},
		{"no such interface", func(_ *machine, o *Options) { o.Interfaces = []string{"eth7"} }, "there is no interface eth7"},
		{"port 0", func(_ *machine, o *Options) { o.TunnelPorts = []uint16{0} }, "tunnel port 0 is not possible"},
		{"interface of dr", func(_ *machine, o *Options) { o.Method, o.Interfaces = lvs.DR, []string{"eth0"} }, "are for method tun"},
		{"another program", attachOther, "another XDP program is attached to eth0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			o := s.server.tun([]netip.Addr{dip}, vip)
			test.change(s.server, &o)
			before := s.server.snapshot()
			err := s.server.try(func() error { _, err := Join(o); return err })
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, test.want)
			}
			if diff := cmp.Diff(before, s.server.snapshot()); diff != "" {
				t.Errorf("a refused join changed something:\n%s", diff)
			}
			if left := s.server.pinned(); len(left) != 0 {
				t.Errorf("a refused join left %v", left)
			}
		})
	}
}

func TestTunPersist(t *testing.T) {
	s := newSite(t)
	server := s.server
	server.write(networkdEnabled, "")
	for _, name := range []string{all, "eth0"} {
		server.set(name, reversePathKey, 1)
	}
	server.do(func() error {
		return netlink.RouteDel(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))})
	})
	before := server.snapshot()
	o := server.tun([]netip.Addr{dip}, vip)
	o.Persist = true
	var warnings []string
	for _, step := range server.join(o) {
		if step.Warning {
			warnings = append(warnings, step.Text)
		}
	}
	if len(warnings) != 1 || !strings.HasSuffix(warnings[0], "when the network is up: lvx realserver join --vip 192.0.2.100 --method tun --director 192.0.2.9") {
		t.Errorf("warnings: %q", warnings)
	}
	if text := server.read(sysctlFile); !strings.Contains(text, "\n-net.ipv4.conf.eth0.rp_filter = 2\n") || !strings.Contains(text, "arp_ignore = 1") {
		t.Errorf("%s:\n%s", sysctlFile, text)
	}
	// After a reboot the program is gone, and join, as it was said, brings it back.
	server.do(func() error {
		return errors.Join(os.RemoveAll(filepath.Join(server.dir, "run")), os.RemoveAll(filepath.Join(server.bpffs(), "lvx")),
			netlink.RuleDel(vipRule(vip, firstTable)))
	})
	if bad := wrong(server.status(server.own())); bad["tunnel program on eth0"].Fix == "" || bad["rule from 192.0.2.100"].Fix == "" {
		t.Errorf("status after a reboot: %v", bad)
	}
	server.join(o)
	if bad := wrong(server.status(server.own())); len(bad) != 0 {
		t.Errorf("status after the join after a reboot: %v", bad)
	}
	server.leave(server.own())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}
