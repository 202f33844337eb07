// SPDX-License-Identifier: Apache-2.0

package protocol

// Making a connection: conn_place, conn_claim, conn_write, conn_elsewhere.

// unfinished is the word of a slot that its maker, or mover, has written.
func (x *machine) unfinished() word {
	if a := x.me; x.packet.kind.moves() {
		return pack(0, a.was.server(), moving, x.nextVersion())
	}
	return pack(0, x.packet.server, tentative, x.nextVersion())
}

func (x *machine) nextVersion() uint8 {
	if x.is(versionStays) {
		return x.me.seen.version()
	}
	return x.me.seen.version() + 1
}

// fresh is the word of a new connection.
func (x *machine) fresh() word {
	return x.packet.after(pack(0, x.packet.server, free, x.nextVersion()))
}

// placeFrom goes on with a part of conn_place.
func (x *machine) placeFrom(part uint8) {
	a := x.me
	from, to := x.set(placeSet[part])
	a.stage, a.turn, a.pos, a.pc = placing, part, from, placeWord
	if part == placeSpares {
		a.pc = spareWord
	}
	if from == to {
		x.placedPart()
	}
}

// best is conn_place's: the last free slot of the first set is only as good as one
// that is expired, so that a free one of the second goes before it.
func (x *machine) best() int {
	a := x.me
	second, _ := x.set(2)
	switch {
	case !a.hasSlot:
		return rankKept
	case x.sets[0] == 0 && a.turn == placeSecond && a.place < second && a.seen.state() == free:
		return rankOver
	}
	return a.seen.rank(x.packet.now)
}

// placedPart goes on with conn_place after all slots of a set, or with conn_settle_slot.
func (x *machine) placedPart() {
	a := x.me
	noFront := x.sets[0] == 0
	isFree := class(x.best()>>classShift) == spare
	next := parts
	switch a.turn {
	case placeFront:
		if !isFree {
			next = placeFirst
		}
	case placeFirst:
		if !isFree {
			next = placeSecond
		} else if noFront {
			next = placeSpares
		}
	case placeSpares:
		if a.frees < 2 {
			next = placeSecond
		}
	case placeSecond:
		if !noFront && a.fill != fillFront && !isFree && !(a.fill == fillReplace && a.hasSlot) {
			next = placeLast
		}
	}
	switch {
	case x.packet.kind.moves() && next != placeSecond:
		x.settleIn()
	case next != parts:
		x.placeFrom(next)
	case a.hasSlot:
		a.frees, a.fill = 0, 0
		x.startWrite()
	default:
		x.report(full, 0)
	}
}

// startWrite is the start of conn_claim.
func (x *machine) startWrite() {
	a := x.me
	a.stage, a.turn, a.pos, a.pc = writing, 0, 0, claim
	if x.is(keyFirst) {
		a.stage, a.turn, a.pc = placing, parts, storeKey
	}
}

// skip leaves out the steps that this table or mutant has not.
func (x *machine) skip() {
	a := x.me
	if a.pc == storeClient && x.is(endsFirst) && x.packet.kind.moves() && a.stage == writing {
		a.stage, a.pc = carrying, countMoved
	}
	if a.pc == storeClient && !x.six {
		a.pc = storeKey
	}
	if a.pc == storeKey && x.is(keyFirst) {
		a.pc = publish
	}
}

// stepClaim makes a step of conn_place or conn_claim.
func (x *machine) stepClaim() {
	a := x.me
	own, version := x.own(), x.nextVersion()

	switch a.pc {
	case placeWord: // conn_best: word = *(volatile __u64 *)&conn_slot(set, way)->word
		w := x.load(x.slot(a.pos))
		if w.rank(x.packet.now) < x.best() {
			a.hasSlot, a.seen, a.place = true, w, a.pos
		}
		x.placeNext()
	case spareWord: // conn_spares: *(volatile __u64 *)&conn_slot(set, way)->word
		if x.load(x.slot(a.pos)).state() == free {
			a.frees++
		}
		x.placeNext()
	case claim: // CAS f->seen → busy
		taken := pack(0, 0, busy, version)
		if x.is(plainEviction) && a.seen.lives() {
			x.store(own, taken)
		} else if _, ok := x.cas(own, a.seen, taken); !ok {
			x.lostClaim()
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
		x.store(x.clientCell(own), word(x.address()))
		a.pc = storeKey
		x.skip()
	case storeKey: // *(volatile __u64 *)&slot->key = …
		x.store(x.keyCell(own), packKey(x.client(), version))
		a.pc = publish
		switch {
		case x.is(keyFirst):
			a.stage, a.pc = writing, claim
		case x.is(insideEarly):
			a.inside = x.load(insideCell) != insideNobody
		}
	case publish: // __sync_lock_test_and_set(&slot->word, word)
		if x.is(plainPublication) {
			x.store(own, x.unfinished())
		} else {
			x.swap(own, x.unfinished())
		}
		x.published()
	}
}

func (x *machine) placeNext() {
	a := x.me
	a.pos++
	if _, to := x.set(placeSet[a.turn]); a.pos == to {
		x.placedPart()
	}
}

func (x *machine) lostClaim() {
	if x.packet.kind.moves() {
		x.leave()
		return
	}
	x.tryAgain()
}

func (x *machine) published() {
	if x.packet.kind.moves() {
		x.startCarry()
		return
	}
	a := x.me
	a.stage, a.turn, a.pos = elsewhere, 0, 0
	switch {
	case x.sets[0] == 0 || x.is(noSecondLook):
		x.elsewhereFrom(0)
	case x.inFront() && !x.is(neverEnters) && !x.is(entersLate):
		a.pc = enter
	case x.is(insideEarly):
		x.lookElsewhere(a.inside)
	default:
		a.pc = insideLast
	}
}

// inFront says whether its own slot is in the front.
func (x *machine) inFront() bool { return x.me.place < x.sets[0] }

// stepWrite makes a step of conn_write, which calls conn_elsewhere.
func (x *machine) stepWrite() {
	a := x.me
	own, unfinished, fresh := x.own(), x.unfinished(), x.fresh()

	switch a.pc {
	case enter: // conn_enter: *(volatile __u64 *)&crowd->inside
		a.pc = enterSwap
		if x.load(insideCell) == insideSomebody {
			x.entered()
		}
	case enterSwap: // __sync_lock_test_and_set(&crowd->inside, INSIDE_SOMEBODY)
		x.swap(insideCell, insideSomebody)
		x.entered()
	case insideLast: // conn_inside: *(volatile __u64 *)&crowd->inside
		x.lookElsewhere(x.load(insideCell) != insideNobody)
	case withdraw: // CAS tentative → conn_free(tentative)
		if !x.is(neverWithdraws) {
			x.cas(own, unfinished, unfinished.freed())
		}
		x.tryAgain()
	case count: // conn_count(f->server_id, conn_unit(f->state))
		x.add(fresh, +1)
		a.pc = alive
		if x.is(countsLate) {
			x.report(made, x.packet.server)
		}
	case alive: // CAS tentative → word
		_, ok := x.cas(own, unfinished, fresh)
		switch {
		case ok && x.is(countsLate):
			a.stage, a.pc = touching, count
		case ok:
			x.report(made, x.packet.server)
		case x.is(countsLate):
			x.tryAgain()
		default:
			a.pc = discount
		}
	case discount: // conn_count(f->server_id, -conn_unit(f->state))
		x.add(fresh, -1)
		x.tryAgain()
	}
}

func (x *machine) entered() {
	if x.is(entersLate) {
		x.finish(count)
		return
	}
	x.me.pc = insideLast
}

func (x *machine) lookElsewhere(inside bool) {
	first, _ := x.set(1)
	x.me.turn, x.me.inside = 1, false
	if !inside || (x.is(frontNotRivaled) && !x.inFront()) {
		x.elsewhereFrom(first)
		return
	}
	x.elsewhereFrom(0)
}

// elsewhereFrom goes on with conn_elsewhere's loop at a place.
func (x *machine) elsewhereFrom(place uint8) {
	a := x.me
	a.other = 0
	if place == a.place {
		place++
	}
	switch {
	case place < x.places() && !x.is(noSecondLook):
		a.pos, a.pc = place, matchKey
	case x.is(entersLate) && x.inFront():
		a.turn, a.pos, a.pc = 2, 0, enter
	default:
		x.finish(count)
	}
}

// rival decides between this connection and another of its key.
func (x *machine) rival(w word) {
	a := x.me
	rivals := w.state() == tentative || w.state() == moving && x.is(movingRivaled)
	switch {
	case !rivals, a.pos < a.place:
		x.finish(withdraw)
	case x.is(lowerStays):
		x.elsewhereFrom(a.pos + 1)
	default:
		a.other, a.pc = w, kill
	}
}

func (x *machine) kill() {
	a := x.me
	if _, ok := x.cas(x.slot(a.pos), a.other, a.other.freed()); !ok {
		x.finish(withdraw)
		return
	}
	if x.is(killerCounts) {
		x.add(pack(0, a.other.server(), synRecv, 0), -1)
	}
	x.elsewhereFrom(a.pos + 1)
}

func (x *machine) finish(at pc) {
	a := x.me
	a.stage, a.turn, a.pos, a.pc, a.other = finishing, 0, 0, at, 0
	if at == count && x.is(countsLate) {
		a.pc = alive
	}
}
