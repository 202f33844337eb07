// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"lvx/internal/sched"
)

// retired holds what may be freed once no packet can see it any more. Safe for
// concurrent use.
type retired struct {
	mu    sync.Mutex
	steps []func()
}

func (r *retired) add(step func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, step)
}

func (r *retired) take() []func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	steps := r.steps
	r.steps = nil
	return steps
}

// retirePool gives back what was taken for the pool of a service, whatever the map
// says of it now.
func (p *Plane) retirePool(e *serviceEntry) {
	if e.pool == sched.None {
		return
	}
	p.table.retired.add(func() {
		p.table.pools.put(e.pool, 1)
		p.table.seats.put(e.head.First, e.head.room())
	})
}

// removal is a real server as it was taken out once.
type removal struct {
	key    serverKey
	id     uint32
	number uint64
}

// reclaim frees what was retired, and real servers that were taken out and have
// no connection left. It waits for a grace period without holding the lock; who
// comes meanwhile waits for it to end.
func (p *Plane) reclaim() {
	p.reclaiming.Lock()
	defer p.reclaiming.Unlock()
	p.mu.Lock()
	removed := p.removedServers()
	p.mu.Unlock()
	steps := p.table.retired.take()
	if len(removed) == 0 && len(steps) == 0 {
		return
	}
	synchronize()
	p.inTurns(len(steps), func(i int) { steps[i]() })
	p.inTurns(len(removed), func(i int) { p.freeRemoved(removed[i]) })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.table.departed {
		p.dropAddresses()
	}
}

// inTurns calls each for 0 to n-1 with the lock held, but not all the time: changes
// get their turn in between.
func (p *Plane) inTurns(n int, each func(int)) {
	const atOnce = 1024
	for first := 0; first < n; first += atOnce {
		p.mu.Lock()
		for i := first; i < min(first+atOnce, n); i++ {
			each(i)
		}
		p.mu.Unlock()
	}
}

// idle tells whether a real server has no connection left.
func (p *Plane) idle(id uint32) bool { return atomic.LoadUint64(&p.arrays.counts.items[id]) == 0 }

// removedServers returns those that may go after a grace period, by id: so runs of
// free ids stay long. One that still has connections is not worth a grace period yet.
func (p *Plane) removedServers() (list []removal) {
	for key, number := range p.table.removed {
		if id := p.table.servers[key]; p.idle(id) {
			list = append(list, removal{key, id, number})
		}
	}
	slices.SortFunc(list, func(a, b removal) int { return cmp.Compare(a.id, b.id) })
	return list
}

// freeRemoved frees a real server unless it is back, has connections again, or was
// back and taken out again: then packets may see it from its last time.
func (p *Plane) freeRemoved(r removal) {
	number, removed := p.table.removed[r.key]
	if removed && number == r.number && p.idle(r.id) {
		p.freeServer(r.key, r.id)
	}
}

func (p *Plane) freeServer(key serverKey, id uint32) {
	record := &p.arrays.servers.items[id]
	p.dropBackend(id)
	record.Generation++ // before the id is anybody else's
	storeState(record, bpfServerStateSERVER_FREE)
	delete(p.table.servers, key)
	delete(p.table.removed, key)
	p.table.departed = true
	p.hops.release(key.address.Addr(), id)
	p.table.serverIDs.put(id, 1)
}

// dropAddresses forgets addresses that no service and no connection needs any more:
// from now on their packets cost one look-up.
func (p *Plane) dropAddresses() {
	p.table.departed = false
	needed := p.neededAddresses()
	for c := range p.table.vips.all {
		if needed[c] {
			continue
		}
		if err := p.dropAddress(c); err != nil {
			p.log.Error("forget an address", "address", c.addr, "err", err)
			p.table.departed = true // tried again at the next change
		}
	}
}

func (p *Plane) neededAddresses() map[concern]bool {
	needed := make(map[concern]bool, len(p.table.services))
	for key := range p.table.services {
		needed[asVIP(key.Address.Addr())] = true
	}
	for key := range p.table.servers {
		needed[asVIP(key.service.Address.Addr())] = true
	}
	for key := range p.table.backends {
		needed[asSource(decodeAddr(key.Vip))] = true
	}
	return needed
}
