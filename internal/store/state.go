// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"fmt"

	"lvx/internal/lvs"
)

// State is what a director has to know of the one before it. End forgets Before,
// and nothing else writes it.
type State = lvs.Durable

// stateFile is state.json and recent.json. The one with more applies is valid, with
// as many recent.json: every End writes the first, and a Save after it the second.
// Only the first is synced, so what a Save wrote may be lost when the power fails,
// but never what an End wrote.
type stateFile struct {
	// Applies is how many have ended. The journal of one of them is stale, whether
	// it could be removed or not: so one rename, that of state.json, ends an apply.
	Applies uint64 `json:"applies"`
	// Audit is the chain of the audit log at its last line that was synced.
	Audit string `json:"audit,omitempty"`
	State
}

// journalFile is journal.json.
type journalFile struct {
	Apply  uint64        `json:"apply"` // its number, from 1
	Before *lvs.Revision `json:"before"`
}

// readState reads the state, and returns the audit log's chain as it has it.
func (s *Store) readState() string {
	var state, recent stateFile
	const fix = "apply the file again: lvx apply"
	s.read("state.json", &state, "the generation may count from an older one, and an apply that waited for a confirmation stays", fix)
	if s.read("recent.json", &recent, "the generation may count from an older one", fix) && recent.Applies >= state.Applies {
		state = recent
	}
	s.state, s.applies = state.State, state.Applies
	return state.Audit
}

// readJournal finds out whether an apply was under way.
func (s *Store) readJournal() {
	var journal journalFile
	if !s.read("journal.json", &journal, "an apply may have ended half way", "compare with: lvx plan, and apply the file again") {
		return
	}
	if journal.Apply > s.applies {
		s.before = journal.Before
	} else {
		_ = s.disk.remove(s.path("journal.json")) // stale anyway
	}
}

// State returns the state as it was last written.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Before = s.before
	return state
}

// Begin notes that an apply is under way, and what was before it. When it returns
// the note is durable; with an error there is none, and nothing may be applied.
//
// While one is under way already, be it one of the process before, what was before
// that one stays what to go back to.
func (s *Store) Begin(before lvs.Revision) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		return nil
	}
	text, err := json.Marshal(journalFile{Apply: s.applies + 1, Before: &before})
	if err == nil {
		err = s.disk.replaceDurably(s.path("journal.json"), text)
	}
	if err != nil {
		// The file may be there without being durable. Its number is used up, so the
		// next state that is written makes it stale.
		s.applies++
		_ = s.disk.remove(s.path("journal.json"))
		return fmt.Errorf("note that an apply begins: %w", err)
	}
	s.before = &before
	return nil
}

// End writes the state after an apply and ends it, both at once and durably. With
// an error the apply is still under way, unless only the last step failed, which
// makes it survive a power failure: then the state is as asked.
func (s *Store) End(next State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.audit.sync()
	if err == nil {
		err = s.write("state.json", next, s.applies+1)
	}
	if err != nil {
		return fmt.Errorf("end an apply: %w", err)
	}
	s.applies++
	s.before = nil
	if err := s.disk.sync(s.Dir); err != nil {
		return fmt.Errorf("end an apply: %w", err)
	}
	// Both are stale: staying, they cost nothing but room.
	_ = s.disk.remove(s.path("recent.json"))
	_ = s.disk.remove(s.path("journal.json"))
	return nil
}

// Save writes the state after a small change. It replaces what was there at once,
// but is not synced: a power failure, which takes the tables as well, may lose it.
// An apply that is under way stays so.
func (s *Store) Save(next State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.write("recent.json", next, s.applies); err != nil {
		return fmt.Errorf("save the state: %w", err)
	}
	return nil
}

// write writes one of the two state files; state.json is synced.
func (s *Store) write(name string, next State, applies uint64) error {
	next.Before = nil
	text, err := json.Marshal(stateFile{Applies: applies, Audit: s.audit.head(), State: next})
	if err != nil {
		return err
	}
	if err := s.disk.replace(s.path(name), append(text, '\n'), name == "state.json"); err != nil {
		return err
	}
	s.state = next
	return nil
}
