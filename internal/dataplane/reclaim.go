// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"net/netip"
	"sync"
	"sync/atomic"
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

func (p *Plane) retirePool(index uint32) {
	pool := p.arrays.pools.items[index]
	p.table.retired.add(func() {
		p.table.pools.put(index, 1)
		p.table.seats.put(pool.First, pool.Servers+pool.Turns)
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, step := range steps {
		step()
	}
	for _, r := range removed {
		p.freeRemoved(r)
	}
	p.dropAddresses()
}

// idle tells whether a real server was taken out and has no connection left.
func (p *Plane) idle(id uint32) bool {
	return p.arrays.servers.items[id].State == bpfServerStateSERVER_REMOVED && atomic.LoadUint64(&p.arrays.counts.items[id]) == 0
}

// removedServers returns those that may go after a grace period. One that still
// has connections is not worth a grace period yet.
func (p *Plane) removedServers() (list []removal) {
	for key, id := range p.table.servers {
		if p.idle(id) {
			list = append(list, removal{key, id, p.table.removed[id]})
		}
	}
	return list
}

// freeRemoved frees a real server unless it is back, has connections again, or was
// back and taken out again: then packets may see it from its last time.
func (p *Plane) freeRemoved(r removal) {
	id, known := p.table.servers[r.key]
	if !known || id != r.id || p.table.removed[id] != r.number {
		return
	}
	if p.idle(id) {
		p.freeServer(r.key, id)
	}
}

func (p *Plane) freeServer(key serverKey, id uint32) {
	record := &p.arrays.servers.items[id]
	record.Generation++ // before the id is anybody else's
	storeState(record, bpfServerStateSERVER_FREE)
	delete(p.table.servers, key)
	delete(p.table.removed, id)
	p.hops.release(key.address.Addr(), id)
	p.table.serverIDs.put(id, 1)
}

// dropAddresses forgets VIPs that no service and no connection needs any more:
// from now on their packets cost one look-up.
func (p *Plane) dropAddresses() {
	needed := map[netip.Addr]bool{}
	for key := range p.table.services {
		needed[key.Address.Addr()] = true
	}
	for key := range p.table.servers {
		needed[key.service.Address.Addr()] = true
	}
	for vip := range p.table.vips {
		if needed[vip] {
			continue
		}
		if err := p.objects.Addresses.Delete(encodeAddr(vip)); err != nil {
			p.log.Error("forget a VIP", "vip", vip, "err", err) // tried again at the next change
			continue
		}
		delete(p.table.vips, vip)
	}
}
