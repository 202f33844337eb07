// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// This file measures what is not a packet: changes, listings, memory, and what the
// daemon does by itself.

// control is a case of the control plane.
type control struct {
	name    string
	what    string
	measure func(b *bench, r *row) error
}

func controls() []control {
	list := []control{
		{"control/put/10000x2", "real servers put, 10,000 services of 2", func(b *bench, r *row) error { return b.put(r, 10_000, 2) }},
		{"control/put/10x1000", "real servers put, 10 services of 1,000", func(b *bench, r *row) error { return b.put(r, 10, 1000) }},
		{"control/change/1000", "changes of one weight, in a service of 1,000 real servers", (*bench).change},
		{"control/list/1M", "connections listed, of a million", (*bench).list},
		{"control/daemon/10M", "CPU of a daemon with ten million connections and no traffic", (*bench).daemon},
	}
	for family, six := range map[string]bool{"dr4": false, "dr6": true} {
		for _, name := range []string{lvxName, plainName, lruName} {
			list = append(list, control{
				"control/bytes/" + family + "/" + name, "memory for a connection, whether used or not",
				func(b *bench, r *row) error { return b.bytes(r, name, six) },
			})
		}
	}
	slices.SortFunc(list, func(a, b control) int { return cmp.Compare(a.name, b.name) })
	return list
}

func (b *bench) measureControl() (err error) {
	for _, c := range controls() {
		if !b.only.MatchString(c.name) {
			continue
		}
		r := row{Case: c.name, What: c.what}
		if caseErr := c.measure(b, &r); caseErr != nil {
			fmt.Fprintf(b.progress, "%s: %v\n", c.name, caseErr)
			err = errors.Join(err, fmt.Errorf("%s: %w", c.name, caseErr))
			continue
		}
		fmt.Fprintln(b.progress, r)
		b.rows = append(b.rows, r)
	}
	return err
}

// put measures how fast services come into an empty data plane.
func (b *bench) put(r *row, services, servers int) error {
	room := shape{connections: k, services: services, servers: servers}
	l, err := openPlane(room, b.port, 0)
	if err != nil {
		return err
	}
	defer l.close()
	start := time.Now()
	if err := l.put(room, services); err != nil {
		return err
	}
	r.PerSecond = float64(services*servers) / time.Since(start).Seconds()
	return nil
}

// change measures changes of one service.
func (b *bench) change(r *row) error {
	s := shape{connections: k, services: 1, servers: 1000, schedulers: []lvs.Scheduler{lvs.WLC}}
	l, err := openPlane(s, b.port, 1)
	if err != nil {
		return err
	}
	defer l.close()
	service := s.service(0)
	const changes = 200
	start := time.Now()
	for i := range changes {
		service.RealServers[i].Weight = 2
		if err := l.Put(service); err != nil {
			return err
		}
	}
	r.PerSecond = changes / time.Since(start).Seconds()
	return nil
}

// occupied returns lvx with so many connections, and without rivals.
func (b *bench) occupied(connections, flows uint32) (*plane, error) {
	s := shape{connections: connections, services: 1, servers: 2}
	l, err := openPlane(s, b.port, 1)
	if err != nil {
		return nil, err
	}
	f := &field{shape: s, plane: l, workers: b.workers}
	if err := f.open(&variant{name: lvxName, program: l.program}, 0, flows); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (b *bench) list(r *row) error {
	l, err := b.occupied(bigTable, m)
	if err != nil {
		return err
	}
	defer l.close()
	start := time.Now()
	n := 0
	if err := l.Connections(func(lvs.Connection) error { n++; return nil }); err != nil {
		return err
	}
	if n > m || float64(m-n) > mayLose*m {
		return fmt.Errorf("%d connections were listed, want %d", n, m)
	}
	r.PerSecond = float64(n) / time.Since(start).Seconds()
	return nil
}

// bytes asks the kernel what memory a table of a million and a quarter takes.
func (b *bench) bytes(r *row, name string, six bool) error {
	f, err := newField(shape{six: six, connections: bigTable, services: 1, servers: 2}, b.port, b.workers)
	if err != nil {
		return err
	}
	defer f.close()
	table, err := f.table(name)
	if err != nil {
		return err
	}
	info, err := table.Info()
	if err != nil {
		return err
	}
	memory, known := info.Memlock()
	if !known {
		return errors.New("the kernel does not say what memory the map takes")
	}
	r.Bytes = float64(memory) / float64(f.connections)
	return nil
}

// table returns a variant's connection table.
func (f *field) table(name string) (*ebpf.Map, error) {
	family := "4"
	if f.six {
		family = "6"
	}
	switch name {
	case plainName:
		return f.tables["plain_flows"+family], nil
	case lruName:
		return f.tables["lru_flows"+family], nil
	}
	m, err := ebpf.LoadPinnedMap(filepath.Join(f.plane.pins, "connections"+family), nil)
	if err == nil {
		f.closers = append(f.closers, func() { m.Close() })
	}
	return m, err
}

// watch is how long the daemon is looked at: two whole sweeps at least.
const watch = 30 * time.Second

// daemon measures what the daemon's own work takes: sweeps above all.
func (b *bench) daemon(r *row) error {
	l, err := b.occupied(hugeTable, 10*m)
	if err != nil {
		return err
	}
	defer l.close()
	ctx, cancel := context.WithTimeout(context.Background(), watch)
	defer cancel()
	before, err := cpuTime()
	if err != nil {
		return err
	}
	l.Run(ctx)
	after, err := cpuTime()
	r.CPUPercent = 100 * (after - before).Seconds() / watch.Seconds()
	return err
}

// cpuTime returns what the process has used, the kernel's work for it included.
func cpuTime() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("ask for the CPU time: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
