// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

// kernelStates is the input-only table of kernel 6.1, in its own words
// (net/netfilter/ipvs/ip_vs_proto_tcp.c).
var kernelStates = map[string]string{
	//     sNO sES sSS sSR sFW sTW sCL sCW sLA sLI sSA
	"syn": "sSR sES sES sSR sSR sSR sSR sSR sSR sSR sSR",
	"fin": "sCL sFW sSS sTW sFW sTW sCL sCW sLA sLI sTW",
	"ack": "sES sES sSS sES sFW sTW sCL sCW sCL sLI sES",
	"rst": "sCL sCL sCL sSR sCL sCL sCL sCL sLA sLI sCL",
}

// modelStates are the columns, with their timeouts in seconds (tcp_timeouts).
var modelStates = []struct {
	kernel  string
	state   lvs.State
	seconds uint32
	active  bool
}{
	{"sNO", lvs.StateNone, 2, false}, {"sES", lvs.StateEstablished, 900, true}, {"sSS", lvs.StateSynSent, 120, true},
	{"sSR", lvs.StateSynRecv, 60, true}, {"sFW", lvs.StateFinWait, 120, false}, {"sTW", lvs.StateTimeWait, 120, false},
	{"sCL", lvs.StateClose, 10, false}, {"sCW", lvs.StateCloseWait, 60, false}, {"sLA", lvs.StateLastAck, 30, false},
	{"sLI", lvs.StateListen, 120, false}, {"sSA", lvs.StateSynAck, 120, true}, {"UDP", lvs.StateUDP, 300, false},
}

func modelState(match func(i int) bool) int {
	for i := range modelStates {
		if match(i) {
			return i
		}
	}
	panic("no such state")
}

// modelNext is the column of the state after a packet.
func modelNext(column int, flags string) int {
	for _, event := range []struct{ flag, row string }{{"R", "rst"}, {"S", "syn"}, {"F", "fin"}, {"A", "ack"}} {
		if strings.Contains(flags, event.flag) {
			name := strings.Fields(kernelStates[event.row])[column]
			return modelState(func(i int) bool { return modelStates[i].kernel == name })
		}
	}
	return column
}

// modelFlow is a flow of the model: the numbers of a service and a client.
type modelFlow struct{ service, client int }

// modelServer is a real server: the number of its service, and its own.
type modelServer struct{ service, server int }

// modelConnection is what the model knows of a connection.
type modelConnection struct {
	column  int    // of modelStates
	young   bool   // of datagrams: all were heard of in the tick when it was
	born    uint32 // in ticks
	expires uint32
	server  int
}

// model is a table of connections that has room for all, as a Go map.
type model struct {
	*rig
	services    []lvs.Service
	out         [][]bool // real servers that were taken out
	connections map[modelFlow]*modelConnection
	made        map[modelServer]uint64 // connections that packets opened
}

const (
	modelClients = 5
	modelServers = 3
)

func newModel(r *rig) *model {
	m := &model{rig: r, connections: map[modelFlow]*modelConnection{}, made: map[modelServer]uint64{}}
	for n, scheduler := range []lvs.Scheduler{lvs.RR, lvs.WLC, lvs.SH, lvs.LC, lvs.MH, lvs.WRR} {
		key := []string{"tcp 198.51.100.1:80", "udp 198.51.100.1:80", "tcp 198.51.100.1:81", "tcp [2001:db8::1]:80", "udp [2001:db8::1]:80", "tcp [2001:db8::2]:80"}[n]
		format := "10.0.%d.%d:80"
		if n >= 3 {
			format = "[2001:db8:1::%d:%d]:80"
		}
		s := lvs.Service{ServiceKey: parseKey(key), Scheduler: scheduler}
		for i := range modelServers {
			s.RealServers = append(s.RealServers, server(fmt.Sprintf(format, n, 1+i), uint32(1+i)))
		}
		r.withMACs(key, scheduler, 1+n, s.RealServers)
		m.services, m.out = append(m.services, s), append(m.out, make([]bool, modelServers))
	}
	return m
}

// id returns a real server's id. One that was taken out keeps it as long as it has
// connections.
func (m *model) id(s modelServer) (id uint32, known bool) {
	service := m.services[s.service]
	id, known = m.table.servers[serverKey{service.ServiceKey, service.RealServers[s.server].Address}]
	return id, known
}

func (m *model) client(f modelFlow) netip.AddrPort {
	if f.service >= 3 {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 9, 15: byte(f.client / 2)}), uint16(1000+f.client%2))
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(f.client / 2)}), uint16(1000+f.client%2))
}

func (m *model) udp(f modelFlow) bool { return m.services[f.service].Protocol == lvs.UDP }

// over tells whether the connection's time is up.
func (m *model) over(c *modelConnection) bool { return int32(c.expires-ticks(m.now)) <= 0 }

// enter is a packet after which the connection is in that state. It lives on for its
// timeout, and up to a 256th longer: so much may be left as it was.
func (m *model) enter(c *modelConnection, column int) {
	timeout := 4 * modelStates[column].seconds
	latest := ticks(m.now) + timeout + timeout/256
	if c.column != column || c.expires < ticks(m.now)+timeout {
		c.column, c.expires = column, latest
	}
}

// hear is a packet of a live connection.
func (m *model) hear(f modelFlow, c *modelConnection, flags string) {
	if !m.udp(f) {
		m.enter(c, modelNext(c.column, flags))
		return
	}
	if c.young && c.born == ticks(m.now) {
		return
	}
	if c.young {
		c.young, c.expires = false, 0
	}
	m.enter(c, c.column)
}

// packet sends one and says what is to be said of it: the reason, and the real
// server if one is known; -1 is any.
func (m *model) packet(f modelFlow, flags string) (reason string, server int) {
	c := m.connections[f]
	opens := m.udp(f) || flags == "S"
	if c != nil && !m.over(c) {
		ended := slices.Contains([]lvs.State{lvs.StateFinWait, lvs.StateTimeWait, lvs.StateClose}, modelStates[c.column].state)
		if m.udp(f) || !opens || !ended {
			if m.out[f.service][c.server] {
				return "SERVER_REMOVED", -1
			}
			m.hear(f, c, flags)
			return "FORWARDED", c.server
		}
	}
	if !opens {
		return "NO_CONNECTION", -1
	}
	if !slices.Contains(m.out[f.service], false) {
		return "NO_REAL_SERVER", -1
	}
	c = &modelConnection{young: true, born: ticks(m.now)}
	first := lvs.StateSynRecv
	if m.udp(f) {
		first = lvs.StateUDP
	}
	m.enter(c, modelState(func(i int) bool { return modelStates[i].state == first }))
	m.connections[f] = c
	c.server = -1
	return "FORWARDED", -1
}

// send puts a packet through both.
func (m *model) send(t *rapid.T, f modelFlow, flags string) {
	key := m.services[f.service].ServiceKey
	before := m.reasons()
	verdict, out := m.rig.send(frame{client: m.client(f).String(), vip: key.Address.String(), udp: m.udp(f), flags: flags}.bytes(t))
	reason, server := m.packet(f, flags)
	after := m.reasons()
	if after[reason] != before[reason]+1 || total(after) != total(before)+1 {
		t.Fatalf("%v %s: verdict %d, reasons %v, before %v, the model says %s", f, flags, verdict, after, before, reason)
	}
	if reason != "FORWARDED" {
		return
	}
	number := binary.BigEndian.Uint16(out[4:])
	got := int(number&0xff) - 1
	if verdict != xdpTX || int(number>>8) != 1+f.service || server >= 0 && got != server || got < 0 || got >= modelServers {
		t.Fatalf("%v %s: verdict %d, went to %x, the model says %d", f, flags, verdict, number, server)
	}
	if server < 0 {
		if m.out[f.service][got] {
			t.Fatalf("%v %s went to a real server that is out", f, flags)
		}
		m.connections[f].server = got
		m.made[modelServer{f.service, got}]++
	}
}

// entry runs one of the daemon's programs for a flow.
func (m *model) entry(t *rapid.T, f modelFlow, change func(*bpfConnEntry)) bpfConnEntry {
	key := m.services[f.service].ServiceKey
	e := m.encodeEntry(lvs.Connection{Protocol: key.Protocol, Client: m.client(f), Virtual: key.Address})
	e.NowNs = uint64(m.now)
	program := m.objects.LvsDelete
	if change != nil {
		change(&e)
		program = m.objects.LvsInsert
	}
	if err := runEntry(program, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (m *model) insert(t *rapid.T, f modelFlow, column, server int) {
	id, known := m.id(modelServer{f.service, server})
	if !known {
		t.Skip("it is out")
	}
	state, _ := encodeState(modelStates[column].state)
	e := m.entry(t, f, func(e *bpfConnEntry) { e.State, e.ServerId = state, id })
	c := m.connections[f]
	want := c == nil || m.over(c)
	if made := e.Reason == bpfReasonREASON_UNDECIDED && e.Found == 0; made != want {
		t.Fatalf("insert %v: reason %d, found %d, the model says %v", f, e.Reason, e.Found, want)
	}
	if want {
		c = &modelConnection{server: server}
		m.enter(c, column)
		m.connections[f] = c
	}
}

func (m *model) sweep(t *rapid.T) {
	want := Swept{Seen: uint64(len(m.connections))}
	for f, c := range m.connections {
		if m.over(c) {
			delete(m.connections, f)
			want.Ended++
		}
	}
	if got := m.rig.sweep(); got.Seen != want.Seen || got.Ended != want.Ended {
		t.Fatalf("the sweep did %+v, the model says %+v", got, want)
	}
}

// toggle takes a real server out, or puts it back: it may have another id then.
func (m *model) toggle(t *rapid.T, service, server int) {
	m.out[service][server] = !m.out[service][server]
	s := m.services[service].Clone()
	for i := modelServers - 1; i >= 0; i-- {
		if m.out[service][i] {
			s.RealServers = slices.Delete(s.RealServers, i, i+1)
		}
	}
	if err := m.Put(s); err != nil {
		t.Fatal(err)
	}
	if m.out[service][server] {
		return
	}
	back := modelServer{service, server}
	id, _ := m.id(back)
	m.made[back] = m.stats(t)[id].Connections
	m.hop(m.services[service].RealServers[server].Address.Addr(), numberedPath(1+service, 1+server))
}

func (m *model) stats(t *rapid.T) []lvs.Stats {
	stats, err := readStats(m.objects.ServerStats, m.objects.ServerZeros, uint32(len(m.services)*modelServers))
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// compare checks the list, the counts and the statistics.
func (m *model) compare(t *rapid.T) {
	var want []lvs.Connection
	counts := map[modelServer]lvs.Counts{}
	for f, c := range m.connections {
		server := modelServer{f.service, c.server}
		count := counts[server]
		if modelStates[c.column].active {
			count.Active++
		} else {
			count.Inactive++
		}
		counts[server] = count
		if !m.over(c) {
			s := m.services[f.service]
			want = append(want, lvs.Connection{
				Protocol: s.Protocol, Client: m.client(f), Virtual: s.Address, RealServer: s.RealServers[c.server].Address,
				State: modelStates[c.column].state, Expires: decodeTicks(min(c.expires-ticks(m.now), 4*modelStates[c.column].seconds)),
			})
		}
	}
	got := m.rig.connections()
	order := func(a, b lvs.Connection) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Virtual.Compare(b.Virtual), a.Client.Compare(b.Client))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if diff := gocmp.Diff(want, got, gocmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Fatalf("connections (-model +data plane):\n%s", diff)
	}
	m.compareBooks(t, counts)
}

func (m *model) compareBooks(t *rapid.T, counts map[modelServer]lvs.Counts) {
	stats := m.stats(t)
	for service := range m.services {
		for i, out := range m.out[service] {
			server := modelServer{service, i}
			var got lvs.Counts
			id, known := m.id(server)
			if known {
				got = decodeCounts(m.arrays.counts.items[id])
			}
			if got != counts[server] {
				t.Fatalf("%v: counts %+v, the model says %+v", server, got, counts[server])
			}
			if !out && stats[id].Connections != m.made[server] {
				t.Fatalf("%v: %d connections were made, the model says %d", server, stats[id].Connections, m.made[server])
			}
		}
	}
}

// Where there is room the table does what a map would: packet for packet, in all
// states, with time, sweeps, and real servers that come and go.
func TestConnectionsFollowModel(t *testing.T) {
	m := newModel(newRig(t))
	rapid.Check(t, func(t *rapid.T) {
		if _, err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		clear(m.connections)
		m.now += time.Hour
		flow := func(t *rapid.T) modelFlow {
			return modelFlow{rapid.IntRange(0, len(m.services)-1).Draw(t, "service"), rapid.IntRange(0, modelClients-1).Draw(t, "client")}
		}
		packets := func(t *rapid.T) {
			flags := rapid.SampledFrom([]string{"S", "S", "S", "A", "A", "A", "FA", "FA", "R", "RA", "SA", "F", "-", "SF", "SR", "SAFR"})
			f := flow(t)
			for _, flags := range rapid.SliceOfN(flags, 1, 8).Draw(t, "packets") {
				m.send(t, f, flags)
			}
		}
		column := func(t *rapid.T, f modelFlow) int {
			if m.udp(f) {
				return len(modelStates) - 1
			}
			return rapid.IntRange(1, len(modelStates)-2).Draw(t, "state")
		}
		t.Repeat(map[string]func(*rapid.T){
			"packets": packets,
			"more":    packets,
			"time": func(t *rapid.T) {
				seconds := rapid.SampledFrom([]time.Duration{10, 30, 60, 120, 300, 900}).Draw(t, "seconds")
				m.now += rapid.SampledFrom([]time.Duration{tick, seconds*time.Second - tick, seconds * time.Second}).Draw(t, "time")
			},
			"insert": func(t *rapid.T) {
				f := flow(t)
				m.insert(t, f, column(t, f), rapid.IntRange(0, modelServers-1).Draw(t, "server"))
			},
			"delete": func(t *rapid.T) {
				f := flow(t)
				_, want := m.connections[f]
				if e := m.entry(t, f, nil); (e.Found == 1) != want {
					t.Fatalf("delete %v: found %d, the model says %v", f, e.Found, want)
				}
				delete(m.connections, f)
			},
			"sweep": m.sweep,
			"server": func(t *rapid.T) {
				m.toggle(t, rapid.IntRange(0, len(m.services)-1).Draw(t, "service"), rapid.IntRange(0, modelServers-1).Draw(t, "server"))
			},
			"": m.compare,
		})
	})
}
