// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// Repair writes again what somebody changed in the maps with bpftool, as far as Load
// and Timeouts do not show it, and says what it repaired, in words. What they show is
// the caller's to compare, and Put's, Delete's and SetTimeouts' to mend. Next hops
// are compared with the kernel twice a minute, by Run.
//
// With an error the rest was repaired all the same.
func (p *Plane) Repair() (repaired []string, err error) {
	for _, step := range []func() ([]string, error){
		p.repairKeys, p.repairServices, p.repairAddresses, p.repairBackends, p.hops.repair, p.ports.repair, p.repairTimeouts, p.repairSecrets, p.repairAgain,
	} {
		words, failed := step()
		repaired, err = append(repaired, words...), errors.Join(err, failed)
	}
	return repaired, err
}

// repairKeys deletes from service_ids what no packet can find, so that Load cannot
// name it and Delete cannot delete it.
func (p *Plane) repairKeys() (repaired []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var odd []bpfServiceKey
	err = walk(p.objects.ServiceIds, func(raw bpfServiceKey, _ uint32) error {
		if encodeKey(decodeKey(raw)) != raw {
			odd = append(odd, raw)
		}
		return nil
	})
	for _, raw := range odd {
		if failed := p.objects.ServiceIds.Delete(raw); failed != nil {
			err = errors.Join(err, fmt.Errorf("delete from service_ids: %w", failed))
			continue
		}
		repaired = append(repaired, fmt.Sprintf("%s, in a form that no packet has, was in the map service_ids", decodeKey(raw)))
	}
	return repaired, err
}

// repairServices locks for one service at a time: changes get their turn in between.
func (p *Plane) repairServices() (repaired []string, err error) {
	p.mu.Lock()
	keys := slices.Collect(maps.Keys(p.table.services))
	p.mu.Unlock()
	for _, key := range keys {
		words, failed := p.repairService(key)
		repaired, err = append(repaired, words...), errors.Join(err, failed)
	}
	return repaired, err
}

func (p *Plane) repairService(key lvs.ServiceKey) (repaired []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.table.services[key]
	if e == nil {
		return nil, nil
	}
	if record := &p.arrays.services.items[e.id]; record.Order != e.order {
		record.Order = e.order
		repaired = append(repaired, fmt.Sprintf("the order of service %s was changed in the map services", key))
	}
	for i, id := range e.servers {
		if r := e.service.RealServers[i]; p.bind(id, e, r.Address.Addr()) {
			repaired = append(repaired, fmt.Sprintf("real server %s of %s was changed in the map real_servers", r.Address, key))
		}
	}
	if !p.turned(e) {
		return repaired, nil
	}
	if err := p.change(e.service); err != nil {
		return repaired, fmt.Errorf("service %s: %w", key, err)
	}
	return append(repaired, fmt.Sprintf("the turns of service %s were changed in the maps pools and seats", key)), nil
}

// turned tells whether a pool was changed in a way that Load does not show.
func (p *Plane) turned(e *serviceEntry) bool {
	if e.pool == sched.None || p.untouched(e) {
		return false
	}
	r := p.readService(e.service.ServiceKey, e.id)
	return r.whole && r.service.Equal(e.service) &&
		slices.EqualFunc(r.seats, e.servers, func(s sched.Seat, id uint32) bool { return s.ID == id })
}

// repair is the part of Repair that is about interfaces.
func (t *portTable) repair() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handle == nil {
		return nil, nil
	}
	repaired, err := repairMap("interfaces", t.plane.objects.Interfaces, t.entries, func(index uint32) string {
		if a := t.ports[int(index)]; a != nil {
			return "interface " + a.Name
		}
		return fmt.Sprintf("interface %d", index)
	})
	for place := range t.plane.arrays.ports.items {
		if t.storePlace(uint32(place)) {
			repaired = append(repaired, fmt.Sprintf("place %d was changed in the map ports", place))
		}
	}
	return repaired, err
}

// repairMap makes a hash map hold what it should, and nothing else.
func repairMap[K, V comparable](mapName string, m *ebpf.Map, want map[K]V, name func(K) string) (repaired []string, err error) {
	found := make(map[K]V, len(want))
	err = walk(m, func(key K, value V) error {
		found[key] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	note := func(key K, what string, failed error) {
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("write %s: %w", mapName, failed))
			return
		}
		repaired = append(repaired, fmt.Sprintf("%s %s the map %s", name(key), what, mapName))
	}
	for key, value := range want {
		if is, there := found[key]; !there {
			note(key, "was missing from", m.Put(key, value))
		} else if is != value {
			note(key, "was changed in", m.Put(key, value))
		}
	}
	for key := range found {
		if _, wanted := want[key]; !wanted {
			note(key, "had no place in", m.Delete(key))
		}
	}
	return repaired, err
}

// repairTimeouts looks at those that Timeouts does not return.
func (p *Plane) repairTimeouts() (repaired []string, err error) {
	now, err := readArray[uint32](p.objects.Timeouts, uint32(bpfConnStateSTATE_MAX), 1)
	if err != nil {
		return nil, err
	}
	for state, timeout := range fixedTimeouts {
		if now[state] == encodeTicks(lvs.Duration(timeout)) {
			continue
		}
		if failed := p.putTimeout(state, lvs.Duration(timeout)); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		repaired = append(repaired, fmt.Sprintf("the timeout of state %s was changed in the map timeouts", states[state]))
	}
	return repaired, err
}

func (p *Plane) repairSecrets() (repaired []string, err error) {
	for use, secret := range p.secrets {
		var now bpfSecret
		if err := p.objects.Secrets.Lookup(uint32(use), &now); err != nil {
			return nil, fmt.Errorf("read the secret: %w", err)
		}
		if sched.Secret(now.Key) == secret {
			continue
		}
		now.Key = secret
		if err := p.objects.Secrets.Put(uint32(use), now); err != nil {
			return nil, fmt.Errorf("write the secret: %w", err)
		}
		repaired = append(repaired, fmt.Sprintf("the secret of %s was changed in the map secrets", [...]string{"mh", "the connection tables"}[use]))
	}
	return repaired, nil
}

// repairAgain has packets that begin anew do so in the program that is attached.
func (p *Plane) repairAgain() ([]string, error) {
	info, err := p.objects.LvsDirect.Info()
	if err != nil {
		return nil, fmt.Errorf("ask for the program's id: %w", err)
	}
	var is uint32
	want, _ := info.ID()
	if p.objects.Again.Lookup(uint32(0), &is) == nil && is == uint32(want) {
		return nil, nil
	}
	if err := p.setAgain(); err != nil {
		return nil, err
	}
	return []string{"the program was changed in the map again"}, nil
}
