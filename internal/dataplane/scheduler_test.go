// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// game is a service whose real servers have numbers, and the oracle that says who
// is to be picked.
type game struct {
	*rig
	service lvs.Service
	oracle  *sched.Oracle
	flow    int
}

// newGame begins with a service without real servers, whatever was there before.
func (r *rig) newGame(six bool, scheduler lvs.Scheduler, flags lvs.SchedulerFlags) *game {
	key := parseKey("tcp 198.51.100.1:80")
	if six {
		key = parseKey("tcp [2001:db8::1]:80")
	}
	_ = r.Delete(key)
	r.now += time.Hour
	r.sweep()
	r.reclaim()
	g := &game{rig: r, service: lvs.Service{ServiceKey: key, Scheduler: scheduler, Flags: flags}}
	g.oracle = sched.NewOracle(sched.Wanted{Scheduler: scheduler, Flags: flags, MHTable: r.options.MHTable, Secret: r.secrets[bpfSecretUseSECRET_CLIENT]})
	return g
}

func (g *game) address(id uint32) netip.AddrPort {
	a := netip.AddrFrom4([4]byte{10, 0, byte(id >> 8), byte(id)})
	if g.service.Address.Addr().Is6() {
		a = netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 0, 1, 14: byte(id >> 8), 15: byte(id)})
	}
	return netip.AddrPortFrom(a, 80)
}

func (g *game) counts(id uint32) lvs.Counts {
	return g.rig.counts(g.service.ServiceKey, g.address(id).String())
}

// put brings the service to the data plane, and its real servers within reach.
func (g *game) put(t fataler) {
	t.Helper()
	if err := g.Put(g.service); err != nil {
		t.Fatal(err)
	}
	for _, s := range g.service.RealServers {
		g.hop(s.Address.Addr(), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 1500})
	}
}

func (g *game) add(t fataler, id, weight uint32) {
	t.Helper()
	s := lvs.RealServer{Address: g.address(id), Method: lvs.DR, Weight: weight}
	g.service.RealServers = append([]lvs.RealServer{s}, g.service.RealServers...)
	g.oracle.Add(sched.Seat{ID: id, Address: s.Address, Weight: weight})
	g.put(t)
}

// id returns the number of the real server in this place of the list.
func (g *game) id(i int) uint32 {
	bytes := g.service.RealServers[i].Address.Addr().As16()
	return uint32(binary.BigEndian.Uint16(bytes[14:]))
}

func (g *game) weigh(t fataler, i int, weight uint32) {
	t.Helper()
	g.service = g.service.Clone()
	g.service.RealServers[i].Weight = weight
	g.oracle.SetWeight(g.id(i), weight)
	g.put(t)
}

func (g *game) remove(t fataler, i int) {
	t.Helper()
	g.oracle.Remove(g.id(i))
	g.service = g.service.Clone()
	g.service.RealServers = slices.Delete(g.service.RealServers, i, i+1)
	g.put(t)
}

// client returns one that was not there before.
func (g *game) client(chance uint64) netip.AddrPort {
	g.flow++
	var low [8]byte
	binary.BigEndian.PutUint64(low[:], chance)
	a := netip.AddrFrom4([4]byte{100, low[5], low[6], low[7]})
	if g.service.Address.Addr().Is6() {
		a = netip.AddrFrom16([16]byte(append([]byte{0x20, 1, 0x0d, 0xb8, 0, 9, low[0], 1}, low[:]...)))
	}
	return netip.AddrPortFrom(a, uint16(1024+g.flow%60000))
}

// open sends a client's SYN and returns who got it, or no address.
func (g *game) open(t fataler, client netip.AddrPort) (picked netip.AddrPort) {
	t.Helper()
	before := g.reasons()["NO_REAL_SERVER"]
	verdict, _ := g.send(frame{client: client.String(), vip: g.service.Address.String()}.bytes(t))
	for _, c := range g.connections() {
		if c.Client == client {
			picked = c.RealServer
		}
	}
	if none := verdict == xdpDrop && g.reasons()["NO_REAL_SERVER"] == before+1; none == picked.IsValid() || !none && verdict != xdpTX {
		t.Fatal(fmt.Sprintf("client %s: verdict %d, real server %s, reasons %v", client, verdict, picked, g.reasons()))
	}
	return picked
}

// follow opens a connection and checks that the oracle's pick got it.
func (g *game) follow(t fataler, client netip.AddrPort) {
	t.Helper()
	var want netip.AddrPort
	if id, some := g.oracle.Pick(client, g.counts); some {
		want = g.address(id)
	}
	if got := g.open(t, client); got != want {
		t.Fatal(fmt.Sprintf("client %s got %s, the oracle picks %s", client, got, want))
	}
}

func drawFlags(t *rapid.T, scheduler lvs.Scheduler) lvs.SchedulerFlags {
	names := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"flag-1", "flag-2", "flag-3"}), rapid.ID).Draw(t, "flags")
	flags, err := lvs.ParseSchedulerFlags(scheduler, names)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// The C schedulers pick what the oracle picks, packet for packet, whatever
// changes in between and however connections come and go.
func TestSchedulersFollowOracle(t *testing.T) {
	for _, scheduler := range lvs.Schedulers() {
		t.Run(string(scheduler), func(t *testing.T) {
			r := newRig(t)
			flow := 0 // no client comes twice
			rapid.Check(t, func(t *rapid.T) {
				g := r.newGame(rapid.Bool().Draw(t, "six"), scheduler, drawFlags(t, scheduler))
				g.flow = flow
				defer func() { flow = g.flow }()
				g.put(t)
				weight := rapid.Uint32Range(0, 9)
				next := uint32(1)
				index := func() int {
					if len(g.service.RealServers) == 0 {
						t.Skip("none")
					}
					return rapid.IntRange(0, len(g.service.RealServers)-1).Draw(t, "index")
				}
				t.Repeat(map[string]func(*rapid.T){
					"add": func(t *rapid.T) {
						if next > 200 {
							t.Skip("enough")
						}
						g.add(t, next, weight.Draw(t, "weight"))
						next++
					},
					"weight": func(t *rapid.T) { g.weigh(t, index(), weight.Draw(t, "weight")) },
					"remove": func(t *rapid.T) { g.remove(t, index()) },
					"time": func(*rapid.T) {
						r.now += 50 * time.Second
						r.sweep()
					},
					"connect": func(t *rapid.T) {
						client := g.client(rapid.Uint64().Draw(t, "client"))
						g.follow(t, client)
						if rapid.Bool().Draw(t, "ends") {
							r.send(frame{client: client.String(), vip: g.service.Address.String(), flags: "FA"}.bytes(t))
						}
					},
				})
			})
		})
	}
}

// sh picks what kernel 6.1's picked: recorded with servers a b c d added one by
// one, and clients that came from eight addresses in turn, each time from another
// port.
func TestSHIsTheKernels(t *testing.T) {
	for _, c := range []struct {
		flags   lvs.SchedulerFlags
		weights []uint32
		port    uint16
		want    string
	}{
		{"", []uint32{1, 1, 1, 1}, 30200, "bdbdbacabdbdbacabdbdbacabdbdbacabdbdbacabdbdbaca"},
		{"", []uint32{4, 3, 2, 1}, 30300, "cbcdcaaacbcdcaaacbcdcaaacbcdcaaacbcdcaaacbcdcaaa"},
		{"sh-port", []uint32{1, 1, 1, 1}, 31000, "cddaabbbabbbccddccddaaabaaabbccdbccdddaaddaabbcc"},
		{"sh-port", []uint32{4, 3, 2, 1}, 31100, "aaaabbccbbccaaaaaaaacccdcccddabbdabbbdaabdaaabbb"},
		{"sh-fallback,sh-port", []uint32{4, 3, 2, 0}, 31400, "bbaaaabbaabbbccabccaaaacaaaccccacccabbbbbbbbbaab"},
	} {
		t.Run(fmt.Sprint(c.flags, c.weights), func(t *testing.T) {
			g := newRig(t).newGame(false, lvs.SH, c.flags)
			for i, w := range c.weights {
				g.add(t, uint32('a'+i), w)
			}
			got := ""
			for i := range c.want {
				picked := g.open(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i%8)}), c.port+uint16(i)))
				got += string(rune(picked.Addr().As4()[3]))
			}
			if got != c.want {
				t.Errorf("\n   got %s\nkernel %s", got, c.want)
			}
		})
	}
}

// mh's picks with tables of the usual size: so many servers that nobody picks right
// by chance, some of them quiesced.
func TestMHFollowsOracle(t *testing.T) {
	r := newRig(t)
	r.again(Options{Connections: 4096, Services: 2, RealServers: 1024, detached: true})
	for _, six := range []bool{false, true} {
		for _, flags := range []lvs.SchedulerFlags{"", "mh-port", "mh-fallback", "mh-fallback,mh-port,flag-3"} {
			t.Run(fmt.Sprintf("six=%v %s", six, flags), func(t *testing.T) {
				g := r.newGame(six, lvs.MH, flags)
				for id := range uint32(40) {
					s := sched.Seat{ID: id, Address: g.address(id), Weight: 1 + id%7}
					g.service.RealServers = slices.Insert(g.service.RealServers, 0, lvs.RealServer{Address: s.Address, Method: lvs.DR, Weight: s.Weight})
					g.oracle.Add(s)
				}
				g.put(t)
				g.weigh(t, 3, 0)
				g.weigh(t, 6, 0)
				for range 100 {
					g.follow(t, g.client(rand.Uint64()))
				}
			})
		}
	}
}

// again takes the data plane away and opens one with other options.
func (r *rig) again(o Options) {
	r.t.Helper()
	r.Close()
	if err := r.right.Unload(); err != nil {
		r.t.Fatal(err)
	}
	r.reopen(o)
}

// A service that nobody serves drops what would open a connection, says so, and
// makes none.
func TestNoRealServer(t *testing.T) {
	r := newRig(t)
	for _, scheduler := range lvs.Schedulers() {
		fallback, _ := lvs.ParseSchedulerFlags(scheduler, []string{"flag-1"})
		for _, flags := range []lvs.SchedulerFlags{"", fallback} {
			t.Run(fmt.Sprintf("%s %s", scheduler, flags), func(t *testing.T) {
				g := r.newGame(false, scheduler, flags)
				g.put(t)
				if got := g.open(t, g.client(1)); got.IsValid() {
					t.Errorf("without real servers %s was picked", got)
				}
				g.add(t, 1, 0)
				g.add(t, 2, 5)
				g.weigh(t, 0, 0)
				if got := g.open(t, g.client(1)); got.IsValid() {
					t.Errorf("%s of weight 0 was picked", got)
				}
				if n := len(r.connections()); n != 0 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

// A table that changes moves no connection, though new ones of the same client go
// elsewhere.
func TestTablesMoveNoConnection(t *testing.T) {
	for _, scheduler := range []lvs.Scheduler{lvs.SH, lvs.MH} {
		t.Run(string(scheduler), func(t *testing.T) {
			g := newRig(t).newGame(false, scheduler, "")
			g.add(t, 1, 1)
			var clients []netip.AddrPort
			for range 30 {
				clients = append(clients, g.client(rand.Uint64()))
				g.follow(t, clients[len(clients)-1])
			}
			for id := uint32(2); id < 10; id++ {
				g.add(t, id, 5)
			}
			moved := 0
			for _, client := range clients {
				for range 2 {
					verdict, _ := g.send(frame{client: client.String(), flags: "A"}.bytes(t))
					if verdict != xdpTX {
						t.Errorf("verdict %d", verdict)
					}
				}
				if g.open(t, netip.AddrPortFrom(client.Addr(), 999)) != g.address(1) {
					moved++
				}
			}
			for _, c := range g.connections() {
				if c.Client.Port() != 999 && c.RealServer != g.address(1) {
					t.Errorf("client %s moved to %s", c.Client, c.RealServer)
				}
			}
			if moved < 20 {
				t.Errorf("new connections of %d of 30 clients went elsewhere: the table did not change", moved)
			}
		})
	}
}

// A daemon that starts has the flags as they were set, the secret, and each
// server's last weight above 0: a quiesced one gets its clients back.
func TestAdoptSchedulers(t *testing.T) {
	r := newRig(t)
	restart := func() {
		old := r.Plane
		r.reopen(r.options)
		old.Close()
	}
	for i, scheduler := range lvs.Schedulers() {
		for j, names := range [][]string{{}, {"flag-1"}, {"flag-2", "flag-3"}, {"flag-1", "flag-2", "flag-3"}} {
			flags, _ := lvs.ParseSchedulerFlags(scheduler, names)
			s := lvs.Service{ServiceKey: parseKey(fmt.Sprintf("udp 198.51.100.2:%d", 100*i+j+1)), Scheduler: scheduler, Flags: flags}
			if err := r.Put(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	g := r.newGame(false, lvs.MH, "mh-port")
	for id := range uint32(5) {
		g.add(t, id, 10+id)
	}
	g.weigh(t, 2, 0)
	services, err := r.Load()
	if err != nil {
		t.Fatal(err)
	}
	secret := r.secrets[bpfSecretUseSECRET_CLIENT]
	restart()
	if secret == (sched.Secret{}) || r.secrets[bpfSecretUseSECRET_CLIENT] != secret {
		t.Errorf("the secret was %x and is %x", secret, r.secrets[bpfSecretUseSECRET_CLIENT])
	}
	got, err := r.Load()
	if diff := cmp.Diff(services, got, cmp.Comparer(lvs.Service.Equal)); err != nil || diff != "" {
		t.Errorf("services (-before +after): %v\n%s", err, diff)
	}
	if status := r.list()[0]; status.Flags != "mh-port" || status.RealServers[2].Weight != 0 {
		t.Errorf("listed as %q with %+v", status.Flags, status.RealServers[2])
	}
	if w := r.arrays.seats.items[r.readHead(g.service.ServiceKey).First+2].Weight; w != -12 {
		t.Errorf("the weight of the quiesced one is remembered as %d", w)
	}
	g.weigh(t, 4, 3) // the table is made anew
	for range 50 {
		g.follow(t, g.client(rand.Uint64()))
	}
	restart()
	g.weigh(t, 2, 12)
	for range 50 {
		g.follow(t, g.client(rand.Uint64()))
	}
}

// readHead returns the head of a service's pool.
func (r *rig) readHead(key lvs.ServiceKey) bpfPool {
	return r.arrays.pools.items[r.table.services[key].pool]
}

// Each instance has a secret of its own, and gets one if its daemon was killed
// before it had.
func TestSecret(t *testing.T) {
	r := newRig(t)
	first := r.secrets[bpfSecretUseSECRET_CLIENT]
	r.again(r.options)
	if r.secrets[bpfSecretUseSECRET_CLIENT] == first {
		t.Error("an instance that was taken away left its secret")
	}
	if err := r.objects.Secrets.Put(uint32(0), bpfSecret{}); err != nil {
		t.Fatal(err)
	}
	r.reopen(r.options)
	if r.secrets[bpfSecretUseSECRET_CLIENT] == (sched.Secret{}) {
		t.Error("there is no secret")
	}
}

// Where there is no room for one more table of mh the error says what to do, and a
// service less is enough.
func TestTablesFull(t *testing.T) {
	r := newRig(t)
	r.again(Options{Connections: 64, Services: 256, RealServers: 256, MHTable: 4093, detached: true})
	put := func(port int) error {
		address := fmt.Sprintf(":%d", port)
		return r.Put(lvs.Service{ServiceKey: parseKey("tcp 198.51.100.1" + address), Scheduler: lvs.MH, RealServers: []lvs.RealServer{server("10.0.0.1"+address, 1)}})
	}
	var err error
	port := 1
	for ; err == nil && port < 256; port++ {
		err = put(port)
	}
	if !errors.Is(err, lvs.ErrFull) || !strings.Contains(err.Error(), "director.mh_table (4093)") || port < 65 {
		t.Fatalf("%d tables, then: %v", port-1, err)
	}
	if err := r.Delete(parseKey("tcp 198.51.100.1:7")); err != nil {
		t.Fatal(err)
	}
	if err := put(port); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
}

// Tables of mh change, with more servers or fewer, and small pools among them: there
// is room for 64 of them as long as there is for two that were replaced.
func TestRoomForTables(t *testing.T) {
	const tables, small, largest = 64, 300, 60
	random := rand.New(rand.NewPCG(1, 2))
	table := bpfPool{Scheduler: bpfSchedulerSCHEDULER_MH, Turns: 4093, Servers: 40}
	seats := newExtents("seats", 0, (tables+2)*table.room()+small*largest)
	type run struct{ first, length uint32 }
	pools, replaced := map[int]run{}, []run{}
	for change := range 200_000 {
		i, pool := random.IntN(tables+small), bpfPool{Servers: random.Uint32N(largest)}
		if i < tables {
			pool = table
			pool.Servers = 1 + random.Uint32N(40)
		}
		first, err := pool.take(&seats)
		if err != nil {
			for _, r := range replaced {
				seats.put(r.first, r.length)
			}
			replaced = nil
			if first, err = pool.take(&seats); err != nil {
				t.Fatalf("change %d: %v; free %v", change, err, seats.free)
			}
		}
		if old, known := pools[i]; known {
			replaced = append(replaced, old)
		}
		pools[i] = run{first, pool.room()}
	}
}

// Tables that cannot be are refused before anything is made.
func TestMHTableOption(t *testing.T) {
	for want, o := range map[string]Options{
		"it has to be a prime":       {MHTable: 65536},
		"at most":                    {MHTable: 1<<24 + 43},
		"lower director.mh_table or": {MHTable: 16777213, Services: 4096},
	} {
		if err := o.setDefaults(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d slots: %v, want %q", o.MHTable, err, want)
		}
	}
	o := Options{}
	if err := o.setDefaults(); err != nil || o.MHTable != 65537 {
		t.Errorf("by default %d slots, %v", o.MHTable, err)
	}
	if room := o.seatCapacity(); room < 65*65537 {
		t.Errorf("by default there is room for %d seats: not for 64 tables and a copy", room)
	}
}
