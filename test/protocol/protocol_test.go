// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Who is there, for the scenarios. Established entries stay until 9.
var (
	establishedC = entry{0, flowC, 3, established, 9}
	embryoB      = entry{1, flowB, 3, synRecv, 5}

	synA1  = packet{"SYN A", syn, flowA, 1, 3}
	synA2  = packet{"SYN A′", syn, flowA, 2, 3}
	synA3  = packet{"SYN A″", syn, flowA, 3, 3}
	synB   = packet{"SYN B", syn, flowB, 2, 3}
	ackA   = packet{"ACK A", ack, flowA, 0, 3}
	ackB   = packet{"ACK B", ack, flowB, 0, 3}
	finA   = packet{"FIN A", fin, flowA, 0, 3}
	rstA   = packet{"RST A", rst, flowA, 0, 3}
	other  = packet{"SYN A@2", syn, otherVIP, 4, 3}
	sweep3 = packet{"sweep", sweep, 0, 0, 3}
	sweep9 = packet{"sweep 9", sweep, 0, 0, 9}
	delA   = packet{"delete A", remove, flowA, 0, 3}
	allOut = packet{"flush", flush, 0, 0, 3}
)

var scenarios = []scenario{
	{name: "a SYN and its retransmission", slots: 4, tries: 4, packets: []packet{synA1, synA2}},
	{name: "three SYNs of a key", large: true, slots: 3, tries: 2, packets: []packet{synA1, synA2, synA3}},
	{name: "two SYNs and the ACK", large: true, slots: 4, tries: 2, packets: []packet{synA1, synA2, ackA}},
	{name: "two SYNs evict one embryo, whose ACK comes", slots: 2, tries: 2, there: []entry{establishedC, embryoB},
		packets: []packet{synA1, other, ackB}},
	{name: "two SYNs of a key, and the embryo's in their way", large: true, slots: 2, tries: 2, there: []entry{{0, flowC, 3, synRecv, 4}, embryoB},
		packets: []packet{synA1, synA2, ackB}},
	{name: "SYN on a connection that ended", large: true, slots: 3, tries: 2, there: []entry{{1, flowA, 1, timeWait, 9}},
		packets: []packet{synA1, synA2, ackA}},
	{name: "SYN on a connection that ends", slots: 3, tries: 2, there: []entry{{1, flowA, 1, established, 9}},
		packets: []packet{finA, synA2, rstA}},
	{name: "expired, but not for everybody", slots: 2, tries: 2, there: []entry{{1, flowA, 1, established, 3}},
		packets: []packet{synA2, sweep3, {"ACK A", ack, flowA, 0, 2}}},
	{name: "a connection is made, touched and swept", slots: 2, tries: 2, packets: []packet{synA1, ackA, sweep9}},
	{name: "FIN, RST and the sweep", slots: 2, tries: 2, there: []entry{{1, flowA, 1, established, 9}},
		packets: []packet{finA, rstA, sweep9}},
	{name: "delete, ACK and FIN", slots: 2, tries: 2, there: []entry{{1, flowA, 1, established, 9}},
		packets: []packet{delA, ackA, finA}},
	{name: "flush and two makers", slots: 2, tries: 2, there: []entry{{1, flowA, 1, timeWait, 9}},
		packets: []packet{allOut, synA2, synA3}},
	{name: "another order of sets", large: true, slots: 4, tries: 2, there: []entry{establishedC, {1, flowD, 3, established, 9}},
		order:   map[flowID][]uint8{flowB: {2, 3, 0, 1}},
		packets: []packet{synA1, synA2, synB}},
	{name: "the client's other service takes the slot", slots: 2, tries: 2, there: []entry{establishedC, {1, flowA, 1, synRecv, 5}},
		packets: []packet{ackA, other, synA2}},
	{name: "datagrams", slots: 2, tries: 2, there: []entry{establishedC, {1, flowA, 1, udpNew, 4}},
		packets: []packet{{"UDP A", datagram, flowA, 2, 3}, {"UDP A'", datagram, flowA, 3, 2}, synB}},
	{name: "IPv6", large: true, slots: 3, tries: 2, six: true, there: []entry{establishedC, embryoB},
		packets: []packet{synA1, synA2, ackB}},
	{name: "a connection is made, deleted and made again", slots: 2, tries: 2, packets: []packet{synA1, synA2, delA}},
	{name: "two SYNs, the ACK and a delete", large: true, slots: 2, tries: 2, packets: []packet{synA1, synA2, ackA, delA}},
	{name: "two SYNs evict an embryo, two ACKs come", large: true, slots: 2, tries: 2, there: []entry{establishedC, embryoB},
		packets: []packet{synA1, synA2, ackB, ackA}},
}

func named(name string) scenario {
	return scenarios[slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })]
}

// walk explores a scenario and fails where a promise is broken.
func walk(t *testing.T, s scenario) report {
	begin := time.Now()
	r, wrong := s.explore()
	if wrong != nil {
		t.Fatal(wrong)
	}
	t.Logf("%d states, %d ends, %d with CONTENDED, %v", r.states, r.ends, r.contended, time.Since(begin).Round(time.Millisecond))
	return r
}

func TestProtocol(t *testing.T) {
	for _, s := range scenarios {
		for _, s.memory = range []memory{tso, weak} {
			t.Run(s.name+"/"+s.memory.String(), func(t *testing.T) {
				if testing.Short() && (s.large || s.memory == weak) {
					t.Skip("takes long")
				}
				if s.large && s.memory == weak {
					s.tries = 1
				}
				walk(t, s)
			})
		}
	}
}

// Nobody who finds no rival has to try again.
func TestOneMakerIsNeverContended(t *testing.T) {
	s := scenario{slots: 4, there: []entry{establishedC, embryoB}, packets: []packet{synA1}, tries: 1}
	if r := walk(t, s); r.contended != 0 || r.ends != 1 {
		t.Errorf("%+v, want one end, without CONTENDED", r)
	}
}

// What protects from a half-written IPv6 address is only the hash beside it: if
// two clients have one hash and port, a packet that looks while one takes the
// other's slot may be taken for the other's. The key is secret, and has 32 bits.
func TestCollidingHashIsNotCovered(t *testing.T) {
	s := scenario{slots: 2, six: true, tries: 2, there: []entry{establishedC, {1, collides, 3, synRecv, 5}},
		packets: []packet{synA1, {"ACK A'", ack, collides, 0, 3}}}
	if r, wrong := s.explore(); wrong == nil {
		t.Errorf("covered, in %d states: say so", r.states)
	}
}

// A checker that finds nothing proves nothing: each mistake must be found.
func TestMutants(t *testing.T) {
	for _, m := range []struct {
		name   string
		mutant mutant
		memory memory
		in     string // scenario
		want   string // the promise that it breaks
	}{
		{"the lower stays, and kills nobody", lowerStays, sc, "a SYN and its retransmission", "two live connections of A"},
		{"no second look", noSecondLook, sc, "a SYN and its retransmission", "two live connections of A"},
		{"the key before the claim", keyFirst, sc, "two SYNs evict one embryo, whose ACK comes", "does not find the connection of B"},
		{"the version stays", versionStays, sc, "two SYNs evict one embryo, whose ACK comes", "never had"},
		{"counted when alive", countsLate, sc, "two SYNs evict one embryo, whose ACK comes", "below zero"},
		{"the killer takes it off the count", killerCounts, sc, "a SYN and its retransmission", "below zero"},
		{"versions are not compared", versionsIgnored, sc, "two SYNs evict one embryo, whose ACK comes", "never had"},
		{"evicts by a plain store", plainEviction, sc, "two SYNs evict one embryo, whose ACK comes", "replaces ESTABLISHED of another key"},
		{"published by a plain store", plainPublication, tso, "a SYN and its retransmission", "two live connections of A"},
		{"touches are counted late", touchCountsLate, sc, "SYN on a connection that ends", "below zero"},
		{"a replaced one stays counted", uncountForgotten, sc, "two SYNs evict one embryo, whose ACK comes", "counts are"},
		{"never withdraws", neverWithdraws, sc, "a SYN and its retransmission", "stays TENTATIVE"},
		{"tries are unbounded", unbounded, sc, "a SYN and its retransmission", "for ever"},
	} {
		t.Run(m.name, func(t *testing.T) {
			s := named(m.in)
			s.mutant, s.memory = m.mutant, m.memory
			r, wrong := s.explore()
			if wrong == nil {
				t.Fatalf("not found in %d states", r.states)
			}
			if !strings.Contains(wrong.what, m.want) {
				t.Errorf("found %q, want %q", wrong.what, m.want)
			}
			t.Logf("after %d states: %v", r.states, wrong)
		})
	}
}

// Publishing by a plain store is a mistake only where a CPU has a store buffer:
// so the walks under TSO have one.
func TestBuffersMatter(t *testing.T) {
	s := named("a SYN and its retransmission")
	s.mutant, s.memory = plainPublication, sc
	walk(t, s)
}
