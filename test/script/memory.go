// SPDX-License-Identifier: Apache-2.0

// Package script runs command lines against the director on an in-memory data
// plane that can be told to fail: what a command says, what the tables are
// afterwards, and that a failed change changes nothing. No root, no kernel.
//
// It is not for packets: those are tested in internal/dataplane and test/lab.
package script

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"lvx/internal/lvs"
)

// ErrInjected is what a write fails with when its turn has come.
var ErrInjected = errors.New("injected fault")

// Memory is a data plane in memory. Safe for concurrent use.
type Memory struct {
	mu       sync.Mutex
	services []lvs.ServiceStatus // the newest first
	timeouts lvs.Timeouts
	writes   int
	// Fail decides whether the n-th write fails, counted from 1. May be nil.
	Fail func(n int) bool
	// Hop tells the state of the next hop for an address. Nil: all are ready.
	Hop func(netip.Addr) lvs.NextHopState
	// Failed counts the writes that failed; they changed nothing.
	Failed int
}

// NewMemory returns an empty plane with the kernel's timeouts.
func NewMemory() *Memory { return &Memory{timeouts: lvs.DefaultTimeouts()} }

func (m *Memory) write() error {
	m.writes++
	if m.Fail != nil && m.Fail(m.writes) {
		m.Failed++
		return ErrInjected
	}
	return nil
}

// Load returns the configuration alone.
func (m *Memory) Load() ([]lvs.Service, error) {
	statuses, err := m.Services()
	var list []lvs.Service
	for _, s := range statuses {
		service := lvs.Service{ServiceKey: s.ServiceKey, Scheduler: s.Scheduler, Flags: s.Flags}
		for _, r := range s.RealServers {
			service.RealServers = append(service.RealServers, r.RealServer)
		}
		list = append(list, service)
	}
	return list, err
}

// Services returns copies.
func (m *Memory) Services() ([]lvs.ServiceStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.services)
	for i := range list {
		list[i].RealServers = slices.Clone(list[i].RealServers)
		for j := range list[i].RealServers {
			if r := &list[i].RealServers[j]; m.Hop != nil {
				r.NextHop.State = m.Hop(r.Address.Addr())
			}
		}
	}
	return list, nil
}

// Count adds to what was counted for a service and each of its real servers.
func (m *Memory) Count(key lvs.ServiceKey, more lvs.Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add := func(s *lvs.Stats) {
		s.Connections += more.Connections
		s.InPackets += more.InPackets
		s.InBytes += more.InBytes
	}
	s := &m.services[m.find(key)]
	add(&s.Stats)
	s.RealServers = slices.Clone(s.RealServers)
	for i := range s.RealServers {
		add(&s.RealServers[i].Stats)
	}
}

func (m *Memory) find(key lvs.ServiceKey) int {
	return slices.IndexFunc(m.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == key })
}

// Put adds or replaces a service.
func (m *Memory) Put(s lvs.Service) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(); err != nil {
		return err
	}
	status := lvs.ServiceStatus{ServiceKey: s.ServiceKey, Scheduler: s.Scheduler, Flags: s.Flags}
	for _, r := range s.RealServers {
		status.RealServers = append(status.RealServers, lvs.RealServerStatus{RealServer: r, NextHop: lvs.NextHop{State: lvs.NextHopReady}})
	}
	if i := m.find(s.ServiceKey); i >= 0 {
		m.services[i] = status
	} else {
		m.services = slices.Insert(m.services, 0, status)
	}
	return nil
}

// Delete takes a service out.
func (m *Memory) Delete(key lvs.ServiceKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(); err != nil {
		return err
	}
	i := m.find(key)
	if i < 0 {
		return lvs.ErrNoService
	}
	m.services = slices.Delete(m.services, i, i+1)
	return nil
}

// Zero sets statistics to 0.
func (m *Memory) Zero(key lvs.ServiceKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(); err != nil {
		return err
	}
	s := &m.services[m.find(key)]
	s.Stats = lvs.Stats{}
	s.RealServers = slices.Clone(s.RealServers)
	for i := range s.RealServers {
		s.RealServers[i].Stats = lvs.Stats{}
	}
	return nil
}

// SetTimeouts changes the timeouts that are not 0.
func (m *Memory) SetTimeouts(t lvs.Timeouts) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(); err != nil {
		return err
	}
	m.timeouts = t.Merge(m.timeouts)
	return nil
}

// Connections has none.
func (m *Memory) Connections(func(lvs.Connection) error) error { return nil }

// Reasons has none.
func (m *Memory) Reasons() ([]lvs.Reason, error) { return nil, nil }

// Arrange puts the services into an order, the oldest first.
func (m *Memory) Arrange(oldestFirst []lvs.ServiceKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.write(); err != nil {
		return err
	}
	place := map[lvs.ServiceKey]int{}
	for i, key := range oldestFirst {
		place[key] = i
	}
	slices.SortStableFunc(m.services, func(a, b lvs.ServiceStatus) int { return place[b.ServiceKey] - place[a.ServiceKey] })
	return nil
}

// Repair finds nothing: Load shows all that there is.
func (m *Memory) Repair() ([]string, error) { return nil, nil }

// Timeouts returns the idle times.
func (m *Memory) Timeouts() (lvs.Timeouts, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timeouts, nil
}

// Neighbours returns the next hops: every real server is on the link.
func (m *Memory) Neighbours() ([]lvs.Neighbour, error) {
	services, err := m.Services()
	servers := map[netip.Addr]int{}
	for _, s := range services {
		for _, r := range s.RealServers {
			servers[r.Address.Addr()]++
		}
	}
	var list []lvs.Neighbour
	for _, addr := range slices.SortedFunc(maps.Keys(servers), netip.Addr.Compare) {
		list = append(list, lvs.Neighbour{
			Address: addr, NextHop: lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:01"},
			MTU: 1500, RealServers: servers[addr],
		})
	}
	return list, err
}

// Status has the timeouts.
func (m *Memory) Status() (lvs.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return lvs.Status{Timeouts: m.timeouts}, nil
}

// Reach returns at once: what Hop tells is all that will be known.
func (m *Memory) Reach(_ context.Context, addrs []netip.Addr) []lvs.NextHop {
	hops := slices.Repeat([]lvs.NextHop{{State: lvs.NextHopReady}}, len(addrs))
	for i, a := range addrs {
		if m.Hop != nil {
			hops[i].State = m.Hop(a)
		}
	}
	return hops
}
