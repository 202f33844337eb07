// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// generator is a program of bpf/lvs_test.bpf.c that makes packets itself and sends
// them through the data plane of a rig. It has a clock of its own.
type generator struct {
	*rig
	program   *ebpf.Program
	programs  map[string]*ebpf.Program
	variables map[string]*ebpf.Variable
	maps      map[string]*ebpf.Map
}

// generator loads one, and what else of the file is asked for.
func (r *rig) generator(program string, others ...string) *generator {
	r.t.Helper()
	sets, ofFront := split(r.sets())
	return r.generatorWith(sets, ofFront, program, others...)
}

// generatorWith is for programs that think that the tables have another front.
func (r *rig) generatorWith(sets, ofFront uint32, program string, others ...string) *generator {
	r.t.Helper()
	spec, err := loadBpfTest()
	if err != nil {
		r.t.Fatal(err)
	}
	for name, m := range spec.Maps {
		if name[0] == '.' {
			continue // the program's own variables
		}
		size, err := r.right.size(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if size > 0 {
			m.Pinning, m.MaxEntries = ebpf.PinByName, size
		}
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != program && !slices.Contains(others, name) })
	if err := setConstants(spec, r.sets(), r.objects.Vips.MaxEntries()); err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(spec.Variables["conn_sets"].Set(sets), spec.Variables["conn_front"].Set(ofFront)); err != nil {
		r.t.Fatal(err)
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: r.right.dir()}})
	if err != nil {
		r.t.Fatalf("load %s: %+v", program, err)
	}
	r.t.Cleanup(collection.Close)
	// BPF_PROG_TEST_RUN puts a program that it repeats into a table of all XDP programs,
	// and takes it out again, which takes 20 ms each; one that is attached stays in it.
	attached, err := link.AttachXDP(link.XDPOptions{Program: collection.Programs[program], Interface: inIfindex, Flags: link.XDPGenericMode})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { attached.Close() })
	g := &generator{rig: r, program: collection.Programs[program], programs: collection.Programs, variables: collection.Variables, maps: collection.Maps}
	g.setTime(r.now)
	return g
}

// drive has the rig's packets and sweeps go through these programs, which know where
// the front is.
func (g *generator) drive() {
	plane, shipped := g.Plane, g.objects.LvsSweep
	g.rig.program, g.clock = g.programs["test_direct"], g.variables["test_now_ns"]
	plane.objects.LvsSweep = g.programs["lvs_sweep"]
	g.t.Cleanup(func() { plane.objects.LvsSweep = shipped })
}

func (g *generator) set(name string, value any) {
	g.t.Helper()
	if err := g.variables[name].Set(value); err != nil {
		g.t.Fatalf("set %s: %v", name, err)
	}
}

func (g *generator) get(name string) (value uint64) {
	g.t.Helper()
	if err := g.variables[name].Get(&value); err != nil {
		g.t.Fatalf("get %s: %v", name, err)
	}
	return value
}

// time is the clock of the generator; it may run while it is read.
func (g *generator) time() time.Duration { return time.Duration(g.get("test_now_ns")) }

// setTime sets the clocks of the generator and of the rig.
func (g *generator) setTime(now time.Duration) {
	g.now = now
	g.set("test_now_ns", uint64(now))
}

// generatorFrame is as long as the generators want it (TEST_FRAME).
const generatorFrame = 80

// run sends packets, as one of several threads.
func (g *generator) run(thread, packets int) error {
	data := make([]byte, generatorFrame)
	data[generatorFrame-1] = byte(thread)
	verdict, err := g.program.Run(&ebpf.RunOptions{Data: data, DataOut: make([]byte, generatorFrame+256), Repeat: uint32(packets)})
	if err == nil && verdict != xdpDrop {
		err = fmt.Errorf("verdict %d: the generator could not make its packet", verdict)
	}
	return err
}

// traffic is what the generator test_flood sends.
type traffic struct {
	class     uint32 // of the sources: traffic of two classes has no source in common
	udp, six  bool
	flags     uint32
	handshake bool   // SYN and ACK of each source; otherwise no source comes twice
	honest    uint32 // one packet in so many is of a handshake of an honest client; 0 none is
	vips      uint32
	from      uint64 // packets of the class that came before
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

// The classes of sources. Honest clients have one of their own.
const (
	classEstablished = 1
	classFlood       = 2
	classDatagrams   = 3
	classHonest      = 15
)

// A table of a million connections gets a million packets a second of the test's
// clock, a smaller one as many fewer. An honest client needs a tenth of a second for
// its handshake.
func (g *generator) packetTime() time.Duration {
	return 1_000_000 * time.Microsecond / time.Duration(connections(g.sets()))
}

func (g *generator) handshake() uint64 {
	const honest = 1000
	return uint64(time.Second/10/g.packetTime()) / honest * honest
}

// flood sends n packets, and returns how many reached a real server.
func (g *generator) flood(what traffic, n uint64) uint64 {
	g.t.Helper()
	protocol := uint32(unix.IPPROTO_TCP)
	if what.udp {
		protocol = unix.IPPROTO_UDP
	}
	bit := map[bool]uint32{true: 1}
	for name, value := range map[string]uint32{
		"flood_class": what.class, "flood_protocol": protocol, "flood_flags": what.flags, "flood_pair": bit[what.handshake],
		"flood_six": bit[what.six], "flood_vips": max(what.vips, 1), "flood_honest": what.honest, "flood_delay": uint32(g.handshake()),
	} {
		g.set(name, value)
	}
	for _, name := range []string{"flood_opened", "flood_succeeded", "flood_forwarded"} {
		g.set(name, uint64(0))
	}
	g.set("flood_next", what.from)
	g.set("flood_end", what.from+n)
	g.set("flood_step_ns", uint64(g.packetTime()))
	for sent := uint64(0); sent < n; sent = g.get("flood_next") - what.from {
		if err := g.run(0, int(min(n-sent, 1<<20))); err != nil {
			g.t.Fatal(err)
		}
	}
	g.now = g.time()
	return g.get("flood_forwarded")
}

// honest returns how many honest clients there were, and what part of them got through.
func (g *generator) honest() (clients uint64, through float64) {
	clients = g.get("flood_opened")
	return clients, float64(g.get("flood_succeeded")) / float64(max(clients, 1))
}

const floodServers = 16

// serve makes services of both protocols, for both families, whose real servers
// have a MAC address each.
func (r *rig) serve(scheduler lvs.Scheduler, vips int) {
	r.t.Helper()
	for vip := range vips {
		for _, format := range []string{"tcp 198.51.100.%d:80 10.0.%d.%d", "udp 198.51.100.%d:80 10.0.%d.%d", "tcp [2001:db8::%d]:80 2001:db8:1::%d:%d", "udp [2001:db8::%d]:80 2001:db8:1::%d:%d"} {
			var servers []lvs.RealServer
			var protocol, address string
			for n := range floodServers / vips {
				var ip string
				if _, err := fmt.Sscan(fmt.Sprintf(format, 1+vip, vip, 1+n), &protocol, &address, &ip); err != nil {
					r.t.Fatal(err)
				}
				servers = append(servers, server(netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String(), 1))
			}
			r.withMACs(protocol+" "+address, scheduler, vip, servers)
		}
	}
}

// withMACs adds a service whose number, and the places of its real servers from 1 on,
// are the last two bytes of their MAC addresses.
func (r *rig) withMACs(key string, scheduler lvs.Scheduler, number int, servers []lvs.RealServer) lvs.ServiceKey {
	r.t.Helper()
	added := r.service(key, scheduler, servers...)
	for i, s := range servers {
		r.hop(s.Address.Addr(), numberedPath(number, 1+i))
	}
	return added
}

func numberedPath(service, server int) path {
	mac := net.HardwareAddr{2, 0, 0, 0, byte(service), byte(server)}
	return path{state: bpfHopStateHOP_READY, mac: mac, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 1500}
}

// class returns the flows of one class of sources, with their real servers.
func (r *rig) class(class byte) map[[2]netip.AddrPort]netip.AddrPort {
	r.t.Helper()
	flows := map[[2]netip.AddrPort]netip.AddrPort{}
	err := r.connectionsAt(r.now, func(c lvs.Connection) error {
		bytes := c.Client.Addr().As16()
		if bytes[12]>>4 == class {
			flows[[2]netip.AddrPort{c.Client, c.Virtual}] = c.RealServer
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return flows
}

// floodSize is the capacity of the table under flood, with half as many established
// connections and ten times as many packets of the flood.
func floodSize(t testing.TB) uint32 {
	if os.Getenv("LVX_FLOOD") == "full" {
		return 1_000_000
	}
	return 150_000 // as small as has a front
}

// A flood of new flows neither ends nor moves what is established, and honest
// clients get through it.
func TestFlood(t *testing.T) {
	size := floodSize(t)
	established, flood := uint64(size)/2, 10*uint64(size)
	r := newRig(t)
	r.again(Options{Connections: size, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	r.serve(lvs.RR, 1)
	g := r.generator("test_flood")
	for _, test := range []struct {
		name  string
		flood traffic
		least float64 // of honest clients
	}{
		{"SYN", traffic{class: classFlood, flags: flagSYN, honest: 1000}, 0.99},
		{"SYN of IPv6", traffic{class: classFlood, flags: flagSYN, honest: 1000, six: true}, 0.99},
		{"UDP", traffic{class: classFlood, udp: true, honest: 1000}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r.t = t
			if _, err := r.Flush(); err != nil {
				t.Fatal(err)
			}
			r.sweep() // as the daemon does each second
			g.setTime(g.now + time.Hour)
			six := test.flood.six
			known := func(tcp, udp uint64) (got uint64) {
				got = g.flood(traffic{class: classEstablished, flags: flagACK, six: six}, tcp)
				return got + g.flood(traffic{class: classDatagrams, udp: true, six: six}, udp)
			}
			datagrams := established / 10
			g.flood(traffic{class: classEstablished, flags: flagSYN, handshake: true, six: six}, 2*established)
			g.flood(traffic{class: classDatagrams, udp: true, six: six}, datagrams)
			g.setTime(g.now + time.Second)
			if got := known(established, datagrams); got != established+datagrams {
				t.Fatalf("%d of %d flows of before were served", got, established+datagrams)
			}
			tcp, udp := r.class(classEstablished), r.class(classDatagrams)
			if uint64(len(tcp)) != established || uint64(len(udp)) != datagrams {
				t.Fatalf("%d and %d flows before the flood, not %d and %d", len(tcp), len(udp), established, datagrams)
			}
			start := time.Now()
			g.flood(test.flood, flood)
			per := time.Since(start) / time.Duration(flood)
			clients, through := g.honest()
			t.Logf("%d packets against %d connections, %v each; of %d honest clients %.3f%% got through; reasons %v", flood, size, per, clients, 100*through, r.reasons())
			if clients != (flood-g.handshake())/1000 || through < test.least {
				t.Errorf("of %d honest clients %.3f%% got through", clients, 100*through)
			}
			if !maps.Equal(r.class(classEstablished), tcp) || !maps.Equal(r.class(classDatagrams), udp) {
				t.Error("flows of before were lost or moved")
			}
			before := r.reasons()["FORWARDED"]
			if got := known(established, datagrams); got != established+datagrams || r.reasons()["FORWARDED"] != before+got {
				t.Errorf("after the flood %d of %d flows of before were served, reasons %v", got, established+datagrams, r.reasons())
			}
		})
	}
}

// With the table full of established connections a flood is served without, and
// what is known goes on.
func TestFloodOfAFullTable(t *testing.T) {
	const size, open, flood = 10_000, 1_000_000, 500_000
	r := newRig(t)
	r.again(Options{Connections: size, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	r.serve(lvs.WLC, 1)
	g := r.generator("test_flood")
	for _, six := range []bool{false, true} {
		if _, err := r.Flush(); err != nil {
			t.Fatal(err)
		}
		// 25 times what there is room for: each flow is established before the next begins.
		g.flood(traffic{class: classEstablished, flags: flagSYN, handshake: true, six: six}, open)
		known := r.class(classEstablished)
		if len(known) != 2*size {
			t.Fatalf("%d connections are not a full table", len(known))
		}
		before := r.reasons()
		if got := g.flood(traffic{class: classFlood, flags: flagSYN, six: six, honest: 100}, flood); got != flood-flood/100-(flood-g.handshake())/100 {
			t.Errorf("%d packets of the flood were forwarded", got)
		}
		if got := r.reasons(); got["STATELESS"] != before["STATELESS"]+flood || total(got) != total(before)+flood {
			t.Errorf("reasons %v, before %v", got, before)
		}
		if clients, through := g.honest(); clients != (flood-g.handshake())/100 || through != 1 {
			t.Errorf("of %d honest clients %.3f%% got through", clients, 100*through)
		}
		if !maps.Equal(r.class(classEstablished), known) {
			t.Error("connections were lost or moved")
		}
		served := r.reasons()["FORWARDED"]
		g.flood(traffic{class: classEstablished, flags: flagACK, six: six}, open/2)
		if got := r.reasons()["FORWARDED"]; got != served+2*size {
			t.Errorf("%d of %d connections were served", got-served, 2*size)
		}
	}
}

var errStop = errors.New("stop")

// Connections are listed from memory while they come and go by hundreds of thousands
// a second; no entry is made of two.
func TestListingUnderFlood(t *testing.T) {
	const vips = 8 // with one real server each
	r := newRig(t)
	r.again(Options{Connections: 1000, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	for vip := range vips {
		r.withMACs(fmt.Sprintf("tcp 198.51.100.%d:80", 1+vip), lvs.RR, vip, []lvs.RealServer{server(fmt.Sprintf("10.0.0.%d:80", 1+vip), 1)})
		r.withMACs(fmt.Sprintf("tcp [2001:db8::%d]:80", 1+vip), lvs.RR, vip, []lvs.RealServer{server(fmt.Sprintf("[2001:db8:1::%d]:80", 1+vip), 1)})
	}
	g := r.generator("test_flood")
	done := make(chan struct{})
	var flood sync.WaitGroup
	flood.Go(func() {
		for range 4 {
			g.flood(traffic{class: classFlood, flags: flagSYN, vips: vips}, 300_000)
			g.flood(traffic{class: classFlood, flags: flagSYN, vips: vips, six: true}, 300_000)
		}
		close(done)
	})
	seen, lists := 0, 0
	for running := true; running; lists++ {
		select {
		case <-done:
			running = false
		default:
		}
		err := r.connectionsAt(r.now, func(c lvs.Connection) error {
			seen++
			client, vip, rip := c.Client.Addr().As16(), c.Virtual.Addr().As16(), c.RealServer.Addr().As16()
			want := client[15]%vips + 1
			same := c.Client.Addr().Is4() == c.Virtual.Addr().Is4() && c.Virtual.Addr().Is4() == c.RealServer.Addr().Is4()
			if vip[15] != want || rip[15] != want || !same || client[12]>>4 != classFlood || c.State != lvs.StateSynRecv {
				return fmt.Errorf("%+v never was", c)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
			break
		}
	}
	flood.Wait()
	t.Logf("%d entries in %d lists", seen, lists)
	if seen == 0 {
		t.Error("nothing was listed")
	}
	calls := 0
	if err := r.connectionsAt(r.now, func(lvs.Connection) error { calls++; return errStop }); !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("after the caller's error: %v, %d calls", err, calls)
	}
}

// BenchmarkListMillion gives the time to list a million connections, and its ratio
// to a look at each slot's word, which is the least that a listing does.
func BenchmarkListMillion(b *testing.B) {
	const million = 1_000_000
	r := newRig(b)
	r.again(Options{Connections: million, Services: 64, RealServers: 1024, MHTable: 251, detached: true})
	r.serve(lvs.RR, 1)
	g := r.generator("test_flood")
	g.flood(traffic{class: classEstablished, flags: flagSYN, handshake: true}, 2*million)
	b.ReportAllocs()
	var look time.Duration
	listed := 0
	for b.Loop() {
		listed = 0
		if err := r.connectionsAt(r.now, func(lvs.Connection) error { listed++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	list := b.Elapsed() / time.Duration(b.N)
	start := time.Now()
	var sum uint64
	for i := range r.arrays.four.items {
		for j := range r.arrays.four.items[i].Slots {
			sum += r.arrays.four.items[i].Slots[j].Word
		}
	}
	for i := range r.arrays.six.items {
		for j := range r.arrays.six.items[i].Slots {
			sum += r.arrays.six.items[i].Slots[j].Word
		}
	}
	look = time.Since(start)
	if sum == 0 {
		b.Fatal("there are no connections")
	}
	b.ReportMetric(float64(list.Nanoseconds())/float64(max(listed, 1)), "ns/connection")
	b.ReportMetric(float64(list)/float64(look), "x-words")
	b.ReportMetric(float64(listed), "connections")
}
