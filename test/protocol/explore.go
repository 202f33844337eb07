// SPDX-License-Identifier: Apache-2.0

// Package protocol walks through every interleaving of the packets and programs
// that meet in one place of the connection table, and checks in each state what
// bpf/table.h promises: never two connections of one key, exact counts, nothing
// torn, nothing lost, nobody going round for ever. A connection that the sweep moves
// out of the front lives all the while: every look finds it, or looks again.
//
// The table is a few slots, the version of a slot has three bits and wraps at
// once. The slots are parted into the three sets, of which each may have any
// number of ways. The hint that says where new connections go follows no rule here:
// each time that it is read it may say anything. What says whether anybody is in the
// front is memory like the slots, and the daemon, which asks for it, is an actor.
//
// Each actor is a step machine that follows bpf/table.h, conn.h and sweep.h access
// by access: one access of shared memory is one step, and the comment beside it names
// the C. What changes there must change here, and the mutants in the test show that a
// wrong order would be noticed.
//
// Three memories are walked. Under SC an access happens at once. Under TSO, which
// is x86, a plain store waits in its CPU's buffer, and an atomic waits until the
// buffer is empty. Under Weak, for arm64, stores leave the buffer in any order,
// and a plain load may give any value that the cell has had since the CPU's last
// barrier, but never an older one than it has seen there: CPUs that load early,
// in any order, do no more. An atomic that succeeds is a full barrier, as in the
// kernel's rules; a swap that fails is none. Weak leaves out what no CPU in use
// does: stores that reach two CPUs in different orders.
//
// Two things hold by the order of loads alone, which x86 keeps, and not under Weak;
// the tests have both. What conn_match reads between key and word, an IPv6 client's
// address, is the word's: else two clients of one port and one hash of 32 bits, whose
// key is secret, may be taken for each other while one takes the other's slot. And who
// finds a connection neither in the front nor in its other sets has looked at
// crowd->moved before and after: else one that is moved meanwhile may not be found.
// What the front's question does without a move holds under Weak too.
//
// It is not a proof for every size. Not covered: more actors than a scenario
// has; more tries than two to four, where a packet has 34 (large scenarios
// have one under Weak), and that a later try may be in a later tick or get another
// server from the scheduler; server ids that are used again, for keys have no
// generation here; a slot that is used again 256 times while one packet
// looks at it (here 8 times); what the sweep does to other sets than the front while
// it passes; and the compiler, from which volatile and __sync protect. Nor the
// scheduler, and the rest of the packet's path.
package protocol

import (
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
)

// A move is what happens between two states: an actor's buffered store reaches
// memory, or it makes its next step, with one of the values that it may load.
type move struct {
	actor  uint8
	drains bool
	choice uint8
}

// report is what a walk has seen.
type report struct {
	states    int
	ends      int // states in which everybody is done
	contended int // of these, in how many somebody was sent away with CONTENDED
}

// violation is a broken promise and the shortest way to it.
type violation struct {
	what  string
	trace []string
}

func (v *violation) String() string {
	return v.what + "\n  " + strings.Join(v.trace, "\n  ")
}

// edge is how a state was first reached.
type edge struct {
	from uint64
	by   move
}

// explore walks the states breadth first, so that a violation's trace is a
// shortest one. A state is remembered by 64 bits of hash: among ten million
// states two are confused once in 400,000 walks.
func (s *scenario) explore() (report, *violation) {
	var (
		seed  = maphash.MakeSeed()
		start = s.start()
		root  = maphash.Comparable(seed, start)
		seen  = map[uint64]edge{root: {}}
		layer = []state{start}
		next  []state
		r     = report{states: 1}
	)
	for len(layer) > 0 {
		next = next[:0]
		for i := range layer {
			from := maphash.Comparable(seed, layer[i])
			moved := false
			var wrong *violation
			s.eachMove(&layer[i], func(to *state, by move, problem string) bool {
				moved = true
				if problem != "" {
					wrong = &violation{problem, s.replay(append(path(seen, root, from), by))}
					return false
				}
				hash := maphash.Comparable(seed, *to)
				if _, old := seen[hash]; !old {
					seen[hash] = edge{from, by}
					next = append(next, *to)
				}
				return true
			})
			if wrong != nil {
				return r, wrong
			}
			if moved {
				continue
			}
			r.ends++
			if layer[i].anyContended() {
				r.contended++
			}
			if problem := s.checkEnd(&layer[i]); problem != "" {
				return r, &violation{problem, s.replay(path(seen, root, from))}
			}
		}
		r.states += len(next)
		layer, next = next, layer
	}
	return r, nil
}

// eachMove visits what may come next, until visit says that it has enough.
func (s *scenario) eachMove(from *state, visit func(to *state, by move, problem string) bool) {
	var to state // one for all: a walk makes millions
	var x machine
	try := func(by move) (choices uint8, goOn bool) {
		to = *from
		x = s.machine(&to, by)
		x.make()
		if x.blocked {
			return 0, true
		}
		return x.choices, visit(&to, by, x.problem)
	}
	eachChoice := func(who uint8) (goOn bool) {
		choices := uint8(1)
		for choice := uint8(0); choice < choices; choice++ {
			if choices, goOn = try(move{who, false, choice}); !goOn {
				return false
			}
		}
		return true
	}
	for who := range s.packets {
		if s.commutes(from, who) {
			eachChoice(uint8(who))
			return
		}
	}
	for who := range s.packets {
		buffered := from.actors[who].buffered
		if s.memory == tso {
			buffered = min(buffered, 1)
		}
		for choice := range buffered {
			if _, goOn := try(move{uint8(who), true, choice}); !goOn {
				return
			}
		}
		if from.actors[who].pc == done {
			continue
		}
		if !eachChoice(uint8(who)) {
			return
		}
	}
}

// commutes says that no step of another changes what the actor's next one reads, nor
// is changed by it: so it may as well be made at once.
func (s *scenario) commutes(st *state, who int) bool {
	a := &st.actors[who]
	cell := insideCell
	switch a.pc {
	case hint:
		return true
	case movedFirst:
		cell = movedCell
	case movedLast:
		cell = movedCell
		if st.cells[cell] != a.moved {
			return false // it looks again, and what it has to find then may change
		}
	case insideFirst, insideLast, enter:
		if st.cells[cell] != insideSomebody {
			return false
		}
	default:
		return false
	}
	for i, p := range s.packets {
		writes := cell == insideCell && p.kind.asks() || cell == movedCell && p.kind.moves()
		if writes && (st.actors[i].pc != done || st.actors[i].buffered > 0) {
			return false
		}
	}
	return st.stales[who][cell] == 0
}

// path returns the moves by which a state was first reached.
func path(seen map[uint64]edge, root, to uint64) (moves []move) {
	for ; to != root; to = seen[to].from {
		moves = append(moves, seen[to].by)
	}
	slices.Reverse(moves)
	return moves
}

// replay makes the moves again and says what each does.
func (s *scenario) replay(moves []move) (trace []string) {
	st := s.start()
	for _, by := range moves {
		x := s.machine(&st, by)
		x.log = func(format string, args ...any) {
			trace = append(trace, fmt.Sprintf("%-8s %-14s ", x.packet.name, x.at)+fmt.Sprintf(format, args...))
		}
		x.make()
	}
	return trace
}
