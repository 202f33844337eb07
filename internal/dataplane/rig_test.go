// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"lvx/internal/lvs"
)

// rig is a data plane on no interface, with the clock in the test's hand, and
// packets that go through it by BPF_PROG_TEST_RUN.
type rig struct {
	*Plane
	t       testing.TB
	right   *Instance
	program *ebpf.Program
	clock   *ebpf.Variable
	now     time.Duration
}

var (
	clientMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	directorMAC = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	serverMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 3}
	outMAC      = net.HardwareAddr{2, 0, 0, 0, 0, 4}
)

// BPF_PROG_TEST_RUN's packets come in through lo, whose index is 1.
const (
	inIfindex  = 1
	outIfindex = 7
)

func newRig(t testing.TB) *rig {
	needRoot(t)
	t.Helper()
	instance := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	instance = fmt.Sprintf("%d-%s", os.Getpid(), instance) // fuzz workers share the file system
	r := &rig{t: t, now: time.Hour}
	right, err := Acquire(DefaultBPFFS, instance[max(0, len(instance)-32):])
	if err != nil {
		t.Fatal(err)
	}
	r.right = right
	r.reopen(Options{Connections: 4096, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	t.Cleanup(func() {
		r.Close()
		if err := right.Unload(); err != nil {
			t.Errorf("unload: %v", err)
		}
		right.Release()
		if _, err := os.Stat(right.root()); !os.IsNotExist(err) {
			t.Errorf("after unload there is still something: %v", err)
		}
	})
	return r
}

// reopen opens the plane, as a daemon that starts.
func (r *rig) reopen(o Options) {
	r.t.Helper()
	plane, err := r.right.Open(o)
	if err != nil {
		r.t.Fatalf("open: %+v", err)
	}
	r.Plane = plane
	spec, err := loadBpfTest()
	if err != nil {
		r.t.Fatal(err)
	}
	m := plane.objects.bpfMaps
	replacements := map[string]*ebpf.Map{
		"addresses": m.Addresses, "backends": m.Backends, "exits": m.Exits, "uses": m.Uses, "sought": m.Sought, "connections4": m.Connections4, "connections6": m.Connections6, "counts": m.Counts, "crowds": m.Crowds, "interfaces": m.Interfaces,
		"next_hops": m.NextHops, "pools": m.Pools, "ports": m.Ports, "vips": m.Vips, "real_servers": m.RealServers, "reasons": m.Reasons, "seats": m.Seats, "secrets": m.Secrets,
		"server_stats": m.ServerStats, "server_zeros": m.ServerZeros, "service_ids": m.ServiceIds, "service_stats": m.ServiceStats,
		"service_zeros": m.ServiceZeros, "services": m.Services, "stateless": m.Stateless, "timeouts": m.Timeouts,
	}
	for name, replacement := range replacements {
		spec.Maps[name].MaxEntries = replacement.MaxEntries()
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != "test_direct" })
	if err := setConstants(spec, plane.sets(), m.Vips.MaxEntries()); err != nil {
		r.t.Fatal(err)
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements})
	if err != nil {
		r.t.Fatalf("load the test program: %+v", err)
	}
	r.t.Cleanup(collection.Close)
	if err := collection.Maps["again"].Put(uint32(0), collection.Programs["test_direct"]); err != nil {
		r.t.Fatal(err)
	}
	r.program, r.clock = collection.Programs["test_direct"], collection.Variables["test_now_ns"]
	for index, mac := range map[uint32]net.HardwareAddr{inIfindex: directorMAC, outIfindex: outMAC} {
		if err := m.Interfaces.Put(index, bpfInterface{Mac: [6]byte(mac)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// send puts a frame through the program.
func (r *rig) send(frame []byte) (verdict uint32, out []byte) {
	r.t.Helper()
	if err := r.clock.Set(uint64(r.now)); err != nil {
		r.t.Fatal(err)
	}
	o := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
	verdict, err := r.program.Run(o)
	if err != nil {
		r.t.Fatalf("run: %v", err)
	}
	return verdict, o.DataOut
}

// sweep ends what is over at the test's time.
func (r *rig) sweep() Swept {
	r.t.Helper()
	swept, err := r.sweepAt(r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	return swept
}

func (r *rig) connections() (list []lvs.Connection) {
	r.t.Helper()
	err := r.connectionsAt(r.now, func(c lvs.Connection) error {
		list = append(list, c)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (r *rig) reasons() map[string]uint64 {
	r.t.Helper()
	list, err := r.Reasons()
	if err != nil {
		r.t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, reason := range list {
		if reason.Packets > 0 {
			counts[reason.Name] = reason.Packets
		}
	}
	return counts
}

// service adds a service with real servers on the next hops of the rig.
func (r *rig) service(key string, scheduler lvs.Scheduler, servers ...lvs.RealServer) lvs.ServiceKey {
	r.t.Helper()
	s := lvs.Service{ServiceKey: parseKey(key), Scheduler: scheduler, RealServers: servers}
	if err := r.Put(s); err != nil {
		r.t.Fatal(err)
	}
	for _, server := range servers {
		r.hop(server.Address.Addr(), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 9000})
	}
	return s.ServiceKey
}

func (r *rig) hop(addr netip.Addr, p path) {
	r.hops.mu.Lock()
	defer r.hops.mu.Unlock()
	r.hops.write(r.hops.hops[addr], p)
}

func parseKey(s string) (k lvs.ServiceKey) {
	protocol, address, _ := strings.Cut(s, " ")
	if err := k.Protocol.UnmarshalText([]byte(protocol)); err != nil {
		panic(err)
	}
	k.Address = netip.MustParseAddrPort(address)
	return k
}

func server(address string, weight uint32) lvs.RealServer {
	return lvs.RealServer{Address: netip.MustParseAddrPort(address), Method: lvs.DR, Weight: weight}
}

// counts returns the connections of a service's real server.
func (r *rig) counts(key lvs.ServiceKey, address string) lvs.Counts {
	r.t.Helper()
	return r.status(key, address).Counts
}

func (r *rig) status(key lvs.ServiceKey, address string) lvs.RealServerStatus {
	r.t.Helper()
	for _, s := range r.list() {
		for _, server := range s.RealServers {
			if s.ServiceKey == key && server.Address == netip.MustParseAddrPort(address) {
				return server
			}
		}
	}
	r.t.Fatalf("no real server %s in %s", address, key)
	return lvs.RealServerStatus{}
}

func (r *rig) list() []lvs.ServiceStatus {
	r.t.Helper()
	list, err := r.Services()
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// frame is what a packet is made of. The zero value of a field is the default.
type frame struct {
	to         net.HardwareAddr
	vlans      []uint16
	client     string // with port
	vip        string // with port
	udp        bool
	flags      string // of S A F R, "-" for none; default S
	payload    int
	mutateIP4  func(*layers.IPv4)
	mutateTCP  func(*layers.TCP)
	extensions []gopacket.SerializableLayer // IPv6
	next       layers.IPProtocol            // IPv6: the first extension
	raw        func([]byte) []byte          // last: on the bytes
}

func (f frame) bytes(t fataler) []byte {
	t.Helper()
	if f.client == "" {
		f.client = "192.0.2.9:40000"
	}
	if f.vip == "" {
		f.vip = "198.51.100.1:80"
	}
	if f.to == nil {
		f.to = directorMAC
	}
	client, vip := netip.MustParseAddrPort(f.client), netip.MustParseAddrPort(f.vip)
	var stack []gopacket.SerializableLayer
	ip, network := f.ip(client.Addr(), vip.Addr())
	etherType := layers.EthernetTypeIPv4
	if vip.Addr().Is6() {
		etherType = layers.EthernetTypeIPv6
	}
	eth := &layers.Ethernet{SrcMAC: clientMAC, DstMAC: f.to, EthernetType: etherType}
	stack = append(stack, eth)
	for i, id := range f.vlans {
		tag := &layers.Dot1Q{VLANIdentifier: id, Priority: 5, Type: etherType}
		if i+1 < len(f.vlans) {
			tag.Type = layers.EthernetTypeDot1Q
		}
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, tag)
	}
	stack = append(stack, ip)
	stack = append(stack, f.extensions...)
	stack = append(stack, f.transport(client, vip, network), gopacket.Payload(bytes.Repeat([]byte{0xab}, f.payload)))
	buffer := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	out := buffer.Bytes()
	if f.raw != nil {
		out = f.raw(bytes.Clone(out))
	}
	return out
}

func (f frame) ip(client, vip netip.Addr) (gopacket.SerializableLayer, gopacket.NetworkLayer) {
	protocol := layers.IPProtocolTCP
	if f.udp {
		protocol = layers.IPProtocolUDP
	}
	if vip.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: client.AsSlice(), DstIP: vip.AsSlice()}
		if f.mutateIP4 != nil {
			f.mutateIP4(ip)
		}
		return ip, ip
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: client.AsSlice(), DstIP: vip.AsSlice()}
	if len(f.extensions) > 0 {
		ip.NextHeader = f.next
	}
	return ip, ip
}

func (f frame) transport(client, vip netip.AddrPort, network gopacket.NetworkLayer) gopacket.SerializableLayer {
	if f.udp {
		udp := &layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: layers.UDPPort(vip.Port())}
		_ = udp.SetNetworkLayerForChecksum(network)
		return udp
	}
	flags := f.flags
	if flags == "" {
		flags = "S"
	}
	has := func(flag string) bool { return strings.Contains(flags, flag) }
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(client.Port()), DstPort: layers.TCPPort(vip.Port()), Window: 1000,
		SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"),
	}
	if f.mutateTCP != nil {
		f.mutateTCP(tcp)
	}
	_ = tcp.SetNetworkLayerForChecksum(network)
	return tcp
}

// XDP verdicts (linux/bpf.h).
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// forwarded is the frame as dr sends it: new MAC addresses, nothing else.
func forwarded(in []byte, to, from net.HardwareAddr) []byte {
	out := bytes.Clone(in)
	copy(out, to)
	copy(out[6:], from)
	return out
}

func (r *rig) wantBytes(got, want []byte) {
	r.t.Helper()
	if !bytes.Equal(got, want) {
		r.t.Errorf("the frame that left (-want +got):\n%s", cmp.Diff(dump(want), dump(got)))
	}
}

func dump(frame []byte) []string {
	return strings.Split(fmt.Sprintf("% x", frame), " ")
}

// fataler is a test of package testing or of rapid.
type fataler interface {
	Helper()
	Fatal(...any)
}
