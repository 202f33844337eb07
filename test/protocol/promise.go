// SPDX-License-Identifier: Apache-2.0

package protocol

// What bpf/table.h promises. The ghosts of a state say what really happened: whose a
// slot is since its claim, and what an actor may or must find.

import "fmt"

// live returns the server of the flow's connection, 0 if it has none. One that is
// moved lives all the time.
func (st *state) live(flow flowID) uint8 {
	for slot, owner := range st.owner {
		switch {
		case owner != uint8(flow):
		case st.cells[slot].lives():
			return st.cells[slot].server()
		case st.carried[slot] != 0:
			return st.carried[slot].server()
		}
	}
	return 0
}

// checkWord checks one change of a word.
func (x *machine) checkWord(slot uint8, old, is word) {
	if old.state() == moving && !x.packet.kind.moves() {
		x.fail("takes a slot away to which a connection is moved")
	}
	if old.lives() && is.lives() {
		if old.version() != is.version() || old.server() != is.server() {
			x.fail("moves a connection from server %d to %d", old.server(), is.server())
		}
		return
	}
	switch {
	case old.lives() && x.at == carry:
		x.checkCarried(slot, old)
	case old.lives():
		x.checkEnded(slot, old, is)
	}
	if is.state() == busy {
		x.owner[slot] = uint8(x.flow())
	}
	if is.lives() {
		x.checkNew(slot, is)
	}
	if is.lives() && x.packet.kind.moves() {
		x.checkMoved(slot, is)
	}
}

// checkCarried: who moves a connection knows whose it is.
func (x *machine) checkCarried(slot uint8, old word) {
	to := x.own()
	if x.owner[slot] != x.owner[to] {
		x.fail("moves the connection of %s as that of %s", flows[x.owner[slot]].name, flows[x.owner[to]].name)
	}
	x.carried[to] = old
}

// checkMoved: a connection arrives as it left.
func (x *machine) checkMoved(slot uint8, is word) {
	old := x.carried[slot]
	x.carried[slot] = 0
	if old == 0 {
		x.fail("moves a connection that is still there, or over")
	}
	if old.state() != is.state() || old.expires() != is.expires() || old.server() != is.server() {
		x.fail("changes a connection that it moves: was %v, is %v", old.state(), is.state())
	}
}

// checkEnded: a maker replaces nothing that is established, save its own; nor does
// who moves.
func (x *machine) checkEnded(slot uint8, old, is word) {
	p := x.packet
	owner := x.owner[slot]
	if p.opens() && is.state() != busy {
		x.fail("takes a live connection away")
	}
	if (p.opens() && owner != uint8(p.flow) || p.kind.moves()) && old.rank(p.now) >= rankKept {
		x.fail("replaces %v of another key", old.state())
	}
	for i := range x.packets {
		if p := x.packets[i]; p.kind.looks() && uint8(p.flow) == owner {
			x.actors[i].expect, x.actors[i].holds = 0, false
		}
	}
}

// checkNew: never two of one key.
func (x *machine) checkNew(slot uint8, is word) {
	owner := x.owner[slot]
	for other := range x.slots() {
		if other != slot && x.owner[other] == owner && (x.cells[other].lives() || x.carried[other] != 0) {
			x.fail("two live connections of %s, in slots %d and %d", flows[owner].name, slot, other)
		}
	}
	for i := range x.packets {
		a, p := &x.actors[i], x.packets[i]
		if p.kind.looks() && uint8(p.flow) == owner && a.pc != arrive && a.pc != done {
			a.had |= 1 << is.server()
		}
	}
}

// checkFound: a packet goes to a server that its connection had while it looked,
// and to no other than the one that it had all the time.
func (x *machine) checkFound(server uint8) {
	name := flows[x.packet.flow].name
	if x.me.had&(1<<server) == 0 {
		x.fail("goes to server %d, which %s never had", server, name)
	}
	if expect := x.me.expect; expect != 0 && expect != server {
		x.fail("goes to server %d, but %s is on %d", server, name, expect)
	}
}

// checkEnd checks a state in which everybody is done.
func (s *scenario) checkEnd(st *state) string {
	var want [maxServers][2]int8
	for slot := range s.slots() {
		w := st.cells[slot]
		switch {
		case w.state() == free:
			continue
		case !w.lives():
			return fmt.Sprintf("slot %d stays %v", slot, w.state())
		}
		want[w.server()][w.unit()]++
		if found, ok := s.find(st, flowID(st.owner[slot])); !ok || found != slot {
			return fmt.Sprintf("nobody finds slot %d of %s", slot, flows[st.owner[slot]].name)
		}
	}
	if st.counts != want {
		return fmt.Sprintf("counts are %v, connections %v", st.counts, want)
	}
	for i := range s.packets {
		if st.actors[i].pc != done {
			return s.packets[i].name + " is stuck"
		}
	}
	return ""
}

// find is a look by somebody whom nobody disturbs.
func (s *scenario) find(st *state, f flowID) (slot uint8, ok bool) {
	for place := range s.places() {
		if place < s.sets[0] && st.cells[insideCell] == insideNobody {
			continue
		}
		slot := place
		if order := s.order[f]; order != nil {
			slot = order[place]
		}
		key, w := st.cells[s.keyCell(slot)], st.cells[slot]
		if key.client() != flows[f].client || key.version() != w.version() || !w.lives() || serves[w.server()] != flows[f].service {
			continue
		}
		if s.six && st.cells[s.clientCell(slot)] != word(flows[f].address) {
			continue
		}
		return slot, true
	}
	return 0, false
}

func (st *state) anyContended() bool {
	for i := range st.actors {
		if st.actors[i].outcome == contended {
			return true
		}
	}
	return false
}
