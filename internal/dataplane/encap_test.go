// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// A tunnel of a service, whose real server is in the same family or in the other.
type tunnelled struct {
	lvs.Tunnel
	six   bool // the packets are of IPv6
	outer netip.Addr
}

func (c tunnelled) String() string {
	families := map[bool]string{false: "4", true: "6"}
	return fmt.Sprintf("%s %sin%s", c.Tunnel, families[c.six], families[c.outer.Is6()])
}

// overhead is how many bytes a packet grows by, at most.
func (c tunnelled) overhead() int {
	n := 20
	if c.outer.Is6() {
		n = 40
	}
	switch {
	case c.Type == lvs.GUE:
		n += 12
	case c.Type == lvs.GRE && c.Checksum == lvs.HeaderChecksum:
		n += 8
	case c.Type == lvs.GRE:
		n += 4
	}
	return n
}

// source is the director's address on the way.
func (c tunnelled) source() netip.Addr {
	if c.outer.Is6() {
		return netip.MustParseAddr("2001:db8:1::fe")
	}
	return netip.MustParseAddr("10.0.0.254")
}

// eachTunnel is all there are: five tunnels for both families in both.
func eachTunnel() (all []tunnelled) {
	for _, tunnel := range []lvs.Tunnel{
		{Type: lvs.IPIP},
		{Type: lvs.GRE}, {Type: lvs.GRE, Checksum: lvs.HeaderChecksum},
		{Type: lvs.GUE, Port: 6080}, {Type: lvs.GUE, Port: 6081, Checksum: lvs.HeaderChecksum},
	} {
		for _, six := range []bool{false, true} {
			for _, outer := range []string{"10.0.0.1", "2001:db8:1::1"} {
				all = append(all, tunnelled{tunnel, six, netip.MustParseAddr(outer)})
			}
		}
	}
	return all
}

// tun makes the services of a tunnel, of TCP and UDP at port 80, on this path.
func (r *rig) tun(c tunnelled, p path) {
	r.t.Helper()
	vip := "198.51.100.1:80"
	if c.six {
		vip = "[2001:db8::1]:80"
	}
	for _, protocol := range []string{"tcp ", "udp "} {
		r.service(protocol+vip, lvs.RR, lvs.RealServer{
			Address: netip.AddrPortFrom(c.outer, 80), Method: lvs.Tun, Weight: 1, Tunnel: c.Tunnel,
		})
	}
	p.mac, p.source = serverMAC, c.source()
	r.hop(c.outer, p)
}

// each runs a part of a test on the same rig.
func (r *rig) each(name string, part func(t *testing.T)) {
	whole := r.t.(*testing.T)
	whole.Run(name, func(t *testing.T) {
		r.t = t
		part(t)
	})
	r.t = whole
}

// plainPath goes back by the port that the packet came in by.
func plainPath(mtu int) path {
	return path{state: bpfHopStateHOP_READY, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: mtu}
}

// to80 makes a frame one to the services of a tunnel.
func (f frame) to80(c tunnelled, client int) frame {
	f.vip, f.client = "198.51.100.1:80", fmt.Sprintf("192.0.2.9:%d", client)
	if c.six {
		f.vip, f.client = "[2001:db8::1]:80", fmt.Sprintf("[2001:db8:9::9]:%d", client)
	}
	return f
}

// ipAt tells where in a frame the IP packet is.
func ipAt(frame []byte) int {
	at := 12
	for binary.BigEndian.Uint16(frame[at:]) == 0x8100 {
		at += 4
	}
	return at + 2
}

// ipLength is that of an IP packet, without what is behind it.
func ipLength(ip []byte) int {
	if ip[0]>>4 == 6 {
		return 40 + int(binary.BigEndian.Uint16(ip[4:]))
	}
	return int(binary.BigEndian.Uint16(ip[2:]))
}

// ones is the sum of RFC 1071 over some bytes; 0xffff if there is a right checksum in it.
func ones(parts ...[]byte) uint16 {
	var sum uint32
	for i, b := range bytes.Join(parts, nil) {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// wrapped is what is to leave: the packet of a frame behind new headers. Where they have
// something random or of the flow's hash, it is as in the frame that left.
type wrapped struct {
	tunnelled
	ethernet []byte // up to the type, which is the outer header's
	summed   bool   // there is a checksum over the packet, if the tunnel has one
}

func (w wrapped) frame(t *testing.T, in, out []byte) []byte {
	t.Helper()
	ip, left := in[ipAt(in):], out[min(len(w.ethernet)+2, len(out)):]
	if len(left) < 52 {
		t.Fatalf("%d bytes left: % x", len(out), out)
	}
	n := ipLength(ip)
	network, etherType := w.network(ip, left)
	stack := append([]gopacket.SerializableLayer{network.(gopacket.SerializableLayer)}, w.between(ip, left, network)...)
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(stack, gopacket.Payload(ip[:n]))...)
	if err != nil {
		t.Fatal(err)
	}
	made := buffer.Bytes()
	if w.Type == lvs.GUE && !w.checks() {
		clear(made[w.header()+6 : w.header()+8])
	}
	frame := binary.BigEndian.AppendUint16(bytes.Clone(w.ethernet), uint16(etherType))
	return append(append(frame, made...), ip[n:]...)
}

func (w wrapped) checks() bool { return w.summed && w.Checksum == lvs.HeaderChecksum }

// header is the length of the outer IP header.
func (w wrapped) header() int {
	if w.outer.Is6() {
		return 40
	}
	return 20
}

func (w wrapped) network(ip, left []byte) (gopacket.NetworkLayer, layers.EthernetType) {
	class, ttl, flags := ip[1], ip[8], layers.IPv4Flag(ip[6]>>5)&layers.IPv4DontFragment
	if w.six {
		class, ttl, flags = ip[0]<<4|ip[1]>>4, ip[7], layers.IPv4DontFragment
	}
	protocol := layers.IPProtocolIPv4
	switch {
	case w.Type == lvs.GUE:
		protocol = layers.IPProtocolUDP
	case w.Type == lvs.GRE:
		protocol = layers.IPProtocolGRE
	case w.six:
		protocol = layers.IPProtocolIPv6
	}
	if w.outer.Is6() {
		return &layers.IPv6{
			Version: 6, TrafficClass: class, HopLimit: ttl, NextHeader: protocol, FlowLabel: binary.BigEndian.Uint32(left) & 0xfffff,
			SrcIP: w.source().AsSlice(), DstIP: w.outer.AsSlice(),
		}, layers.EthernetTypeIPv6
	}
	id := binary.BigEndian.Uint16(left[4:])
	if flags != 0 {
		id = 0
	}
	return &layers.IPv4{
		Version: 4, TOS: class, TTL: ttl, Protocol: protocol, Flags: flags, Id: id,
		SrcIP: w.source().AsSlice(), DstIP: w.outer.AsSlice(),
	}, layers.EthernetTypeIPv4
}

func (w wrapped) between(ip, left []byte, network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	etherType, protocol := layers.EthernetTypeIPv4, byte(4)
	if w.six {
		etherType, protocol = layers.EthernetTypeIPv6, 41
	}
	switch w.Type {
	case lvs.GRE:
		return []gopacket.SerializableLayer{&layers.GRE{Protocol: etherType, ChecksumPresent: w.checks()}}
	case lvs.GUE:
		udp := &layers.UDP{SrcPort: layers.UDPPort(binary.BigEndian.Uint16(left[w.header():])) | 0xc000, DstPort: layers.UDPPort(w.Port)}
		_ = udp.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{udp, gopacket.Payload{0, protocol, 0, 0}}
	}
	return nil
}

// wantSums reckons the checksums of a frame that left from nothing.
func (w wrapped) wantSums(t *testing.T, out []byte, right bool) {
	t.Helper()
	ip := out[len(w.ethernet)+2:]
	ip = ip[:ipLength(ip)]
	pseudo := binary.BigEndian.AppendUint16(bytes.Clone(ip[8:w.header()]), uint16(len(ip)-w.header()))
	if !w.outer.Is6() {
		pseudo = binary.BigEndian.AppendUint16(bytes.Clone(ip[12:w.header()]), uint16(len(ip)-w.header()))
		if sum := ones(ip[:20]); sum != 0xffff {
			t.Errorf("the IPv4 header's sum is %#x", sum)
		}
	}
	if !w.checks() {
		return
	}
	sum := ones(ip[w.header():])
	if w.Type == lvs.GUE {
		sum = ones(append(pseudo, 0, 17), ip[w.header():])
	}
	if (sum == 0xffff) != right {
		t.Errorf("the sum over header and packet is %#x, right should be %v", sum, right)
	}
}

// etherOf is the Ethernet header that a frame leaves with, up to the last type, if its
// tags stay.
func etherOf(in []byte) []byte { return forwarded(in, serverMAC, directorMAC)[:ipAt(in)-2] }

// tunnelPackets are sent through every tunnel. Those that are not a SYN or UDP come
// after one.
var tunnelPackets = []struct {
	name     string
	four     bool // of IPv4 only
	six      bool // of IPv6 only
	frame    frame
	unknown  bool // nobody knows the packet's sum
	mistaken bool // its own checksum is wrong
}{
	{name: "SYN"},
	{name: "data", frame: frame{flags: "A", payload: 1000}},
	{name: "data of odd length", frame: frame{flags: "A", payload: 1001}},
	{name: "data of one byte", frame: frame{flags: "FA", payload: 1}},
	{name: "a jumbo frame", frame: frame{flags: "A", payload: 8800}},
	{name: "a jumbo frame of odd length", frame: frame{flags: "A", payload: 8801}},
	{name: "a wrong TCP checksum", frame: frame{flags: "A", payload: 100, raw: flipLast}, mistaken: true},
	{name: "UDP", frame: frame{udp: true, payload: 512}},
	{name: "UDP of odd length", frame: frame{udp: true, payload: 513}},
	{name: "empty UDP", frame: frame{udp: true}},
	{name: "UDP without a checksum", frame: frame{udp: true, payload: 100, raw: blankUDPChecksum}, unknown: true},
	{name: "UDP with more behind it", frame: frame{udp: true, payload: 100, raw: shortenUDP}, unknown: true},
	{name: "a wrong UDP checksum", frame: frame{udp: true, payload: 100, raw: flipLast}, mistaken: true},
	{name: "padding behind it", frame: frame{raw: func(b []byte) []byte { return append(b, 1, 2, 3, 4, 5, 6) }}},
	{name: "a VLAN", frame: frame{vlans: []uint16{10}}},
	{name: "two VLANs", frame: frame{vlans: []uint16{10, 20}}},
	{name: "VLAN and UDP", frame: frame{udp: true, vlans: []uint16{10}, payload: 3}},
	{name: "IP options", four: true, frame: frame{mutateIP4: func(ip *layers.IPv4) {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}}
	}}},
	{name: "40 bytes of options before UDP", four: true, frame: frame{udp: true, payload: 7, mutateIP4: func(ip *layers.IPv4) {
		ip.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 40, OptionData: make([]byte, 38)}}
	}}},
	{name: "don't fragment", four: true, frame: frame{mutateIP4: func(ip *layers.IPv4) { ip.Flags, ip.Id = layers.IPv4DontFragment, 77 }}},
	{name: "the reserved flag", four: true, frame: frame{mutateIP4: func(ip *layers.IPv4) { ip.Flags = layers.IPv4EvilBit }}},
	{name: "service class and time to live", four: true, frame: frame{mutateIP4: func(ip *layers.IPv4) { ip.TOS, ip.TTL = 0xb9, 3 }}},
	{name: "traffic class, label and hop limit", six: true, frame: frame{raw: func(b []byte) []byte {
		copy(b[14:], []byte{0x6b, 0x9a, 0xbc, 0xde})
		b[21] = 3
		return b
	}}},
	{name: "a hop-by-hop header", six: true, unknown: true, frame: frame{
		next: layers.IPProtocolIPv6HopByHop, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 1, 4, 0, 0, 0, 0}},
	}},
	{name: "an atomic fragment", six: true, unknown: true, frame: frame{
		next: layers.IPProtocolIPv6Fragment, extensions: []gopacket.SerializableLayer{gopacket.Payload{6, 0, 0, 0, 0, 0, 0, 1}},
	}},
}

func flipLast(b []byte) []byte {
	b[len(b)-1] ^= 0x11
	return b
}

// udpAt tells where the UDP header of a frame without tags and options is.
func udpAt(b []byte) int {
	if b[14]>>4 == 6 {
		return 54
	}
	return 34
}

func blankUDPChecksum(b []byte) []byte {
	clear(b[udpAt(b)+6 : udpAt(b)+8])
	return b
}

func shortenUDP(b []byte) []byte {
	binary.BigEndian.PutUint16(b[udpAt(b)+4:], 50)
	return b
}

// Each packet, through each tunnel: header by header as it should be, and the packet
// bit for bit as it came.
func TestTunnels(t *testing.T) {
	r := newRig(t)
	client := 10000
	for _, c := range eachTunnel() {
		r.tun(c, plainPath(9000))
		for _, p := range tunnelPackets {
			if p.four && c.six || p.six && !c.six {
				continue
			}
			r.each(fmt.Sprint(c, " ", p.name), func(t *testing.T) {
				client++
				if p.frame.flags != "" {
					r.send(frame{}.to80(c, client).bytes(t))
				}
				in := p.frame.to80(c, client).bytes(t)
				verdict, out := r.send(in)
				if verdict != xdpTX {
					t.Fatalf("verdict %d, reasons %v", verdict, r.reasons())
				}
				w := wrapped{c, etherOf(in), !p.unknown}
				if p.mistaken { // the checksum is that of the packet as it was made
					whole := flipLast(bytes.Clone(in))
					want := w.frame(t, whole, out)
					r.wantBytes(out, flipLast(want))
				} else {
					r.wantBytes(out, w.frame(t, in, out))
				}
				w.wantSums(t, out, !p.mistaken)
			})
		}
	}
	if total := total(r.reasons()); r.reasons()["FORWARDED"] != total {
		t.Errorf("reasons %v", r.reasons())
	}
}

// Checksums depend on all that is in a packet: a few thousand of them at random.
func TestTunnelChecksums(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewSource(1))
	for _, c := range eachTunnel() {
		if c.Checksum != lvs.HeaderChecksum {
			continue
		}
		r.tun(c, plainPath(9000))
		for range 300 {
			f := frame{udp: random.Intn(2) == 0, payload: random.Intn(1300)}.to80(c, 1+random.Intn(0xffff))
			if c.six {
				f.client = fmt.Sprintf("[2001:db8:%x:%x::%x]:%d", random.Intn(0x10000), random.Intn(0x10000), random.Intn(0x10000), 1+random.Intn(0xffff))
			} else {
				f.client = fmt.Sprintf("192.%d.%d.%d:%d", random.Intn(256), random.Intn(256), random.Intn(256), 1+random.Intn(0xffff))
			}
			in := f.bytes(t)
			_, out := r.send(in)
			w := wrapped{c, etherOf(in), true}
			r.wantBytes(out, w.frame(t, in, out))
			w.wantSums(t, out, true)
			if t.Failed() {
				t.Fatalf("%v of %+v", c, f)
			}
		}
	}
}

// A UDP checksum that comes out as 0 is sent as 0xffff (RFC 768): a flow label makes it so.
func TestTunnelChecksumOfZero(t *testing.T) {
	r := newRig(t)
	for _, c := range eachTunnel() {
		if !c.six || c.Type != lvs.GUE || c.Checksum != lvs.HeaderChecksum {
			continue
		}
		r.tun(c, plainPath(1500))
		w := wrapped{c, make([]byte, 12), true}
		label := uint16(0)
		f := frame{udp: true, payload: 10, raw: func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[16:], label)
			return b
		}}.to80(c, 1000+w.header())
		_, out := r.send(f.bytes(t))
		at := 14 + w.header() + 6
		label = binary.BigEndian.Uint16(out[at:])
		_, out = r.send(f.bytes(t))
		if sum := binary.BigEndian.Uint16(out[at:]); sum != 0xffff {
			t.Errorf("%v: the checksum is %#x", c, sum)
		}
		w.wantSums(t, out, true)
	}
}

// A tunnel of a way with VLANs, or out through another port.
func TestTunnelVLANs(t *testing.T) {
	r := newRig(t)
	keep := uint16(bpfHopStateVLAN_KEEP)
	client := 20000
	for _, c := range eachTunnel() {
		for _, v := range []struct {
			name    string
			in      []uint16
			ifindex int
			vlan    uint16
			tag     []byte // what is between the MAC addresses and the type
		}{
			{"no tag to a VLAN", nil, inIfindex, 20, []byte{0x81, 0, 0, 20}},
			{"from one VLAN to another", []uint16{10}, inIfindex, 20, []byte{0x81, 0, 5 << 5, 20}},
			{"a VLAN to no tag", []uint16{10}, inIfindex, 0, nil},
			{"no tag to no tag", nil, inIfindex, 0, nil},
			{"another port", nil, outIfindex, keep, nil},
			{"a tag, which another port takes off", []uint16{10}, outIfindex, keep, nil},
			{"a VLAN of another port", nil, outIfindex, 30, []byte{0x81, 0, 0, 30}},
		} {
			r.each(fmt.Sprint(c, " ", v.name), func(t *testing.T) {
				r.tun(c, path{state: bpfHopStateHOP_ROUTED, ifindex: v.ifindex, vlan: v.vlan, mtu: 1500})
				verdictWant, own := uint32(xdpTX), directorMAC
				if v.ifindex == outIfindex {
					verdictWant, own = xdpRedirect, outMAC
				}
				client++
				in := frame{vlans: v.in, payload: 33}.to80(c, client).bytes(t)
				verdict, out := r.send(in)
				if verdict != verdictWant {
					t.Fatalf("verdict %d, reasons %v", verdict, r.reasons())
				}
				w := wrapped{c, append(append(bytes.Clone(serverMAC), own...), v.tag...), true}
				r.wantBytes(out, w.frame(t, in, out))
			})
		}
	}
}

// What does not fit with its headers is refused before anything is written.
func TestTunnelMTU(t *testing.T) {
	r := newRig(t)
	client := 30000
	for _, c := range eachTunnel() {
		for _, p := range []struct {
			name  string
			frame frame
		}{
			{"TCP", frame{payload: 900}},
			{"UDP", frame{udp: true, payload: 900}},
			{"UDP without a checksum", frame{udp: true, payload: 900, raw: blankUDPChecksum}}, // the MTU is the same
			{"a VLAN", frame{vlans: []uint16{10}, payload: 900}},
		} {
			r.each(fmt.Sprint(c, " ", p.name), func(t *testing.T) {
				in := p.frame.to80(c, client).bytes(t)
				exact := ipLength(in[ipAt(in):]) + c.overhead()
				client++
				r.tun(c, plainPath(exact-1))
				before, connections := r.reasons()["TOO_BIG"], len(r.connections())
				verdict, out := r.send(in)
				if verdict != xdpDrop || r.reasons()["TOO_BIG"] != before+1 {
					t.Errorf("one byte too many: verdict %d, reasons %v", verdict, r.reasons())
				}
				r.wantBytes(out, in)
				if n := len(r.connections()); n != connections {
					t.Errorf("%d connections were made", n-connections)
				}
				r.tun(c, plainPath(exact))
				if verdict, _ := r.send(in); verdict != xdpTX {
					t.Errorf("it fits: verdict %d, reasons %v", verdict, r.reasons())
				}
			})
		}
	}
}

// Without an address to send from there is no way, and nothing is written.
func TestTunnelWithoutSource(t *testing.T) {
	r := newRig(t)
	for _, c := range eachTunnel() {
		other := tunnelled{outer: netip.MustParseAddr("10.0.0.1")}
		if !c.outer.Is6() {
			other.outer = netip.MustParseAddr("2001:db8:1::1")
		}
		for _, source := range []netip.Addr{{}, other.source()} {
			r.tun(c, plainPath(1500))
			p := plainPath(1500)
			p.mac, p.source = serverMAC, source
			r.hop(c.outer, p)
			before := r.reasons()["NO_ROUTE"]
			in := frame{}.to80(c, 40000).bytes(t)
			verdict, out := r.send(in)
			if verdict != xdpDrop || r.reasons()["NO_ROUTE"] != before+1 {
				t.Errorf("%v from %v: verdict %d, reasons %v", c, source, verdict, r.reasons())
			}
			r.wantBytes(out, in)
		}
	}
	if n := len(r.connections()); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Where the driver leaves no room for the headers, the packet is dropped as it came.
func TestTunnelWithoutHeadroom(t *testing.T) {
	r := newRig(t)
	// Metadata takes the room in front of the frame: of 256 bytes the kernel itself needs
	// 40, and 16 are left.
	const metadata = 200
	for i, c := range eachTunnel() {
		r.tun(c, plainPath(1500))
		in := frame{vlans: []uint16{10}, payload: 20}.to80(c, 50000+i).bytes(t)
		o := &ebpf.RunOptions{
			Data: append(make([]byte, metadata), in...), DataOut: make([]byte, metadata+len(in)+256),
			Context: struct{ Data, DataEnd, DataMeta, In, Queue, Out uint32 }{Data: metadata, DataEnd: uint32(metadata + len(in))},
		}
		before := r.reasons()["NO_HEADROOM"]
		verdict, err := r.program.Run(o)
		if errors.Is(err, unix.EINVAL) {
			t.Skip("this kernel takes less metadata in front of a frame (6.1: 32 bytes)")
		}
		if err != nil {
			t.Fatal(err)
		}
		if verdict != xdpDrop || r.reasons()["NO_HEADROOM"] != before+1 {
			t.Errorf("%v: verdict %d, reasons %v", c, verdict, r.reasons())
		}
		r.wantBytes(o.DataOut[max(0, len(o.DataOut)-len(in)):], in)
	}
}

// All packets of a flow go one way through the network, and flows go many.
func TestTunnelSpreadsFlows(t *testing.T) {
	r := newRig(t)
	for i, c := range eachTunnel() {
		r.tun(c, plainPath(1500))
		w := wrapped{c, make([]byte, 12), true}
		entropy := func(f frame) string {
			_, out := r.send(f.bytes(t))
			ip := out[14:]
			text := ""
			if c.outer.Is6() {
				text = fmt.Sprintf("label %#x ", binary.BigEndian.Uint32(ip)&0xfffff)
			}
			if c.Type == lvs.GUE {
				port := binary.BigEndian.Uint16(ip[w.header():])
				if port < 49152 {
					t.Fatalf("%v: source port %d", c, port)
				}
				text += fmt.Sprintf("port %d", port)
			}
			return text
		}
		seen := map[string]bool{}
		for client := 1000 + 64*i; client < 1064+64*i; client++ {
			first := entropy(frame{}.to80(c, client))
			if again := entropy(frame{flags: "A", payload: 100}.to80(c, client)); again != first {
				t.Errorf("%v: one flow has %s and %s", c, first, again)
			}
			seen[first] = true
		}
		if want := c.outer.Is6() || c.Type == lvs.GUE; want && len(seen) < 60 || !want && len(seen) != 1 {
			t.Errorf("%v: 64 flows go %d ways", c, len(seen))
		}
	}
}

// What is counted is the packet, not its new headers.
func TestTunnelStatistics(t *testing.T) {
	r := newRig(t)
	c := tunnelled{lvs.Tunnel{Type: lvs.GUE, Port: 6080}, false, netip.MustParseAddr("2001:db8:1::1")}
	r.tun(c, plainPath(1500))
	r.send(frame{}.to80(c, 1000).bytes(t))
	r.send(frame{flags: "A", payload: 100}.to80(c, 1000).bytes(t))
	got := r.status(parseKey("tcp 198.51.100.1:80"), "[2001:db8:1::1]:80")
	if diff := cmp.Diff(lvs.Stats{Connections: 1, InPackets: 2, InBytes: 40 + 140}, got.Stats); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Counts != (lvs.Counts{Active: 1}) {
		t.Errorf("counts %+v", got.Counts)
	}
}

// A real server that is the director itself gets the packet as it came.
func TestTunnelToTheDirector(t *testing.T) {
	r := newRig(t)
	for i, c := range eachTunnel() {
		r.tun(c, path{state: bpfHopStateHOP_LOCAL})
		in := frame{}.to80(c, 60000+i).bytes(t)
		verdict, out := r.send(in)
		if verdict != xdpPass {
			t.Errorf("%v: verdict %d, reasons %v", c, verdict, r.reasons())
		}
		r.wantBytes(out, in)
	}
}
