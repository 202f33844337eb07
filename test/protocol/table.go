// SPDX-License-Identifier: Apache-2.0

package protocol

import (
	"fmt"
	"strings"
)

// memory is how loads and stores of one actor reach the others.
type memory uint8

// The memories; the package comment says what each allows.
const (
	sc memory = iota
	tso
	weak
)

func (m memory) String() string { return [...]string{"sc", "tso", "weak"}[m] }

const (
	maxActors  = 4
	maxCells   = 14 // four slots of word, key and client's address, and crowd's
	maxSlots   = maxCells / 3
	maxServers = 5
	maxStale   = 7
	versions   = 8
)

// Cells of struct crowd, behind those of the slots.
const (
	insideCell uint8 = maxCells - 2 + iota
	movedCell
)

// enum inside. A pass asks with a number of its own, greater than all of these.
const (
	insideNobody word = iota
	insideSomebody
	insideAsked // by a pass that is over
)

// A word is what a cell of the table holds. As in bpf/types.h it is
//
//	bits 0-3 expires, 4-6 real server, 7-10 state, 11-13 version
//
// and in a key, bits 0-3 are the client and 11-13 the version.
type word uint16

type connState uint8

const (
	free connState = iota
	established
	synRecv
	finWait
	timeWait
	closed
	udp
	udpNew
	busy
	tentative
	moving
)

func (s connState) String() string {
	return [...]string{"free", "ESTABLISHED", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "UDP", "UDP_NEW", "BUSY", "TENTATIVE", "MOVING"}[s]
}

// pack is conn_pack.
func pack(expires, server uint8, s connState, version uint8) word {
	return word(expires) | word(server)<<4 | word(s)<<7 | word(version%versions)<<11
}

func packKey(client, version uint8) word { return word(client) | word(version%versions)<<11 }

func (w word) expires() uint8   { return uint8(w & 15) }
func (w word) client() uint8    { return uint8(w & 15) }
func (w word) server() uint8    { return uint8(w >> 4 & 7) }
func (w word) state() connState { return connState(w >> 7 & 15) }
func (w word) version() uint8   { return uint8(w >> 11) }

func (w word) lives() bool            { return w.state() != free && w.state() < busy }            // conn_lives
func (w word) expired(now uint8) bool { return w.expires() <= now }                               // conn_expired
func (w word) freed() word            { return pack(0, 0, free, w.version()) }                    // conn_free
func (w word) ended() bool            { s := w.state(); return s >= finWait && s <= closed }      // conn_ended
func (w word) active() bool           { s := w.state(); return s == established || s == synRecv } // CONN_ACTIVE

// unit is conn_unit: which half of a server's count the connection is in.
func (w word) unit() int {
	if w.active() {
		return 0
	}
	return 1
}

// A class is conn_class: whose place a new connection may take, the least first.
type class int

const (
	spare class = iota
	over
	embryo
	young // CLASS_DATAGRAM
	kept
	coming
)

const (
	classShift = 8
	rankOver   = int(over) << classShift
	rankKept   = int(kept) << classShift
)

var classes = [...]class{free: spare, established: kept, synRecv: embryo, finWait: kept, timeWait: kept, closed: kept,
	udp: kept, udpNew: young, busy: coming, tentative: coming, moving: coming}

// rank is conn_rank: a word's class, and in a class who ends first.
func (w word) rank(now uint8) int {
	c := classes[w.state()]
	if w.lives() && w.expired(now) {
		c = over
	}
	return int(c)<<classShift | int(w.expires()-now)
}

// A flow is a client at a service. Its key in the table is only the client's
// part; an IPv6 slot has the address besides, and bits of a hash in the key.
type flow struct {
	name            string
	client, address uint8
	service         uint8
}

// A flowID is an index into flows.
type flowID uint8

const (
	flowA flowID = iota
	flowB
	flowC
	flowD
	otherVIP // the client of A at another service
	collides // has A's hash bits, not its address
	torn     // has A's hash bits, and B's address: nobody's, but the mover may read it
	strange  // any other that is nobody's
)

var flows = [...]flow{{"A", 1, 1, 1}, {"B", 2, 2, 1}, {"C", 3, 3, 1}, {"D", 5, 5, 1}, {"A@2", 1, 1, 2}, {"A'", 1, 4, 1},
	{"A/B", 1, 2, 1}, {"nobody", 0, 0, 0}}

// serves says whose service a real server is of.
var serves = [maxServers]uint8{0, 1, 1, 1, 2}

// An entry is a connection that is there from the start.
type entry struct {
	slot    uint8
	flow    flowID
	server  uint8
	state   connState
	expires uint8
}

// A scenario is a table, who meets there, and what is done wrong, if anything.
type scenario struct {
	name    string
	sets    sets
	fronts  uint8 // slots of other sets of the front, behind all others
	six     bool
	inside  word               // if not as it should be for who is there
	order   map[flowID][]uint8 // slots by place, if not 0, 1, …
	there   []entry
	packets []packet
	tries   uint8
	memory  memory
	mutant  mutant
	large   bool // too many states for -short
	huge    bool // too many states for Weak
	notWeak bool // does not hold under Weak
}

// sets are how many ways the front, the first and the second set have.
type sets [3]uint8

// places are those that a flow may have, slots are those of the table.
func (s *scenario) places() uint8 { return s.sets[0] + s.sets[1] + s.sets[2] }
func (s *scenario) slots() uint8  { return s.places() + s.fronts }

// front says whether a slot is in the front, be it a flow's or not.
func (s *scenario) front(slot uint8) bool { return slot < s.sets[0] || slot >= s.places() }

// set is a set's first place, and the first after it.
func (s *scenario) set(choice uint8) (from, to uint8) {
	for i := range choice {
		from += s.sets[i]
	}
	return from, from + s.sets[choice]
}

// is says whether a mistake is made.
func (s *scenario) is(m mutant) bool { return s.mutant == m }

// start is the first state. All versions are about to wrap.
func (s *scenario) start() (st state) {
	const version = versions - 1
	for slot := range s.slots() {
		st.cells[slot] = pack(0, 0, free, version)
		st.cells[s.keyCell(slot)] = packKey(0, version)
	}
	st.cells[insideCell] = s.inside
	for _, e := range s.there {
		if s.front(e.slot) && s.inside == insideNobody {
			st.cells[insideCell] = insideSomebody
		}
		w := pack(e.expires, e.server, e.state, version)
		st.cells[e.slot] = w
		st.cells[s.keyCell(e.slot)] = packKey(flows[e.flow].client, version)
		if s.six {
			st.cells[s.clientCell(e.slot)] = word(flows[e.flow].address)
		}
		st.counts[e.server][w.unit()]++
		st.owner[e.slot] = uint8(e.flow)
	}
	return st
}

// A mutant is one mistake in the protocol.
type mutant uint8

const (
	faithful         mutant = iota
	lowerStays              // the lower place stays without taking the higher one away
	noSecondLook            // conn_elsewhere is left out
	keyFirst                // the key is written before the slot is claimed
	versionStays            // a claim does not raise the version
	countsLate              // a connection is counted after it is alive
	killerCounts            // who takes a tentative one away takes it off the count
	versionsIgnored         // conn_match does not compare versions
	plainEviction           // a live slot is claimed by a plain store
	plainPublication        // TENTATIVE is a plain store: no barrier before the second look
	touchCountsLate         // a change of state is counted after its swap
	uncountForgotten        // a replaced connection stays counted
	neverWithdraws          // who loses leaves its slot TENTATIVE
	unbounded               // tries are not counted
	frontNotRivaled         // who is not in the front does not look there for another
	frontLeftOut            // conn_look leaves the front out where it would come last
	wordFirst               // conn_match reads the word before the client's address
	movedIgnored            // conn_find does not compare crowd->moved after a miss
	movedLate               // crowd->moved is counted when the front's slot is free
	endsFirst               // the front's slot is free before MOVING is published
	movingRivaled           // conn_elsewhere takes MOVING away, as it does TENTATIVE
	movingUsed              // conn_judge takes MOVING for alive
	carriesAnyway           // the mover does not mind that the front's word changed
	neverGivesBack          // the mover that lost leaves its slot MOVING
	goesByHash              // the mover takes the front's slot where the hash says that it is, not where it read
	neverEnters             // conn_enter is left out
	entersLate              // conn_enter after conn_elsewhere's look
	insideEarly             // conn_elsewhere reads crowd->inside before the publication
	gathersBlindly          // gather by a plain store
	neverAsks               // a pass takes what it finds in crowd->inside for its question
	touchSilent             // conn_move goes on if the slot is another's
)

// A state is all that the next step depends on. It has no pointers and no
// padding: its bytes are hashed.
type state struct {
	cells  [maxCells]word // words, then keys, then clients' addresses
	counts [maxServers][2]int8
	actors [maxActors]actor
	stale  [maxActors][maxCells][maxStale]word // weak: what an actor may still load, the oldest first
	stales [maxActors][maxCells]uint8
	// Ghosts.
	owner   [maxSlots]uint8 // of which flow (index in flows) the slot is
	carried [maxSlots]word  // MOVING: the word of the connection that is on its way here, if it left the front
}

func (s *scenario) keyCell(slot uint8) uint8    { return s.slots() + slot }
func (s *scenario) clientCell(slot uint8) uint8 { return 2*s.slots() + slot }

func (s *scenario) cellName(cell uint8) string {
	switch cell {
	case insideCell:
		return "inside"
	case movedCell:
		return "moved"
	}
	return fmt.Sprintf("%s[%d]", [...]string{"word", "key", "client"}[cell/s.slots()], cell%s.slots())
}

func (s *scenario) show(cell uint8, w word) string {
	if cell >= insideCell {
		return fmt.Sprint(w)
	}
	switch cell / s.slots() {
	case 0:
		if w.lives() || w.state() >= tentative {
			return fmt.Sprintf("%v server %d until %d v%d", w.state(), w.server(), w.expires(), w.version())
		}
		return fmt.Sprintf("%v v%d", w.state(), w.version())
	case 1:
		return fmt.Sprintf("client %d v%d", w.client(), w.version())
	}
	return fmt.Sprintf("address %d", w)
}

// A machine makes one move of one actor.
type machine struct {
	*state
	*scenario
	move
	me      *actor
	packet  packet
	at      pc                   // where it was, for the trace
	log     func(string, ...any) // only in a replay
	choices uint8                // values that it may load
	blocked bool                 // an atomic that waits for the buffer
	problem string               // a promise that it broke
}

func (s *scenario) machine(st *state, by move) machine {
	return machine{state: st, scenario: s, me: &st.actors[by.actor], packet: s.packets[by.actor], move: by}
}

func (x *machine) make() {
	x.choices = 1
	x.at = x.me.pc
	if x.drains {
		store := x.me.buffer[x.choice]
		copy(x.me.buffer[x.choice:], x.me.buffer[x.choice+1:])
		x.me.buffered--
		x.me.buffer[x.me.buffered] = buffered{}
		x.sayCell("  in memory from the buffer:", uint8(store.cell), store.value)
		x.write(uint8(store.cell), store.value)
		return
	}
	before := x.me.progress()
	x.run()
	if !x.blocked && x.problem == "" && x.me.progress() <= before {
		x.fail("goes round for ever")
	}
}

// sayCell tells the trace what happens to a cell, and the values that it has.
func (x *machine) sayCell(what string, cell uint8, values ...word) {
	if x.log == nil {
		return
	}
	var shown []string
	for _, value := range values {
		shown = append(shown, x.show(cell, value))
	}
	x.log("%s %s: %s", what, x.cellName(cell), strings.Join(shown, " → "))
}

func (x *machine) fail(format string, args ...any) {
	if x.problem == "" {
		x.problem = x.packet.name + ": " + fmt.Sprintf(format, args...)
	}
}

// load is a plain load.
func (x *machine) load(cell uint8) word {
	for i := x.me.buffered; i > 0; i-- {
		if x.me.buffer[i-1].cell == uint16(cell) {
			return x.me.buffer[i-1].value
		}
	}
	stale, n := &x.stale[x.actor][cell], &x.stales[x.actor][cell]
	x.choices = *n + 1
	value := x.cells[cell]
	if x.choice < *n {
		value = stale[x.choice]
	}
	// Nothing older than what was seen can be seen again.
	kept := copy(stale[:], stale[x.choice:*n])
	clear(stale[kept:])
	*n = uint8(kept)
	x.sayCell("loads", cell, value)
	return value
}

// store is a plain store.
func (x *machine) store(cell uint8, value word) {
	x.sayCell("stores", cell, value)
	if x.memory == sc {
		x.write(cell, value)
		return
	}
	x.me.buffer[x.me.buffered] = buffered{uint16(cell), value}
	x.me.buffered++
}

// barrier is what every atomic that writes is.
func (x *machine) barrier() {
	x.blocked = x.me.buffered > 0
	x.stale[x.actor] = [maxCells][maxStale]word{}
	x.stales[x.actor] = [maxCells]uint8{}
}

// cas is __sync_val_compare_and_swap, and says whether it swapped.
func (x *machine) cas(cell uint8, old, new word) (found word, swapped bool) {
	found = x.cells[cell]
	if found != old {
		x.blocked = x.me.buffered > 0
		x.stale[x.actor][cell] = [maxStale]word{}
		x.stales[x.actor][cell] = 0
		x.sayCell("does not swap", cell, found)
		return found, false
	}
	x.barrier()
	x.sayCell("swaps", cell, old, new)
	x.write(cell, new)
	return found, true
}

// swap is __sync_lock_test_and_set.
func (x *machine) swap(cell uint8, value word) { x.cas(cell, x.cells[cell], value) }

// increment is __sync_fetch_and_add of 1. Nobody uses what it returns: so it is no barrier.
func (x *machine) increment(cell uint8) {
	x.blocked = x.memory == tso && x.me.buffered > 0
	x.sayCell("counts", cell, x.cells[cell], x.cells[cell]+1)
	x.write(cell, x.cells[cell]+1)
}

// add is conn_count: one connection more or less in the half that the word is in.
func (x *machine) add(w word, n int8) {
	x.blocked = x.memory == tso && x.me.buffered > 0
	count := &x.counts[w.server()][w.unit()]
	*count += n
	if x.log != nil {
		x.log("counts %+d for %v of server %d", n, w.state(), w.server())
	}
	if *count < 0 {
		x.fail("the count of server %d is below zero", w.server())
	}
}

// write is the moment in which everybody can see a store.
func (x *machine) write(cell uint8, value word) {
	old := x.cells[cell]
	if old == value || x.blocked {
		return
	}
	x.cells[cell] = value
	for i := range x.packets {
		a := &x.actors[i]
		if x.memory != weak || i == int(x.actor) || !a.loadsMore() {
			continue
		}
		n := &x.stales[i][cell]
		if int(*n) == maxStale {
			x.fail("raise maxStale")
			return
		}
		x.stale[i][cell][*n] = old
		*n++
	}
	if cell < x.slots() {
		x.checkWord(cell, old, value)
	}
}
