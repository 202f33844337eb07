// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"lvx/internal/dataplane"
	"lvx/internal/lvs"
)

// shape is how a balancer is set up.
type shape struct {
	six         bool
	connections uint32
	services    int // each with a VIP of its own
	servers     int // of each service
	// Services take these in turn; none is rr.
	schedulers []lvs.Scheduler
}

func (s shape) scheduler(service int) lvs.Scheduler {
	if len(s.schedulers) == 0 {
		return lvs.RR
	}
	return s.schedulers[service%len(s.schedulers)]
}

// plane is lvx as it is shipped, opened as the daemon opens it.
type plane struct {
	*dataplane.Plane
	right   *dataplane.Instance
	program *ebpf.Program
	pins    string // where its maps are pinned
	small   bool   // few enough services to read all statistics each round
}

const instanceName = "bench"

// openPlane opens lvx with room for all services, and with so many of them.
func openPlane(s shape, p port, services int) (*plane, error) {
	right, err := dataplane.Acquire(dataplane.DefaultBPFFS, instanceName)
	if err != nil {
		return nil, err
	}
	opened, err := right.Open(dataplane.Options{
		Interfaces: []string{portName}, Mode: dataplane.Native, Connections: s.connections,
		Services: max(64, uint32(s.services)), RealServers: max(256, uint32(s.services*s.servers)),
	})
	if err != nil {
		right.Release()
		return nil, err
	}
	l := &plane{Plane: opened, right: right, small: s.services*s.servers <= 16384}
	if err := l.setUp(s, p, services); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *plane) close() {
	l.program.Close()
	l.Close()
	_ = l.right.Unload() // the namespaces go with the process
	l.right.Release()
}

func (l *plane) setUp(s shape, p port, services int) error {
	links, err := filepath.Glob(filepath.Join(dataplane.DefaultBPFFS, "lvx", instanceName, "v*", fmt.Sprintf("link_%d", p.index)))
	if err != nil || len(links) != 1 {
		return fmt.Errorf("find the pinned link: %d found, %w", len(links), err)
	}
	l.pins = filepath.Dir(links[0])
	if l.program, err = attachedProgram(links[0]); err != nil {
		return err
	}
	return l.put(s, services)
}

func (l *plane) put(s shape, services int) error {
	for i := range services {
		if err := l.Put(s.service(i)); err != nil {
			return fmt.Errorf("put service %d: %w", i, err)
		}
	}
	return nil
}

// service returns the nth. All services have the same machines as real servers.
func (s shape) service(n int) lvs.Service {
	service := lvs.Service{
		ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrPortFrom(vips.at(s.six, n), vipPort)},
		Scheduler:  s.scheduler(n),
	}
	for i := range s.servers {
		address := netip.AddrPortFrom(reals.at(s.six, i), vipPort)
		service.RealServers = append(service.RealServers, lvs.RealServer{Address: address, Method: lvs.DR, Weight: 1})
	}
	return service
}

// attachedProgram opens the program of a pinned link.
func attachedProgram(path string) (*ebpf.Program, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return nil, fmt.Errorf("open the pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return nil, fmt.Errorf("ask for the link's program: %w", err)
	}
	program, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return nil, fmt.Errorf("open the link's program: %w", err)
	}
	return program, nil
}

// left returns how many packets left with each reason, those that have some.
func (l *plane) left() (map[string]uint64, error) {
	all, err := l.Reasons()
	left := map[string]uint64{}
	for _, r := range all {
		if r.Packets > 0 {
			left[r.Name] = r.Packets
		}
	}
	return left, err
}

// made returns how many connections were made so far.
func (l *plane) made() (sum uint64, err error) {
	if !l.small {
		return 0, nil // would take longer than the round
	}
	services, err := l.Services()
	for _, s := range services {
		sum += s.Stats.Connections
	}
	return sum, err
}

// tableBytes returns the size of the connection table of one family.
func (l *plane) tableBytes(s shape) uint64 {
	name, bytes := "connections4", uint64(32)
	if s.six {
		name, bytes = "connections6", 64
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(l.pins, name), nil)
	if err != nil {
		return bytes * uint64(s.connections)
	}
	defer m.Close()
	return uint64(m.MaxEntries()) * uint64(m.ValueSize())
}
