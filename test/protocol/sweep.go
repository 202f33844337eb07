// SPDX-License-Identifier: Apache-2.0

package protocol

// Sweeping: conn_expire_set, conn_end, conn_leave, conn_settle, conn_carry, and what
// the daemon does before and after (askFronts and gather in internal/dataplane).

// swaps is CONN_TRIES.
const swaps = 8

// same is conn_same.
func (w word) same(seen word) bool { return w.lives() && w.version() == seen.version() }

// sweepFrom goes on with conn_expire_set's loop. Of a pass only the front matters.
func (x *machine) sweepFrom(slot uint8) {
	a := x.me
	asks := x.packet.kind.asks()
	if asks {
		slot = x.nextInFront(slot)
	}
	a.stage, a.pos, a.place, a.seen, a.pc = sweeping, slot, 0, 0, sweepWord
	switch {
	case slot < x.slots():
	case asks:
		x.leaveFrom(0)
	default:
		x.report(none, 0)
	}
}

// nextInFront is the next slot of the front, from this one on.
func (x *machine) nextInFront(slot uint8) uint8 {
	if slot >= x.sets[0] {
		slot = max(slot, x.places())
	}
	return slot
}

// stepSweep makes a step of conn_expire_slot, or of conn_end for others too.
func (x *machine) stepSweep() {
	a, p := x.me, x.packet

	switch a.pc {
	case sweepWord: // conn_expire_slot: .seen = *(volatile __u64 *)&slot->word
		a.seen = x.load(a.pos)
		if a.seen.lives() && (p.kind == flush || a.seen.expired(p.now)) {
			a.place, a.pc = a.pos, end
			return
		}
		x.sweepFrom(a.pos + 1)
	case end: // conn_end: CAS seen → conn_free(seen)
		slot := x.own()
		if a.stage == carrying {
			slot = x.frontSlot()
		}
		_, ok := x.cas(slot, a.seen, a.seen.freed())
		switch {
		case ok:
			a.pc = endUncount
		case p.kind == remove:
			x.tryAgain()
		default:
			x.swept()
		}
	case endUncount: // conn_uncount(seen)
		x.add(a.seen, -1)
		if p.kind == remove {
			x.report(known, a.seen.server())
			return
		}
		x.swept()
	}
}

// swept goes to the next slot.
func (x *machine) swept() {
	if x.me.stage == carrying {
		x.leave()
		return
	}
	x.sweepFrom(x.me.pos + 1)
}

// leaveFrom goes on with conn_leave's loop.
func (x *machine) leaveFrom(slot uint8) {
	a := x.me
	slot = x.nextInFront(slot)
	*a = actor{stage: sweeping, pc: settleWord, try: a.try + 1, from: slot, inside: a.inside, moved: a.moved,
		buffered: a.buffered, buffer: a.buffer}
	switch {
	case slot < x.slots() && !x.packet.kind.moves():
		x.leave()
	case slot < x.slots():
	case x.packet.kind.asks() && !a.inside:
		a.from, a.pos, a.stage, a.pc = 0, 0, leaving, nobodyLeft
	default:
		x.report(none, 0)
	}
}

// client and address are what of the flow stands in the table.
func (x *machine) client() uint8 {
	if x.packet.kind.looks() {
		return flows[x.packet.flow].client
	}
	return x.me.key.client()
}

func (x *machine) address() uint8 {
	if x.packet.kind.looks() {
		return flows[x.packet.flow].address
	}
	return x.me.address
}

// frontSlot is the slot out of which a connection is moved.
func (x *machine) frontSlot() uint8 {
	way := x.me.from
	if !x.is(goesByHash) {
		return way
	}
	if way >= x.places() {
		way -= x.places()
	}
	return x.slot(way)
}

// stepSettle makes a step of conn_settle_slot, which calls conn_flow and conn_carry.
func (x *machine) stepSettle() {
	a := x.me

	switch a.pc {
	case settleWord: // conn_leave, conn_settle_slot: *(volatile __u64 *)&slot->word
		a.was = x.load(a.from)
		a.pc = flowKey
		if !a.was.lives() || a.was.expired(x.packet.now) {
			x.leave()
		}
	case flowKey: // conn_flow: key = *(volatile __u64 *)&slot->key
		a.key = x.load(x.keyCell(a.from))
		switch {
		case a.key.version() != a.was.version():
			x.leave()
		case x.six:
			a.pc = flowClient
		default:
			x.flowRead()
		}
	case flowClient: // f->key.client = conn_client(slot)
		a.address = uint8(x.load(x.clientCell(a.from)))
		x.flowRead()
	case countMoved: // __sync_fetch_and_add(&crowd->moved, 1)
		x.increment(movedCell)
		a.pc = carry
		if x.is(movedLate) {
			a.pc = settled
		}
	case carry: // CAS seen → conn_free(seen)
		found, ok := x.cas(x.frontSlot(), a.was, a.was.freed())
		x.swappedAway(found, ok)
	case settled: // __sync_lock_test_and_set(&to->word, …)
		x.swap(x.own(), pack(a.was.expires(), a.was.server(), a.was.state(), x.nextVersion()))
		x.leave()
	case giveBack: // __sync_lock_test_and_set(&to->word, conn_free(moving))
		if !x.is(neverGivesBack) {
			x.swap(x.own(), x.unfinished().freed())
		}
		x.leave()
	}
}

// flowRead goes on with conn_settle_slot when conn_flow knows whose the connection is.
func (x *machine) flowRead() {
	a := x.me
	a.flow = strange
	for i, f := range flows[:strange] {
		if f.client == a.key.client() && (!x.six || f.address == a.address) && f.service == serves[a.was.server()] {
			a.flow = flowID(i)
			break
		}
	}
	a.seen = 0
	x.placeFrom(placeFirst)
}

// settleIn is conn_settle_slot after conn_best.
func (x *machine) settleIn() {
	a := x.me
	best := x.best()
	switch {
	case !a.hasSlot:
		x.leave()
	case class(best>>classShift) > over && a.was.rank(x.packet.now) < best:
		a.stage, a.turn, a.pos, a.pc, a.seen = carrying, 0, 0, end, a.was
	default:
		x.startWrite()
	}
}

// startCarry is conn_carry after conn_claim.
func (x *machine) startCarry() {
	a := x.me
	switch {
	case x.is(endsFirst):
		a.pc = settled
		return
	case x.is(movedLate):
		a.pc = carry
	default:
		a.pc = countMoved
	}
	a.stage, a.turn, a.pos = carrying, 0, 0
}

// swappedAway goes on after one swap of conn_carry.
func (x *machine) swappedAway(found word, ok bool) {
	a := x.me
	a.turn++
	switch {
	case ok && x.is(endsFirst):
		a.turn, a.pc = swaps+1, storeClient
		x.skip()
	case ok && x.is(movedLate):
		a.turn, a.pc = swaps+1, countMoved
	case ok, x.is(carriesAnyway):
		a.pc = settled
	case found.same(a.was) && a.turn < swaps:
		a.was = found
	default:
		a.pc = giveBack
	}
}

// leave goes on when conn_settle is through with a slot.
func (x *machine) leave() {
	a := x.me
	if x.packet.kind.asks() && !a.inside {
		a.stage, a.turn, a.pos, a.pc = leaving, 0, 0, leftWord
		return
	}
	x.leaveFrom(a.from + 1)
}

// question is the number of a pass.
func (x *machine) question() word { return insideAsked + 1 + word(x.actor) }

// stepPass makes a step of what only a pass does.
func (x *machine) stepPass() {
	a := x.me

	switch a.pc {
	case ask: // askFronts: was := atomic.LoadUint64(inside)
		a.moved = x.load(insideCell)
		switch {
		case a.moved == insideNobody:
			x.asked(x.question())
		case x.is(neverAsks):
			x.asked(a.moved)
		default:
			a.pc = askSwap
		}
	case askSwap: // CompareAndSwapUint64(inside, was, question)
		if _, ok := x.cas(insideCell, a.moved, x.question()); !ok {
			a.try, a.pc = a.try+1, ask
			return
		}
		x.asked(x.question())
	case leftWord: // conn_leave: *(volatile __u64 *)&slot->word
		a.inside = x.load(a.from).state() != free
		x.leaveFrom(a.from + 1)
	case nobodyLeft: // gather: CompareAndSwapUint64(inside, question, INSIDE_NOBODY)
		if x.is(gathersBlindly) {
			x.store(insideCell, insideNobody)
		} else {
			x.cas(insideCell, a.moved, insideNobody)
		}
		x.report(none, 0)
	}
}

// asked goes on when the front's question is known.
func (x *machine) asked(question word) {
	x.me.moved = question
	x.me.try++
	x.sweepFrom(0)
}
