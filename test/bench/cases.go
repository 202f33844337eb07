// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"

	"lvx/internal/lvs"
)

// kind is what packets a case sends.
type kind int

const (
	established kind = iota // of flows that have their connection
	roomy                   // each opens a connection, and there is room
	full                    // each opens a connection, and there is none
	flood                   // as full, but half of the room is of established ones
	unknown                 // to addresses that are nobody's
)

// entry is a case as it is listed here.
type entry struct {
	name    string // without the family
	kind    kind
	flows   uint32
	rivals  string // letters; the floor and lvx are always there
	service int    // whose packets, if not all services'
	one     bool   // only that service's
	both    bool   // on two CPUs too
	quick   bool   // one of the ratios that matter
}

// plan is cases that share a set-up, in their order.
type plan struct {
	shape
	entries []entry
}

const (
	k = 1 << 10
	m = 1 << 20

	bigTable   = 1_250_000  // a million flows, and a fifth of the room left
	hugeTable  = 12_500_000 // ten million
	smallTable = 256 * k    // soon full
	roomyTable = 4 * m      // never
	someRoom   = 8 * m
)

// plans lists all cases, or the ones that matter.
func plans(o options) (list []plan) {
	for _, six := range []bool{false, true} {
		for _, p := range familyPlans() {
			p.six = six
			var entries []entry
			for _, e := range p.entries {
				if (e.quick || !o.quick) && o.only.MatchString(p.caseName(e)) {
					entries = append(entries, e)
				}
			}
			if p.entries = entries; len(entries) > 0 {
				list = append(list, p)
			}
		}
	}
	return list
}

func (p plan) caseName(e entry) string {
	if p.six {
		return "dr6/" + e.name
	}
	return "dr4/" + e.name
}

func familyPlans() []plan {
	return []plan{
		{shape{connections: bigTable, services: 1, servers: 2}, []entry{
			{name: "established/1", flows: 1, rivals: "abcde", quick: true},
			{name: "established/1k", flows: k, rivals: "abcde"},
			{name: "established/64k", flows: 64 * k, rivals: "abcde", quick: true},
			{name: "established/1M", flows: m, rivals: "abcde", quick: true},
			{name: "two_cpus/1M", flows: m, rivals: "ce", both: true, quick: true},
		}},
		{shape{connections: smallTable, services: 1, servers: 2}, []entry{
			{name: "new/full", kind: full, rivals: "abce", quick: true},
			{name: "flood", kind: flood, flows: smallTable / 2, rivals: "abce"},
		}},
		{shape{connections: roomyTable, services: 1, servers: 2}, []entry{
			{name: "new/roomy", kind: roomy, rivals: "abce"},
		}},
		{shape{connections: bigTable, services: 10_000, servers: 2}, []entry{
			{name: "not_ours", kind: unknown, flows: 64 * k, rivals: "ce", quick: true},
			{name: "established/1M/10000_services", flows: m, rivals: "bcde"},
		}},
		{shape{connections: bigTable, services: 1, servers: 1000}, []entry{
			{name: "established/1M/1000_real_servers", flows: m, rivals: "bcde"},
		}},
		pickPlan(2), pickPlan(1000),
		{shape{connections: hugeTable, services: 1, servers: 2}, []entry{
			{name: "established/10M", flows: 10 * m, rivals: "abcde"},
		}},
	}
}

// pickPlan has a service of each scheduler.
func pickPlan(servers int) plan {
	schedulers := []lvs.Scheduler{lvs.RR, lvs.WRR, lvs.LC, lvs.WLC, lvs.SH, lvs.MH}
	p := plan{shape: shape{connections: someRoom, services: len(schedulers), servers: servers, schedulers: schedulers}}
	for i, scheduler := range schedulers {
		name := fmt.Sprintf("pick/%s/%d", scheduler, servers)
		p.entries = append(p.entries, entry{name: name, kind: roomy, rivals: "c", service: i, one: true})
	}
	return p
}

// bench is one run.
type bench struct {
	options
	progress io.Writer
	port     port
	workers  []*worker
	rows     []row
}

func newBench(o options, progress io.Writer) (*bench, error) {
	b := &bench{options: o, progress: progress}
	var err error
	if b.port, err = newPort(); err != nil {
		return nil, err
	}
	for i := range min(2, cpus()) {
		w, err := newWorker(cpus()-1-i, b.port) // the first CPU has the interrupts
		if err != nil {
			return nil, err
		}
		b.workers = append(b.workers, w)
	}
	return b, nil
}

func (b *bench) close() {
	for _, w := range b.workers {
		w.close()
	}
}

// measure goes through the plans. A case that fails does not keep the others from
// being measured.
func (b *bench) measure(plans []plan) (err error) {
	for _, p := range plans {
		f, openErr := newField(p.shape, b.port, b.workers)
		if openErr != nil {
			err = errors.Join(err, fmt.Errorf("set %s up: %w", p.caseName(p.entries[0]), openErr))
			continue
		}
		for _, e := range p.entries {
			if caseErr := b.one(f, p, e); caseErr != nil {
				fmt.Fprintf(b.progress, "%s: %v\n", p.caseName(e), caseErr)
				err = errors.Join(err, fmt.Errorf("%s: %w", p.caseName(e), caseErr))
			}
		}
		f.close()
	}
	return err
}

// mayLose is which part of the flows lvx may have had no room for: at 84 % of its
// capacity, one in a million finds both of its sets taken.
const mayLose = 0.0001

// one prepares and measures one case.
func (b *bench) one(f *field, p plan, e entry) error {
	if e.both && len(b.workers) < 2 {
		return errors.New("takes two CPUs")
	}
	c := f.contest(e, b.quick)
	c.name = p.caseName(e)
	if err := f.prepare(e); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	samples, err := f.hold(c, b.rounds)
	if err != nil {
		return err
	}
	for _, r := range rowsOf(c, e, samples) {
		fmt.Fprintln(b.progress, r)
		b.rows = append(b.rows, r)
	}
	if lost := samples[lvxName].lost; lost > mayLose && e.kind != flood {
		return fmt.Errorf("lvx had no connection for %.2f%% of the packets", 100*lost)
	}
	return nil
}

// prepare brings the tables into the state that the case is about.
func (f *field) prepare(e entry) error {
	switch e.kind {
	case established:
		return f.establish(e.flows)
	case full:
		return f.fill()
	case flood:
		if err := f.establish(e.flows); err != nil {
			return err
		}
		return f.fill()
	}
	return nil
}

// leadOfFew is how many packets go before the clock starts, to have the program in
// the CPU's caches again. Of so few flows that their connections fit there too, all
// go before: else the other variants' rounds would be measured.
const leadOfFew = 8 * k

func (f *field) contest(e entry, quick bool) contest {
	c := contest{traffic: f.known(e.flows), lead: leadOfFew, packets: 256 * k, both: e.both}
	if quick {
		c.packets = 96 * k
	}
	if e.flows <= 64*k {
		c.lead = max(c.lead, e.flows)
	}
	switch e.kind {
	case roomy, full, flood:
		c.traffic, c.fresh = f.opening(), true
		c.packets = 48 * k
	case unknown:
		c.traffic.destinations, c.traffic.spread, c.foreign = foreign, 16, true
	}
	if e.one {
		c.traffic.first, c.traffic.spread = e.service, 1
	}
	names := []string{floorName, lvxName}
	for _, letter := range e.rivals {
		if !e.both || !quick { // one CPU is the only rival of two
			names = append(names, string(letter))
		}
	}
	c.variants = f.pick(names...)
	return c
}
