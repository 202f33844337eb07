// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// This file keeps the map backends: which real servers of method nat a reply may come
// from, also those that were taken out and still have connections.

// backendTable is the ids by address, port and protocol of the real server, in the order
// in which they came.
type backendTable map[bpfServiceKey][]uint32

// backendKey returns where a real server's replies come from.
func (p *Plane) backendKey(id uint32) bpfServiceKey {
	record := &p.arrays.servers.items[id]
	return bpfServiceKey{Vip: record.Addr, Port: record.Port, Protocol: record.Service.Protocol}
}

// addBackend lets replies of a real server find their connections.
//
// Returns lvs.ErrFull if too many services have one of that address and port.
func (p *Plane) addBackend(id uint32, u *undo) error {
	key := p.backendKey(id)
	if err := p.addAddress(asSource(decodeAddr(key.Vip)), u); err != nil {
		return err
	}
	ids := p.table.backends[key]
	if slices.Contains(ids, id) {
		return nil
	}
	if most := len(bpfBackend{}.Servers); len(ids) == most {
		return fmt.Errorf("%s is a real server of %d services with method nat, which is all that a reply is looked for in; give it another port for this one: %w",
			decodeAddrPort(key.Vip, key.Port), most, lvs.ErrFull)
	}
	if err := p.storeBackend(key, append(slices.Clone(ids), id)); err != nil {
		return err
	}
	u.add(func() { p.dropBackend(id) })
	return nil
}

// dropBackend forgets a real server that has no connection by nat any more.
func (p *Plane) dropBackend(id uint32) {
	key := p.backendKey(id)
	at := slices.Index(p.table.backends[key], id)
	if at < 0 {
		return
	}
	p.table.departed = true
	if err := p.storeBackend(key, slices.Delete(slices.Clone(p.table.backends[key]), at, at+1)); err != nil {
		p.log.Error("forget a real server's replies", "err", err) // Repair tries again
	}
}

// storeBackend writes whom replies from an address and port may be of.
func (p *Plane) storeBackend(key bpfServiceKey, ids []uint32) error {
	if len(ids) == 0 {
		delete(p.table.backends, key)
		p.storeUses()
		if err := p.objects.Backends.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from backends: %w", err)
		}
		return nil
	}
	if err := p.objects.Backends.Put(key, encodeBackend(ids)); err != nil {
		return fmt.Errorf("write backends: %w", err)
	}
	p.table.backends[key] = ids
	p.storeUses()
	return nil
}

func encodeBackend(ids []uint32) bpfBackend {
	b := bpfBackend{Count: uint32(len(ids))}
	copy(b.Servers[:], ids)
	return b
}

// storeUses says whether packets have to look for replies, and tells whether it said so.
func (p *Plane) storeUses() bool {
	var nat uint64
	if len(p.table.backends) > 0 {
		nat = 1
	}
	return atomic.SwapUint64(&p.arrays.uses.items[0].Nat, nat) == nat
}

// bindBackends makes replies of a service's real servers those of method nat's.
func (p *Plane) bindBackends(e *serviceEntry, u *undo) error {
	for i, id := range e.servers {
		if e.service.RealServers[i].Method != lvs.NAT {
			continue
		}
		if err := p.addBackend(id, u); err != nil {
			return err
		}
	}
	return nil
}

// unbindBackends forgets those that are of another method now.
func (p *Plane) unbindBackends(e *serviceEntry) {
	for i, id := range e.servers {
		if e.service.RealServers[i].Method != lvs.NAT {
			p.dropBackend(id)
		}
	}
}

// adoptBackends takes over what records say: the map is repaired by them.
func (p *Plane) adoptBackends() {
	p.table.backends = backendTable{}
	for _, id := range p.table.servers {
		if p.arrays.servers.items[id].Method == bpfMethodMETHOD_NAT {
			key := p.backendKey(id)
			p.table.backends[key] = append(p.table.backends[key], id)
		}
	}
	for _, ids := range p.table.backends {
		slices.Sort(ids)
	}
}

// repairBackends makes the maps backends and uses hold what they should.
func (p *Plane) repairBackends() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := make(map[bpfServiceKey]bpfBackend, len(p.table.backends))
	for key, ids := range p.table.backends {
		want[key] = encodeBackend(ids[:min(len(ids), len(bpfBackend{}.Servers))])
	}
	repaired, err := repairMap("backends", p.objects.Backends, want, func(key bpfServiceKey) string {
		return fmt.Sprintf("real server %s", decodeKey(key))
	})
	if !p.storeUses() {
		repaired = append(repaired, "what is in use was changed in the map uses")
	}
	return repaired, err
}
