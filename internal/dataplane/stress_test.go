// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// The flows of the stress test: stressClients clients of stressServices services.
// stress_make in bpf/lvs_test.bpf.c makes their packets.
const (
	stressClients  = 40
	stressServices = 8
	stressServers  = 3
	stressFlows    = stressClients * stressServices
	stressShots    = 1 << 14 // TEST_SHOTS
	stressThreads  = 2
)

// stress is two threads of packets of the same few flows, and what is expected.
type stress struct {
	*generator
	clients  int
	threads  *rand.Rand
	shots    array[[3]uint64]
	services []lvs.ServiceKey
	macs     map[uint32]uint16 // of real servers, the last two bytes, by id
	timeouts map[bpfConnState]uint32
	probes   map[int][]byte
}

// newStress begins with a table that has so many sets in its front.
func newStress(r *rig, ofFront uint32, clients int) *stress {
	g := r.generatorWith(r.sets()-ofFront, ofFront, "test_stress", "test_direct", "lvs_insert", "lvs_delete", "lvs_sweep")
	g.drive()
	s := &stress{generator: g, clients: clients, macs: map[uint32]uint16{}, timeouts: map[bpfConnState]uint32{}, probes: map[int][]byte{}}
	// The kernel shares out the processors: what it interrupts, it interrupts anywhere.
	before := runtime.GOMAXPROCS(8)
	r.t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	if err := s.shots.openToRead(s.maps["test_shots"]); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.shots.close)
	for n := range stressServices {
		key := fmt.Sprintf("%s 198.51.100.1:%d", stressProtocol(n), 80+n>>1%3)
		format := "10.0.%d.%d:80"
		if n&1 == 1 {
			key, format = fmt.Sprintf("%s [2001:db8::1]:%d", stressProtocol(n), 80+n>>1%3), "[2001:db8:1::%d:%d]:80"
		}
		var servers []lvs.RealServer
		for i := range stressServers {
			servers = append(servers, server(fmt.Sprintf(format, n, 1+i), uint32(1+i)))
		}
		service := r.withMACs(key, lvs.Schedulers()[n*5%len(lvs.Schedulers())], 1+n, servers)
		s.services = append(s.services, service)
		for i, server := range servers {
			s.macs[r.table.servers[serverKey{service, server.Address}]] = uint16(1+n)<<8 | uint16(1+i)
		}
	}
	for state := bpfConnStateSTATE_ESTABLISHED; state < bpfConnStateSTATE_BUSY; state++ {
		var n uint32
		from := state
		if state == bpfConnStateSTATE_UDP_NEW {
			from = bpfConnStateSTATE_UDP
		}
		if err := r.objects.Timeouts.Lookup(from, &n); err != nil {
			r.t.Fatal(err)
		}
		s.timeouts[state] = n + n/uint32(bpfConnBitsCONN_SLACK)
	}
	s.set("stress_clients", uint32(clients))
	s.set("stress_services", uint32(stressServices))
	const underWay = 16 // counted, and not yet made or taken off
	s.set("stress_most", s.sets()*uint32(bpfConnBitsCONN_WAYS)+underWay)
	return s
}

func stressProtocol(service int) lvs.Protocol {
	if service>>1&3 == 3 {
		return lvs.UDP
	}
	return lvs.TCP
}

func (s *stress) client(flow int) netip.AddrPort {
	client, service := flow%s.clients, flow/s.clients
	port := uint16(1000 + client/8)
	if service&1 == 1 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 9, 12: 192, 14: 2, 15: byte(1 + client%8)}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + client%8)}), port)
}

// flow is the number of a service's client.
func (s *stress) flow(service int, client netip.AddrPort) int {
	bytes := client.Addr().As16()
	return service*s.clients + int(client.Port()-1000)*8 + int(bytes[15]) - 1
}

// slot is a connection as its slot has it.
type slot struct {
	connWord
	raw  [2]uint64 // key and word
	flow int
}

// slots returns all connections that live, be their time up or not, and what is
// wrong with the tables while nobody writes them.
func (s *stress) slots() (live []slot, wrong []string) {
	look := func(family string, set, way int, key, word uint64, client func() netip.Addr) {
		w, k := decodeWord(word), decodeConnKey(key)
		if w.state >= bpfConnStateSTATE_BUSY || key|word != 0 && k.version != w.version {
			wrong = append(wrong, fmt.Sprintf("%s set %d way %d: state %d, versions %d and %d", family, set, way, w.state, k.version, w.version))
		}
		if !w.alive() {
			return
		}
		service, from := int(s.macs[w.server]>>8)-1, netip.AddrPortFrom(client(), k.port)
		flow := s.flow(service, from)
		if service < 0 || flow < 0 || flow/s.clients != service || s.client(flow) != from {
			wrong = append(wrong, fmt.Sprintf("%s set %d way %d: client %s of real server %d is of no flow", family, set, way, from, w.server))
			return
		}
		live = append(live, slot{connWord: w, raw: [2]uint64{key, word}, flow: flow})
	}
	for i := range s.arrays.four.items {
		for j, raw := range s.arrays.four.items[i].Slots {
			look("IPv4", i, j, raw.Key, raw.Word, func() netip.Addr { return netip.AddrFrom4(decodeConnKey(raw.Key).client) })
		}
	}
	for i := range s.arrays.six.items {
		for j, raw := range s.arrays.six.items[i].Slots {
			look("IPv6", i, j, raw.Key, raw.Word, func() netip.Addr {
				var b [16]byte
				binary.LittleEndian.PutUint64(b[:8], s.arrays.six.items[i].Clients[j].Word[0])
				binary.LittleEndian.PutUint64(b[8:], s.arrays.six.items[i].Clients[j].Word[1])
				return netip.AddrFrom16(b)
			})
		}
	}
	return live, wrong
}

// books are what the data plane counted.
type books struct {
	reasons map[string]uint64
	stats   []lvs.Stats // of real servers, by id
}

func (s *stress) books() books {
	s.t.Helper()
	stats, err := readStats(s.objects.ServerStats, s.objects.ServerZeros, uint32(len(s.macs)))
	if err != nil {
		s.t.Fatal(err)
	}
	return books{s.reasons(), stats}
}

// deed is a packet, or what the daemon did to a connection meanwhile.
type deed struct {
	began, ended uint64
	flow         int
	what         deedKind
	reason       bpfReason
	found        bpfConnState // of a connection that was known
	server       uint16       // the MAC address that it went to
}

type deedKind uint8

const (
	dataDeed deedKind = iota // an ACK or a datagram
	synDeed
	finDeed
	rstDeed
	insertDeed // that made a connection
	deleteDeed
)

// fired returns the packets that a thread sent.
func (s *stress) fired(thread int) []deed {
	s.t.Helper()
	var state [2]uint64
	if err := s.maps["test_threads"].Lookup(uint32(thread), &state); err != nil {
		s.t.Fatal(err)
	}
	if state[1] > stressShots {
		s.t.Fatalf("%d packets are more than are noted", state[1])
	}
	list := make([]deed, state[1])
	for i := range list {
		raw := s.shots.items[thread*stressShots+i]
		d := deed{began: raw[1], ended: raw[2], flow: int(uint16(raw[0])), server: uint16(raw[0] >> 32), reason: bpfReason(uint8(raw[0] >> 48)), found: bpfConnState(raw[0] >> 56)}
		if stressProtocol(d.flow/s.clients) == lvs.TCP {
			d.what = map[byte]deedKind{flagSYN: synDeed, flagACK: dataDeed, flagACK | 1: finDeed, 4: rstDeed}[byte(raw[0]>>16)]
		}
		list[i] = d
	}
	return list
}

// round is one go of both threads.
type round struct {
	before books
	held   []slot // connections before it
	took   time.Duration
	deeds  []deed
}

// meanwhile is what the daemon does while packets run. It returns what it did to
// connections.
type meanwhile func(random *rand.Rand) []deed

// play lets both threads send packets, and the daemon act, all at the same time.
func (s *stress) play(packets int, daemon ...meanwhile) round {
	s.t.Helper()
	held, _ := s.slots()
	all := round{before: s.books(), held: held, took: -s.time()}
	for thread := range stressThreads {
		state := [2]uint64{s.threads.Uint64() | 1}
		if err := s.maps["test_threads"].Put(uint32(thread), state); err != nil {
			s.t.Fatal(err)
		}
	}
	var ready atomic.Int32
	var over atomic.Bool
	var packeteers, actors sync.WaitGroup
	for thread := range stressThreads {
		packeteers.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			pin(thread)
			for ready.Add(1); ready.Load() < stressThreads; {
				runtime.Gosched()
			}
			if err := s.run(thread, packets); err != nil {
				s.t.Error(err)
			}
		})
	}
	did := make([][]deed, len(daemon))
	for i, act := range daemon {
		random := rand.New(rand.NewPCG(s.threads.Uint64(), 0))
		actors.Go(func() {
			for !over.Load() {
				did[i] = append(did[i], act(random)...)
			}
		})
	}
	packeteers.Wait()
	over.Store(true)
	actors.Wait()
	s.now = s.time()
	all.took += s.now
	all.deeds = slices.Concat(did...)
	for thread := range stressThreads {
		all.deeds = append(all.deeds, s.fired(thread)...)
	}
	return all
}

// pin binds the thread to a processor, if there are so many.
func pin(number int) {
	var set unix.CPUSet
	set.Set(number % runtime.NumCPU())
	_ = unix.SchedSetaffinity(0, &set)
}

// check compares the books with the packets and with the slots, and sends each
// connection a packet that changes nothing.
func (s *stress) check(all round) (live []slot, wrong []string) {
	s.t.Helper()
	live, wrong = s.slots()
	after := s.books()
	reasons := map[string]uint64{}
	stats := make([]lvs.Stats, len(s.macs))
	ids := map[uint16]uint32{}
	for id, mac := range s.macs {
		ids[mac] = id
	}
	for _, d := range all.deeds {
		if d.what >= insertDeed {
			continue
		}
		reasons[reasonName(d.reason)]++
		if d.reason != bpfReasonREASON_FORWARDED && d.reason != bpfReasonREASON_STATELESS {
			continue
		}
		if int(d.server>>8) != d.flow/s.clients+1 {
			wrong = append(wrong, fmt.Sprintf("flow %d went to %x, which is of another service", d.flow, d.server))
			continue
		}
		stats[ids[d.server]].InPackets++
		if d.reason == bpfReasonREASON_FORWARDED && d.found == bpfConnStateSTATE_NONE {
			stats[ids[d.server]].Connections++
		}
	}
	if odd := s.get("stress_odd"); odd > 0 {
		wrong = append(wrong, fmt.Sprintf("meanwhile %d counts were impossible", odd))
		s.set("stress_odd", uint64(0))
	}
	for name := range after.reasons {
		if got := after.reasons[name] - all.before.reasons[name]; got != reasons[name] {
			wrong = append(wrong, fmt.Sprintf("%d packets are counted as %s, %d were", got, name, reasons[name]))
		}
	}
	for id := range stats {
		old, is := all.before.stats[id], after.stats[id]
		if is.InPackets-old.InPackets != stats[id].InPackets || is.Connections-old.Connections != stats[id].Connections {
			wrong = append(wrong, fmt.Sprintf("real server %d: %+v are counted, before %+v, but there were %+v", id, is, old, stats[id]))
		}
	}
	return live, append(wrong, s.checkSlots(live)...)
}

func reasonName(r bpfReason) string { return reasons[r].Name }

func (s *stress) checkSlots(live []slot) (wrong []string) {
	s.t.Helper()
	counts := make([]lvs.Counts, len(s.macs))
	flows := map[int]slot{}
	for _, c := range live {
		if twin, twice := flows[c.flow]; twice {
			wrong = append(wrong, fmt.Sprintf("flow %d lives twice: %x and %x", c.flow, twin.raw, c.raw))
		}
		flows[c.flow] = c
		switch c.state {
		case bpfConnStateSTATE_ESTABLISHED, bpfConnStateSTATE_SYN_RECV, bpfConnStateSTATE_SYN_SENT, bpfConnStateSTATE_SYNACK:
			counts[c.server].Active++
		default:
			counts[c.server].Inactive++
		}
	}
	for id, want := range counts {
		if got := decodeCounts(s.arrays.counts.items[id]); got != want {
			wrong = append(wrong, fmt.Sprintf("real server %d: %+v are counted, %+v live", id, got, want))
		}
	}
	now := s.now
	defer func() { s.setTime(now) }()
	for _, c := range live {
		// At the time of its last packet, another leaves its word as it is.
		s.now = time.Duration(c.expires-s.timeouts[c.state]) * tick
		verdict, out := s.send(s.probe(c.flow))
		if got := binary.BigEndian.Uint16(out[4:]); verdict != xdpTX || got != s.macs[c.server] {
			wrong = append(wrong, fmt.Sprintf("flow %d, %x in state %d of real server %x: verdict %d, went to %x", c.flow, c.raw, c.state, s.macs[c.server], verdict, got))
		}
	}
	return wrong
}

// probe returns a packet that moves no connection to another state.
func (s *stress) probe(flow int) []byte {
	s.t.Helper()
	if s.probes[flow] == nil {
		key := s.services[flow/s.clients]
		s.probes[flow] = frame{client: s.client(flow).String(), vip: key.Address.String(), udp: key.Protocol == lvs.UDP, flags: "-"}.bytes(s.t)
	}
	return s.probes[flow]
}

// stay checks for each flow what must hold while its packets overtake each other: who
// was established goes to the same real server until it ends, and its end is not lost.
func (s *stress) stay(all round, live []slot) (wrong []string) {
	flows := map[int][]deed{}
	for _, d := range all.deeds {
		flows[d.flow] = append(flows[d.flow], d)
	}
	before, after := map[int]slot{}, map[int]slot{}
	for _, c := range all.held {
		if int32(c.expires-ticks(s.now)) > 0 { // nor did its time end meanwhile
			before[c.flow] = c
		}
	}
	for _, c := range live {
		after[c.flow] = c
	}
	for flow := range s.clients * stressServices {
		h := &history{deeds: flows[flow], long: all.took > 9*time.Second}
		slices.SortFunc(h.deeds, func(a, b deed) int { return cmp.Compare(a.began, b.began) })
		if c, known := before[flow]; known {
			h.begin(c.state, s.macs[c.server])
		}
		for i := range h.deeds {
			h.step(i)
		}
		c, known := after[flow]
		if h.state != bpfConnStateSTATE_NONE && (!known || c.state != h.state || s.macs[c.server] != h.server) {
			h.wrong = append(h.wrong, fmt.Sprintf("at the end it should be in state %d at %x, but is (%v) in state %d at %x", h.state, h.server, known, c.state, s.macs[c.server]))
		}
		for _, w := range h.wrong {
			wrong = append(wrong, fmt.Sprintf("flow %d: %s", flow, w))
		}
	}
	return wrong
}

// history is what is known for sure of one flow: most of the time nothing, for its
// packets overtake each other.
type history struct {
	deeds  []deed
	long   bool                   // CLOSE may have come to its end meanwhile
	ended  [deleteDeed + 1]uint64 // the latest end of the deeds of each kind so far
	state  bpfConnState           // NONE if it is not known
	server uint16                 // if it is
	since  uint64
	over   uint64 // when a FIN or RST had ended it, in whatever state it was; 0 if none has
	wrong  []string
}

func (h *history) begin(state bpfConnState, server uint16) {
	switch state {
	case bpfConnStateSTATE_ESTABLISHED, bpfConnStateSTATE_UDP, bpfConnStateSTATE_FIN_WAIT, bpfConnStateSTATE_CLOSE:
		h.state, h.server = state, server
	}
}

// beside tells whether a deed of one of these kinds was done at the same time.
func (h *history) beside(i int, kinds ...deedKind) bool {
	d := h.deeds[i]
	for _, kind := range kinds {
		if h.ended[kind] >= d.began {
			return true
		}
	}
	for _, later := range h.deeds[i+1:] {
		if later.began > d.ended {
			return false
		}
		if slices.Contains(kinds, later.what) {
			return true
		}
	}
	return false
}

// step goes on by one deed.
func (h *history) step(i int) {
	d := h.deeds[i]
	defer func() { h.ended[d.what] = max(h.ended[d.what], d.ended) }()
	h.endStays(i)
	known := h.state != bpfConnStateSTATE_NONE && d.began > h.since
	ending := d.what == finDeed || d.what == rstDeed
	alone := !h.beside(i, finDeed, rstDeed, deleteDeed)
	if h.state == bpfConnStateSTATE_FIN_WAIT || h.state == bpfConnStateSTATE_CLOSE {
		alone = !h.beside(i, synDeed, insertDeed, deleteDeed)
	} else if ending {
		alone = alone && !h.beside(i, synDeed, insertDeed)
	}
	reopens := d.what == synDeed && (h.state == bpfConnStateSTATE_FIN_WAIT || h.state == bpfConnStateSTATE_CLOSE)
	if known && alone && !reopens {
		h.expect(d, h.beside(i, rstDeed))
	}
	switch {
	case d.what == deleteDeed || reopens:
		h.state = bpfConnStateSTATE_NONE
	case ending && known && alone && d.reason == bpfReasonREASON_FORWARDED:
		if d.what == rstDeed && h.long {
			h.state = bpfConnStateSTATE_NONE
		} else if d.what == rstDeed {
			h.state = bpfConnStateSTATE_CLOSE
		} else if h.state == bpfConnStateSTATE_ESTABLISHED {
			h.state = bpfConnStateSTATE_FIN_WAIT
		}
		h.since = d.ended
	case ending || !alone:
		h.state = bpfConnStateSTATE_NONE
	case h.state == bpfConnStateSTATE_NONE && (d.found == bpfConnStateSTATE_ESTABLISHED || d.found == bpfConnStateSTATE_UDP):
		h.state, h.server, h.since = d.found, d.server, d.ended
	}
}

// endStays checks that no packet undoes a FIN or RST that was beside it: both write the
// connection's word, and who comes second must look again. Only a SYN, or the daemon,
// begins anew.
func (h *history) endStays(i int) {
	d := h.deeds[i]
	switch {
	case d.what == synDeed || d.what >= insertDeed || h.beside(i, synDeed, insertDeed, deleteDeed):
		h.over = 0
		return
	case d.reason != bpfReasonREASON_FORWARDED:
		return
	}
	alive := d.found == bpfConnStateSTATE_ESTABLISHED || d.found == bpfConnStateSTATE_SYN_RECV
	if h.over > 0 && d.began > h.over && alive {
		h.wrong = append(h.wrong, fmt.Sprintf("it had ended, but was found in state %d", d.found))
	}
	if h.over == 0 && (d.what == finDeed || d.what == rstDeed && d.found != bpfConnStateSTATE_SYN_RECV) {
		h.over = d.ended
	}
}

// expect checks a deed to a connection that is known for sure. Whoever finds a slot
// half written, again and again, drops its packet: this is no loss.
func (h *history) expect(d deed, besideRST bool) {
	found := d.found == h.state || besideRST && d.found == bpfConnStateSTATE_CLOSE
	switch {
	case d.what == deleteDeed:
	case d.what == insertDeed:
		h.wrong = append(h.wrong, fmt.Sprintf("it was made again, though known: %+v", d))
	case d.reason == bpfReasonREASON_CONTENDED:
	case d.reason != bpfReasonREASON_FORWARDED || d.server != h.server || !found:
		h.wrong = append(h.wrong, fmt.Sprintf("in state %d at %x: %s, found in state %d, went to %x", h.state, h.server, reasonName(d.reason), d.found, d.server))
	}
}

// entry is a flow as the daemon's programs are asked for it.
func (s *stress) entry(flow int, random *rand.Rand) bpfConnEntry {
	service := flow / s.clients
	e := s.encodeEntry(lvs.Connection{Protocol: stressProtocol(service), Client: s.client(flow), Virtual: s.services[service].Address})
	e.NowNs, e.State = uint64(s.time()), bpfConnStateSTATE_ESTABLISHED
	if stressProtocol(service) == lvs.UDP {
		e.State = bpfConnStateSTATE_UDP
	}
	wanted := uint16(1+service)<<8 | uint16(1+random.IntN(stressServers))
	for id, mac := range s.macs {
		if mac == wanted {
			e.ServerId = id
		}
	}
	return e
}

func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return uint64(t.Nano())
}

// insertAndDelete is the daemon's other programs.
func (s *stress) insertAndDelete(flow func(*rand.Rand) int) meanwhile {
	return func(random *rand.Rand) (did []deed) {
		f := flow(random)
		e := s.entry(f, random)
		d := deed{flow: f, what: insertDeed, began: monotonic(), server: s.macs[e.ServerId]}
		program := s.programs["lvs_insert"]
		if random.IntN(2) == 0 {
			d.what, program = deleteDeed, s.programs["lvs_delete"]
		}
		if err := runEntry(program, &e); err != nil {
			s.t.Error(err)
		}
		d.ended = monotonic()
		if d.what == insertDeed {
			if e.Reason != bpfReasonREASON_UNDECIDED || e.Found == 1 {
				return nil
			}
			d.found = e.State
		}
		return []deed{d}
	}
}

func (s *stress) sweepNow(*rand.Rand) []deed {
	if _, err := s.sweepAt(s.time()); err != nil {
		s.t.Error(err)
	}
	return nil
}

// fillNow changes its mind where new connections go: it is a hint alone.
func (s *stress) fillNow(random *rand.Rand) []deed {
	for i := range s.arrays.crowds.items {
		atomic.StoreUint64(&s.arrays.crowds.items[i].Fill, random.Uint64N(3))
	}
	return nil
}

func (s *stress) listNow(*rand.Rand) []deed {
	err := s.connectionsAt(s.time(), func(c lvs.Connection) error {
		service := slices.Index(s.services, lvs.ServiceKey{Protocol: c.Protocol, Address: c.Virtual})
		if service < 0 || s.client(s.flow(service, c.Client)) != c.Client {
			return fmt.Errorf("%+v never was", c)
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	return nil
}

// What TCP packets are, in sixteenths.
var mixes = []string{"SSSSSSSAAAAAAAFR", "SSSSSSSSSSSSSSSA", "SSSSAAAAAAAAAAAA", "SSSSAAAAFFFFRRRR", "SSSSSSSSSSSSSSSS"}

// phase plays one round of a seed.
func (s *stress) phase(packets int) (wrong []string) {
	s.t.Helper()
	random := s.threads
	flags := [16]byte{}
	for i, c := range mixes[random.IntN(len(mixes))] {
		flags[i] = map[rune]byte{'S': flagSYN, 'A': flagACK, 'F': flagACK | 1, 'R': 4}[c]
	}
	flows := []int{1, 3, 12, 60, stressFlows, stressFlows}[random.IntN(6)]
	stride := []int{1, stressClients}[random.IntN(2)]
	if flows > 12 {
		stride = 1
	}
	first := random.IntN(stressFlows)
	s.set("stress_flags", flags)
	s.set("stress_flows", uint32(flows))
	s.set("stress_stride", uint32(stride))
	s.set("stress_first", uint32(first))
	s.set("stress_moves", uint32(random.IntN(3)*200))
	s.set("stress_walk", uint32(0))
	var daemon []meanwhile
	if random.IntN(2) == 0 {
		daemon = append(daemon, s.sweepNow)
	}
	if random.IntN(2) == 0 {
		daemon = append(daemon, s.insertAndDelete(func(r *rand.Rand) int { return (first + r.IntN(flows)*stride) % stressFlows }))
	}
	if random.IntN(4) == 0 {
		daemon = append(daemon, s.listNow)
	}
	if random.IntN(2) == 0 {
		daemon = append(daemon, s.fillNow)
	}
	all := s.play(packets, daemon...)
	live, wrong := s.check(all)
	return append(wrong, s.stay(all, live)...)
}

// seed plays the rounds of one seed, with time between them.
func (s *stress) seed(seed uint64, packets int) (wrong []string) {
	s.t.Helper()
	s.threads = rand.New(rand.NewPCG(seed, seed))
	if _, err := s.Flush(); err != nil {
		s.t.Fatal(err)
	}
	s.setTime(s.now + time.Hour)
	pauses := []time.Duration{0, tick, 11 * time.Second, 61 * time.Second, 121 * time.Second, 301 * time.Second, 901 * time.Second}
	for range 4 {
		if wrong = append(wrong, s.phase(packets)...); len(wrong) > 0 {
			return wrong
		}
		s.setTime(s.now + pauses[s.threads.IntN(len(pauses))])
	}
	return nil
}

// seeds is how many seeds each size of the table is stressed with: LVX_SEEDS, or few.
func seeds(t testing.TB) uint64 {
	text := os.Getenv("LVX_SEEDS")
	if text == "" {
		return 30
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("LVX_SEEDS: %v", err)
	}
	return n
}

// Two processors with packets of the same few flows, while the daemon sweeps, makes
// and ends connections and lists them: no connection is there twice or cannot be
// found, counts are exact, and who is established stays where it is.
func TestTwoProcessors(t *testing.T) {
	r := newRig(t)
	defer func() { r.t = t }()
	for _, size := range []struct{ sets, ofFront uint32 }{{2, 0}, {32, 0}, {16, 2}} {
		t.Run(fmt.Sprintf("%d sets, %d of them the front", size.sets, size.ofFront), func(t *testing.T) {
			r.t = t
			r.again(Options{Connections: connections(size.sets), Services: 64, RealServers: 1024, MHTable: 251, detached: true})
			s := newStress(r, size.ofFront, stressClients)
			for seed := range seeds(t) {
				if wrong := s.seed(seed, 1000); len(wrong) > 0 {
					for _, w := range wrong[:min(10, len(wrong))] {
						t.Error(w)
					}
					t.Fatalf("seed %d: %d things are wrong", seed, len(wrong))
				}
			}
		})
	}
}

// Two processors fight for one to three flows of real servers whose counts are nearly 0,
// and look at them after each packet: they are never below it.
func TestCountsAreNeverBelowZero(t *testing.T) {
	r := newRig(t)
	s := newStress(r, 0, stressClients)
	var flags [16]byte
	for i := range flags {
		flags[i] = []byte{flagSYN, flagACK, flagACK | 1, 4}[i%4]
	}
	s.set("stress_flags", flags)
	for seed := range seeds(t) {
		s.threads = rand.New(rand.NewPCG(seed, 2))
		s.set("stress_first", uint32(s.threads.IntN(stressFlows)))
		s.set("stress_flows", uint32(1+s.threads.IntN(3)))
		if _, wrong := s.check(s.play(stressShots - 100)); len(wrong) > 0 {
			t.Fatalf("seed %d: %q", seed, wrong[:min(10, len(wrong))])
		}
	}
}

// Both processors open the same flows in the same order, where there is room for
// all: each is made once, and both processors' packets of it go to one real server.
func TestTwoProcessorsOpenOneFlow(t *testing.T) {
	const clients = 250
	r := newRig(t)
	s := newStress(r, 0, clients)
	s.set("stress_walk", uint32(1))
	s.set("stress_flows", uint32(clients*stressServices))
	s.set("stress_flags", [16]byte{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2})
	races, rounds := 0, 4*seeds(t)
	for seed := range rounds {
		s.threads = rand.New(rand.NewPCG(seed, 1))
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		s.setTime(s.now + time.Hour)
		all := s.play(clients * stressServices)
		live, wrong := s.check(all)
		if len(live) != clients*stressServices {
			wrong = append(wrong, fmt.Sprintf("%d connections of %d flows", len(live), clients*stressServices))
		}
		made, went := 0, map[int]uint16{}
		for _, d := range all.deeds {
			if d.reason == bpfReasonREASON_CONTENDED {
				races++
				continue
			}
			if d.found == bpfConnStateSTATE_NONE {
				made++
			}
			if to, before := went[d.flow]; d.reason != bpfReasonREASON_FORWARDED || before && to != d.server {
				wrong = append(wrong, fmt.Sprintf("flow %d: %s to %x, the other one to %x", d.flow, reasonName(d.reason), d.server, to))
			}
			went[d.flow] = d.server
		}
		if made != clients*stressServices {
			wrong = append(wrong, fmt.Sprintf("%d connections were made for %d flows", made, clients*stressServices))
		}
		if len(wrong) > 0 {
			t.Fatalf("seed %d: %q", seed, wrong[:min(10, len(wrong))])
		}
	}
	t.Logf("%d packets of %d gave up", races, 2*clients*stressServices*rounds)
}
