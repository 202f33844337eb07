// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// The packets here are built by hand, header by header, and each case states one
// thing that is different.

var (
	ownMAC    = []byte{2, 0, 0, 0, 0, 0x11}
	senderMAC = []byte{2, 0, 0, 0, 0, 0x99}
	clients   = map[int]netip.Addr{4: netip.MustParseAddr("203.0.113.5"), 6: netip.MustParseAddr("2001:db8:5::5")}
	vipOf     = map[int]netip.Addr{4: vip, 6: vip6}
	dipOf     = map[int]netip.Addr{4: dip, 6: dip6}
	ripOf     = map[int]netip.Addr{4: rip.Addr(), 6: netip.MustParseAddr("2001:db8::11")}
)

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// ip4 builds an IPv4 packet. options are whole words; fragment is offset and flags.
func ip4(from, to netip.Addr, protocol, tos, fragment int, options, payload []byte) []byte {
	header := join([]byte{byte(0x45 + len(options)/4), byte(tos)}, be16(20+len(options)+len(payload)), be16(77), be16(fragment),
		[]byte{64, byte(protocol), 0, 0}, from.AsSlice(), to.AsSlice(), options)
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return join(header, payload)
}

// ip6 builds an IPv6 packet; what extends the header is in front of the payload.
func ip6(from, to netip.Addr, next, class int, payload []byte) []byte {
	return join([]byte{byte(0x60 | class>>4), byte(class << 4), 0, 0}, be16(len(payload)), []byte{byte(next), 64}, from.AsSlice(), to.AsSlice(), payload)
}

// udpOver builds a UDP datagram, with a checksum or without.
func udpOver(from, to netip.Addr, port int, sum bool, payload []byte) []byte {
	u := join(be16(40000), be16(port), be16(8+len(payload)), be16(0), payload)
	if sum {
		pseudo := join(from.AsSlice(), to.AsSlice(), be16(0), be16(len(u)), be16(0), be16(17))
		c := checksum(join(pseudo, u))
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(u[6:], c)
	}
	return u
}

// tunnelled is a packet in a tunnel, and what may be different about it.
type tunnelled struct {
	tunnel        string // ipip, gre, gre-csum, gue, gue-csum, gue-raw
	outer, inner  int    // families
	source, vip   netip.Addr
	mac           []byte
	tags          []int // VLAN ids, the outer one first
	payload       int   // bytes
	tos, innerTOS int
	options       []byte // of the outer IPv4 header
	extension     []byte // of the outer IPv6 header
	fragment      int
	port          int
	tunnelHead    []byte              // in the place of the first 4 bytes of gre or gue
	change        func(packet []byte) // of the outer packet, after it was built
	changeInner   func(packet []byte)
	cut           int // bytes that are missing at the end of the frame
	padding       int
	content       []byte // the inner packet, if it is not to be made
}

func right(tunnel string, outer, inner int) tunnelled {
	return tunnelled{tunnel: tunnel, outer: outer, inner: inner, source: dipOf[outer], vip: vipOf[inner], mac: ownMAC, payload: 100, port: DefaultTunnelPort}
}

func (p tunnelled) innerPacket() []byte {
	if p.content != nil {
		return p.content
	}
	segment := make([]byte, p.payload)
	for i := range segment {
		segment[i] = byte(i*7 + 1)
	}
	var packet []byte
	if p.inner == 4 {
		packet = ip4(clients[4], p.vip, 6, p.innerTOS, 0, nil, segment)
	} else {
		packet = ip6(clients[6], p.vip, 6, p.innerTOS, segment)
	}
	if p.changeInner != nil {
		p.changeInner(packet)
	}
	return packet
}

func (p tunnelled) outerPacket() []byte {
	inner := p.innerPacket()
	protocol, payload := p.header(inner)
	to := ripOf[p.outer]
	var packet []byte
	if p.outer == 4 {
		packet = ip4(p.source, to, protocol, p.tos, p.fragment, p.options, payload)
	} else {
		if len(p.extension) > 0 {
			p.extension = slices.Clone(p.extension)
			next := int(p.extension[0])
			p.extension[0] = byte(protocol)
			protocol, payload = next, join(p.extension, payload)
		}
		packet = ip6(p.source, to, protocol, p.tos, payload)
	}
	if p.change != nil {
		p.change(packet)
	}
	return packet
}

// header puts the tunnel's own header in front of the inner packet.
func (p tunnelled) header(inner []byte) (protocol int, packet []byte) {
	number := map[int]int{4: 4, 6: 41}[p.inner]
	kind := map[int]int{4: 0x0800, 6: 0x86dd}[p.inner]
	head := func(usual []byte) []byte {
		if p.tunnelHead != nil {
			return p.tunnelHead
		}
		return usual
	}
	switch p.tunnel {
	case "gre":
		return 47, join(head(join(be16(0), be16(kind))), inner)
	case "gre-csum":
		g := join(head(join(be16(0x8000), be16(kind))), be16(0), be16(0), inner)
		binary.BigEndian.PutUint16(g[4:], checksum(g))
		return 47, g
	case "gue", "gue-csum":
		return 17, udpOver(p.source, ripOf[p.outer], p.port, p.tunnel == "gue-csum", join(head([]byte{0, byte(number), 0, 0}), inner))
	case "gue-raw":
		return 17, udpOver(p.source, ripOf[p.outer], p.port, true, inner)
	}
	return number, inner
}

func ethernet(mac []byte, tags []int, family int, packet []byte) []byte {
	frame := join(mac, senderMAC)
	for i, id := range tags {
		kind := 0x8100
		if i == 0 && len(tags) > 1 {
			kind = 0x88a8
		}
		frame = join(frame, be16(kind), be16(id))
	}
	return join(frame, be16(map[int]int{4: 0x0800, 6: 0x86dd}[family]), packet)
}

func (p tunnelled) frame() []byte {
	frame := ethernet(p.mac, p.tags, p.outer, p.outerPacket())
	frame = join(frame, make([]byte, p.padding))
	return frame[:len(frame)-p.cut]
}

// rig is the program in the kernel, with maps that no other has.
type rig struct {
	t       *testing.T
	machine *machine
	objects decapObjects
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, machine: newMachine(t)}
	spec, err := loadDecap()
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.LoadAndAssign(&r.objects, nil); err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { r.objects.Close() })
	var mac [8]byte
	copy(mac[:], ownMAC)
	for m, keys := range map[*ebpf.Map][]any{
		r.objects.Directors: {encode(dip), encode(dip6)},
		r.objects.Vips:      {encode(vip), encode(vip6)},
		r.objects.GuePorts:  {portKey(DefaultTunnelPort), portKey(7000)},
	} {
		for _, key := range keys {
			if err := m.Put(key, uint32(1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.objects.Interfaces.Put(uint32(1), binary.LittleEndian.Uint64(mac[:])); err != nil { // lo, which test runs come in by
		t.Fatal(err)
	}
	return r
}

// run sends a frame through the program and returns what came out, the verdict, and
// what it counted as.
func (r *rig) run(frame []byte) (out []byte, verdict uint32, counted decapOutcome) {
	r.t.Helper()
	before := r.count()
	out = make([]byte, len(frame)+256)
	options := &ebpf.RunOptions{Data: frame, DataOut: out}
	r.machine.do(func() (err error) {
		verdict, err = r.objects.RsDecap.Run(options)
		return err
	})
	for o, n := range r.count() {
		switch n - before[o] {
		case 0:
		case 1:
			if counted != 0 {
				r.t.Errorf("counted twice: %d and %d", counted, o)
			}
			counted = decapOutcome(o)
		default:
			r.t.Errorf("outcome %d counted %d times", o, n-before[o])
		}
	}
	return options.DataOut, verdict, counted
}

func (r *rig) count() []uint64 {
	counts := make([]uint64, decapOutcomeOUTCOME_MAX)
	for o := range counts {
		var perCPU []uint64
		if err := r.objects.Outcomes.Lookup(uint32(o), &perCPU); err != nil {
			r.t.Fatal(err)
		}
		for _, n := range perCPU {
			counts[o] += n
		}
	}
	return counts
}

const xdpDrop, xdpPass = 1, 2

// passes is a packet that has to pass as it is.
func (r *rig) passes(name string, frame []byte, want decapOutcome) {
	r.t.Helper()
	out, verdict, counted := r.run(frame)
	if verdict != xdpPass || counted != want || !bytes.Equal(out, frame) {
		r.t.Errorf("%s: verdict %d, counted as %d, want %d; as it was: %v", name, verdict, counted, want, bytes.Equal(out, frame))
	}
}

// taken is a packet that has to come out of its tunnel.
func (r *rig) taken(name string, p tunnelled, want []byte) {
	r.t.Helper()
	outcome := map[string]decapOutcome{
		"ipip": decapOutcomeOUTCOME_IPIP, "gre": decapOutcomeOUTCOME_GRE, "gre-csum": decapOutcomeOUTCOME_GRE,
	}[p.tunnel]
	if outcome == 0 {
		outcome = decapOutcomeOUTCOME_GUE
	}
	out, verdict, counted := r.run(p.frame())
	if verdict != xdpPass || counted != outcome || !bytes.Equal(out, want) {
		r.t.Errorf("%s: verdict %d, counted as %d, want %d; out\n%x, want\n%x", name, verdict, counted, outcome, out, want)
	}
}

// each calls f for every tunnel and pair of families.
func each(f func(name string, p tunnelled)) {
	for _, tunnel := range []string{"ipip", "gre", "gre-csum", "gue", "gue-csum", "gue-raw"} {
		for _, outer := range []int{4, 6} {
			for _, inner := range []int{4, 6} {
				f(fmt.Sprintf("%s %d in %d", tunnel, inner, outer), right(tunnel, outer, inner))
			}
		}
	}
}

func TestDecapTakesTunnelsOff(t *testing.T) {
	r := newRig(t)
	each(func(name string, p tunnelled) {
		for what, change := range map[string]func(*tunnelled){
			"right":        func(*tunnelled) {},
			"odd length":   func(p *tunnelled) { p.payload = 101 },
			"no payload":   func(p *tunnelled) { p.payload = 0 },
			"one byte":     func(p *tunnelled) { p.payload = 1 },
			"a chunk":      func(p *tunnelled) { p.payload = 512 - 20 },
			"full frame":   func(p *tunnelled) { p.payload = 1400 },
			"jumbo frame":  func(p *tunnelled) { p.payload = 8801 },
			"largest":      func(p *tunnelled) { p.payload = 60000 },
			"padded":       func(p *tunnelled) { p.padding = 7 },
			"VLAN":         func(p *tunnelled) { p.tags = []int{7} },
			"VLAN in VLAN": func(p *tunnelled) { p.tags = []int{7, 4094} },
			"VLAN, largest header": func(p *tunnelled) {
				p.tags, p.options, p.extension = []int{7}, make([]byte, 40), []byte{60, 4, 1, 36, 39: 0}
			},
			"options":             func(p *tunnelled) { p.options = []byte{1, 1, 1, 0} },
			"destination options": func(p *tunnelled) { p.extension = []byte{60, 0, 4, 1, 4, 1, 1, 0} },
			"hop-by-hop options":  func(p *tunnelled) { p.extension = []byte{0, 0, 1, 4, 0, 0, 0, 0} },
			"do not fragment":     func(p *tunnelled) { p.fragment = 0x4000 },
			"TOS":                 func(p *tunnelled) { p.tos, p.innerTOS = 0xb8, 0xb9 },
		} {
			p := p
			change(&p)
			frame := ethernet(p.mac, p.tags, p.inner, p.innerPacket())
			r.taken(name+", "+what, p, join(frame, make([]byte, p.padding)))
		}
	})
}

func TestDecapOtherPort(t *testing.T) {
	r := newRig(t)
	for _, tunnel := range []string{"gue", "gue-csum", "gue-raw"} {
		p := right(tunnel, 4, 6)
		p.port = 7000
		r.taken(tunnel+" to port 7000", p, ethernet(p.mac, nil, 6, p.innerPacket()))
		p.port = 7001
		r.passes(tunnel+" to port 7001", p.frame(), decapOutcomeOUTCOME_NO_TUNNEL)
	}
}

func TestDecapLetsPass(t *testing.T) {
	r := newRig(t)
	other := map[int]netip.Addr{4: netip.MustParseAddr("192.0.2.10"), 6: netip.MustParseAddr("2001:db8::10")}
	each(func(name string, p tunnelled) {
		for what, c := range map[string]struct {
			change func(*tunnelled)
			want   decapOutcome
		}{
			"another director":  {func(p *tunnelled) { p.source = other[p.outer] }, decapOutcomeOUTCOME_NOT_DIRECTOR},
			"another VIP":       {func(p *tunnelled) { p.vip = other[p.inner] }, decapOutcomeOUTCOME_NOT_VIP},
			"another host":      {func(p *tunnelled) { p.mac = []byte{2, 0, 0, 0, 0, 0x12} }, decapOutcomeOUTCOME_OTHER_HOST},
			"everybody":         {func(p *tunnelled) { p.mac = []byte{255, 255, 255, 255, 255, 255} }, decapOutcomeOUTCOME_OTHER_HOST},
			"a byte missing":    {func(p *tunnelled) { p.cut = 1 }, decapOutcomeOUTCOME_BAD_OUTER},
			"inner version":     {func(p *tunnelled) { p.changeInner = func(b []byte) { b[0] ^= 0x20 } }, decapOutcomeOUTCOME_BAD_INNER},
			"inner is too long": {func(p *tunnelled) { p.changeInner = longer(p.inner) }, decapOutcomeOUTCOME_BAD_INNER},
			"many VLANs":        {func(p *tunnelled) { p.tags = []int{1, 2, 3} }, decapOutcomeOUTCOME_NO_TUNNEL},
		} {
			if p.tunnel == "gue-raw" && what == "inner version" {
				continue // which the version is all that says
			}
			p := p
			c.change(&p)
			r.passes(name+", "+what, p.frame(), c.want)
		}
	})
}

// longer makes an inner packet say that it is longer than it is.
func longer(family int) func([]byte) {
	return func(b []byte) {
		at := map[int]int{4: 2, 6: 4}[family]
		binary.BigEndian.PutUint16(b[at:], binary.BigEndian.Uint16(b[at:])+1)
		if family == 4 {
			b[10], b[11] = 0, 0
			binary.BigEndian.PutUint16(b[10:], checksum(b[:20]))
		}
	}
}

// TestDecapTruncated cuts packets at every byte, with lengths that fit, so that each
// header ends early once.
func TestDecapTruncated(t *testing.T) {
	r := newRig(t)
	each(func(name string, p tunnelled) {
		p.payload = 0
		whole := p.outerPacket()
		header := map[int]int{4: 20, 6: 40}[p.outer]
		for n := range len(whole) {
			packet := slices.Clone(whole[:n])
			if p.outer == 4 && n >= 20 {
				binary.BigEndian.PutUint16(packet[2:], uint16(n))
				packet[10], packet[11] = 0, 0
				binary.BigEndian.PutUint16(packet[10:], checksum(packet[:20]))
			} else if n >= header {
				binary.BigEndian.PutUint16(packet[4:], uint16(n-40))
			}
			frame := ethernet(ownMAC, nil, p.outer, packet)
			if len(frame) < 14 {
				continue
			}
			out, verdict, counted := r.run(frame)
			good := counted == decapOutcomeOUTCOME_NO_TUNNEL || counted == decapOutcomeOUTCOME_BAD_OUTER || counted == decapOutcomeOUTCOME_BAD_INNER || counted == decapOutcomeOUTCOME_BAD_CHECKSUM ||
				p.tunnel == "gre-csum" && counted == decapOutcomeOUTCOME_UNKNOWN_TUNNEL
			if verdict != xdpPass || !good || !bytes.Equal(out, frame) {
				t.Errorf("%s, %d bytes: verdict %d, counted as %d", name, n, verdict, counted)
			}
		}
	})
}

func TestDecapFragments(t *testing.T) {
	r := newRig(t)
	each(func(name string, p tunnelled) {
		for what, fragment := range map[string]int{"first": 0x2000, "last": 0x0010, "middle": 0x2010} {
			p := p
			if p.outer == 4 {
				p.fragment = fragment
			} else {
				p.extension = join([]byte{44, 0}, be16(fragment&0xfff<<3|fragment>>13), []byte{0, 0, 0, 1})
			}
			r.passes(name+", "+what+" fragment", p.frame(), decapOutcomeOUTCOME_FRAGMENT)
		}
	})
}

func TestDecapChecksums(t *testing.T) {
	r := newRig(t)
	each(func(name string, p tunnelled) {
		for _, payload := range []int{100, 101, 1400, 9000} {
			p := p
			p.payload = payload
			summed := p.tunnel == "gre-csum" || p.tunnel == "gue-csum" || p.tunnel == "gue-raw"
			if p.outer == 4 {
				p.change = func(b []byte) { b[8]-- } // TTL: the header's sum is wrong
				r.passes(name+", outer header", p.frame(), decapOutcomeOUTCOME_BAD_OUTER)
			}
			p.change = func(b []byte) { b[len(b)-1] ^= 4 } // the last byte
			if summed {
				r.passes(name+", last byte", p.frame(), decapOutcomeOUTCOME_BAD_CHECKSUM)
			} else {
				inner := p.innerPacket()
				inner[len(inner)-1] ^= 4
				r.taken(name+", last byte", p, ethernet(p.mac, nil, p.inner, inner))
			}
		}
		if p.inner == 4 {
			p.changeInner = func(b []byte) { b[8]-- }
			r.passes(name+", inner header", p.frame(), decapOutcomeOUTCOME_BAD_INNER)
		}
	})
}

func TestDecapUnknownTunnels(t *testing.T) {
	r := newRig(t)
	for what, c := range map[string]struct {
		tunnel string
		head   []byte
	}{
		"gre with a key":      {"gre", []byte{0x20, 0, 8, 0}},
		"gre with a sequence": {"gre", []byte{0x10, 0, 8, 0}},
		"gre with routing":    {"gre", []byte{0x40, 0, 8, 0}},
		"gre version 1":       {"gre", []byte{0, 1, 8, 0}},
		"gre with Ethernet":   {"gre", []byte{0, 0, 0x65, 0x58}},
		"gre, key, sum":       {"gre-csum", []byte{0xa0, 0, 8, 0}},
		"gue control":         {"gue", []byte{0x20, 4, 0, 0}},
		"gue with options":    {"gue", []byte{1, 4, 0, 0}},
		"gue with flags":      {"gue", []byte{0, 4, 0, 1}},
		"gue version 2":       {"gue", []byte{0x80, 4, 0, 0}},
		"gue version 3":       {"gue", []byte{0xc0, 4, 0, 0}},
		"gue with TCP":        {"gue", []byte{0, 6, 0, 0}},
		"gue with nothing":    {"gue-csum", []byte{0, 59, 0, 0}},
		"gue raw, version 5":  {"gue", []byte{0x50, 4, 0, 0}},
	} {
		for _, outer := range []int{4, 6} {
			p := right(c.tunnel, outer, 4)
			p.tunnelHead = c.head
			r.passes(fmt.Sprint(what, " in ", outer), p.frame(), decapOutcomeOUTCOME_UNKNOWN_TUNNEL)
		}
	}
}

// TestDecapMapped sends IPv6 addresses that are written IPv4 ones.
func TestDecapMapped(t *testing.T) {
	r := newRig(t)
	p := right("ipip", 6, 4)
	p.source = netip.AddrFrom16(dip.As16())
	r.passes("mapped director", p.frame(), decapOutcomeOUTCOME_NO_TUNNEL)
	p = right("ipip", 4, 6)
	p.vip = netip.AddrFrom16(vip.As16())
	r.passes("mapped VIP", p.frame(), decapOutcomeOUTCOME_NOT_VIP)
}

// TestDecapOrdinary sends what is in no tunnel.
func TestDecapOrdinary(t *testing.T) {
	r := newRig(t)
	for name, frame := range map[string][]byte{
		"ARP":               join(ownMAC, senderMAC, be16(0x0806), make([]byte, 28)),
		"TCP":               ethernet(ownMAC, nil, 4, ip4(dip, vip, 6, 0, 0, nil, make([]byte, 40))),
		"TCP over IPv6":     ethernet(ownMAC, nil, 6, ip6(dip6, vip6, 6, 0, make([]byte, 40))),
		"UDP to DNS":        ethernet(ownMAC, nil, 4, ip4(dip, vip, 17, 0, 0, nil, udpOver(dip, vip, 53, true, []byte("x")))),
		"fragment of UDP":   ethernet(ownMAC, nil, 4, ip4(dip, vip, 17, 0, 0x10, nil, make([]byte, 40))),
		"an empty frame":    join(ownMAC, senderMAC, be16(0x0800)),
		"a frame of a VLAN": join(ownMAC, senderMAC, be16(0x8100), be16(1)),
		"ESP":               ethernet(ownMAC, nil, 6, ip6(dip6, vip6, 50, 0, make([]byte, 40))),
		"no next header":    ethernet(ownMAC, nil, 6, ip6(dip6, vip6, 59, 0, nil)),
		"many extensions":   ethernet(ownMAC, nil, 6, ip6(dip6, vip6, 60, 0, join(bytes.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9), make([]byte, 40)))),
	} {
		r.passes(name, frame, decapOutcomeOUTCOME_NO_TUNNEL)
	}
}

// TestDecapCongestion carries a router's mark into the tunnel (RFC 6040).
func TestDecapCongestion(t *testing.T) {
	r := newRig(t)
	each(func(name string, p tunnelled) {
		for _, ecn := range []int{1, 2, 3} {
			p := p
			p.tos, p.innerTOS = 0xb8|3, 0xb8|ecn
			marked := p
			marked.innerTOS = 0xb8 | 3
			r.taken(fmt.Sprintf("%s, ECN %d", name, ecn), p, ethernet(p.mac, nil, p.inner, marked.innerPacket()))
		}
		p.tos = 3
		if _, verdict, counted := r.run(p.frame()); verdict != xdpDrop || counted != decapOutcomeOUTCOME_CONGESTED {
			t.Errorf("%s, marked, no ECN: verdict %d, counted as %d", name, verdict, counted)
		}
	})
}

// TestDecapOnRouter forwards for others: what is for another host is not ours,
// though it comes to our MAC address.
func TestDecapOnRouter(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/ipv4/conf/all/forwarding", "/ipv6/conf/all/forwarding"} {
		r.machine.setAny(path, 1)
	}
	peer := newMachine(t)
	cable(t, r.machine, peer)
	r.machine.addAddress("eth0", netip.MustParsePrefix("192.0.2.1/24"))
	r.machine.addAddress(loopback, host32(rip.Addr()))
	add6(r.machine)
	for _, outer := range []int{4, 6} {
		p := right("ipip", outer, 4)
		r.taken(fmt.Sprint("for the router itself, ", outer), p, ethernet(p.mac, nil, 4, p.innerPacket()))
		elsewhere := map[int]netip.Addr{4: netip.MustParseAddr("192.0.2.77"), 6: netip.MustParseAddr("2001:db8::77")}
		own := ripOf[outer]
		ripOf[outer] = elsewhere[outer]
		frame := p.frame()
		ripOf[outer] = own
		r.passes(fmt.Sprint("for another, ", outer), frame, decapOutcomeOUTCOME_OTHER_HOST)
	}
}

// TestOutcomesHaveTexts walks the enum: what is counted is shown.
func TestOutcomesHaveTexts(t *testing.T) {
	for o := decapOutcomeOUTCOME_IPIP; o < decapOutcomeOUTCOME_MAX; o++ {
		known := false
		for _, entry := range outcomes {
			known = known || entry.outcome == o && entry.text != ""
		}
		if !known && o != decapOutcomeOUTCOME_NO_TUNNEL {
			t.Errorf("outcome %d has no text", o)
		}
	}
}
