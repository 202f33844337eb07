// SPDX-License-Identifier: Apache-2.0

package protocol

// A kind is what an actor does: a packet by its flag, or a program.
type kind uint8

const (
	syn kind = iota
	ack
	fin
	rst
	datagram
	remove // lvs_delete: conn_find, conn_end
	sweep  // lvs_sweep of what is expired
	flush  // lvs_sweep of everything
	settle // what lvs_sweep does to move connections out of the front
	pass   // a pass of the daemon, as far as it concerns the front: askFronts, lvs_sweep, gather
	gather // the same, but it moves connections
)

func (k kind) looks() bool { return k <= remove }                // conn_find
func (k kind) moves() bool { return k == settle || k == gather } // conn_leave, with settle
func (k kind) asks() bool  { return k == pass || k == gather }   // askFronts

// A packet is what an actor is told before it starts.
type packet struct {
	name   string
	kind   kind
	flow   flowID
	server uint8 // that the scheduler would pick
	now    uint8
}

func (p packet) opens() bool { return p.kind == syn || p.kind == datagram } // conn_opens

// after is conn_after, with tcp_next's rows for the states that are here.
func (p packet) after(seen word) word {
	const timeout = 2
	next := seen.state()
	switch is := seen.state(); p.kind {
	case syn:
		if is != established {
			next = synRecv
		}
	case ack:
		if is == synRecv {
			next = established
		}
	case fin:
		switch is {
		case synRecv:
			next = timeWait
		case established:
			next = finWait
		}
	case rst:
		if is != synRecv {
			next = closed
		}
	case datagram:
		if is == udpNew && seen.expires() == p.now+timeout {
			return seen
		}
		next = udp
		if is == free {
			next = udpNew
		}
	}
	return pack(p.now+timeout, seen.server(), next, seen.version())
}

// A pc is the access that an actor makes next.
type pc uint8

const (
	arrive pc = iota
	// conn_find, conn_look
	movedFirst
	insideFirst
	hint   // conn_fill, for conn_look and for conn_place
	wayKey // conn_ways
	// conn_match, for conn_look and for conn_elsewhere
	matchKey
	matchClient
	matchWord
	kill // conn_elsewhere
	movedLast
	// conn_place
	placeWord // conn_best
	spareWord // conn_spares
	// conn_claim
	claim
	uncount
	storeClient
	storeKey
	publish
	// conn_elsewhere, before it looks
	enter
	enterSwap
	insideLast
	// conn_write
	withdraw
	count
	alive
	discount
	// conn_move, conn_swap
	touchCount
	touch
	touchUncount
	touchDiscount
	// conn_expire_slot, conn_end
	sweepWord
	end
	endUncount
	// conn_settle_slot, conn_flow
	settleWord
	flowKey
	flowClient
	// conn_carry
	countMoved
	carry
	settled
	giveBack
	// a pass
	ask
	askSwap
	leftWord // conn_leave
	nobodyLeft
	done
)

func (p pc) String() string {
	return [...]string{"arrive", "moved first", "inside first", "hint", "way key", "match key", "match client", "match word",
		"kill", "moved last", "place word", "spare word", "claim", "uncount", "store client", "store key", "publish",
		"enter", "enter swap", "inside last", "withdraw", "count", "alive", "discount",
		"touch count", "touch", "touch uncount", "touch discount", "sweep word", "end", "end uncount",
		"settle word", "flow key", "flow client", "count moved", "carry", "settled", "give back",
		"ask", "ask swap", "left word", "nobody left", "done"}[p]
}

// A stage is a loop or a run of steps; an actor goes through them upwards, until
// it tries again, or a sweep goes to the next slot.
type stage uint8

const (
	sweeping stage = iota
	looking
	placing
	writing
	elsewhere
	finishing
	touching
	carrying
	leaving
)

// The parts of conn_look, in their order. The front is looked at where the hint
// wants it, or not at all.
const (
	frontKeys uint8 = iota
	frontTry
	firstKeys
	firstTry
	secondKeys
	secondTry
	lastKeys
	lastTry
	nowhere
)

// setOf is the set that a part of conn_look reads.
var setOf = [nowhere]uint8{frontKeys: 0, frontTry: 0, firstKeys: 1, firstTry: 1, secondKeys: 2, secondTry: 2, lastKeys: 0, lastTry: 0}

// The parts of conn_place, in their order.
const (
	placeFront uint8 = iota
	placeFirst
	placeSpares
	placeSecond
	placeLast
	parts
)

// placeSet is the set that a part of conn_place reads.
var placeSet = [parts]uint8{placeFront: 0, placeFirst: 1, placeSpares: 1, placeSecond: 2, placeLast: 0}

// enum fill
const (
	fillFront uint8 = iota
	fillSets
	fillReplace
	fills
)

type outcome uint8

const (
	none      outcome = iota
	made              // its connection
	known             // somebody's
	missed            // nothing there
	full              // TABLE_FULL
	contended         // CONTENDED
)

func (o outcome) String() string {
	return [...]string{"", ", made it", ", found it", ", found none", ", no room", ", contended"}[o]
}

// buffered is a plain store on its way to memory.
type buffered struct {
	cell  uint16
	value word
}

// An actor is where a packet's program is, and its variables.
type actor struct {
	pc      pc
	stage   stage
	try     uint8 // of a packet; of a sweep, the slots that it is done with
	pos     uint8 // place that it looks at: a slot's number in the order of its sets
	turn    uint8 // part of conn_look or conn_place, or swaps of conn_move or conn_carry
	ways    uint8 // places at which conn_ways saw the flow's key, a bit each
	frees   uint8 // of conn_spares
	place   uint8 // f->place
	hasSlot bool  // f->place is not CONN_NOWHERE
	inside  bool  // somebody is in the front; of a pass: was seen there
	fill    uint8
	from    uint8 // slot of the front that a sweep looks at
	flow    flowID
	address uint8 // of conn_flow
	outcome outcome

	server   uint8 // that it reported
	had      uint8 // ghost: servers that the flow's connection had since it arrived, a bit each
	expect   uint8 // ghost: the server that its look has to find, since nothing ended the connection
	holds    bool  // ghost: nothing ended the connection that it found
	buffered uint8

	key    word // of conn_match and conn_flow
	seen   word // f->seen
	other  word // of conn_elsewhere
	moved  word // of conn_find
	was    word // of conn_carry: of the slot in the front
	buffer [4]buffered
}

// progress rises with each step: the proof that all loops end.
func (a *actor) progress() uint64 {
	if a.pc == done {
		return 1 << 63
	}
	return uint64(a.try)<<32 | uint64(a.stage)<<24 | uint64(a.turn)<<16 | uint64(a.pos)<<8 | uint64(a.pc)
}

// loadsMore says whether the actor may make a plain load before its next barrier.
func (a *actor) loadsMore() bool {
	switch a.pc {
	case arrive, uncount, storeClient, storeKey, publish, enterSwap, countMoved, carry, settled, giveBack, nobodyLeft, done:
		return false
	}
	return true
}

// run makes the actor's next step.
func (x *machine) run() {
	switch at := x.me.pc; {
	case at == arrive:
		x.begin()
	case at <= movedLast:
		x.stepFind()
	case at <= publish:
		x.stepClaim()
	case at <= discount:
		x.stepWrite()
	case at <= touchDiscount:
		x.stepTouch()
	case at <= endUncount:
		x.stepSweep()
	case at <= giveBack:
		x.stepSettle()
	default:
		x.stepPass()
	}
}

// begin makes the first step, before which there is nothing to do.
func (x *machine) begin() {
	a, p := x.me, x.packet
	switch {
	case p.kind.asks():
		a.pc = ask
	case p.kind.moves():
		x.leaveFrom(0)
	case p.kind.looks():
		a.had = 1 << x.live(p.flow)
		x.look()
	default:
		x.sweepFrom(0)
	}
	x.at = a.pc
	x.run()
}

// own is the cell of the word at f->place.
func (x *machine) own() uint8 { return x.slot(x.me.place) }

// flow is whose connection the actor looks for, makes or moves.
func (x *machine) flow() flowID {
	if x.packet.kind.looks() {
		return x.packet.flow
	}
	return x.me.flow
}

// slot is the slot at a place in the order of the flow's sets; a sweep's order
// is that of the table.
func (x *machine) slot(place uint8) uint8 {
	if order := x.order[x.flow()]; order != nil && x.me.stage != sweeping && place < x.places() {
		return order[place]
	}
	return place
}

// tryAgain is AGAIN: the whole program again, or CONTENDED.
func (x *machine) tryAgain() {
	if !x.is(unbounded) {
		x.me.try++
	}
	if x.me.try == x.tries {
		x.report(contended, 0)
		return
	}
	x.look()
}

// report ends the actor.
func (x *machine) report(o outcome, server uint8) {
	*x.me = actor{pc: done, outcome: o, server: server, buffered: x.me.buffered, buffer: x.me.buffer}
	x.stale[x.actor] = [maxCells][maxStale]word{}
	x.stales[x.actor] = [maxCells]uint8{}
	if x.log != nil {
		x.log("  is done%v", o)
	}
}
