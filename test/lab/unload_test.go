// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"lvx/internal/lab"
)

// traces are what a director leaves in a host besides connections.
type traces struct {
	pins     []string // of all instances
	sockets  []string
	program  bool // on eth0
	features map[string]bool
	managed  []string // neighbours
}

func (b *bed) traces(h *lab.Host) (found traces) {
	b.t.Helper()
	for dir, list := range map[string]*[]string{"/sys/fs/bpf/lvx": &found.pins, "/run/lvx": &found.sockets} {
		entries, err := os.ReadDir(h.Path(dir))
		if err != nil && !os.IsNotExist(err) {
			b.t.Fatal(err)
		}
		for _, e := range entries {
			*list = append(*list, e.Name())
		}
	}
	b.must("look at "+h.Name, h.Do(func() error { return found.lookAtNetwork() }))
	return found
}

func (found *traces) lookAtNetwork() error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	found.program = link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
	neighbours, err := netlink.NeighList(link.Attrs().Index, 0)
	if err != nil {
		return err
	}
	for _, n := range neighbours {
		if n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			found.managed = append(found.managed, n.IP.String())
		}
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	found.features, err = tool.Features("eth0")
	return err
}

// TestUnloadLeavesNothing runs a director in each mode, with services and
// connections, and unloads it.
func TestUnloadLeavesNothing(t *testing.T) {
	for _, mode := range []string{"native", "generic"} {
		b := newBed(t, lab.Options{})
		h := b.Host(lab.Director)
		before := b.traces(h)
		b.start(h, "--interface", "eth0", "--xdp", mode)
		for _, family := range families {
			b.join(family)
			b.add(tcp(family, 80), "rr", 1, 1)
			b.must("a connection", b.call(tcp(family, 80)).say("hello"))
		}
		during := b.traces(h)
		if len(during.pins) == 0 || len(during.sockets) == 0 || !during.program || len(during.managed) != 4 {
			t.Errorf("%s: a director that runs leaves traces, found only %+v", mode, during)
		}
		if off := b.status().Interfaces[0].OffloadsOff; mode == "generic" && len(off) == 0 {
			t.Error("generic: lvx status names no offload that was turned off")
		}
		if _, said, err := try(t, h, "lvx director unload", ""); err == nil || !strings.Contains(said, "already running") {
			t.Errorf("%s: unload beside the daemon: %v, %q", mode, err, said)
		}
		b.must("a connection after a refused unload", b.call(tcp(4, 80)).say("hello"))
		b.stop(b.daemon, syscall.SIGTERM)
		b.do("lvx director unload")
		after := b.traces(h)
		if _, err := os.Stat(h.Path("/sys/fs/bpf/lvx")); err == nil || len(after.sockets)+len(after.managed) > 0 || after.program {
			t.Errorf("%s: left behind: pins %v, sockets %v, neighbours %v, program %t", mode, after.pins, after.sockets, after.managed, after.program)
		}
		if !maps.Equal(after.features, before.features) {
			t.Errorf("%s: offloads that were not restored: %v", mode, differing(before.features, after.features))
		}
		b.do("lvx director unload") // once more is no mistake
	}
}

func differing(a, b map[string]bool) (names []string) {
	for name := range a {
		if a[name] != b[name] {
			names = append(names, name)
		}
	}
	return names
}

// TestUnloadOnExit runs a director that takes itself away.
func TestUnloadOnExit(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.deploy(tcp(4, 80), "rr", 1, 1)
	b.stop(b.daemon, syscall.SIGKILL)
	h := b.Host(lab.Director)
	b.stop(b.start(h, "--interface", "eth0", "--unload-on-exit"), syscall.SIGTERM)
	if left := b.traces(h); len(left.pins)+len(left.managed) > 0 || left.program {
		t.Errorf("left behind: pins %v, neighbours %v, program %t", left.pins, left.managed, left.program)
	}
}

// TestSecondDirector starts directors where one runs already: of the same
// instance, and of another on the same interface. Both are refused, and the
// first does not notice.
func TestSecondDirector(t *testing.T) {
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "rr", 1, 1)
	k := b.call(v)
	for line, text := range map[string]string{
		"lvx director --interface eth0":                  "already running",
		"lvx --instance other director --interface eth0": "another XDP program",
	} {
		_, said, err := try(t, b.Host(lab.Director), line, "")
		if err == nil || !strings.Contains(said, text) {
			t.Errorf("%s: %v, it says %q", line, err, said)
		}
		b.must("the first director's connection", k.say(line))
		b.must("a new one", b.call(v).say(line))
	}
}

// TestStartThatFails starts a director that cannot attach. What it loaded goes
// with it, but not what an earlier one left to go on forwarding.
func TestStartThatFails(t *testing.T) {
	b := newBed(t, lab.Options{})
	h := b.Host(lab.Director)
	const line = "lvx director --interface eth7"
	for _, pins := range [][]string{nil, {"default"}} {
		_, said, err := try(t, h, line, "")
		if err == nil || !strings.Contains(said, "interface eth7: there is none of that name") {
			t.Errorf("%s: %v, it says %q", line, err, said)
		}
		if left := b.traces(h).pins; !slices.Equal(left, pins) {
			t.Errorf("%s: the pins afterwards are those of %v, want %v", line, left, pins)
		}
		if pins == nil {
			b.deploy(tcp(4, 80), "rr", 1, 1)
			b.stop(b.daemon, syscall.SIGTERM)
		}
	}
	b.must("forwarding goes on", b.call(tcp(4, 80)).say("hello"))
}

// TestTwoDirectors runs one in each of two hosts, for a VIP each, over the same
// real servers. The end of one is nothing to the other.
func TestTwoDirectors(t *testing.T) {
	const other = "rs3"
	b := newBed(t, lab.Options{RealServers: 3, XDPHosts: []string{lab.Director, other}})
	first := tcp(4, 80)
	second := virtual{netip.MustParseAddrPort("192.168.20.101:80"), "-t"}
	host := b.Host(other)
	b.must("give "+other+" a VIP", host.Do(func() error {
		return addAddress("eth0", netip.PrefixFrom(second.Addr(), 32))
	}))
	b.start(host, "--interface", "eth0")
	b.start(b.Host(lab.Director), "--interface", "eth0")
	b.typeAt(host, "ipvsadm -A "+second.option()+" -s rr")
	for _, rs := range b.RealServers()[:2] {
		for _, v := range []virtual{first, second} {
			b.typeAt(rs, "lvx realserver join --vip "+v.Addr().String()+" --method dr")
		}
		serve(t, rs, second)
		b.typeAt(host, "ipvsadm -a "+second.option()+" -r "+second.on(rs).String()+" -g")
	}
	b.add(first, "rr", 1, 1)
	for _, v := range []virtual{first, second} {
		for range 4 {
			b.must(v.String(), b.call(v).say("hello"))
		}
	}
	for h, v := range map[*lab.Host]virtual{b.Host(lab.Director): first, host: second} {
		list := b.typeAt(h, "ipvsadm -Ln")
		if !strings.Contains(list, v.String()) || strings.Count(list, "TCP ") != 1 {
			t.Errorf("%s has:\n%s", h.Name, list)
		}
	}
	b.stop(b.daemon, syscall.SIGTERM)
	b.do("lvx director unload")
	b.must("the other director goes on", b.call(second).say("hello"))
	if k, err := callWithin(b, first, 300*time.Millisecond); err == nil {
		t.Errorf("%s still answers for the one that was unloaded", k.server)
	}
}
