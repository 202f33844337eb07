// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"testing"
	"time"

	"lvx/internal/lvs"
)

// BenchmarkPacket gives the time of one packet through the program, and its ratio
// to a packet that is not ours in the same run. BPF_PROG_TEST_RUN hands the
// program the frame that it changed the run before: with one MAC address for
// director and real server that frame is the same packet again.
func BenchmarkPacket(b *testing.B) {
	r := newRig(b)
	r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	r.service("tcp [2001:db8::1]:80", lvs.RR, server("[2001:db8:1::1]:80", 1))
	if err := r.objects.Interfaces.Put(uint32(inIfindex), bpfInterface{Mac: [6]byte(serverMAC)}); err != nil {
		b.Fatal(err)
	}
	// The shipped program has the kernel's clock: its connections are of now.
	r.now = coarseNow()
	four := frame{to: serverMAC, payload: 22}
	six := frame{to: serverMAC, vip: "[2001:db8::1]:80", client: "[2001:db8:9::9]:40000", payload: 2}
	for _, f := range []frame{four, six} {
		for _, f.flags = range []string{"S", "A"} {
			r.send(f.bytes(b))
		}
	}
	foreign := frame{to: serverMAC, vip: "198.51.100.2:80", payload: 22}
	for name, f := range map[string]frame{"dr4": four, "dr6": six} {
		b.Run(fmt.Sprintf("%s/established", name), func(b *testing.B) {
			base, _ := r.measure(b, foreign)
			per, verdict := r.measure(b, f)
			if verdict != xdpTX {
				b.Fatalf("verdict %d: not what was to be measured", verdict)
			}
			b.ReportMetric(float64(per.Nanoseconds()), "ns/packet")
			b.ReportMetric(float64(per)/float64(base), "x-not-ours")
		})
	}
}

// measure runs a packet b.N times, a hundred thousand at least.
func (r *rig) measure(b *testing.B, f frame) (per time.Duration, verdict uint32) {
	b.Helper()
	f.flags = "A"
	repeat := max(b.N, 100_000)
	verdict, per, err := r.objects.LvsDirect.Benchmark(f.bytes(b), repeat, nil)
	if err != nil {
		b.Fatal(err)
	}
	return per, verdict
}
