// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	vip    = netip.MustParseAddr("192.0.2.100")
	other  = netip.MustParseAddr("192.0.2.101")
	vip6   = netip.MustParseAddr("2001:db8::100")
	rip    = netip.MustParsePrefix("192.0.2.11/24")
	client = netip.MustParsePrefix("192.0.2.1/24")
)

// machine is a thread with a network and a mount namespace of its own. The
// thread is never unlocked, so both end with it.
type machine struct {
	t    *testing.T
	jobs chan func()
	fd   int // its network namespace
	dir  string
}

// newMachine makes a machine with lo up and all ARP sysctls 0: a namespace
// inherits those of the host, whatever they are.
func newMachine(t *testing.T) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make network namespaces")
	}
	m := &machine{t: t, jobs: make(chan func()), dir: t.TempDir()}
	go func() {
		runtime.LockOSThread()
		for job := range m.jobs {
			job()
		}
	}()
	t.Cleanup(func() { close(m.jobs) })
	m.do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	})
	m.do(func() (err error) {
		m.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { unix.Close(m.fd) })
	m.setUp("lo")
	for _, name := range []string{all, "default", loopback} {
		m.set(name, "arp_ignore", 0)
		m.set(name, "arp_announce", 0)
	}
	return m
}

// try runs f in the machine's namespaces.
func (m *machine) try(f func() error) error {
	done := make(chan error)
	m.jobs <- func() { done <- f() }
	return <-done
}

// do runs f in the machine's namespaces; it must not fail.
func (m *machine) do(f func() error) {
	m.t.Helper()
	if err := m.try(f); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) set(link, key string, value int) {
	m.t.Helper()
	m.do(func() error { return sysctl{Interface: link, Key: key}.write(value) })
}

func (m *machine) get(link, key string) (value int) {
	m.t.Helper()
	m.do(func() (err error) {
		value, err = sysctl{Interface: link, Key: key}.read()
		return err
	})
	return value
}

func (m *machine) setUp(link string) {
	m.t.Helper()
	m.do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (m *machine) addAddress(link string, p netip.Prefix) {
	m.t.Helper()
	m.do(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)})
	})
}

// snapshot returns everything Join may touch, to compare.
func (m *machine) snapshot() map[string]string {
	m.t.Helper()
	shot := map[string]string{}
	m.do(func() error {
		entries, err := os.ReadDir(confDir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			for _, r := range rules() {
				s := sysctl{Interface: e.Name(), Key: r.key}
				value, err := s.read()
				if err != nil {
					return err
				}
				shot[s.String()] = strconv.Itoa(value)
			}
		}
		lo, err := netlink.LinkByName(loopback)
		if err != nil {
			return err
		}
		shot["lo"] = (lo.Attrs().Flags & net.FlagUp).String()
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range list {
			if !a.IP.IsLinkLocalUnicast() { // the kernel's own, it comes late
				shot["address "+a.IPNet.String()] = strconv.Itoa(a.LinkIndex)
			}
		}
		return err
	})
	m.do(func() error { return snapshotRoutes(shot) })
	m.files(m.dir, shot)
	return shot
}

// snapshotRoutes adds the routes, the rules, and the sysctls of other methods than dr.
func snapshotRoutes(shot map[string]string) error {
	h, err := open(Options{StatePath: "none"})
	if err != nil {
		return err
	}
	defer h.close()
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range rules {
			shot["rules"] += r.String() + "\n"
		}
		for _, table := range []int{unix.RT_TABLE_MAIN, firstTable} {
			list, err := h.routes(family, table)
			if err != nil {
				return err
			}
			for _, r := range list {
				if r.read().protocol == unix.RTPROT_KERNEL {
					continue // the kernel's own, some come late
				}
				r, err := r.wanted(h.links)
				if err != nil {
					return err
				}
				shot[fmt.Sprintf("routes %d", table)] += fmt.Sprintf("%s: %x\n", r.Text, r.Message)
			}
		}
	}
	for _, dir := range []string{"ipv4", "ipv6"} {
		for _, key := range []string{"accept_redirects", "rp_filter"} {
			files, _ := filepath.Glob(filepath.Join(netDir, dir, "conf/*", key))
			for _, f := range files {
				text, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				shot[f] = string(text)
			}
		}
	}
	return nil
}

// files adds the text of every file below a directory.
func (m *machine) files(root string, shot map[string]string) {
	m.t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		shot[path] = string(text)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// options returns options whose files are in the machine's own directory.
func (m *machine) options(vips ...netip.Addr) Options {
	return Options{VIPs: vips, Root: m.dir}
}

func (m *machine) join(o Options) (steps []Step) {
	m.t.Helper()
	m.do(func() (err error) { steps, err = Join(o); return err })
	return steps
}

func (m *machine) leave(o Options) (steps []Step) {
	m.t.Helper()
	m.do(func() (err error) { steps, err = Leave(o); return err })
	return steps
}

func (m *machine) status(o Options) (facts []Fact) {
	m.t.Helper()
	m.do(func() (err error) { facts, err = Status(o); return err })
	return facts
}

// cable joins two machines by a pair of interfaces called eth0.
func cable(t *testing.T, a, b *machine) {
	t.Helper()
	a.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.fd),
		})
	})
	a.setUp("eth0")
	b.setUp("eth0")
}

// texts returns what the steps say.
func texts(steps []Step) (list []string) {
	for _, s := range steps {
		list = append(list, s.Text)
	}
	return list
}

// wrong returns the facts that are not as wanted, by object.
func wrong(facts []Fact) map[string]Fact {
	bad := map[string]Fact{}
	for _, f := range facts {
		if !f.OK {
			bad[f.Object] = f
		}
	}
	return bad
}
