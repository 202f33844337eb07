// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
)

// contest is a case: the same packets for several variants.
type contest struct {
	name     string
	variants []*variant
	traffic  traffic
	fresh    bool // no flow comes twice, in no round
	foreign  bool // for addresses that are nobody's here
	both     bool // measured on two CPUs as well, each with half of the flows
	lead     uint32
	packets  uint32
}

// sample is what the rounds of a variant measured: ns of a packet, the generator
// included, one for each round.
type sample struct {
	one, both []float64
	lost      float64 // which part of the packets found their connection forgotten
}

// hold measures all variants, round by round. The order changes with each round, so
// that none has always the same one before it.
func (f *field) hold(c contest, rounds int) (map[string]*sample, error) {
	samples := map[string]*sample{}
	for _, v := range c.variants {
		samples[v.name] = &sample{}
	}
	runtime.GC() // now, and not in a round
	for round := range rounds {
		for i := range c.variants {
			v := c.variants[(i+round)%len(c.variants)]
			if err := f.turn(c, v, round, samples[v.name]); err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	for _, s := range samples {
		s.lost /= float64(rounds)
	}
	return samples, nil
}

// turn measures one variant once.
func (f *field) turn(c contest, v *variant, round int, s *sample) error {
	size := span{lead: c.lead, timed: c.packets}
	ns, lost, err := f.watched(c, v, size, func(w []*worker) outcome { return f.race(c, v, w[:1], size, round) })
	if err != nil {
		return err
	}
	s.one = append(s.one, ns)
	s.lost += lost
	if !c.both {
		return nil
	}
	size.tail = c.packets / 4
	ns, _, err = f.watched(c, v, size, func(w []*worker) outcome { return f.race(c, v, w, size, round) })
	s.both = append(s.both, ns)
	return err
}

// race sends a round's packets from these workers. Each has its part of the flows.
func (f *field) race(c contest, v *variant, workers []*worker, size span, round int) outcome {
	start := uint64(round) * uint64(size.all())
	if c.fresh {
		start = f.sent
	}
	o := together(workers, func(i int, w *worker) outcome {
		t := c.traffic
		t.flows /= uint32(len(workers))
		t.from += uint32(i) * t.flows
		return w.send(v.program, t, start, size)
	})
	if c.fresh {
		f.sent += o.sent
	}
	return o
}

// tries is how often a round that a signal interrupted is begun anew.
const tries = 5

// watched sends and looks whether all packets took the way that the case is about.
func (f *field) watched(c contest, v *variant, size span, send func([]*worker) outcome) (ns, lost float64, err error) {
	for range tries {
		before, err := v.tally()
		if err != nil {
			return 0, 0, err
		}
		o := send(f.workers)
		if errors.Is(o.err, errInterrupted) {
			continue
		}
		if o.err != nil {
			return 0, 0, o.err
		}
		after, err := v.tally()
		if err != nil {
			return 0, 0, err
		}
		sent := uint64(size.all())
		if size.tail > 0 { // as both CPUs have it
			sent *= uint64(len(f.workers))
		}
		lost, err := c.judge(v, before, after, o.verdict, sent)
		return o.ns, lost, err
	}
	return 0, 0, errInterrupted
}

// mostLost is the part of the packets that may go another way without the round being
// another case than it should be.
const mostLost = 0.05

// judge looks whether the packets took the way that the case is about. It returns
// which part did not: an LRU forgets connections, and flows whose place in the table
// is taken have none.
func (c contest) judge(v *variant, before, after tally, verdict uint32, sent uint64) (lost float64, err error) {
	want, reason := uint32(xdpTX), "FORWARDED"
	if c.foreign {
		reason = "NOT_OURS"
		if !v.simple {
			want = xdpPass
		}
	}
	left, made := sent, after.made-before.made
	if v.plane != nil {
		left = after.left[reason] - before.left[reason]
		lost = 1 - float64(left)/float64(sent)
	}
	if lost > mostLost || lost == 0 && verdict != want {
		return 0, fmt.Errorf("of %d packets %d left with %s, the last one with verdict %d, not %d%s",
			sent, left, reason, verdict, want, reasonsBetween(before, after))
	}
	counted := v.made != nil && (v.plane == nil || v.plane.small)
	switch {
	case !counted || lost > 0 || c.fresh && made == sent:
		return lost, nil
	case c.fresh || made > 0 && (c.foreign || v.plane != nil):
		return 0, fmt.Errorf("%d packets made %d connections", sent, made)
	}
	return float64(made) / float64(sent), nil
}

// reasonsBetween tells why packets left, for an error.
func reasonsBetween(before, after tally) (text string) {
	for reason, n := range after.left {
		if n != before.left[reason] {
			text += fmt.Sprintf("; %s %d", reason, n-before.left[reason])
		}
	}
	return text
}

// figures are a variant's ns per packet above the floor.
type figures struct{ min, p25, median float64 }

// above takes the floor off, round by round, since what disturbs one round disturbs
// the whole of it.
func above(samples, floor []float64) figures {
	net := make([]float64, len(samples))
	for i := range samples {
		net[i] = samples[i] - floor[i]
	}
	slices.Sort(net)
	return figures{min: net[0], p25: net[len(net)/4], median: median(net)}
}

func median(sorted []float64) float64 {
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}
