// SPDX-License-Identifier: Apache-2.0

package protocol

// Looking for a connection, and going on with the one that was found: conn_find,
// conn_match, conn_judge, conn_touch.

// stepFind makes a step of conn_find, or one of conn_match for conn_elsewhere.
func (x *machine) stepFind() {
	a := x.me
	wordCell := x.slot(a.pos)

	switch a.pc {
	case movedFirst: // conn_moved: *(volatile __u64 *)&crowd->moved
		a.moved = x.load(movedCell)
		a.pc = insideFirst
	case insideFirst: // conn_inside: *(volatile __u64 *)&crowd->inside
		a.inside = x.load(insideCell) != insideNobody
		a.pc = hint
		if !a.inside { // then the hint is all the same
			x.lookFrom(firstKeys, 0)
		}
	case hint: // conn_fill: *(volatile __u64 *)&crowd->fill: anything at any time
		x.hinted()
	case wayKey: // conn_ways: key = *(volatile __u64 *)&conn_slot(set, way)->key
		if key := x.load(x.keyCell(wordCell)); key.client() == flows[x.flow()].client {
			a.ways |= 1 << a.pos
		}
		x.lookFrom(a.turn, a.pos+1)
	case matchKey: // conn_match: key = *(volatile __u64 *)&slot->key
		a.key = x.load(x.keyCell(wordCell))
		if x.is(wordFirst) {
			a.other = x.load(wordCell)
		}
		switch {
		case a.key.client() != flows[x.flow()].client:
			x.matched(0)
		case x.six:
			a.pc = matchClient
		default:
			a.pc = matchWord
		}
	case matchClient: // conn_client_equal
		if x.load(x.clientCell(wordCell)) != word(flows[x.flow()].address) {
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
	case kill: // conn_elsewhere: CAS word → conn_free(word)
		x.kill()
	case movedLast: // conn_moved: *(volatile __u64 *)&crowd->moved
		if x.load(movedCell) != a.moved {
			x.tryAgain()
			return
		}
		x.unknown()
	}
}

// look is the start of conn_find.
func (x *machine) look() {
	a := x.me
	a.stage, a.turn, a.pos = looking, 0, 0
	a.ways, a.frees, a.place, a.hasSlot, a.holds = 0, 0, 0, false, false
	a.key, a.seen, a.other = 0, 0, 0
	if x.stales[x.actor] == [maxCells]uint8{} {
		a.expect = x.live(x.packet.flow)
	}
	if x.sets[0] > 0 {
		a.pc = movedFirst
		return
	}
	x.lookFrom(firstKeys, 0)
}

// hinted goes on with what the hint said. conn_look only asks if the front is first.
func (x *machine) hinted() {
	a := x.me
	a.fill = x.choice
	if a.stage == looking {
		x.choices = fillSets + 1
	} else {
		x.choices = fills
	}
	if x.log != nil {
		x.log("fill is %d", a.fill)
	}
	switch {
	case a.stage == placing && a.fill == fillFront:
		x.placeFrom(placeFront)
	case a.stage == placing:
		x.placeFrom(placeFirst)
	default:
		x.lookFrom(frontKeys, 0)
	}
}

// skips says whether conn_look leaves a part out.
func (x *machine) skips(part uint8) bool {
	a := x.me
	switch part {
	case frontKeys, frontTry:
		return !a.inside || a.fill != fillFront
	case lastKeys, lastTry:
		return !a.inside || a.fill == fillFront || x.is(frontLeftOut)
	}
	return false
}

// lookFrom goes on with conn_look at a place, or where else there is something
// to read in this part or a later one.
func (x *machine) lookFrom(part, place uint8) {
	a := x.me
	for ; part < nowhere; part, place = part+1, 0 {
		if x.skips(part) {
			continue
		}
		from, to := x.set(setOf[part])
		for place = max(place, from); place < to; place++ {
			switch part {
			case frontKeys, firstKeys, secondKeys, lastKeys:
				a.pc = wayKey
			default:
				if a.ways&(1<<place) == 0 {
					continue
				}
				a.pc = matchKey
			}
			a.turn, a.pos = part, place
			return
		}
	}
	if x.sets[0] == 0 || x.is(movedIgnored) {
		x.unknown()
		return
	}
	a.turn, a.pos, a.ways, a.inside, a.fill, a.pc = nowhere, 0, 0, false, 0, movedLast
}

// compare is the end of conn_match.
func (x *machine) compare(w word) {
	switch {
	case w.state() == free, w.state() == busy:
		w = 0
	case x.me.key.version() != w.version() && !x.is(versionsIgnored):
		w = pack(0, 0, tentative, 0)
	case serves[w.server()] != flows[x.flow()].service:
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
		a.ways &^= 1 << a.pos
		x.lookFrom(a.turn, a.pos+1)
	}
}

// judge is conn_judge.
func (x *machine) judge() {
	a, p := x.me, x.packet
	a.turn, a.ways, a.inside, a.fill, a.moved = 0, 0, false, 0, 0
	switch {
	case !a.seen.lives() && !(x.is(movingUsed) && a.seen.state() == moving):
		x.tryAgain()
	case p.kind == remove:
		a.stage, a.pc = touching, end
	case a.seen.expired(p.now), p.kind == syn && a.seen.ended():
		x.unknown()
	default:
		x.checkFound(a.seen.server())
		a.stage, a.holds = touching, x.cells[x.own()] == a.seen
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
	a.stage, a.turn, a.pos, a.ways, a.inside, a.fill, a.moved = placing, 0, 0, 0, false, 0, 0
	switch {
	case a.hasSlot:
		x.startWrite()
	case x.sets[0] > 0:
		a.pc = hint
	default:
		x.placeFrom(placeFirst)
	}
}

// stepTouch makes a step of conn_move, which calls conn_swap.
func (x *machine) stepTouch() {
	a, p := x.me, x.packet

	switch a.pc {
	case touchCount: // the new unit is counted before it can be seen
		x.add(p.after(a.seen), +1)
		a.pc = touch
	case touch: // CAS seen → word
		w := p.after(a.seen)
		found, ok := x.cas(x.own(), a.seen, w)
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
	}
}

// touchSeen is one turn of conn_move's loop.
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
// What the packet has to say about it is not lost, unless it is over.
func (x *machine) touchAgain() {
	a := x.me
	found := a.other
	a.turn++
	same := found.same(a.seen)
	switch {
	case a.turn < swaps && same:
		a.seen, a.other = found, 0
		x.touchSeen()
	case same, x.is(touchSilent):
		if a.holds {
			x.fail("is lost on a connection that is not over")
		}
		x.report(known, a.seen.server())
	default:
		x.tryAgain()
	}
}
