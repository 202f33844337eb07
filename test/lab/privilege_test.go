// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lvx/internal/cli"
	"lvx/internal/lab"
	"lvx/internal/lvs"
	"lvx/internal/server"
)

// These tests run the director as packaging/systemd has it run, without systemd:
// with the unit's capabilities, on file systems that are read-only where the unit's
// are, from a socket that is there before it, and with somebody who listens to what
// it tells systemd.

const unitDir = "../../packaging/systemd"

// unit returns the settings of a unit file, each with its values in order.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(unitDir, name))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		key, value, is := strings.Cut(strings.TrimSpace(line), "=")
		if is && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

// capabilities are those that the unit leaves to the director.
func capabilities(t *testing.T) []string {
	t.Helper()
	set := unit(t, "lvx.service")["CapabilityBoundingSet"]
	if len(set) != 1 {
		t.Fatalf("lvx.service has %d lines CapabilityBoundingSet=", len(set))
	}
	return strings.Fields(set[0])
}

// confinement makes the mounts that the unit's ProtectSystem=, ReadOnlyPaths= and
// the paths that stay writable make, in a mount namespace of its own. Of the lab's
// own /run the state directory stands for /var/lib/lvx.
const confinement = `set -e
mkdir -p /run/lvx /run/lvx-state
for path in /run/lvx /run/lvx-state /proc/sys; do mount --bind $path $path; done
for path in /proc/sys /sys /run /; do mount -o remount,bind,ro $path; done
cd /
exec setpriv --no-new-privs --inh-caps=-all "$@"`

// confined returns the command line that runs another one as the unit does.
func confined(capabilities []string, line ...string) []string {
	bounds := "--bounding-set=-all"
	for _, c := range capabilities {
		bounds += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	return append([]string{"unshare", "--mount", "sh", "-c", confinement, "sh", bounds}, line...)
}

// needs skips a test where a program is missing.
func needs(t *testing.T, program, debian string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s (Debian package %s)", program, debian)
	}
}

// startConfined runs a director as the unit does and waits until it answers.
func (b *bed) startConfined(args ...string) *lab.Daemon {
	b.t.Helper()
	h := b.Host(lab.Director)
	line := confined(capabilities(b.t), append([]string{"lvx", "director", "--interface", "eth0"}, args...)...)
	d, err := b.StartDaemon(h, line[0], line[1:]...)
	b.must("start a director", err)
	b.daemon = d
	b.must("wait for it", d.Await(b.t.Context(), 15*time.Second, func(ctx context.Context) bool {
		_, err := h.Run(ctx, "lvx", "status")
		return err == nil
	}))
	return d
}

// unprivileged is how programs and the kernel say that something takes a privilege.
var unprivileged = regexp.MustCompile(`(?i)permi(ssion|tted)|lacks CAP|EPERM|EACCES|read-only file system|level=(WARN|ERROR).*`)

// TestPrivileges does with a director that has few privileges all that it can do.
func TestPrivileges(t *testing.T) {
	b := newBed(t, lab.Options{})
	h := b.Host(lab.Director)
	b.typeAt(h, "ethtool -K eth0 gro on") // for generic mode to turn off
	before := b.traces(h)
	b.typeAt(h, "nft add table ip filter")
	b.typeAt(h, "nft add chain ip filter input { type filter hook input priority 0 ; }")
	b.typeAt(h, "nft add rule ip filter input tcp dport 80 drop")

	b.startConfined("--xdp", "native")
	b.checkConfinement()
	for _, family := range families {
		b.join(family)
		b.add(tcp(family, 80), "rr", 1, 1)
		b.add(udp(family, 53), "wlc", 1, 2)
	}
	b.changeEverything()
	b.checkStatus("rx-vlan-hw-parse")
	old := b.call(tcp(4, 80))
	connections := b.numbers(tcp(4, 80), "--stats --exact")[tcp(4, 80).String()][0]

	b.stop(b.daemon, syscall.SIGKILL)
	b.must("without a daemon", b.call(tcp(6, 80)).say("hello"))
	b.startConfined("--xdp", "native") // adopts what is pinned
	b.must("an old connection", old.say("still here"))
	b.must("a new connection", b.call(tcp(4, 80)).say("hello"))
	if n := b.numbers(tcp(4, 80), "--stats --exact")[tcp(4, 80).String()][0]; n != connections+1 {
		t.Errorf("%d connections are counted after a restart, want %d", n, connections+1)
	}
	b.stop(b.daemon, syscall.SIGTERM)
	b.startConfined("--xdp", "generic") // attaches anew
	b.must("an old connection", old.say("and still"))
	b.checkStatus("rx-gro")
	b.applyFile()
	b.stop(b.daemon, syscall.SIGTERM)

	line := confined(capabilities(t), "lvx", "director", "unload")
	if out, err := h.Run(t.Context(), line[0], line[1:]...); err != nil {
		t.Fatalf("unload: %v: %s", err, out)
	}
	after := b.traces(h)
	if len(after.pins)+len(after.sockets)+len(after.managed) > 0 || after.program || !maps.Equal(after.features, before.features) {
		t.Errorf("left behind: %+v, offloads %v", after, differing(before.features, after.features))
	}
	if complaint := unprivileged.FindString(b.daemon.Log()); complaint != "" {
		t.Errorf("the log speaks of %q:\n%s", complaint, b.daemon.Log())
	}
}

// checkConfinement makes sure that the daemon has what the unit gives and no more.
func (b *bed) checkConfinement() {
	b.t.Helper()
	for _, p := range b.Host(lab.Director).Processes() {
		if !strings.HasPrefix(p, "lvx director") {
			b.t.Errorf("beside the daemon there runs %q", p)
		}
	}
	status := b.do("cat /proc/%s/status", strings.TrimSpace(b.do("pidof -s lvx")))
	var want uint64
	for _, c := range capabilities(b.t) {
		number, known := map[string]int{"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_PERFMON": 38, "CAP_BPF": 39}[c]
		if !known {
			b.t.Fatalf("the number of %s is missing here", c)
		}
		want |= 1 << number
	}
	for _, line := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if !strings.Contains(status, fmt.Sprintf("%s:\t%016x\n", line, want)) {
			b.t.Errorf("the daemon has not %s %016x:\n%s", line, want, status)
		}
	}
}

// changeEverything makes every change that ipvsadm knows, and looks.
func (b *bed) changeEverything() {
	b.t.Helper()
	rs := b.RealServers()[0]
	for _, family := range families {
		v := tcp(family, 80)
		for _, line := range []string{
			"-E " + v.option() + " -s wrr",
			"-e " + v.option() + " -r " + v.on(rs).String() + " -g -w 3",
			"-d " + v.option() + " -r " + v.on(rs).String(),
			"-a " + v.option() + " -r " + v.on(rs).String() + " -g",
			"-Z " + v.option(),
			"--set 600 60 60",
		} {
			b.do("ipvsadm %s", line)
		}
		for _, v := range []virtual{v, udp(family, 53)} {
			names := map[string]bool{}
			for range 4 {
				k := b.call(v)
				b.must(v.String(), k.say("hello"))
				names[k.server] = true
			}
			if len(names) != 2 {
				b.t.Errorf("%s: the connections went to %v", v, names)
			}
		}
	}
}

// checkStatus looks at what the director finds out about its host.
func (b *bed) checkStatus(offload string) {
	b.t.Helper()
	status := b.status()
	if off := status.Interfaces[0].OffloadsOff; !slices.Contains(off, offload) {
		b.t.Errorf("offloads that were turned off: %v, want %s among them", off, offload)
	}
	rule := slices.ContainsFunc(status.Warnings, func(w lvs.Warning) bool { return strings.Contains(w.Text, "firewall rule") })
	if !rule {
		b.t.Errorf("the firewall's rule was not read: the warnings are %q", status.Warnings)
	}
	if complaint := unprivileged.FindString(b.do("lvx status")); complaint != "" {
		b.t.Errorf("lvx status speaks of %q", complaint)
	}
	if managed := b.traces(b.Host(lab.Director)).managed; len(managed) != 4 {
		b.t.Errorf("neighbours that the kernel is asked to keep: %v, want 4", managed)
	}
	for _, s := range ask[lvs.ServiceStatus](b, "services") {
		for _, r := range s.RealServers {
			if r.NextHop.State != lvs.NextHopReady {
				b.t.Errorf("the next hop of %s is %s", r.Address, r.NextHop.State)
			}
		}
	}
}

// applyFile goes through the state directory: journal, revisions, history.
func (b *bed) applyFile() {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "lvx.yaml")
	v := tcp(4, 80)
	text := fmt.Sprintf("services:\n- address: %s\n  protocol: tcp\n  scheduler: rr\n  method: dr\n  real_servers:\n  - address: %s\n", v, v.on(b.RealServers()[1]))
	b.must("write a file", os.WriteFile(file, []byte(text), 0o644))
	b.do("lvx apply %s", file)
	k := b.call(v)
	if k.server != b.RealServers()[1].Name {
		b.t.Errorf("after an apply %s answers", k.server)
	}
	b.do("lvx rollback")
	if list := b.do("ipvsadm -Ln"); strings.Count(list, "Route") != 8 {
		b.t.Errorf("after a rollback there is:\n%s", list)
	}
}

// TestEveryCapabilityIsNeeded starts a director without one of them each. It says
// which it lacks, and nothing is left.
func TestEveryCapabilityIsNeeded(t *testing.T) {
	b := newBed(t, lab.Options{})
	h := b.Host(lab.Director)
	all := capabilities(t)
	for _, c := range all {
		without := slices.DeleteFunc(slices.Clone(all), func(other string) bool { return other == c })
		line := confined(without, "lvx", "director", "--interface", "eth0")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		out, err := h.Run(ctx, line[0], line[1:]...)
		cancel()
		if err == nil || !strings.Contains(out, "the director lacks "+c) {
			t.Errorf("without %s: %v, it says %q", c, err, out)
		}
	}
	if left := b.traces(h); len(left.pins) > 0 || left.program {
		t.Errorf("left behind: %+v", left)
	}
}

// notices are what the daemon tells systemd.
type notices struct{ *net.UnixConn }

func (b *bed) listenForNotices(h *lab.Host, path string) notices {
	b.t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: h.Path(path), Net: "unixgram"})
	b.must("listen for notices", err)
	b.t.Cleanup(func() { c.Close() })
	return notices{c}
}

// next returns the next notice; "" if there is none within the time.
func (n notices) next(t *testing.T, limit time.Duration) string {
	t.Helper()
	_ = n.SetReadDeadline(time.Now().Add(limit))
	data := make([]byte, 1024)
	size, err := n.Read(data)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(data[:size])
}

// await reads notices until the one that is wanted, but for the watchdog's.
func (n notices) await(t *testing.T, want string) {
	t.Helper()
	for {
		switch got := n.next(t, 10*time.Second); got {
		case want:
			return
		case "WATCHDOG=1":
		default:
			t.Fatalf("the daemon tells %q, want %q", got, want)
		}
	}
}

// TestActivation has the socket made before the director, as lvx.socket does: the
// first command starts it and waits for the answer. Meanwhile the director tells
// systemd how it is.
func TestActivation(t *testing.T) {
	needs(t, "systemd-socket-activate", "systemd")
	b := newBed(t, lab.Options{})
	h := b.Host(lab.Director)
	socket := unit(t, "lvx.socket")["ListenStream"][0]
	heard := b.listenForNotices(h, "/run/notify")
	file := filepath.Join(t.TempDir(), "lvx.yaml")
	b.must("write a file", os.WriteFile(file, []byte("director:\n  interfaces: [eth0]\nservices: []\n"), 0o644))
	line := confined(capabilities(t), "systemd-socket-activate", "--listen", socket,
		"-E", "NOTIFY_SOCKET=/run/notify", "-E", "WATCHDOG_USEC=300000", "-E", "LVX_STATE=/run/lvx-state", "-E", "PATH",
		"lvx", "director", "--config", file)
	d, err := b.StartDaemon(h, line[0], line[1:]...)
	b.must("wait for a connection", err)
	b.daemon = d
	b.must("see the socket", d.Await(t.Context(), 10*time.Second, func(context.Context) bool {
		_, err := os.Stat(h.Path(socket))
		return err == nil
	}))
	if pins := b.traces(h).pins; len(pins) > 0 {
		t.Fatalf("nobody has asked, and there are pins: %v", pins)
	}

	b.do("ipvsadm -A %s -s rr", tcp(4, 80).option()) // starts it
	heard.await(t, "READY=1")
	for range 3 {
		if got := heard.next(t, time.Second); got != "WATCHDOG=1" {
			t.Errorf("the watchdog hears %q", got)
		}
	}
	b.must("reload", d.Signal(syscall.SIGHUP))
	heard.await(t, "RELOADING=1")
	heard.await(t, "READY=1")
	b.stop(d, syscall.SIGTERM)
	heard.await(t, "STOPPING=1")
	if _, err := os.Stat(h.Path(socket)); err != nil {
		t.Errorf("the socket is systemd's, and is gone: %v", err)
	}
}

// The units of further instances are those of the instance default.
func TestUnitsAreAlike(t *testing.T) {
	instance := strings.NewReplacer("lvx.socket", "lvx@%i.socket", "lvx.yaml", "%i.yaml", "default.sock", "%i.sock",
		"/usr/bin/lvx ", "/usr/bin/lvx --instance %i ",
		"Linux Virtual Server director", "Linux Virtual Server director (%i)")
	for _, kind := range []string{".service", ".socket"} {
		want := unit(t, "lvx"+kind)
		for _, values := range want {
			for i, value := range values {
				values[i] = instance.Replace(value)
			}
		}
		if got := unit(t, "lvx@"+kind); !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("lvx@%s has\n%v\nwhere lvx%s has\n%v", kind, got, kind, want)
		}
	}
}

// The units name what the program knows.
func TestUnitsFitTheProgram(t *testing.T) {
	socket := unit(t, "lvx.socket")
	env := &cli.Env{Getenv: func(string) string { return "" }}
	if path := socket["ListenStream"][0]; path != env.SocketPath() {
		t.Errorf("lvx.socket listens on %s, commands ask %s", path, env.SocketPath())
	}
	if group := socket["SocketGroup"][0]; group != server.Group {
		t.Errorf("lvx.socket is for group %s, the program's is %s", group, server.Group)
	}
	groups, err := os.ReadFile(filepath.Join(unitDir, "lvx.sysusers.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{server.Group, server.AdminGroup} {
		if !strings.Contains(string(groups), "\ng "+group+"\n") {
			t.Errorf("lvx.sysusers.conf does not make the group %s", group)
		}
	}
}

// systemd finds nothing wrong with the units.
func TestUnitsAreSound(t *testing.T) {
	needs(t, "systemd-analyze", "systemd")
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, name := range []string{"lvx.service", "lvx.socket", "lvx@.service", "lvx@.socket"} {
		text, err := os.ReadFile(filepath.Join(unitDir, name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		// It looks whether the program is there.
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "/usr/bin/lvx", "/bin/true")), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, strings.Replace(path, "@", "@x", 1))
	}
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
