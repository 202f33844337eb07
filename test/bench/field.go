// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Verdicts of XDP (linux/bpf.h).
const (
	xdpPass = 2
	xdpTX   = 3
)

// The names of variants. Those of one letter are what docs/performance.md calls
// them.
const (
	floorName  = "floor"
	swapName   = "a"
	lookupName = "b"
	plainName  = "c"
	limitName  = "d"
	lruName    = "e"
	lvxName    = "lvx"
)

// variant is a program that packets are sent to.
type variant struct {
	name    string
	program *ebpf.Program
	simple  bool                   // sends every packet back, whosever it is
	made    func() (uint64, error) // connections made so far; nil if it makes none
	plane   *plane                 // if the program counts in lvx's maps
}

// field is all variants, set up alike.
type field struct {
	shape
	plane       *plane
	closers     []func()
	variants    []*variant
	tables      map[string]*ebpf.Map // of c and e, by name
	workers     []*worker
	established uint32 // so many flows are, from the first
	sent        uint64 // packets of passers
}

func newField(s shape, p port, workers []*worker) (f *field, err error) {
	f = &field{shape: s, workers: workers}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.plane, err = openPlane(s, p, s.services); err != nil {
		return f, fmt.Errorf("open lvx: %w", err)
	}
	f.closers = append(f.closers, f.plane.close)
	base, err := loadBaseFor(s, f.plane.tableBytes(s))
	if err != nil {
		return f, fmt.Errorf("a, b, d: %w", err)
	}
	f.closers = append(f.closers, func() { base.Close() })
	plain, err := loadPlainFor(s)
	if err != nil {
		return f, fmt.Errorf("c: %w", err)
	}
	f.closers = append(f.closers, func() { plain.Close() })
	lru, err := loadLRUFor(s, f.plane.pins)
	if err != nil {
		return f, fmt.Errorf("e: %w", err)
	}
	f.closers = append(f.closers, lru.Close)
	f.tables = map[string]*ebpf.Map{
		plainMapPlainFlows4: plain.PlainFlows4, plainMapPlainFlows6: plain.PlainFlows6,
		lruMapLruFlows4: lru.Maps[lruMapLruFlows4], lruMapLruFlows6: lru.Maps[lruMapLruFlows6],
	}
	f.variants = []*variant{
		{name: floorName, program: base.BaseFloor, simple: true},
		{name: swapName, program: s.of(base.BaseSwap4, base.BaseSwap6), simple: true},
		{name: lookupName, program: s.of(base.BaseLookup4, base.BaseLookup6)},
		{name: plainName, program: s.of(plain.PlainBalance4, plain.PlainBalance6), made: plain.made},
		{name: limitName, program: s.of(base.BaseLimit4, base.BaseLimit6), simple: true},
		{name: lruName, program: lru.Programs[lruProgLvsDirect], made: f.plane.made, plane: f.plane},
		{name: lvxName, program: f.plane.program, made: f.plane.made, plane: f.plane},
	}
	return f, nil
}

// of returns the program of the shape's family.
func (s shape) of(four, six *ebpf.Program) *ebpf.Program {
	if s.six {
		return six
	}
	return four
}

func (f *field) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		f.closers[i]()
	}
}

// pick returns the variants with these names that there are.
func (f *field) pick(names ...string) (list []*variant) {
	for _, v := range f.variants {
		for _, name := range names {
			if v.name == name {
				list = append(list, v)
			}
		}
	}
	return list
}

// balancers are the variants that have a connection table.
func (f *field) balancers() []*variant { return f.pick(plainName, lruName, lvxName) }

// known are packets of flows that are, or will be, established.
func (f *field) known(flows uint32) traffic {
	return traffic{six: f.six, destinations: vips, spread: f.services, clients: clients, flows: flows}
}

// opening are SYNs of flows that were never seen before.
func (f *field) opening() traffic {
	return traffic{six: f.six, syn: true, destinations: vips, spread: f.services, clients: passers}
}

// most is how many packets are sent at one go: the thread is not to be disturbed
// meanwhile.
const most = 1 << 20

// feed sends n packets of a sequence to a variant, or some more, not timed. It
// returns how many.
func (f *field) feed(v *variant, t traffic, from uint64, n uint32) (sent uint64, err error) {
	for sent < uint64(n) {
		part := span{timed: uint32(min(uint64(n)-sent, most)) - 1}
		o := together(f.workers[:1], func(_ int, w *worker) outcome {
			return w.send(v.program, t, from+sent, part)
		})
		if o.err != nil && !errors.Is(o.err, errInterrupted) {
			return sent, fmt.Errorf("%s: %w", v.name, o.err)
		}
		sent += o.sent
	}
	return sent, nil
}

// establish has at least so many flows established in every table.
func (f *field) establish(flows uint32) error {
	if flows <= f.established {
		return nil
	}
	for _, v := range f.balancers() {
		if err := f.open(v, f.established, flows); err != nil {
			return err
		}
	}
	f.established = flows
	return nil
}

// atOnce is how many flows have sent their SYN and not yet their ACK. A table may
// replace such ones, and there are no million of them at any time.
const atOnce = 16 * k

// open sends a variant a SYN and an ACK of each of these flows. Now and then the table
// is swept, as the daemon does.
func (f *field) open(v *variant, from, to uint32) error {
	for batch := 0; from < to; batch++ {
		t := f.known(min(atOnce, to-from))
		t.from, t.inOrder = from, true
		for _, t.syn = range []bool{true, false} {
			if _, err := f.feed(v, t, 0, t.flows); err != nil {
				return err
			}
		}
		from += t.flows
		if batch%16 < 15 && from < to {
			continue
		}
		if _, err := f.plane.Sweep(); err != nil {
			return err
		}
	}
	return nil
}

// fill sends new flows until every table is full, six times the capacity: lvx's
// slots are twice as many, and the last free ones are hard to meet. Then come two
// sweeps, as the daemon makes one each second.
func (f *field) fill() error {
	for _, v := range f.balancers() {
		sent, err := f.feed(v, f.opening(), f.sent, 6*f.connections)
		if err != nil {
			return err
		}
		f.sent += sent
	}
	for range 2 {
		if _, err := f.plane.Sweep(); err != nil {
			return err
		}
	}
	return nil
}

// tally is what a variant had counted.
type tally struct {
	made uint64
	left map[string]uint64
}

func (v *variant) tally() (t tally, err error) {
	var errs []error
	if v.made != nil {
		t.made, err = v.made()
		errs = append(errs, err)
	}
	if v.plane != nil {
		t.left, err = v.plane.left()
		errs = append(errs, err)
	}
	return t, errors.Join(errs...)
}
