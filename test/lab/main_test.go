// SPDX-License-Identifier: Apache-2.0

// Package lab_test runs the real lvx binary in labs of network namespaces and
// looks at it from outside: what clients get, what frames pass at the switch,
// what the commands print. It is for what only the whole can show: that a
// connection outlives changes and restarts, that nothing else is touched.
//
// It is not for single branches of the data plane (internal/dataplane has packet
// tables), nor for speed.
package lab_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// lvxBinary is lvx, built once for all tests; "" if no test may run it.
var lvxBinary string

func TestMain(m *testing.M) {
	lab.Main() // the hosts' holders are this program
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse() // else testing.Short would panic
	if os.Geteuid() != 0 || testing.Short() {
		return m.Run() // every test skips
	}
	dir, err := os.MkdirTemp("", "lvx-lab-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	lvxBinary = filepath.Join(dir, "lvx")
	build := exec.Command("go", "build", "-trimpath", "-o", lvxBinary, "./cmd/lvx")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build lvx: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// families are the address families that most tests run in.
var families = []int{4, 6}

// bed is a lab as one test uses it. Its methods fail the test when the lab, not
// what is tested, does not work; they belong to the test's own goroutine.
type bed struct {
	*lab.Lab
	t        *testing.T
	daemon   *lab.Daemon
	capture  *lab.Capture
	captured []lab.Frame
}

// newBed builds topology dr and records all frames. Nothing of lvx runs yet.
func newBed(t *testing.T, o lab.Options) *bed {
	t.Helper()
	return newBedOf(t, lab.DR, o)
}

// newBedOf is newBed for any topology.
func newBedOf(t *testing.T, topology string, o lab.Options) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
	if testing.Short() {
		t.Skip("-short: leaves out labs")
	}
	o.Self = lvxBinary
	l, err := lab.Build(t.Context(), topology, o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{Lab: l, t: t}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if b.capture, err = l.Capture(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.evidence)
	return b
}

// evidence keeps what explains a failure: frames, the daemon's words, reasons.
func (b *bed) evidence() {
	if b.capture != nil {
		b.captured, _ = b.capture.Stop() // lost frames matter to nobody now
	}
	if !b.t.Failed() {
		return
	}
	file, err := os.CreateTemp("", "lvx-"+strings.ReplaceAll(b.t.Name(), "/", "-")+"-*.pcap")
	if err != nil {
		b.t.Log(err)
		return
	}
	defer file.Close()
	if err := lab.WritePCAP(file, b.captured); err == nil {
		b.t.Logf("the frames at the switch are in %s", file.Name())
	}
	if b.daemon != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		reasons, _ := b.daemon.Host.Run(ctx, "lvx", "reasons")
		b.t.Logf("the daemon said:\n%s\n%s", b.daemon.Log(), reasons)
	}
}

// frames ends the recording and returns it.
func (b *bed) frames() []lab.Frame {
	b.t.Helper()
	frames, err := b.capture.Stop()
	b.capture, b.captured = nil, frames
	if err != nil {
		b.t.Fatal(err)
	}
	return frames
}

// record begins the recording anew.
func (b *bed) record() {
	b.t.Helper()
	var err error
	if b.capture != nil {
		_, _ = b.capture.Stop()
	}
	if b.capture, err = b.Capture(); err != nil {
		b.t.Fatal(err)
	}
}

// start runs a director in the host and waits until it answers.
func (b *bed) start(h *lab.Host, args ...string) *lab.Daemon {
	b.t.Helper()
	d, err := b.StartDaemon(h, "lvx", append([]string{"director"}, args...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	err = d.Await(b.t.Context(), 15*time.Second, func(ctx context.Context) bool {
		_, err := h.Run(ctx, "lvx", "status")
		return err == nil
	})
	if err != nil {
		b.t.Fatalf("%v\n%s", err, d.Log())
	}
	b.daemon = d
	return d
}

// stop ends a daemon with a signal and waits for it.
func (b *bed) stop(d *lab.Daemon, signal os.Signal) {
	b.t.Helper()
	if err := d.Signal(signal); err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-d.Done():
	case <-time.After(10 * time.Second):
		b.t.Fatalf("the daemon does not end on %s:\n%s", signal, d.Log())
	}
}

// try runs a command line of plain words in the host, with an input or "".
func try(t *testing.T, h *lab.Host, line, input string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	words := strings.Fields(line)
	c := h.Command(ctx, words[0], words[1:]...)
	var out, said strings.Builder
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &out, &said
	err = c.Run()
	return out.String(), said.String(), err
}

// typeAt runs a command that has to work and returns what it prints.
func (b *bed) typeAt(h *lab.Host, line string) string {
	b.t.Helper()
	out, said, err := try(b.t, h, line, "")
	if err != nil {
		b.t.Fatalf("%s: %s: %v: %s", h.Name, line, err, said)
	}
	return out
}

// do types at the director.
func (b *bed) do(format string, a ...any) string {
	b.t.Helper()
	return b.typeAt(b.Host(lab.Director), fmt.Sprintf(format, a...))
}

// join gives every real server the VIP.
func (b *bed) join(family int) {
	b.t.Helper()
	for _, h := range b.RealServers() {
		b.typeAt(h, fmt.Sprintf("lvx realserver join --vip %s --method dr", lab.VIP(family)))
	}
}

// virtual is a virtual service as ipvsadm's options name it.
type virtual struct {
	netip.AddrPort
	flag string // -t or -u
}

func tcp(family int, port uint16) virtual {
	return virtual{netip.AddrPortFrom(lab.VIP(family), port), "-t"}
}

func udp(family int, port uint16) virtual {
	return virtual{netip.AddrPortFrom(lab.VIP(family), port), "-u"}
}

// network is the name that package net has for the protocol.
func (v virtual) network() string { return map[string]string{"-t": "tcp", "-u": "udp"}[v.flag] }

// family of the VIP.
func (v virtual) family() int {
	if v.Addr().Is4() {
		return 4
	}
	return 6
}

// option is how the service is named to ipvsadm: "-t 192.0.2.1:80".
func (v virtual) option() string { return v.flag + " " + v.String() }

// on returns the address of a real server for the service.
func (v virtual) on(h *lab.Host) netip.AddrPort {
	return netip.AddrPortFrom(h.Addr(v.family()), v.Port())
}

// add makes the service with the first real servers, one for each weight, and
// starts echo servers on them.
func (b *bed) add(v virtual, scheduler string, weights ...int) {
	b.t.Helper()
	b.do("ipvsadm -A %s -s %s", v.option(), scheduler)
	for i, weight := range weights {
		h := b.RealServers()[i]
		serve(b.t, h, v)
		b.do("ipvsadm -a %s -r %s -g -w %d", v.option(), v.on(h), weight)
	}
}

// deploy starts the director and makes one service over all real servers.
func (b *bed) deploy(v virtual, scheduler string, weights ...int) {
	b.t.Helper()
	b.join(v.family())
	b.start(b.Host(lab.Director), "--interface", "eth0")
	b.add(v, scheduler, weights...)
}

// ask decodes what lvx prints as JSON, an array.
func ask[T any](b *bed, line string) (list []T) {
	b.t.Helper()
	if err := json.Unmarshal([]byte(b.do("lvx %s --json", line)), &list); err != nil {
		b.t.Fatalf("lvx %s --json: %v", line, err)
	}
	return list
}

// status returns what lvx status tells.
func (b *bed) status() lvs.Status {
	b.t.Helper()
	return ask[lvs.Status](b, "status")[0]
}

// reasons returns the packets of each reason.
func (b *bed) reasons() map[string]uint64 {
	b.t.Helper()
	counts := map[string]uint64{}
	for _, r := range ask[lvs.Reason](b, "reasons --all") {
		counts[r.Name] = r.Packets
	}
	return counts
}

// numbers returns, for the service and each of its real servers by address, the
// numbers in the columns that ipvsadm -Ln prints with these options.
func (b *bed) numbers(v virtual, options string) map[string][]uint64 {
	b.t.Helper()
	table := map[string][]uint64{}
	for line := range strings.Lines(b.do("ipvsadm -Ln %s %s", v.option(), options)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[1] == "LocalAddress:Port" || fields[1] == "RemoteAddress:Port" {
			continue
		}
		table[fields[1]] = []uint64{}
		for _, f := range fields[2:] {
			if n, err := strconv.ParseUint(f, 10, 64); err == nil {
				table[fields[1]] = append(table[fields[1]], n)
			}
		}
	}
	return table
}

// counts returns active and inactive connections of a real server.
func (b *bed) counts(v virtual, h *lab.Host) lvs.Counts {
	b.t.Helper()
	n := b.numbers(v, "")[v.on(h).String()]
	if len(n) != 3 {
		b.t.Fatalf("ipvsadm -Ln %s has the columns %d for %s", v.option(), n, h.Name)
	}
	return lvs.Counts{Active: uint32(n[1]), Inactive: uint32(n[2])}
}

// eventually fails the test unless what holds within the time.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", limit, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
