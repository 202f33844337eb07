// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"slices"
	"sync/atomic"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// This file reads services as packets see them. What it finds may have been changed
// with bpftool: every index is looked at before it is followed.

// reading is a service as the maps have it. What cannot be read is missing.
type reading struct {
	service lvs.Service
	seats   []sched.Seat // of service.RealServers, one for one
	id      uint32
	order   uint64
	pool    uint32  // sched.None if packets find none
	head    bpfPool // what pools[pool] says
	found   bool    // services[id] is this service's: else packets see none
	whole   bool    // nothing is missing
}

// Load returns the services as packets see them, the one added last first. What
// cannot be read is left out, so that a service which was damaged differs from what
// it should be: in the worst case it has neither scheduler nor real servers.
func (p *Plane) Load() ([]lvs.Service, error) {
	readings, err := p.read()
	if err != nil {
		return nil, err
	}
	list := make([]lvs.Service, len(readings))
	for i, r := range readings {
		list[i] = r.service
	}
	return list, nil
}

// read returns all readings, the service added last first.
func (p *Plane) read() ([]reading, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]reading, 0, len(p.table.services))
	err := walk(p.objects.ServiceIds, func(raw bpfServiceKey, id uint32) error {
		if key := decodeKey(raw); encodeKey(key) == raw { // no packet finds another; Repair deletes it
			list = append(list, p.readService(key, id))
		}
		return nil
	})
	slices.SortFunc(list, func(a, b reading) int {
		return cmp.Or(cmp.Compare(b.order, a.order), cmp.Compare(b.id, a.id))
	})
	return list, err
}

func (p *Plane) readService(key lvs.ServiceKey, id uint32) reading {
	r := reading{service: lvs.Service{ServiceKey: key, RealServers: []lvs.RealServer{}}, id: id, pool: sched.None}
	if id >= uint32(len(p.arrays.services.items)) {
		return r
	}
	record := &p.arrays.services.items[id]
	if r.found = record.Key == encodeKey(key); !r.found {
		return r
	}
	r.order = record.Order
	pool := atomic.LoadUint32(&record.Pool)
	head, ok := p.poolHead(pool)
	if !ok {
		return r
	}
	r.pool, r.head = pool, head
	r.service.Scheduler = decodeName(schedulers, head.Scheduler)
	r.service.Flags = decodeFlags(r.service.Scheduler, head.Flags)
	p.readServers(&r)
	return r
}

func (p *Plane) readServers(r *reading) {
	seats := p.readSeats(r.head)
	r.seats = seats[:0]
	r.service.RealServers = make([]lvs.RealServer, 0, len(seats))
	for _, seat := range seats {
		if seat.ID >= uint32(len(p.arrays.servers.items)) {
			continue
		}
		record := &p.arrays.servers.items[seat.ID]
		seat.Address = decodeAddrPort(record.Addr, record.Port)
		r.seats = append(r.seats, seat)
		r.service.RealServers = append(r.service.RealServers, lvs.RealServer{
			Address: seat.Address, Method: decodeName(methods, record.Method), Weight: seat.Weight,
			Tunnel: decodeTunnel(record),
		})
	}
	r.whole = len(r.seats) == len(seats)
}
