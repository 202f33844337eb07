// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"lvx/internal/lab"
)

// TestDirectRouting asks services of every kind from several clients at once and
// then looks at the frames: the director sends on what it got, nothing changed
// but the MAC addresses, and never sees a reply.
func TestDirectRouting(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	const clients, words = 20, 5
	var services []virtual
	for _, family := range families {
		b.join(family)
		services = append(services, tcp(family, 80), udp(family, 53))
	}
	for _, v := range services {
		b.add(v, "rr", 1, 1)
		byName := map[string]int{}
		for i := range clients {
			k := b.call(v)
			for n := range words {
				b.must(fmt.Sprintf("%s %s, client %d, word %d", v.network(), v, i, n), k.say(fmt.Sprint("word ", n)))
			}
			byName[k.server]++
		}
		if byName["rs1"] != clients/2 || byName["rs2"] != clients/2 {
			t.Errorf("%s %s: round robin gave %v", v.network(), v, byName)
		}
	}
	frames := b.frames()
	for _, v := range services {
		checkReplies(t, frames, v)
		checkForwarded(t, frames, v, clients*words)
	}
}

// checkReplies looks where frames that come from the service were seen: each that
// a real server sent went to the router, none to or from the director.
func checkReplies(t *testing.T, frames []lab.Frame, v virtual) {
	t.Helper()
	seen := map[string]int{}
	for _, f := range frames {
		if p := f.Decode(); p.Source == v.AddrPort && p.Protocol == v.protocol() {
			seen[fmt.Sprint(f.Port, f.ToHost)]++
		}
	}
	sent := seen["rs1false"] + seen["rs2false"]
	if sent == 0 || seen["routertrue"] != sent || seen["directortrue"]+seen["directorfalse"] != 0 {
		t.Errorf("%s %s: replies by port and direction %v", v.network(), v, seen)
	}
}

// protocol is the number in the IP header.
func (v virtual) protocol() uint8 { return map[string]uint8{"-t": 6, "-u": 17}[v.flag] }

// checkForwarded compares frames to the director with those it sends on: the
// same ones, but for their MAC addresses. Their order is not looked at, since the
// capture can see clients on two CPUs in another order at each port.
func checkForwarded(t *testing.T, frames []lab.Frame, v virtual, atLeast int) {
	t.Helper()
	in, out := 0, 0
	left := map[string]int{} // how often a frame came in more often than it left
	for _, f := range frames {
		p := f.Decode()
		if f.Port != lab.Director || p.Destination != v.AddrPort || p.Protocol != v.protocol() {
			continue
		}
		content := fmt.Sprintf("%d bytes, % x", f.Length, f.Data[12:])
		if f.ToHost {
			in++
			left[content]++
			continue
		}
		out++
		left[content]--
		if p.SourceMAC != directorMAC || p.DestinationMAC != rsMAC(1) && p.DestinationMAC != rsMAC(2) {
			t.Errorf("%s %s: forwarded from %s to %s", v.network(), v, p.SourceMAC, p.DestinationMAC)
		}
	}
	if in < atLeast || in != out {
		t.Errorf("%s %s: %d frames came to the director, %d left it", v.network(), v, in, out)
	}
	for content, n := range left {
		if n != 0 {
			t.Errorf("%s %s: changed behind its MAC addresses (%+d in): %s", v.network(), v, n, content)
		}
	}
}

// The MAC addresses of topology dr.
var directorMAC = lab.MAC{2, 0, 0, 0, 0x20, 1}

func rsMAC(i int) lab.MAC { return lab.MAC{2, 0, 0, 0, 0x20, byte(10 + i)} }

// TestJumboFrames sends much both ways through a path of MTU 9000.
func TestJumboFrames(t *testing.T) {
	b := newBed(t, lab.Options{MTU: 9000})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	for _, family := range families {
		v := tcp(family, 80)
		b.join(family)
		b.add(v, "rr", 1, 1)
		b.must("big exchange", b.call(v).exchange(noise(4<<20)))
	}
	largest := map[string]int{}
	for _, f := range b.frames() {
		p := f.Decode()
		for _, family := range families {
			if f.Port == lab.Director && !f.ToHost && p.Destination == tcp(family, 80).AddrPort {
				name := fmt.Sprint("request in family ", family)
				largest[name] = max(largest[name], f.Length)
			}
			if f.Port == lab.Router && f.ToHost && p.Source == tcp(family, 80).AddrPort {
				name := fmt.Sprint("reply in family ", family)
				largest[name] = max(largest[name], f.Length)
			}
		}
	}
	if len(largest) != 4 {
		t.Errorf("frames were seen of %v only", largest)
	}
	for name, n := range largest {
		if n != 9014 {
			t.Errorf("%s: the largest frame has %d bytes, want 9014", name, n)
		}
	}
}

func noise(n int) []byte {
	data := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)
	return data
}

// TestGenericMode runs the program behind the driver instead of in it.
func TestGenericMode(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0", "--xdp", "generic")
	if out := b.do("lvx status"); !strings.Contains(out, "eth0: generic XDP") {
		t.Errorf("lvx status does not say generic:\n%s", out)
	}
	for _, family := range families {
		b.join(family)
		for _, v := range []virtual{tcp(family, 80), udp(family, 53)} {
			b.add(v, "rr", 1, 1)
			for range 10 {
				b.must("generic mode", b.call(v).say("hello"))
			}
		}
		b.must("big exchange", b.call(tcp(family, 80)).exchange(noise(1<<20)))
	}
	frames := b.frames()
	for _, family := range families {
		checkReplies(t, frames, tcp(family, 80))
		checkReplies(t, frames, udp(family, 53))
	}
}
