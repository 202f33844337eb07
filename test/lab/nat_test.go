// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lvx/internal/lab"
)

// natTopologies are those of method nat.
var natTopologies = []string{lab.NATTwoArm, lab.NATOneArm}

// newNATBed has a running director and real servers that have joined, in both
// families; every frame is looked at.
func newNATBed(t *testing.T, topology string, args ...string) *bed {
	t.Helper()
	b := newBedOf(t, topology, lab.Options{})
	b.inspect()
	b.joinAll()
	for _, i := range b.Host(lab.Director).Interfaces {
		args = append(args, "--interface", i.Name)
	}
	b.start(b.Host(lab.Director), args...)
	return b
}

// joinAll joins the real servers in both families, as the topology needs it.
func (b *bed) joinAll() {
	b.t.Helper()
	for _, family := range families {
		_, err := b.Join(b.t.Context(), family)
		b.must("join", err)
	}
}

// mapped is the service as its real server h has it: at its own address, and at
// another port.
func (v virtual) mapped(h *lab.Host) virtual {
	return virtual{netip.AddrPortFrom(h.Addr(v.family()), v.Port()+8000), v.flag}
}

// masquerade makes the service over all real servers, with other ports there, and
// starts echo servers at them.
func (b *bed) masquerade(v virtual) {
	b.t.Helper()
	b.do("ipvsadm -A %s -s rr", v.option())
	for _, h := range b.RealServers() {
		serve(b.t, h, v.mapped(h))
		b.do("ipvsadm -a %s -r %s -m -w 1", v.option(), v.mapped(h))
	}
}

// TestDemoOfNAT is what `lvx lab demo --method nat` shows.
func TestDemoOfNAT(t *testing.T) {
	for _, topology := range natTopologies {
		for _, family := range families {
			r := demo(t, lab.DemoOptions{Topology: topology, Family: family})
			if n := r.RepliesFromRealServers; n == 0 || r.RepliesThroughDirector != n || r.RepliesToRouter != n || r.RepliesUntranslated != 0 {
				t.Errorf("%s, family %d: real servers sent %d replies, %d left the director as the VIP's, %d reached the router, and %d others",
					topology, family, n, r.RepliesThroughDirector, r.RepliesToRouter, r.RepliesUntranslated)
			}
			checkNATWalk(t, r)
		}
	}
}

// demo runs a demonstration and checks what holds for all methods.
func demo(t *testing.T, o lab.DemoOptions) *lab.DemoResult {
	t.Helper()
	if lvxBinary == "" {
		t.Skip("needs root, and no -short: it builds labs")
	}
	o.Lab.Self = lvxBinary
	l, r, err := lab.Demo(t.Context(), o)
	if err != nil {
		t.Fatalf("%s, family %d: %v", o.Topology, o.Family, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if r.OK != 100 || r.Failed != 0 || r.ByRealServer["rs1"] != 50 || r.ByRealServer["rs2"] != 50 || !r.ClientAddressSeen {
		t.Errorf("%s, family %d: %d ok, %d failed %q, by %v, client's own address seen: %t",
			o.Topology, o.Family, r.OK, r.Failed, r.Errors, r.ByRealServer, r.ClientAddressSeen)
	}
	if len(r.Walk) < 8 {
		t.Fatalf("%s, family %d: the walk has %d hops", o.Topology, o.Family, len(r.Walk))
	}
	return r
}

// checkNATWalk checks addresses, ports and hop limits of SYN and SYN-ACK.
func checkNATWalk(t *testing.T, r *lab.DemoResult) {
	t.Helper()
	client, service := r.Walk[0].Source, netip.MustParseAddrPort(r.Service)
	real := r.Walk[1].Destination
	for i, want := range []struct {
		from, to            string
		source, destination netip.AddrPort
		ttl                 uint8
		frame               string
	}{
		{lab.Router, lab.Director, client, service, 63, "SYN"},
		{lab.Director, r.Walk[1].To, client, real, 62, "SYN"},
		{r.Walk[1].To, lab.Director, real, client, 64, "SYN-ACK"},
		{lab.Director, lab.Router, service, client, 63, "SYN-ACK"},
	} {
		h := r.Walk[i]
		if h.From != want.from || h.To != want.to || h.Source != want.source || h.Destination != want.destination ||
			h.TTL != want.ttl || h.Frame != want.frame || h.Outer != (lab.Outer{}) || h.SourceMACOf != want.from || h.DestinationMACOf != want.to {
			t.Errorf("%s: hop %d is %+v, want %+v", r.Topology, i+1, h, want)
		}
	}
	if real.Port() != lab.MappedPort || !strings.HasPrefix(r.Walk[1].To, "rs") {
		t.Errorf("%s: the SYN went on to %s at %s", r.Topology, real, r.Walk[1].To)
	}
}

// TestMasquerading asks services of every kind, whose ports the real servers have
// elsewhere: each packet of a reply passes the director, and what leaves it for
// the client comes from the VIP.
func TestMasquerading(t *testing.T) {
	for _, topology := range natTopologies {
		b := newNATBed(t, topology)
		const clients, words = 20, 5
		var services []virtual
		for _, family := range families {
			services = append(services, tcp(family, 80), udp(family, 53))
		}
		for _, v := range services {
			b.masquerade(v)
			byName := map[string]int{}
			for i := range clients {
				k := b.call(v)
				for n := range words {
					b.must(fmt.Sprintf("%s: %s %s, client %d, word %d", topology, v.network(), v, i, n), k.say(strings.Repeat("w", i*n)))
				}
				byName[k.server]++
			}
			if byName["rs1"] != clients/2 || byName["rs2"] != clients/2 {
				t.Errorf("%s: %s %s: round robin gave %v", topology, v.network(), v, byName)
			}
		}
		frames := b.frames()
		for _, v := range services {
			checkMasquerade(b, frames, v, clients*words)
		}
	}
}

// checkMasquerade counts the frames of a service where they were seen.
func checkMasquerade(b *bed, frames []lab.Frame, v virtual, atLeast int) {
	b.t.Helper()
	served := lab.Served{Service: v.AddrPort}
	for _, h := range b.RealServers() {
		served.RealServers = append(served.RealServers, v.mapped(h).AddrPort)
	}
	own := slices.DeleteFunc(slices.Clone(frames), func(f lab.Frame) bool { return f.Decode().Protocol != v.protocol() })
	r := lab.CountReplies(own, served)
	if n := r.FromRealServers; n < atLeast || r.ThroughDirector != n || r.ToRouter != n || r.FromRealServerAddress != 0 {
		b.t.Errorf("%s: %s %s: %+v", b.Name, v.network(), v, r)
	}
}

// TestMuchThroughNAT sends 100 MiB both ways at the same time and compares every byte.
func TestMuchThroughNAT(t *testing.T) {
	for _, topology := range natTopologies {
		b := newNATBed(t, topology)
		_ = b.frames() // would be too many
		for _, family := range families {
			b.masquerade(tcp(family, 80))
			b.must(fmt.Sprintf("%s, family %d: 100 MiB", topology, family), b.call(tcp(family, 80)).exchangeWithin(noise(100<<20), time.Minute))
		}
	}
}

// TestNginxAndCurlThroughNAT puts Debian's own web server and client at the ends.
func TestNginxAndCurlThroughNAT(t *testing.T) {
	needPrograms(t)
	for _, topology := range natTopologies {
		b := newNATBed(t, topology)
		for _, family := range families {
			v := tcp(family, 80)
			b.do("ipvsadm -A %s -s rr", v.option())
			for _, h := range b.RealServers() {
				b.startNginx(h, v.mapped(h))
				b.do("ipvsadm -a %s -r %s -m", v.option(), v.mapped(h))
			}
			b.checkNginx(v)
			b.upAndDown(v)
		}
	}
}

// TestNATInGenericMode runs the program behind the driver instead of in it.
func TestNATInGenericMode(t *testing.T) {
	for _, topology := range natTopologies {
		b := newNATBed(t, topology, "--xdp", "generic")
		for _, family := range families {
			for _, v := range []virtual{tcp(family, 80), udp(family, 53)} {
				b.masquerade(v)
				for range 10 {
					b.must(topology+" in generic mode", b.call(v).say("hello"))
				}
			}
			b.must("big exchange", b.call(tcp(family, 80)).exchange(noise(1<<20)))
		}
		frames := b.frames()
		for _, family := range families {
			checkMasquerade(b, frames, tcp(family, 80), 10)
			checkMasquerade(b, frames, udp(family, 53), 10)
		}
	}
}

// TestNATOfAColdDirector: a director that does not know its router's MAC address
// finds it out, and the client's next packet is answered.
func TestNATOfAColdDirector(t *testing.T) {
	b := newNATBed(t, lab.NATTwoArm)
	for _, family := range families {
		v := tcp(family, 80)
		b.masquerade(v)
		b.must("the service", b.call(v).say("hello"))
		b.forgetNeighbours(b.Host(lab.Director))
		begin := time.Now()
		b.must("the service again", b.call(v).say("hello"))
		t.Logf("family %d: answered after %s", family, time.Since(begin).Round(time.Millisecond))
	}
}

// TestRealServersOwnTraffic lets real servers talk to the client as themselves, by
// way of the director, and be talked to, while they serve: what belongs to no
// connection is the kernel's. It must not teach them a way past the director, as
// a redirect would in a network that has one.
func TestRealServersOwnTraffic(t *testing.T) {
	for _, topology := range natTopologies {
		b := newNATBed(t, topology)
		client := b.Host(lab.Client)
		for _, family := range families {
			services := []virtual{tcp(family, 80), udp(family, 53)}
			for _, v := range services {
				b.masquerade(v)
				serve(t, client, virtual{netip.AddrPortFrom(client.Addr(family), v.Port()), v.flag})
			}
			for range 2 {
				for _, v := range services {
					b.must("the service", b.call(v).say("hello"))
					b.talkAsThemselves(v)
				}
			}
		}
	}
}

// router returns the router's address in the director's segment.
func (b *bed) router(family int) netip.Addr {
	for _, p := range b.Host(lab.Router).Interfaces[1].Addresses {
		if p.Addr().Is4() == (family == 4) {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// talkAsThemselves has each real server ask the client and the client ask it.
func (b *bed) talkAsThemselves(v virtual) {
	b.t.Helper()
	client := b.Host(lab.Client)
	for _, h := range b.RealServers() {
		what := fmt.Sprintf("%s, %s, family %d, %s", b.Name, v.network(), v.family(), h.Name)
		// A redirect leads to a neighbour only that is known. Pings come first, since
		// the kernel heeds none for a TCP socket that is busy, and few are sent.
		b.must(what+" pings the router", ping(h, b.router(v.family())))
		b.must(what+" pings the client", ping(h, client.Addr(v.family())))
		k, err := call(b.t.Context(), h, virtual{netip.AddrPortFrom(client.Addr(v.family()), v.Port()), v.flag})
		b.must(what+" calls the client", err)
		b.must(what+" talks to the client", k.say("hello"))
		if k.server != lab.Client {
			b.t.Errorf("%s reached %s", what, k.server)
		}
		k.Close()
		direct := b.call(v.mapped(h))
		b.must(what+" is talked to", direct.say("hello"))
		if direct.server != h.Name {
			b.t.Errorf("%s: %s answers at its address", what, direct.server)
		}
	}
}
