// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // the tests that need root skip themselves
	}
	status := 1
	err := enter(func() error { status = m.Run(); return nil })
	if err != nil {
		os.Stderr.WriteString("enter the test's namespaces: " + err.Error() + "\n")
	}
	if os.Getenv(inside) != "" || err != nil {
		os.Exit(status)
	}
}

// newTestBench is a run that measures nothing by itself.
func newTestBench(t *testing.T) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("loads BPF programs: not in -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("loads BPF programs: needs root")
	}
	return sharedBench(t)
}

var shared *bench // the veth pair is the namespace's, and there is one

func sharedBench(t *testing.T) *bench {
	t.Helper()
	if shared == nil {
		var err error
		if shared, err = newBench(options{quick: true, rounds: 9}, os.Stderr); err != nil {
			t.Fatal(err)
		}
	}
	return shared
}

func (b *bench) testField(t *testing.T, s shape) *field {
	t.Helper()
	f, err := newField(s, b.port, b.workers)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(f.close)
	return f
}

func eachFamily(t *testing.T, test func(t *testing.T, six bool)) {
	for name, six := range map[string]bool{"dr4": false, "dr6": true} {
		t.Run(name, func(t *testing.T) { test(t, six) })
	}
}

func TestEachFlowComesOnceBeforeAnyComesTwice(t *testing.T) {
	for _, flows := range []uint32{1, 2, 3, k, 1000, 64 * k, 1_000_000} {
		seen := make([]bool, flows)
		for n := range uint64(flows) {
			at := traffic{flows: flows}.at(n)
			if at >= flows || seen[at] {
				t.Fatalf("of %d flows packet %d is of flow %d, which is wrong or was there", flows, n, at)
			}
			seen[at] = true
		}
	}
	if a, b := (traffic{}).at(0), (traffic{}).at(1<<32-1); a == b {
		t.Error("the endless sequence begins anew too soon")
	}
}

// packetsOf sends packets one at a time, so that each verdict and frame is seen.
func packetsOf(t *testing.T, f *field, v *variant, sequence traffic, from, n int) (list []outcome) {
	t.Helper()
	for i := range n {
		o := together(f.workers[:1], func(_ int, w *worker) outcome {
			return w.send(v.program, sequence, uint64(from+i), span{})
		})
		if o.err != nil {
			t.Fatalf("%s: %v", v.name, o.err)
		}
		list = append(list, o)
	}
	return list
}

// Every variant gives the verdict that is wanted of it for every packet, and sends
// the frame where it should go.
func TestVerdictOfEveryPacket(t *testing.T) {
	b := newTestBench(t)
	eachFamily(t, func(t *testing.T, six bool) {
		f := b.testField(t, shape{six: six, connections: 4 * k, services: 4, servers: 3})
		if err := f.establish(100); err != nil {
			t.Fatal(err)
		}
		unknown := f.known(100)
		unknown.destinations, unknown.spread = foreign, 16
		for _, v := range f.variants {
			for name, sequence := range map[string]traffic{"known": f.known(100), "opening": f.opening(), "foreign": unknown} {
				want := uint32(xdpTX)
				if name == "foreign" && !v.simple {
					want = xdpPass
				}
				for _, o := range packetsOf(t, f, v, sequence, 0, 50) {
					if o.verdict != want {
						t.Fatalf("%s: %s: verdict %d, want %d", v.name, name, o.verdict, want)
					}
					if want == xdpTX && !v.simple {
						checkSent(t, b.port, v.name, o.frame)
					}
				}
			}
		}
	})
}

func checkSent(t *testing.T, p port, name string, frame []byte) {
	t.Helper()
	if to, from := net.HardwareAddr(frame[:6]), net.HardwareAddr(frame[6:12]); to.String() != serverMAC.String() || from.String() != p.mac.String() {
		t.Fatalf("%s: the frame goes from %s to %s", name, from, to)
	}
}

// What the generator makes is what its sequence says: right addresses, ports, flags
// and checksum, every flow another.
func TestGeneratedPackets(t *testing.T) {
	b := newTestBench(t)
	eachFamily(t, func(t *testing.T, six bool) {
		f := b.testField(t, shape{six: six, connections: k, services: 16, servers: 2})
		const flows = 300
		seen := map[string]bool{}
		hit := map[netip.Addr]bool{}
		for _, o := range packetsOf(t, f, f.pick(floorName)[0], f.known(flows), 0, flows) {
			from, to := decode(t, six, o.frame)
			seen[from] = true
			hit[to] = true
			if to.Compare(vips.at(six, 0)) < 0 || to.Compare(vips.at(six, 16)) >= 0 {
				t.Fatalf("to %s", to)
			}
		}
		if len(seen) != flows {
			t.Errorf("%d different clients, want %d", len(seen), flows)
		}
		if len(hit) != 16 {
			t.Errorf("%d of 16 services were hit", len(hit))
		}
	})
}

func decode(t *testing.T, six bool, frame []byte) (from string, to netip.Addr) {
	t.Helper()
	if len(frame) != frameBytes {
		t.Fatalf("%d bytes", len(frame))
	}
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if packet.ErrorLayer() != nil {
		t.Fatal(packet.ErrorLayer().Error())
	}
	tcp, is := packet.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !is || !tcp.ACK || tcp.SYN || tcp.DstPort != vipPort {
		t.Fatalf("not what was to be sent: %v", packet)
	}
	if !six && headerChecksum(frame) != 0xffff {
		t.Fatalf("header checksum: %#x", headerChecksum(frame))
	}
	ends := packet.NetworkLayer().NetworkFlow()
	to, _ = netip.AddrFromSlice(ends.Dst().Raw())
	return ends.Src().String() + " " + tcp.SrcPort.String(), to
}

func headerChecksum(frame []byte) uint32 {
	sum := uint32(0)
	for at := 14; at < 34; at += 2 {
		sum += uint32(frame[at])<<8 | uint32(frame[at+1])
	}
	return sum>>16 + sum&0xffff
}

// smallCases are the kinds of cases with few packets.
var smallCases = []entry{
	{name: "established", flows: 500, rivals: "abcde"},
	{name: "two_cpus", flows: 500, rivals: "ce", both: true},
	{name: "roomy", kind: roomy, rivals: "abce"},
	{name: "not_ours", kind: unknown, flows: k, rivals: "abcde"},
	{name: "full", kind: full, rivals: "abce"},
	{name: "flood", kind: flood, flows: 2 * k, rivals: "abce"},
}

// The harness itself looks whether packets took the way that a case is about: see
// judge. Here it is seen that they do.
func TestCasesAreWhatTheySay(t *testing.T) {
	b := newTestBench(t)
	eachFamily(t, func(t *testing.T, six bool) {
		f := b.testField(t, shape{six: six, connections: 4 * k, services: 1, servers: 2})
		for _, e := range smallCases {
			if e.both && len(b.workers) < 2 {
				continue
			}
			if err := f.prepare(e); err != nil {
				t.Fatalf("%s: %v", e.name, err)
			}
			c := f.contest(e, true)
			c.name, c.lead, c.packets = "dr/"+e.name, 10, 1000
			if c.fresh {
				c.packets = 50
			}
			samples, err := f.hold(c, 9)
			if err != nil {
				t.Errorf("%s: %v", e.name, err)
				continue
			}
			for name, s := range samples {
				if len(s.one) != 9 || e.both && len(s.both) != 9 || s.lost > 0 && name == lvxName && e.kind != flood {
					t.Errorf("%s: %s: %+v", e.name, name, s)
				}
			}
		}
	})
}

// A case whose packets go another way fails.
func TestWrongWaysAreSeen(t *testing.T) {
	b := newTestBench(t)
	f := b.testField(t, shape{connections: 4 * k, services: 1, servers: 2})
	c := f.contest(entry{kind: established, flows: 100}, true)
	c.packets, c.lead = 100, 0
	if _, err := f.hold(c, 9); err == nil || !strings.Contains(err.Error(), "NO_CONNECTION") {
		t.Errorf("flows that are not established: %v", err)
	}
	if err := f.establish(100); err != nil {
		t.Fatal(err)
	}
	c.fresh = true
	if _, err := f.hold(c, 9); err == nil {
		t.Error("flows that are established are taken for new ones")
	}
}

func TestQuickHasTheRatiosThatMatter(t *testing.T) {
	names := map[string]bool{}
	for _, p := range plans(options{quick: true, only: regexp.MustCompile("")}) {
		for _, e := range p.entries {
			names[p.caseName(e)] = true
		}
	}
	for _, family := range []string{"dr4/", "dr6/"} {
		for _, name := range []string{"established/1", "established/64k", "established/1M", "new/full", "not_ours", "two_cpus/1M"} {
			if !names[family+name] {
				t.Errorf("there is no %s%s", family, name)
			}
		}
	}
}

func TestFloorIsTakenOffRoundByRound(t *testing.T) {
	c := contest{name: "dr4/two_cpus/1M", both: true}
	rows := rowsOf(c, entry{name: "two_cpus/1M"}, map[string]*sample{
		floorName: {one: []float64{10, 110, 20}, both: []float64{20, 20, 20}},
		lvxName:   {one: []float64{50, 150, 60}, both: []float64{80, 68, 70}},
		plainName: {one: []float64{90, 190, 100}, both: []float64{120, 120, 130}},
	})
	if len(rows) != 1 || rows[0].NS != 50 || rows[0].Min != 48 || rows[0].RatioC != 0.5 || rows[0].RatioOne != 1.25 {
		t.Errorf("%+v", rows)
	}
}

func TestOutput(t *testing.T) {
	rows := []row{{Case: "dr4/established/1M", NS: 150.5, RatioC: 0.5, RatioE: 0.4}, {Case: "dr4/to_limit/1M", NS: 100, RatioD: 1.2}}
	var out bytes.Buffer
	if err := writeJSON(&out, rows); err != nil {
		t.Fatal(err)
	}
	var read []map[string]any
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || len(read) != 2 {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	if read[0]["case"] != "dr4/established/1M" || read[0]["ns"] != 150.5 || read[0]["ratio_c"] != 0.5 || read[0]["ratio_e"] != 0.4 {
		t.Errorf("%v", read[0])
	}
	doc := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(doc, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeInto(doc, rows); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(doc)
	if err != nil || !bytes.Contains(text, []byte("dr4/established/1M")) || bytes.Contains(text, []byte("old")) || !bytes.HasSuffix(text, []byte(end+"after\n")) {
		t.Errorf("%v: %s", err, text)
	}
}
