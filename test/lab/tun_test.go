// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"lvx/internal/lab"
)

// newTunBed has a running director and real servers in other networks that have
// joined, in both families; every frame is looked at.
func newTunBed(t *testing.T, args ...string) *bed {
	t.Helper()
	b := newBedOf(t, lab.TunRouted, lab.Options{})
	b.inspect()
	// Both directors for either family: a tunnel may be of the other one.
	for _, h := range b.RealServers() {
		b.typeAt(h, fmt.Sprintf("lvx realserver join --vip %s,%s --method tun --director %s,%s",
			lab.VIP(4), lab.VIP(6), b.DirectorAddress(4), b.DirectorAddress(6)))
	}
	b.start(b.Host(lab.Director), append(args, "--interface", "eth0")...)
	return b
}

// tunnel makes the service over all real servers, which are known by their
// addresses of that family, and starts echo servers on them.
func (b *bed) tunnel(v virtual, family int, options string) {
	b.t.Helper()
	b.do("ipvsadm -A %s -s rr", v.option())
	for _, h := range b.RealServers() {
		serve(b.t, h, v)
		b.do("ipvsadm -a %s -r %s -i %s", v.option(), netip.AddrPortFrom(h.Addr(family), v.Port()), options)
	}
}

// TestDemoOfTun is what `lvx lab demo --method tun` shows.
func TestDemoOfTun(t *testing.T) {
	for _, family := range families {
		r := demo(t, lab.DemoOptions{Topology: lab.TunRouted, Family: family})
		if n := r.RepliesFromRealServers; n == 0 || r.RepliesToRouter != n || r.RepliesThroughDirector != 0 || r.RequestsTunnelled < 4*r.OK {
			t.Errorf("family %d: real servers sent %d replies, %d reached the router, %d were at the director; %d requests in a tunnel",
				family, n, r.RepliesToRouter, r.RepliesThroughDirector, r.RequestsTunnelled)
		}
		checkTunWalk(t, r)
	}
}

// checkTunWalk checks all addresses of SYN and SYN-ACK: the packet inside keeps
// its own, and the answer never sees the director.
func checkTunWalk(t *testing.T, r *lab.DemoResult) {
	t.Helper()
	client, service, rs := r.Walk[0].Source, netip.MustParseAddrPort(r.Service), r.Walk[2].To
	for i, want := range []struct {
		from, to            string
		source, destination netip.AddrPort
		outerTTL            uint8
		frame               string
	}{
		{lab.Router, lab.Director, client, service, 0, "SYN"},
		{lab.Director, lab.Router, client, service, 63, "SYN"}, // as the packet has it
		{lab.Router, rs, client, service, 62, "SYN"},
		{rs, lab.Router, service, client, 0, "SYN-ACK"},
	} {
		h := r.Walk[i]
		if h.From != want.from || h.To != want.to || h.Source != want.source || h.Destination != want.destination ||
			h.Outer.TTL != want.outerTTL || h.Frame != want.frame || h.SourceMACOf != want.from || h.DestinationMACOf != want.to {
			t.Errorf("hop %d is %+v, want %+v", i+1, h, want)
		}
	}
	if !strings.HasPrefix(rs, "rs") || r.Walk[1].Outer.Tunnel != "ipip" {
		t.Errorf("the SYN went to %s in %+v", rs, r.Walk[1].Outer)
	}
}

// tunnelKinds are ipvsadm's options for each kind of tunnel.
var tunnelKinds = []struct{ tunnel, options string }{
	{"ipip", ""},
	{"gre", "--tun-type gre"},
	{"gre", "--tun-type gre --tun-csum"},
	{"gue", "--tun-type gue --tun-port 6080"},
	{"gue", "--tun-type gue --tun-port 6080 --tun-csum"},
}

// TestTunnels asks services of every kind through every tunnel, also through
// those of the other family.
func TestTunnels(t *testing.T) {
	b := newTunBed(t)
	port := uint16(1000)
	for _, kind := range tunnelKinds {
		for _, family := range families {
			for _, outer := range families {
				for _, v := range []virtual{tcp(family, port), udp(family, port)} {
					what := fmt.Sprintf("%s %s, %s over family %d", v.network(), v, kind.options, outer)
					b.record()
					b.tunnel(v, outer, kind.options)
					byName := map[string]int{}
					for i := range 10 {
						k := b.call(v)
						b.must(what, k.say(strings.Repeat("w", i)))
						byName[k.server]++
					}
					if byName["rs1"] != 5 || byName["rs2"] != 5 {
						t.Errorf("%s: round robin gave %v", what, byName)
					}
					if v.flag == "-t" {
						b.must(what, b.call(v).exchange(noise(1<<20)))
					}
					checkTunnelled(b, what, v, outer, kind.tunnel)
				}
				port++
			}
		}
	}
}

// checkTunnelled looks at the frames of a service: what left the director was in
// that tunnel, from its own address to those of real servers, and it saw no reply.
func checkTunnelled(b *bed, what string, v virtual, outer int, tunnel string) {
	b.t.Helper()
	frames := slices.DeleteFunc(b.frames(), func(f lab.Frame) bool { return f.Decode().Protocol != v.protocol() })
	r := lab.CountReplies(frames, lab.Served{Service: v.AddrPort})
	if r.FromRealServers == 0 || r.ToRouter != r.FromRealServers || r.ThroughDirector != 0 {
		b.t.Errorf("%s: %+v", what, r)
	}
	to := map[netip.Addr]int{}
	for _, f := range frames {
		p := f.Decode()
		if f.Port != lab.Director || f.ToHost || p.Destination != v.AddrPort {
			continue
		}
		to[p.Outer.Destination]++
		if p.Outer.Tunnel != tunnel || p.Outer.Source != b.DirectorAddress(outer) {
			b.t.Fatalf("%s: the outer header is %+v", what, p.Outer)
		}
	}
	for _, h := range b.RealServers() {
		if to[h.Addr(outer)] == 0 || len(to) != 2 {
			b.t.Errorf("%s: packets went to %v", what, to)
		}
	}
}

// TestMuchThroughTun sends 100 MiB both ways at the same time and compares every byte.
func TestMuchThroughTun(t *testing.T) {
	b := newTunBed(t)
	_ = b.frames() // would be too many
	for _, family := range families {
		b.tunnel(tcp(family, 80), family, "")
		b.must(fmt.Sprintf("family %d: 100 MiB", family), b.call(tcp(family, 80)).exchangeWithin(noise(100<<20), time.Minute))
	}
}

// TestNginxAndCurlThroughTun puts Debian's own web server and client at the ends.
func TestNginxAndCurlThroughTun(t *testing.T) {
	needPrograms(t)
	b := newTunBed(t)
	for _, family := range families {
		v := tcp(family, 80)
		b.do("ipvsadm -A %s -s rr", v.option())
		for _, h := range b.RealServers() {
			b.startNginx(h, v)
			b.do("ipvsadm -a %s -r %s -i", v.option(), v.on(h))
		}
		b.checkNginx(v)
		b.upAndDown(v)
	}
}

// TestTunInGenericMode runs the director's program behind the driver instead of in it.
func TestTunInGenericMode(t *testing.T) {
	b := newTunBed(t, "--xdp", "generic")
	for _, family := range families {
		for _, v := range []virtual{tcp(family, 80), udp(family, 53)} {
			b.record()
			b.tunnel(v, family, "")
			for range 10 {
				b.must("generic mode", b.call(v).say("hello"))
			}
			if v.flag == "-t" {
				b.must("big exchange", b.call(v).exchange(noise(1<<20)))
			}
			checkTunnelled(b, "generic mode, "+v.String(), v, family, "ipip")
		}
	}
}

// TestSegmentsFitTheTunnel reads the MSS that real servers tell clients: what those
// then send fits a wire of the usual size with the tunnel's header before it.
func TestSegmentsFitTheTunnel(t *testing.T) {
	b := newTunBed(t)
	b.record()
	headers := map[int]int{4: 20, 6: 40}
	for _, family := range families {
		b.tunnel(tcp(family, 80), family, "")
		for range b.RealServers() {
			b.must("the service", b.call(tcp(family, 80)).exchange(noise(1<<18)))
		}
	}
	seen := map[int]int{}
	for _, f := range b.frames() {
		p := f.Decode()
		for _, family := range families {
			if p.Source != tcp(family, 80).AddrPort || p.Flags != lab.SYN|lab.ACK || f.ToHost {
				continue
			}
			seen[family]++
			header := headers[family]
			if mss := mssOf(f.Data[14+header:]); mss == 0 || mss > 1500-2*header-20 {
				t.Errorf("family %d: %s tells an MSS of %d", family, f.Port, mss)
			}
		}
	}
	if seen[4] < 2 || seen[6] < 2 {
		t.Errorf("SYN-ACKs by family: %v", seen)
	}
}

// mssOf reads the option in a TCP header, 0 if it has none.
func mssOf(d []byte) int {
	const end, nothing, mss = 0, 1, 2
	for d = d[20:min(len(d), int(d[12]>>4)*4)]; len(d) >= 4; {
		switch {
		case d[0] == mss:
			return int(binary.BigEndian.Uint16(d[2:]))
		case d[0] == nothing:
			d = d[1:]
		case d[0] == end || d[1] < 2 || int(d[1]) > len(d):
			return 0
		default:
			d = d[d[1]:]
		}
	}
	return 0
}

// TestTunnelComesFromTheDirector: the outer source is the director's own address,
// which real servers expect, although the kernel would choose the VIP, since it came
// later. (The lab gives the VIP as one that is not to be chosen.)
func TestTunnelComesFromTheDirector(t *testing.T) {
	b := newBedOf(t, lab.TunRouted, lab.Options{})
	b.inspect()
	b.do("ip -6 addr change %s/128 dev eth0 valid_lft forever preferred_lft forever", lab.VIP(6))
	b.joinAll()
	b.start(b.Host(lab.Director), "--interface", "eth0")
	v := tcp(6, 80)
	b.tunnel(v, 6, "")
	for range b.RealServers() {
		b.must("the service", b.call(v).say("hello"))
	}
	checkTunnelled(b, v.String(), v, 6, "ipip")
}

// TestRealServersOfTunAreReached: what is not from a director's tunnel passes
// their program untouched.
func TestRealServersOfTunAreReached(t *testing.T) {
	b := newTunBed(t)
	for _, family := range families {
		b.tunnel(tcp(family, 80), family, "")
		for _, h := range b.RealServers() {
			for _, v := range []virtual{{netip.AddrPortFrom(h.Addr(family), 22), "-t"}, {netip.AddrPortFrom(h.Addr(family), 53), "-u"}} {
				serve(t, h, v)
				k := b.call(v)
				b.must(v.String(), k.say("hello"))
				if k.server != h.Name {
					t.Errorf("%s answers at %s", k.server, v)
				}
			}
			for _, from := range []string{lab.Client, lab.Director} {
				b.must("ping from "+from, ping(b.Host(from), h.Addr(family)))
			}
			b.must("ping the client", ping(h, b.Host(lab.Client).Addr(family)))
		}
		b.must("the service", b.call(tcp(family, 80)).say("hello"))
	}
}
