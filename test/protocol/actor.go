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
)

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
	hint      // conn_spread, for conn_look and for conn_place
	wayKey    // conn_ways
	// conn_match, for conn_look and for conn_elsewhere
	matchKey
	matchClient
	matchWord
	kill // conn_elsewhere
	// conn_place
	placeWord
	// conn_write
	claim
	uncount
	storeClient
	storeKey
	publish
	withdraw
	count
	alive
	discount
	// conn_move_in, conn_swap
	touchCount
	touch
	touchUncount
	touchDiscount
	// conn_expire_set, conn_end
	sweepWord
	end
	endUncount
	done
)

func (p pc) String() string {
	return [...]string{"arrive", "hint", "way key", "match key", "match client", "match word", "kill", "place word",
		"claim", "uncount", "store client", "store key", "publish", "withdraw", "count", "alive", "discount",
		"touch count", "touch", "touch uncount", "touch discount", "sweep word", "end", "end uncount", "done"}[p]
}

// A stage is a loop or a run of steps; an actor goes through them upwards, until
// it tries again.
type stage uint8

const (
	looking stage = iota
	placing
	writing
	elsewhere
	finishing
	touching
	sweeping
)

// The parts of conn_look, in their order. The front is tried where the hint wants
// it, and again after the first set, by the keys that were read at the start.
const (
	frontKeys uint8 = iota
	frontIfDense
	firstKeys
	firstTry
	frontTry
	secondKeys
	secondTry
	nowhere
)

// setOf is the set that a part of conn_look reads.
var setOf = [nowhere]uint8{frontKeys: 0, frontIfDense: 0, firstKeys: 1, firstTry: 1, frontTry: 0, secondKeys: 2, secondTry: 2}

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
	try     uint8
	pos     uint8 // place that it looks at: a slot's number in the order of its sets
	turn    uint8 // part of conn_look, or swaps of conn_move_in
	ways    uint8 // places at which conn_ways saw the flow's key, a bit each
	frees   uint8 // of conn_place
	place   uint8 // f->place
	hasSlot bool  // f->place is not CONN_NOWHERE
	outcome outcome

	server   uint8 // that it reported
	had      uint8 // ghost: servers that the flow's connection had since it arrived, a bit each
	expect   uint8 // ghost: the server that its look has to find, since nothing ended the connection
	buffered uint8

	key    word // of conn_match
	seen   word // f->seen
	other  word // of conn_elsewhere
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
func (a *actor) loadsMore(p packet) bool {
	switch a.pc {
	case arrive, uncount, storeClient, storeKey, publish, done:
		return false
	}
	return a.stage != touching || p.kind == remove
}

// run makes the actor's next step.
func (x *machine) run() {
	a, p := x.me, x.packet
	wordCell := x.slot(a.pos)
	own := x.slot(a.place)
	version := a.seen.version() + 1
	if x.is(versionStays) {
		version--
	}
	fresh := p.after(pack(0, p.server, free, version)) // word of conn_write
	unfinished := pack(0, p.server, tentative, version)

	switch a.pc {
	case arrive:
		a.had = 1 << x.live(p.flow)
		if p.kind == sweep || p.kind == flush {
			x.sweepFrom(0)
		} else {
			x.look()
		}

	case hint: // *(volatile __u64 *)&crowd->spread: anything at any time
		x.choices = 2
		x.hinted(x.choice == 1)
	case wayKey: // conn_ways: key = *(volatile __u64 *)&conn_slot(set, six, way)->key
		if key := x.load(x.keyCell(wordCell)); key.client() == flows[p.flow].client {
			a.ways |= 1 << a.pos
		}
		x.lookFrom(a.turn, a.pos+1)

	case matchKey: // conn_match: key = *(volatile __u64 *)&slot->key
		a.key = x.load(x.keyCell(wordCell))
		if x.is(wordFirst) {
			a.other = x.load(wordCell)
		}
		switch {
		case a.key.client() != flows[p.flow].client:
			x.matched(0)
		case x.six:
			a.pc = matchClient
		default:
			a.pc = matchWord
		}
	case matchClient: // conn_client_equal
		if x.load(x.clientCell(wordCell)) != word(flows[p.flow].address) {
			x.matched(0)
			return
		}
		a.pc = matchWord
	case matchWord: // word = *(volatile __u64 *)&slot->word
		if x.is(wordFirst) {
			x.compare(a.other)
			return
		}
		x.compare(x.load(wordCell))

	case placeWord: // conn_place: word = *(volatile __u64 *)&slot->word
		w := x.load(wordCell)
		rank := w.rank(p.now)
		if rank == 0 {
			a.frees++
		}
		if rank < x.best() {
			a.hasSlot, a.seen, a.place = true, w, a.pos
		}
		x.placeNext()

	case claim: // conn_write: CAS f->seen → busy
		taken := pack(0, 0, busy, version)
		if x.is(plainEviction) && a.seen.lives() {
			x.store(own, taken)
		} else if _, ok := x.cas(own, a.seen, taken); !ok {
			x.tryAgain()
			return
		}
		a.pc = storeClient
		if a.seen.lives() && !x.is(uncountForgotten) {
			a.pc = uncount
		}
		x.skip()
	case uncount: // conn_uncount(f->seen)
		x.add(a.seen, -1)
		a.pc = storeClient
		x.skip()
	case storeClient: // client[0] = …, client[1] = …
		x.store(x.clientCell(own), word(flows[p.flow].address))
		a.pc = storeKey
		x.skip()
	case storeKey: // *(volatile __u64 *)&slot->key = …
		x.store(x.keyCell(own), packKey(flows[p.flow].client, version))
		a.pc = publish
		if x.is(keyFirst) {
			a.stage, a.pc = writing, claim
		}
	case publish: // __sync_lock_test_and_set(&slot->word, tentative)
		if x.is(plainPublication) {
			x.store(own, unfinished)
		} else {
			x.cas(own, x.cells[own], unfinished)
		}
		a.stage = elsewhere
		if x.is(frontNotRivaled) && a.place >= x.sets[0] {
			x.elsewhereFrom(x.sets[0])
			return
		}
		x.elsewhereFrom(0)
	case kill: // conn_elsewhere: CAS word → conn_free(word)
		if _, ok := x.cas(wordCell, a.other, a.other.freed()); !ok {
			x.finish(withdraw)
			return
		}
		if x.is(killerCounts) {
			x.add(pack(0, a.other.server(), synRecv, 0), -1)
		}
		x.elsewhereFrom(a.pos + 1)
	case withdraw: // CAS tentative → conn_free(tentative)
		if !x.is(neverWithdraws) {
			x.cas(own, unfinished, unfinished.freed())
		}
		x.tryAgain()
	case count: // conn_count(f->server_id, conn_unit(f->state))
		x.add(fresh, +1)
		a.pc = alive
		if x.is(countsLate) {
			x.report(made, p.server)
		}
	case alive: // CAS tentative → word
		_, ok := x.cas(own, unfinished, fresh)
		switch {
		case ok && x.is(countsLate):
			a.stage, a.pc = touching, count
		case ok:
			x.report(made, p.server)
		case x.is(countsLate):
			x.tryAgain()
		default:
			a.pc = discount
		}
	case discount: // conn_count(f->server_id, -conn_unit(f->state))
		x.add(fresh, -1)
		x.tryAgain()

	case touchCount: // conn_swap: the new unit is counted before it can be seen
		x.add(p.after(a.seen), +1)
		a.pc = touch
	case touch: // CAS seen → word
		w := p.after(a.seen)
		found, ok := x.cas(own, a.seen, w)
		a.other = found
		switch moved := w.unit() != a.seen.unit(); {
		case ok && moved:
			a.pc = touchUncount
		case ok:
			x.report(known, a.seen.server())
		case moved && !x.is(touchCountsLate):
			a.pc = touchDiscount
		default:
			x.touchAgain()
		}
	case touchUncount: // the old unit, which nobody can see any more
		if x.is(touchCountsLate) {
			x.counts[a.seen.server()][p.after(a.seen).unit()]++
		}
		x.add(a.seen, -1)
		x.report(known, a.seen.server())
	case touchDiscount: // the new one, since the swap failed
		x.add(p.after(a.seen), -1)
		x.touchAgain()

	case sweepWord: // conn_expire_set: word = *(volatile __u64 *)&slot->word
		a.seen = x.load(a.pos)
		if a.seen.lives() && (p.kind == flush || a.seen.expired(p.now)) {
			a.place, a.pc = a.pos, end
			return
		}
		x.sweepFrom(a.pos + 1)
	case end: // conn_end: CAS seen → conn_free(seen)
		_, ok := x.cas(own, a.seen, a.seen.freed())
		switch {
		case ok:
			a.pc = endUncount
		case p.kind == remove:
			x.tryAgain()
		default:
			x.sweepFrom(a.pos + 1)
		}
	case endUncount: // conn_uncount(seen)
		x.add(a.seen, -1)
		if p.kind == remove {
			x.report(known, a.seen.server())
			return
		}
		x.sweepFrom(a.pos + 1)
	}
}

// slot is the slot at a place in the order of the flow's sets; a sweep's order
// is that of the table.
func (x *machine) slot(place uint8) uint8 {
	if order := x.order[x.packet.flow]; order != nil && x.me.stage != sweeping && place < x.slots() {
		return order[place]
	}
	return place
}

// look is the start of conn_look.
func (x *machine) look() {
	a := x.me
	a.stage, a.turn, a.pos = looking, frontKeys, 0
	a.ways, a.frees, a.place, a.hasSlot = 0, 0, 0, false
	a.key, a.seen, a.other = 0, 0, 0
	if x.stales[x.actor] == [maxCells]uint8{} {
		a.expect = x.live(x.packet.flow)
	}
	x.lookFrom(frontKeys, 0)
}

// lookFrom goes on with conn_look at a place, or where else there is something
// to read in this part or a later one.
func (x *machine) lookFrom(part, place uint8) {
	a := x.me
	for ; part < nowhere; part, place = part+1, 0 {
		if part == frontTry && x.is(frontLeftOut) {
			continue
		}
		from, to := x.set(setOf[part])
		for place = max(place, from); place < to; place++ {
			asked := part == frontIfDense && a.turn != part
			keys := part == frontKeys || part == firstKeys || part == secondKeys
			switch {
			case keys:
				a.pc = wayKey
			case a.ways&(1<<place) == 0:
				continue
			case asked: // without a way to try, the hint is all the same
				a.pc = hint
			default:
				a.pc = matchKey
			}
			a.turn, a.pos = part, place
			return
		}
	}
	x.unknown()
}

// hinted goes on with what the hint said.
func (x *machine) hinted(spread bool) {
	a := x.me
	if x.log != nil {
		x.log("is spread: %v", spread)
	}
	switch {
	case a.stage == placing:
		a.pc = placeWord
		if spread {
			a.pos = x.sets[0]
		}
	case spread:
		x.lookFrom(firstKeys, 0)
	default:
		a.pc = matchKey
	}
}

// compare is the end of conn_match.
func (x *machine) compare(w word) {
	switch {
	case w.state() == free, w.state() == busy:
		w = 0
	case x.me.key.version() != w.version() && !x.is(versionsIgnored):
		w = pack(0, 0, tentative, 0)
	case serves[w.server()] != flows[x.packet.flow].service:
		w = 0
	}
	x.matched(w)
}

// matched goes on after conn_match.
func (x *machine) matched(w word) {
	a := x.me
	a.key, a.other = 0, 0
	switch {
	case a.stage == elsewhere && w == 0:
		x.elsewhereFrom(a.pos + 1)
	case a.stage == elsewhere:
		x.rival(w)
	case w != 0:
		a.seen, a.place, a.hasSlot = w, a.pos, true
		x.judge()
	default:
		if a.turn != frontIfDense { // else it is tried once more
			a.ways &^= 1 << a.pos
		}
		x.lookFrom(a.turn, a.pos+1)
	}
}

// judge is conn_judge.
func (x *machine) judge() {
	a, p := x.me, x.packet
	a.turn, a.ways = 0, 0
	switch {
	case a.seen.state() == tentative:
		x.tryAgain()
	case p.kind == remove:
		a.stage, a.pc = touching, end
	case a.seen.expired(p.now), p.kind == syn && a.seen.ended():
		x.unknown()
	default:
		x.checkFound(a.seen.server())
		a.stage = touching
		x.touchSeen()
	}
}

// unknown is what conn_find leaves without a connection: only who opens one goes on.
func (x *machine) unknown() {
	a := x.me
	if a.expect != 0 && !a.hasSlot {
		x.fail("does not find the connection of %s", flows[x.packet.flow].name)
	}
	if !x.packet.opens() {
		x.report(missed, 0)
		return
	}
	a.stage, a.turn, a.pos, a.ways = placing, 0, 0, 0
	switch {
	case a.hasSlot:
		x.startWrite()
	case x.sets[0] > 0:
		a.pc = hint
	default:
		a.pc = placeWord
	}
}

// best is conn_place's: the last free slot of the first set is only as good as one
// that is expired, so that a free one of the second goes before it.
func (x *machine) best() int {
	a := x.me
	second, _ := x.set(2)
	switch {
	case !a.hasSlot:
		return nobody
	case a.frees == 1 && a.pos >= second:
		return 1
	}
	return a.seen.rank(x.packet.now)
}

// placeNext goes on with conn_place's loops. They end after a set in which a slot
// was free.
func (x *machine) placeNext() {
	a := x.me
	a.pos++
	first, second := x.set(1)
	ends := a.pos == first || a.pos == second || a.pos == x.slots()
	switch {
	case a.pos < x.slots() && !(ends && x.best() == 0):
		a.pc = placeWord
	case a.hasSlot:
		a.frees = 0
		x.startWrite()
	default:
		x.report(full, 0)
	}
}

// startWrite is the start of conn_write.
func (x *machine) startWrite() {
	x.me.stage, x.me.pc = writing, claim
	if x.is(keyFirst) {
		x.me.stage, x.me.pc = placing, storeKey
	}
}

// skip leaves out the steps that this table or mutant has not.
func (x *machine) skip() {
	if x.me.pc == storeClient && !x.six {
		x.me.pc = storeKey
	}
	if x.me.pc == storeKey && x.is(keyFirst) {
		x.me.pc = publish
	}
}

// elsewhereFrom goes on with conn_elsewhere's loop at a place.
func (x *machine) elsewhereFrom(place uint8) {
	a := x.me
	a.other = 0
	if place == a.place {
		place++
	}
	if place >= x.slots() || x.is(noSecondLook) {
		x.finish(count)
		return
	}
	a.pos, a.pc = place, matchKey
}

// rival decides between this connection and another of its key.
func (x *machine) rival(w word) {
	a := x.me
	switch {
	case w.state() != tentative, a.pos < a.place:
		x.finish(withdraw)
	case x.is(lowerStays):
		x.elsewhereFrom(a.pos + 1)
	default:
		a.other, a.pc = w, kill
	}
}

func (x *machine) finish(at pc) {
	x.me.stage, x.me.pc, x.me.other = finishing, at, 0
	if at == count && x.is(countsLate) {
		x.me.pc = alive
	}
}

// touchSeen is one turn of conn_move_in's loop.
func (x *machine) touchSeen() {
	a := x.me
	w := x.packet.after(a.seen)
	switch {
	case w == a.seen:
		x.report(known, a.seen.server())
	case w.unit() != a.seen.unit() && !x.is(touchCountsLate):
		a.pc = touchCount
	default:
		a.pc = touch
	}
}

// touchAgain goes on from the word that was found, if it is still the connection.
func (x *machine) touchAgain() {
	const tries = 3 // CONN_TRIES, of which there are more
	a := x.me
	found := a.other
	a.turn++
	if a.turn == tries || !found.lives() || found.version() != a.seen.version() {
		x.report(known, a.seen.server())
		return
	}
	a.seen, a.other = found, 0
	x.touchSeen()
}

// sweepFrom goes on with conn_expire_set's loop.
func (x *machine) sweepFrom(slot uint8) {
	a := x.me
	a.stage, a.pos, a.place, a.seen, a.pc = sweeping, slot, 0, 0, sweepWord
	if slot == x.slots() {
		x.report(none, 0)
	}
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
