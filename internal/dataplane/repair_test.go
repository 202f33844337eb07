// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"lvx/internal/lvs"
)

// These tests change the pinned maps behind the daemon's back, as bpftool does.

// pinned opens a map by its pin.
func (r *rig) pinned(name string) *ebpf.Map {
	r.t.Helper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(r.right.dir(), name), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = m.Close() })
	return m
}

// tamper changes one entry of a pinned map.
func tamper[K, V any](r *rig, name string, key K, change func(*V)) {
	r.t.Helper()
	m := r.pinned(name)
	var value V
	if err := m.Lookup(key, &value); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		r.t.Fatal(err)
	}
	change(&value)
	if err := m.Put(key, value); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(name string, key any) {
	r.t.Helper()
	if err := r.pinned(name).Delete(key); err != nil {
		r.t.Fatal(err)
	}
}

// town is some services, the first of which is to be tampered with. Its id and its
// pool are 0, its seats and its real servers 0 to 2.
type town struct {
	*rig
	t        *testing.T
	services []lvs.Service // the newest first, as Load has them
	key      bpfServiceKey // of the first that was added
}

// found builds a town on an empty rig, which several have one after the other.
func (r *rig) found(t *testing.T, scheduler lvs.Scheduler) *town {
	t.Helper()
	r.service("tcp 198.51.100.1:80", scheduler, server("10.0.0.1:80", 1), server("10.0.0.2:80", 2), server("10.0.0.3:80", 3))
	r.service("udp 198.51.100.2:53", lvs.LC, server("10.0.0.1:53", 1))
	r.service("tcp [2001:db8::1]:443", lvs.WRR, server("[2001:db8:1::1]:443", 1))
	c := &town{rig: r, t: t, services: r.load(), key: encodeKey(parseKey("tcp 198.51.100.1:80"))}
	if c.pool() != 0 || c.arrays.services.items[0].Key != c.key {
		t.Fatal("the town is not as its tests take it for")
	}
	return c
}

func (r *rig) load() []lvs.Service {
	r.t.Helper()
	list, err := r.Load()
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

func (c *town) pool() uint32 { return c.arrays.services.items[0].Pool }

func sameServices(a, b []lvs.Service) bool { return slices.EqualFunc(a, b, lvs.Service.Equal) }

// healthy tells that everything is as it was, for people and for packets, that
// nothing needs repair, and that every id is given back in the end.
func (c *town) healthy() {
	c.t.Helper()
	c.unchanged()
	c.deleteAll()
	c.wantAllFree()
}

func (c *town) unchanged() {
	c.t.Helper()
	if got := c.load(); !sameServices(got, c.services) {
		c.t.Errorf("loaded %+v\nwant   %+v", got, c.services)
	}
	if repaired, err := c.Repair(); err != nil || len(repaired) > 0 {
		c.t.Errorf("still to be repaired: %q %v", repaired, err)
	}
	before := c.counts(parseKey("tcp 198.51.100.1:80"), "10.0.0.1:80")
	for i := range 6 { // a round of wrr
		client := fmt.Sprintf("192.0.2.9:%d000", 1+i)
		syn := frame{client: client}.bytes(c.t)
		if verdict, out := c.send(syn); verdict != xdpTX {
			c.t.Errorf("SYN %d: verdict %d, reasons %v", i, verdict, c.reasons())
		} else {
			c.wantBytes(out, forwarded(syn, serverMAC, directorMAC))
		}
		if verdict, _ := c.send(frame{client: client, flags: "A"}.bytes(c.t)); verdict != xdpTX {
			c.t.Errorf("ACK %d: verdict %d, reasons %v", i, verdict, c.reasons())
		}
	}
	if head := c.arrays.pools.items[c.arrays.services.items[c.table.services[decodeKey(c.key)].id].Pool]; head.Zero != 0 {
		c.t.Errorf("pool %+v", head)
	}
	if now := c.counts(parseKey("tcp 198.51.100.1:80"), "10.0.0.1:80"); now == before {
		c.t.Errorf("the first real server has %v still", now)
	}
}

func (c *town) deleteAll() {
	c.t.Helper()
	for _, s := range c.services {
		if err := c.Delete(s.ServiceKey); err != nil {
			c.t.Error(err)
		}
	}
	c.now += time.Hour
	c.sweep()
	c.reclaim()
	c.reclaim() // the next hops that the first let go
}

func (r *rig) wantAllFree() {
	r.t.Helper()
	if len(r.load()) != 0 || len(r.table.servers) != 0 || len(r.table.vips.all) != 0 || len(r.hops.hops) != 0 {
		r.t.Errorf("left: services %v, %d servers, %d VIPs, %d next hops", r.load(), len(r.table.servers), len(r.table.vips.all), len(r.hops.hops))
	}
	for what, e := range map[string]extents{"services": r.table.serviceIDs, "servers": r.table.serverIDs, "pools": r.table.pools, "seats": r.table.seats, "hops": r.hops.indexes} {
		if len(e.free) != 1 || e.free[0].first > 1 {
			r.t.Errorf("%s: free runs %v", what, e.free)
		}
	}
}

// restart is a daemon that ends and another that starts; it returns what that one
// logs.
func (r *rig) restart() string {
	r.t.Helper()
	var log bytes.Buffer
	o := r.options
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	old := r.Plane
	r.reopen(o)
	old.Close()
	return log.String()
}

// resolve gives all real servers their next hops.
func (c *town) resolve() {
	for _, s := range c.services {
		for _, server := range s.RealServers {
			c.hop(server.Address.Addr(), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 9000})
		}
	}
}

// visible is what Load shows.
var visible = map[string]func(*town){
	"the key gone": func(c *town) { c.remove("service_ids", c.key) },
	"an id outside of the map": func(c *town) {
		tamper(c.rig, "service_ids", c.key, func(id *uint32) { *id = math.MaxUint32 })
	},
	"another's id":    func(c *town) { tamper(c.rig, "service_ids", c.key, func(id *uint32) { *id = 1 }) },
	"a free id":       func(c *town) { tamper(c.rig, "service_ids", c.key, func(id *uint32) { *id = 60 }) },
	"another key":     func(c *town) { tamper(c.rig, "services", uint32(0), func(s *bpfService) { s.Key.Port++ }) },
	"an empty record": func(c *town) { tamper(c.rig, "services", uint32(0), func(s *bpfService) { *s = bpfService{} }) },
	"no pool":         func(c *town) { tamper(c.rig, "services", uint32(0), func(s *bpfService) { s.Pool = math.MaxUint32 }) },
	"an empty pool":   func(c *town) { tamper(c.rig, "services", uint32(0), func(s *bpfService) { s.Pool = 99 }) },
	"another's pool":  func(c *town) { tamper(c.rig, "services", uint32(0), func(s *bpfService) { s.Pool = 1 }) },
	"another scheduler": func(c *town) {
		tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Scheduler = bpfSchedulerSCHEDULER_LC })
	},
	"no scheduler": func(c *town) { tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Scheduler = 99 }) },
	"another flag": func(c *town) { tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Flags = 4 }) },
	"seats outside": func(c *town) {
		tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.First = math.MaxUint32 })
	},
	"too many seats": func(c *town) {
		tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Servers = math.MaxUint32 })
	},
	"too many turns": func(c *town) {
		tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Servers, p.Turns = 1, math.MaxUint32 })
	},
	"too many slots in the ring": func(c *town) {
		tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Ring = math.MaxUint32 })
	},
	"another's seats": func(c *town) { tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.First++ }) },
	"fewer seats":     func(c *town) { tamper(c.rig, "pools", c.pool(), func(p *bpfPool) { p.Servers-- }) },
	"a weight":        func(c *town) { tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.Weight = 77 }) },
	"no weight":       func(c *town) { tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.Weight = 0 }) },
	"a seat of nobody": func(c *town) {
		tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.RealServer = math.MaxUint32 })
	},
	"a seat of another service": func(c *town) { tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.RealServer = 4 }) },
	"a seat twice":              func(c *town) { tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.RealServer = 0 }) },
	"an address": func(c *town) {
		tamper(c.rig, "real_servers", uint32(1), func(s *bpfRealServer) { s.Addr.Bytes[15] = 99 })
	},
	"another's address": func(c *town) {
		tamper(c.rig, "real_servers", uint32(1), func(s *bpfRealServer) { s.Addr.Bytes[15] = 1 })
	},
	"a port":   func(c *town) { tamper(c.rig, "real_servers", uint32(1), func(s *bpfRealServer) { s.Port++ }) },
	"a method": func(c *town) { tamper(c.rig, "real_servers", uint32(1), func(s *bpfRealServer) { s.Method = 9 }) },
	"an empty real server": func(c *town) {
		tamper(c.rig, "real_servers", uint32(1), func(s *bpfRealServer) { *s = bpfRealServer{} })
	},
}

// Load shows what the maps say, whatever that is, and Put makes it right.
func TestPutHealsWhatLoadShows(t *testing.T) {
	r := newRig(t)
	for what, damage := range visible {
		t.Run(what, func(t *testing.T) {
			c := r.found(t, lvs.WRR)
			damage(c)
			if sameServices(c.load(), c.services) {
				t.Error("Load does not show it")
			}
			if len(c.list()) != len(c.load()) {
				t.Error("Services and Load do not list the same")
			}
			if err := c.Put(c.services[2]); err != nil {
				t.Fatal(err)
			}
			c.healthy()
		})
	}
}

// The same while no daemon runs. The next one takes over what it can read, and Put
// still makes it right, whatever that was.
func TestPutHealsWhatWasAdopted(t *testing.T) {
	r := newRig(t)
	for what, damage := range visible {
		t.Run(what, func(t *testing.T) {
			c := r.found(t, lvs.WRR)
			damage(c)
			c.restart()
			for _, s := range slices.Backward(c.services) {
				if err := c.Put(s); err != nil {
					t.Fatal(err)
				}
			}
			// A service whose key was lost is new, and so at the front.
			got := c.load()
			order := slices.IndexFunc(got, func(s lvs.Service) bool { return s.ServiceKey == c.services[2].ServiceKey })
			c.services = slices.Insert(slices.Delete(slices.Clone(c.services), 2, 3), order, c.services[2])
			c.resolve()
			c.unchanged()
			c.deleteAll()
			if what == "another's address" { // of two of one name one waits for this
				c.reopen(c.options)
				c.reclaim()
				c.reclaim()
			}
			c.wantAllFree()
		})
	}
}

// Delete takes out what is in the map alone, also where nobody could have put it.
func TestDeleteWhatNobodyPut(t *testing.T) {
	c := newRig(t).found(t, lvs.RR)
	key := parseKey("tcp 198.51.100.9:80")
	for _, id := range []uint32{0, 60, math.MaxUint32} {
		tamper(c.rig, "service_ids", encodeKey(key), func(at *uint32) { *at = id })
		if list := c.load(); len(list) != 4 || !slices.ContainsFunc(list, func(s lvs.Service) bool {
			return s.ServiceKey == key && s.Scheduler == "" && len(s.RealServers) == 0
		}) {
			t.Errorf("id %d: loaded %v", id, list)
		}
		if err := c.Delete(key); err != nil {
			t.Errorf("id %d: %v", id, err)
		}
		if err := c.Delete(key); !errors.Is(err, lvs.ErrNoService) {
			t.Errorf("id %d, once more: %v", id, err)
		}
	}
	c.remove("service_ids", c.key)
	if err := c.Delete(decodeKey(c.key)); err != nil {
		t.Errorf("a service whose key is gone: %v", err)
	}
	if err := c.Put(c.services[2]); err != nil {
		t.Fatal(err)
	}
	c.services = append(c.services[2:], c.services[:2]...)
	c.healthy()
}

// A Put that finds no room leaves also what was tampered with as it was.
func TestPutThatFailsChangesNothing(t *testing.T) {
	c := newRig(t).found(t, lvs.WRR)
	tamper(c.rig, "seats", uint32(1), func(s *bpfSeat) { s.Weight = 77 })
	before := c.load()
	s := c.services[2].Clone()
	for i := range 1100 {
		s.RealServers = append(s.RealServers, numbered(i, 1, 1).RealServers[0])
	}
	if err := c.Put(s); !errors.Is(err, lvs.ErrFull) {
		t.Fatalf("1103 real servers in a table of 1024: %v", err)
	}
	if got := c.load(); !sameServices(got, before) {
		t.Errorf("loaded %v\nbefore %v", got, before)
	}
	if err := c.Put(c.services[2]); err != nil {
		t.Fatal(err)
	}
	c.healthy()
}

// The same where the last write fails, since somebody filled the map: a real server
// that waits for its service to come back goes on waiting.
func TestPutIntoAFullMapChangesNothing(t *testing.T) {
	c := newRig(t).found(t, lvs.WRR)
	c.send(frame{}.bytes(t))
	key := decodeKey(c.key)
	if err := c.Delete(key); err != nil {
		t.Fatal(err)
	}
	for port := range uint16(62) {
		tamper(c.rig, "service_ids", encodeKey(lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrPortFrom(key.Address.Addr(), 1000+port)}), func(*uint32) {})
	}
	if err := c.Put(c.services[2]); err == nil {
		t.Error("there was room")
	}
	if verdict, _ := c.send(frame{flags: "A"}.bytes(t)); verdict != xdpDrop || c.reasons()["SERVER_REMOVED"] != 1 {
		t.Errorf("verdict %d, reasons %v", verdict, c.reasons())
	}
	for _, s := range c.load() {
		if s.Scheduler == "" {
			if err := c.Delete(s.ServiceKey); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Put(c.services[2]); err != nil {
		t.Fatal(err)
	}
	c.services = append(c.services[2:], c.services[:2]...)
	c.healthy()
}

// hidden is what Load does not show, with what Repair says.
var hidden = map[string]struct {
	scheduler lvs.Scheduler
	damage    func(*town)
	words     string
}{
	"state": {lvs.WRR, func(c *town) {
		tamper(c.rig, "real_servers", uint32(0), func(s *bpfRealServer) { s.State = bpfServerStateSERVER_REMOVED })
	}, "real server 10.0.0.1:80 of tcp 198.51.100.1:80 was changed in the map real_servers"},
	"no state": {lvs.WRR, func(c *town) {
		tamper(c.rig, "real_servers", uint32(0), func(s *bpfRealServer) { s.State = 77 })
	}, "real server 10.0.0.1:80 of tcp 198.51.100.1:80 was changed in the map real_servers"},
	"next hop": {lvs.WRR, func(c *town) {
		tamper(c.rig, "real_servers", uint32(0), func(s *bpfRealServer) { s.NextHop = math.MaxUint32 })
	}, "real server 10.0.0.1:80 of tcp 198.51.100.1:80 was changed in the map real_servers"},
	"service id": {lvs.WRR, func(c *town) {
		tamper(c.rig, "real_servers", uint32(0), func(s *bpfRealServer) { s.ServiceId = 1 })
	}, "real server 10.0.0.1:80 of tcp 198.51.100.1:80 was changed in the map real_servers"},
	"service": {lvs.WRR, func(c *town) {
		tamper(c.rig, "real_servers", uint32(0), func(s *bpfRealServer) { s.Service.Port++ })
	}, "real server 10.0.0.1:80 of tcp 198.51.100.1:80 was changed in the map real_servers"},
	"a turn": {lvs.WRR, func(c *town) {
		tamper(c.rig, "seats", uint32(3), func(s *bpfSeat) { s.RealServer = 4 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"a turn of nobody": {lvs.RR, func(c *town) {
		tamper(c.rig, "seats", uint32(3), func(s *bpfSeat) { s.RealServer = math.MaxUint32 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"no turns": {lvs.RR, func(c *town) {
		tamper(c.rig, "pools", uint32(0), func(p *bpfPool) { p.Turns = 0 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"a turn of sh": {lvs.SH, func(c *town) {
		tamper(c.rig, "seats", uint32(100), func(s *bpfSeat) { s.RealServer = 4 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"a slot of the ring": {lvs.WRR, func(c *town) { // behind three seats and six turns
		tamper(c.rig, "seats", uint32(9+250), func(s *bpfSeat) { s.RealServer = 4 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"another's slot of the ring": {lvs.LC, func(c *town) { // behind three seats
		tamper(c.rig, "seats", uint32(3), func(s *bpfSeat) {
			*s = c.arrays.seats.items[(s.RealServer+1)%3]
		})
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"no ring": {lvs.WLC, func(c *town) {
		tamper(c.rig, "pools", uint32(0), func(p *bpfPool) { p.Ring = 0 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"a ring of sh": {lvs.SH, func(c *town) {
		tamper(c.rig, "pools", uint32(0), func(p *bpfPool) { p.Ring = 1 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"what is always 0": {lvs.WLC, func(c *town) {
		tamper(c.rig, "pools", uint32(0), func(p *bpfPool) { p.Zero = 1 })
	}, "the turns of service tcp 198.51.100.1:80 were changed in the maps pools and seats"},
	"a VIP gone": {lvs.WRR, func(c *town) { c.remove("addresses", c.key.Vip) },
		"address 198.51.100.1 was missing from the map addresses"},
	"a VIP of nobody": {lvs.WRR, func(c *town) {
		tamper(c.rig, "addresses", encodeAddr(parseKey("tcp 192.0.2.77:80").Address.Addr()), func(*uint32) {})
	}, "address 192.0.2.77 had no place in the map addresses"},
	"a key that no packet has": {lvs.WRR, func(c *town) {
		odd := c.key
		odd.Zero = 1
		tamper(c.rig, "service_ids", odd, func(*uint32) {})
	}, "tcp 198.51.100.1:80, in a form that no packet has, was in the map service_ids"},
	"a timeout": {lvs.WRR, func(c *town) {
		tamper(c.rig, "timeouts", bpfConnStateSTATE_SYN_RECV, func(t *uint32) { *t = 1 })
	}, "the timeout of state SYN_RECV was changed in the map timeouts"},
	"the secret": {lvs.MH, func(c *town) {
		tamper(c.rig, "secrets", uint32(0), func(s *bpfSecret) { s.Key[1]++ })
	}, "the secret of mh was changed in the map secrets"},
}

// Repair mends what Load does not show, and says so, once.
func TestRepair(t *testing.T) {
	r := newRig(t)
	for what, h := range hidden {
		t.Run(what, func(t *testing.T) {
			c := r.found(t, h.scheduler)
			h.damage(c)
			if !sameServices(c.load(), c.services) {
				t.Error("Load shows it: it is not Repair's")
			}
			repaired, err := c.Repair()
			if diff := cmp.Diff([]string{h.words}, repaired); diff != "" || err != nil {
				t.Errorf("repaired (-want +got):\n%s%v", diff, err)
			}
			if h.scheduler == lvs.SH || h.scheduler == lvs.MH {
				c.deleteAll() // one client has one real server
				return
			}
			c.healthy()
		})
	}
}

// What Repair does not tell of, Put mends all the same.
func TestPutHealsWhatLoadDoesNotShow(t *testing.T) {
	r := newRig(t)
	for what, h := range hidden {
		if strings.Contains(what, "secret") || strings.Contains(what, "timeout") || strings.Contains(what, "nobody") || strings.Contains(what, "no packet") {
			continue // not the service's
		}
		t.Run(what, func(t *testing.T) {
			c := r.found(t, h.scheduler)
			h.damage(c)
			if err := c.Put(c.services[2]); err != nil {
				t.Fatal(err)
			}
			if repaired, err := c.Repair(); len(repaired) > 0 || err != nil {
				t.Errorf("there was still to be repaired: %q %v", repaired, err)
			}
			c.deleteAll()
		})
	}
}

// The same while no daemon runs: the next one writes it anew.
func TestAdoptHealsWhatLoadDoesNotShow(t *testing.T) {
	r := newRig(t)
	for what, h := range hidden {
		if what == "the secret" {
			continue // it is what the map says
		}
		t.Run(what, func(t *testing.T) {
			c := r.found(t, h.scheduler)
			if log := c.restart(); log != "" {
				t.Errorf("nothing was changed yet: %s", log)
			}
			h.damage(c)
			c.restart()
			if h.scheduler == lvs.SH {
				c.deleteAll()
				return
			}
			c.resolve()
			c.healthy()
		})
	}
}

// Of what Load shows Repair leaves all to who compares.
func TestRepairLeavesTheRest(t *testing.T) {
	r := newRig(t)
	for _, what := range []string{"a weight", "another scheduler", "an address", "a method", "the key gone"} {
		t.Run(what, func(t *testing.T) {
			c := r.found(t, lvs.WRR)
			visible[what](c)
			before := c.load()
			if repaired, err := c.Repair(); len(repaired) > 0 || err != nil {
				t.Errorf("repaired %q %v", repaired, err)
			}
			if !sameServices(before, c.load()) {
				t.Error("it is gone, and nobody was told")
			}
			c.deleteAll()
		})
	}
}

// The order in which services are listed is put right as well.
func TestRepairOrder(t *testing.T) {
	c := newRig(t).found(t, lvs.WRR)
	tamper(c.rig, "services", uint32(0), func(s *bpfService) { s.Order = math.MaxUint64 })
	if sameServices(c.load(), c.services) {
		t.Error("Load does not show it")
	}
	repaired, err := c.Repair()
	if want := []string{"the order of service tcp 198.51.100.1:80 was changed in the map services"}; !slices.Equal(repaired, want) || err != nil {
		t.Errorf("repaired %q %v", repaired, err)
	}
	c.healthy()
}

// A daemon that finds the greatest possible order still lists newer services first.
func TestAdoptOrder(t *testing.T) {
	c := newRig(t).found(t, lvs.WRR)
	tamper(c.rig, "services", uint32(1), func(s *bpfService) { s.Order = math.MaxUint64 })
	if log := c.restart(); log != "" {
		t.Errorf("logged %s", log)
	}
	key := c.service("tcp 198.51.100.7:80", lvs.RR)
	if list := c.load(); list[0].ServiceKey != key || list[1].ServiceKey != c.services[1].ServiceKey {
		t.Errorf("loaded %v", list)
	}
}
