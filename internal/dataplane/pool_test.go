// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"math/rand/v2"
	"slices"
	"testing"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// wantRing checks that the map has the ring that a service should have, and returns
// its size.
func (r *rig) wantRing(s lvs.Service) int {
	r.t.Helper()
	head := r.readHead(s.ServiceKey)
	seats := r.readSeats(head)
	for i := range seats {
		seats[i].Address = s.RealServers[i].Address
	}
	want := sched.NewPool(sched.Wanted{Scheduler: s.Scheduler, Seats: seats, MHTable: 251, Secret: r.secrets[bpfSecretUseSECRET_CLIENT]})
	ring := r.places(head).ring
	same := func(slot bpfSeat, seat uint32) bool {
		return slot.RealServer == seats[seat].ID && slot.Weight > 0 && uint32(slot.Weight) == seats[seat].Weight
	}
	if !slices.EqualFunc(ring, want.Ring, same) {
		r.t.Errorf("%s: the ring is %v", s.ServiceKey, ring)
	}
	for hash := range uint64(len(ring)) {
		if id, some := want.RingPick(hash); !some || ring[hash].RealServer != id {
			r.t.Errorf("%s: hash %d gives %d, want %d", s.ServiceKey, hash, ring[hash].RealServer, id)
		}
	}
	return len(ring)
}

// Every service has its ring in the map, through every change, and a daemon that
// starts finds nothing to mend in it.
func TestRings(t *testing.T) {
	for _, scheduler := range lvs.Schedulers() {
		t.Run(string(scheduler), func(t *testing.T) {
			r := newRig(t)
			hashes := scheduler == lvs.SH || scheduler == lvs.MH
			for n, size := range map[int]int{0: 0, 1: 1, 2: 251, 12: 251, 13: 1021, 60: 4093} {
				if hashes {
					size = 0
				}
				s := numbered(n, n, 3)
				s.Scheduler = scheduler
				for i := range s.RealServers {
					s.RealServers[i].Weight = uint32(1 + i%3)
				}
				put := func(size int) {
					if err := r.Put(s); err != nil {
						t.Fatal(err)
					}
					if got := r.wantRing(s); got != size {
						t.Errorf("%d servers have a ring of %d slots", n, got)
					}
				}
				put(size)
				if n == 1 {
					s.RealServers[0].Weight = 0
					put(0)
				}
				if n > 2 {
					s.RealServers[1].Weight = 0 // quiesced
					put(size)
				}
			}
			if log := r.restart(); log != "" {
				t.Errorf("after a start: %s", log)
			}
			if repaired, err := r.Repair(); len(repaired) > 0 || err != nil {
				t.Errorf("repaired %q %v", repaired, err)
			}
			for _, s := range r.load() {
				r.wantRing(s)
				if err := r.Delete(s.ServiceKey); err != nil {
					t.Fatal(err)
				}
			}
			r.reclaim()
			r.reclaim()
			r.wantAllFree()
		})
	}
}

// Services whose real servers come and go have room for their rings, also where all
// that there are belong to few, and tables of mh are changed among them.
func TestRoomForRings(t *testing.T) {
	for _, o := range []Options{
		{Services: 64, RealServers: 2048, MHTable: 4093},
		{Services: 500, RealServers: 65536, MHTable: 4093},
		{Services: 4096, RealServers: 16384, MHTable: lvs.DefaultMHTable},
	} {
		for _, largest := range []uint32{13, 60, 210, 1000} {
			roomForRings(t, o, largest)
		}
	}
}

func roomForRings(t *testing.T, o Options, largest uint32) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	seats := newExtents("seats", 0, uint32(o.seatCapacity()))
	pools, replaced, total := map[uint32]bpfPool{}, []bpfPool{}, uint32(0)
	for change := range 30_000 {
		i := random.Uint32N(o.Services)
		old, known := pools[i]
		n := min(1+random.Uint32N(largest), o.RealServers-total+old.Servers)
		pool := bpfPool{Scheduler: bpfSchedulerSCHEDULER_RR, Servers: n, Turns: n, Ring: sched.RingSlots(int(n))}
		if i < 64 && o.Services > 64 {
			pool = bpfPool{Scheduler: bpfSchedulerSCHEDULER_MH, Servers: n, Turns: o.MHTable}
		}
		first, err := pool.take(&seats)
		if err != nil {
			for _, r := range replaced {
				seats.put(r.First, r.room())
			}
			replaced = nil
			if first, err = pool.take(&seats); err != nil {
				t.Fatalf("%+v, %d in a service, change %d: %v; free %v", o, largest, change, err, seats.free)
			}
		}
		if known {
			replaced = append(replaced, old)
		}
		pool.First = first
		pools[i] = pool
		total += n - old.Servers
	}
}
