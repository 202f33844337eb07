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

func (r *retired) any() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps) > 0
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

// reclaim frees what was retired, and real servers that were taken out and have
// no connection left. It waits for a grace period without holding the lock.
func (p *Plane) reclaim() {
	p.mu.Lock()
	removed := p.removedServers()
	p.mu.Unlock()
	if len(removed) == 0 && !p.table.retired.any() {
		return
	}
	steps := p.table.retired.take()
	synchronize()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free(steps, removed)
}

// reclaimLocked is reclaim for who holds the lock and needs room now.
func (p *Plane) reclaimLocked() {
	removed := p.removedServers()
	steps := p.table.retired.take()
	synchronize()
	p.free(steps, removed)
}

func (p *Plane) removedServers() (removed []serverKey) {
	for key, id := range p.table.servers {
		if p.arrays.servers.items[id].State == bpfServerStateSERVER_REMOVED {
			removed = append(removed, key)
		}
	}
	return removed
}

func (p *Plane) free(steps []func(), removed []serverKey) {
	for _, step := range steps {
		step()
	}
	for _, key := range removed {
		id, known := p.table.servers[key]
		record := &p.arrays.servers.items[id]
		if known && record.State == bpfServerStateSERVER_REMOVED && atomic.LoadUint64(&p.arrays.counts.items[id]) == 0 {
			p.freeServer(key, id)
		}
	}
	p.dropAddresses()
}

func (p *Plane) freeServer(key serverKey, id uint32) {
	record := &p.arrays.servers.items[id]
	record.Generation++ // before the id is anybody else's
	storeState(record, bpfServerStateSERVER_FREE)
	delete(p.table.servers, key)
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
