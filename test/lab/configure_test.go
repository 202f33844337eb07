// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// file writes what the director is to be, and returns where.
func (b *bed) file(text string) string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "lvx.yaml")
	b.must("write the file", os.WriteFile(path, []byte(text), 0o644))
	return path
}

// describe words a service over the first real servers as the file does.
func (b *bed) describe(v virtual, scheduler string, weights ...int) string {
	var text strings.Builder
	fmt.Fprintf(&text, "  - address: %q\n    protocol: %s\n    scheduler: %s\n    real_servers:\n", v, v.network(), scheduler)
	for i, weight := range weights {
		fmt.Fprintf(&text, "      - { address: %q, weight: %d }\n", v.on(b.RealServers()[i]), weight)
	}
	return text.String()
}

// exits runs a command at the director that has to end with this code.
func (b *bed) exits(code int, line string) (stdout, stderr string) {
	b.t.Helper()
	stdout, stderr, err := try(b.t, b.Host(lab.Director), line, "")
	if got := exitCode(err); got != code {
		b.t.Fatalf("%s: exit %d, want %d (%v)\n%s%s", line, got, code, err, stdout, stderr)
	}
	return stdout, stderr
}

// exitCode returns how a command ended: 0 for a nil error, -1 if it did not run.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// An apply that nobody confirms goes back by itself, under traffic, without one
// failed request; one that is confirmed stays; and rollback leads back.
func TestUnconfirmedApplyUnderTraffic(t *testing.T) {
	b := newBed(t, lab.Options{})
	v, other := tcp(4, 80), tcp(4, 81)
	b.join(4)
	first := b.file("services:\n" + b.describe(v, "wlc", 1, 1))
	second := b.file("services:\n" + b.describe(v, "rr", 3, 1) + b.describe(other, "rr", 1))
	for _, h := range b.RealServers() {
		serve(t, h, v)
	}
	b.start(b.Host(lab.Director), "--interface", "eth0", "--config", first)
	before := b.do("ipvsadm -Sn")
	if strings.Count(before, "\n") != 3 {
		t.Fatalf("the file was not applied:\n%s", before)
	}
	l := b.load(v, 10)
	b.more(l, 10)
	if plan, _ := b.exits(2, "lvx plan "+second); !strings.Contains(plan, other.String()) {
		t.Errorf("the plan does not name %s:\n%s", other, plan)
	}
	b.do("lvx apply %s --confirm 5s", second)
	applied := b.do("ipvsadm -Sn")
	if applied == before {
		t.Error("the apply changed nothing")
	}
	b.exits(255, "ipvsadm -C")
	b.more(l, 10)
	eventually(t, 10*time.Second, "the apply goes back", func() bool { return b.do("ipvsadm -Sn") == before })
	if events := b.do("lvx events"); !strings.Contains(events, string(lvs.EventRolledBack)) {
		t.Errorf("no event tells of it:\n%s", events)
	}
	b.do("lvx apply %s --confirm 5s", second)
	b.do("lvx confirm")
	<-time.After(6 * time.Second)
	if got := b.do("ipvsadm -Sn"); got != applied {
		t.Errorf("confirmed, but now it is\n%s", got)
	}
	b.do("lvx rollback")
	if got := b.do("ipvsadm -Sn"); got != before {
		t.Errorf("gone back, but now it is\n%s", got)
	}
	b.check(l)
	if n := repeatedSYNs(b.frames(), v); n != 0 {
		t.Errorf("%d SYNs were lost", n)
	}
}

// many words n services of two real servers each, beside one that stays.
func (b *bed) many(stays virtual, n, weight int) string {
	text := "services:\n" + b.describe(stays, "wlc", 1, 1)
	for i := range n {
		text += b.describe(tcp(4, uint16(1000+i)), []string{"rr", "wlc", "sh"}[(i+weight)%3], weight, 1+i%3)
	}
	return text
}

// TestKilledWhileApplying kills the daemon in the middle of an apply, and a little
// later, at moments that nobody chose. The next one has the old tables or the new ones, never something between,
// and the service that both have never loses a request.
func TestKilledWhileApplying(t *testing.T) {
	const kills, services = 12, 400
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "wlc", 1, 1)
	files := []string{b.file(b.many(v, services, 1)), b.file(b.many(v, services/2, 2))}
	l := b.load(v, 5)
	b.do("lvx apply %s", files[1])
	b.do("lvx apply %s", files[0])
	journal := b.Host(lab.Director).Path("/run/lvx-state/default/journal.json")
	at, old := 0, 0
	late := 20 * time.Millisecond // or sooner, where applies have been through before
	for range kills {
		ctx, cancel := context.WithCancel(t.Context())
		apply := b.Host(lab.Director).Command(ctx, "lvx", "apply", files[1-at])
		b.must("start an apply", apply.Start())
		came := make(chan struct{})
		go func() {
			_ = apply.Wait() // it may have come through
			close(came)
		}()
		for begun := false; !begun; { // without a pause: it takes milliseconds
			_, err := os.Stat(journal)
			select {
			case <-came:
				begun = true
			default:
				begun = err == nil
			}
		}
		<-time.After(rand.N(late))
		b.stop(b.daemon, syscall.SIGKILL)
		<-came
		cancel()
		b.start(b.Host(lab.Director), "--interface", "eth0")
		switch {
		case b.nothingToDo(files[at]):
			old++
			late *= 2
		case b.nothingToDo(files[1-at]):
			at = 1 - at
			late = max(late/2, time.Millisecond)
		default:
			plan, _ := b.exits(2, "lvx plan "+files[at])
			t.Fatalf("the tables are neither old nor new:\n%.2000s", plan)
		}
	}
	undone := strings.Count(b.daemon.Log(), "in the middle of it")
	if undone == 0 {
		t.Error("none of the kills came in the middle of an apply")
	}
	t.Logf("%d kills: %d old, %d new; %d were in the middle", kills, old, kills-old, undone)
	b.check(l)
}

// nothingToDo tells whether the tables are what the file says.
func (b *bed) nothingToDo(file string) bool {
	b.t.Helper()
	_, said, err := try(b.t, b.Host(lab.Director), "lvx plan "+file, "")
	switch code := exitCode(err); code {
	case 0:
		return true
	case 2:
		return false
	default:
		b.t.Fatalf("lvx plan %s: exit %d: %s", file, code, said)
		return false
	}
}

// SIGHUP applies the file as it is then. One that is wrong changes nothing, and is
// told of.
func TestHangup(t *testing.T) {
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	path := b.file("services:\n" + b.describe(v, "rr", 1, 1))
	b.start(b.Host(lab.Director), "--interface", "eth0", "--config", path)
	hangUp := func(text string) {
		b.must("write the file", os.WriteFile(path, []byte(text), 0o644))
		b.must("hang up", b.daemon.Signal(syscall.SIGHUP))
	}
	hangUp("services:\n" + b.describe(v, "rr", 1, 7))
	eventually(t, 5*time.Second, "the new weight is there", func() bool { return strings.Contains(b.do("ipvsadm -Sn"), "-w 7") })
	before := b.do("ipvsadm -Sn")
	hangUp("services:\n  - addr: 192.168.20.100:80\n")
	eventually(t, 5*time.Second, "the mistake is told", func() bool { return strings.Contains(b.do("lvx history"), "addr") })
	if log := b.daemon.Log(); !strings.Contains(log, path+":2:5") {
		t.Errorf("the log does not name the place:\n%s", log)
	}
	hangUp("services: []\n")
	eventually(t, 5*time.Second, "an empty file is refused", func() bool {
		return strings.Contains(b.do("lvx history --limit 1"), "gone, with all others")
	})
	if got := b.do("ipvsadm -Sn"); got != before {
		t.Errorf("refused, but now it is\n%s", got)
	}
}

// What somebody changes in the pinned maps is repaired within seconds, and told.
func TestDriftInTheMaps(t *testing.T) {
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "rr", 1, 1)
	before := b.do("ipvsadm -Sn")
	found, err := filepath.Glob(b.Host(lab.Director).Path("/sys/fs/bpf/lvx/default/v*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("find the pins: %v, %v", found, err)
	}
	pins := found[0]
	for _, name := range []string{"service_ids", "addresses"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(pins, name), nil)
		b.must("open the map "+name, err)
		key := []byte{}
		b.must("find an entry", m.NextKey(nil, &key))
		b.must("delete it", m.Delete(key))
		eventually(t, 15*time.Second, "the map "+name+" is repaired", func() bool {
			var found []byte
			return m.NextKey(nil, &found) == nil && bytes.Equal(found, key)
		})
		m.Close()
	}
	if got := b.do("ipvsadm -Sn"); got != before {
		t.Errorf("repaired, but now it is\n%s", got)
	}
	b.must("a request", b.call(v).say("hello"))
	drifts := 0
	for _, e := range ask[lvs.Event](b, "events") {
		if e.Type == lvs.EventDrift {
			drifts++
		}
	}
	if drifts < 2 {
		t.Errorf("%d events tell of it:\n%s", drifts, b.do("lvx events"))
	}
}

// TestLargeApplyUnderLoad applies 10,000 services of 10 real servers each, changes
// them all and takes them away, while 100,000 packets a second of a service that stays
// come in, or as many as the machine can: none of them is lost.
func TestLargeApplyUnderLoad(t *testing.T) {
	const services = 10_000
	b := newBed(t, lab.Options{})
	_ = b.frames() // at this rate a capture would lose some itself
	v := udp(4, 53)
	b.join(4)
	for _, h := range b.RealServers() {
		sink, err := h.ListenPacket("udp", v.String())
		b.must("listen", err)
		t.Cleanup(func() { sink.Close() })
	}
	capacity := "director:\n  interfaces: [eth0]\n  capacity: { services: 16384, real_servers: 131072 }\n"
	small := b.file(capacity + "services:\n" + b.describe(v, "wrr", 1, 1))
	b.start(b.Host(lab.Director), "--config", small)
	large, other := b.file(capacity+b.huge(v, services, 1)), b.file(capacity+b.huge(v, services, 2))
	driver, reasons := b.settled()
	stream := b.flood(v)
	for _, step := range []struct{ name, file string }{
		{"add 10,000 services", large}, {"change a weight in each", other}, {"take them away", small},
	} {
		start := time.Now()
		out, err := b.run(2*time.Minute, "lvx apply "+step.file)
		if err != nil {
			t.Fatalf("%s: %v: %s", step.name, err, out)
		}
		t.Logf("%s: %.1f s; the daemon has %d MiB", step.name, time.Since(start).Seconds(), b.resident())
	}
	sent, seconds := stream()
	driverAfter, reasonsAfter := b.settled()
	forwarded := reasonsAfter["FORWARDED"] - reasons["FORWARDED"]
	t.Logf("%d packets in %.0f s, %.0f a second", sent, seconds, float64(sent)/seconds)
	if forwarded != sent {
		t.Errorf("%d packets sent, %d forwarded: %v", sent, forwarded, reasonsAfter)
	}
	if seen, counted := driverAfter-driver, sum(reasonsAfter)-sum(reasons); seen != counted {
		t.Errorf("XDP got %d packets, %d have a reason", seen, counted)
	}
	// A few, where other work keeps the CPU of the receiving end for longer than its ring is.
	for _, i := range b.status().Interfaces {
		if i.LostAfterVerdict > sent/1000 {
			t.Errorf("the driver of %s lost %d packets after they were forwarded", i.Name, i.LostAfterVerdict)
		}
	}
}

// huge words n services of ten real servers each, which nobody asks.
func (b *bed) huge(stays virtual, n, weight int) string {
	var text strings.Builder
	text.WriteString("services:\n" + b.describe(stays, "wrr", 1, 1))
	vip := netip.MustParseAddr("10.9.0.1")
	for i := range n {
		if i%1000 == 0 {
			vip = vip.Next()
		}
		port := 1000 + i%1000
		fmt.Fprintf(&text, "  - { address: \"%s:%d\", protocol: tcp, scheduler: wlc, real_servers: [", vip, port)
		for r := range 10 {
			fmt.Fprintf(&text, "{ address: \"192.168.20.%d:%d\", weight: %d }, ", 101+r, port, weight)
		}
		text.WriteString("] }\n")
	}
	return text.String()
}

// run runs a command at the director that may take its time.
func (b *bed) run(limit time.Duration, line string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	words := strings.Fields(line)
	out, err := b.Host(lab.Director).Command(ctx, words[0], words[1:]...).CombinedOutput()
	return string(out[max(0, len(out)-2000):]), err
}

// resident is the daemon's resident memory in MiB.
func (b *bed) resident() (mib int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.daemon.PID()))
	b.must("read the daemon's memory", err)
	_, text, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(text, &mib)
	b.must("read the daemon's memory", err)
	return mib / 1024
}
