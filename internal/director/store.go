// SPDX-License-Identifier: Apache-2.0

package director

import (
	"slices"
	"sync"

	"lvx/internal/lvs"
)

// Store is what outlives the process. Package store is the real one: the state
// directory.
type Store interface {
	Journal
	Archive
	// Notes tell what was wrong with what a process before has left.
	Notes() []lvs.Warning
	// Record adds a line to the audit log; History returns the last lines, all for
	// 0, the oldest first.
	Record(lvs.HistoryEntry) error
	History(limit int) ([]lvs.HistoryEntry, error)
}

// Journal knows whether a change was ended.
type Journal interface {
	State() State
	// Begin notes, durably, that the tables are about to change, and what they were.
	Begin(before lvs.Revision) error
	// End notes, durably and in one moment, that they have changed.
	End(State) error
	// Save notes a change that was one write.
	Save(State) error
}

// Archive keeps the last revisions.
type Archive interface {
	// Keep gives the revision the next number and returns it.
	// Those needed stay, however old.
	Keep(r lvs.Revision, needed ...uint64) (uint64, error)
	// Newest returns the number of the newest revision there was, or 0.
	Newest() uint64
	// Drop takes back a Keep.
	Drop(number uint64) error
	// Good notes a configuration that was applied, and confirmed if it had to be.
	Good(lvs.Configuration) error
	// Revisions returns what is kept, the oldest first.
	Revisions() ([]lvs.Revision, error)
	// Revision returns lvs.ErrNoRevision if it is not kept.
	Revision(number uint64) (lvs.Revision, error)
}

// State is what has to be known after a restart.
type State = lvs.Durable

// memoryStore keeps everything as long as the process lives.
type memoryStore struct {
	mu        sync.Mutex
	state     State
	revisions []lvs.Revision
	history   []lvs.HistoryEntry
	number    uint64
}

// keptRevisions is how many revisions are kept in memory.
const keptRevisions = 10

func (m *memoryStore) State() State { return m.state }

func (m *memoryStore) Begin(lvs.Revision) error { return nil }

func (m *memoryStore) End(s State) error { return m.Save(s) }

func (m *memoryStore) Save(s State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	return nil
}

func (m *memoryStore) Keep(r lvs.Revision, needed ...uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.number++
	r.Number = m.number
	m.revisions = append(m.revisions, r)
	old := max(0, len(m.revisions)-keptRevisions)
	needed = append(slices.Clone(needed), m.state.Revision)
	m.revisions = slices.Concat(slices.DeleteFunc(slices.Clone(m.revisions[:old]), func(r lvs.Revision) bool {
		return !slices.Contains(needed, r.Number)
	}), m.revisions[old:])
	return r.Number, nil
}

func (m *memoryStore) Newest() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.number
}

func (m *memoryStore) Drop(number uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revisions = slices.DeleteFunc(m.revisions, func(r lvs.Revision) bool { return r.Number == number })
	return nil
}

func (m *memoryStore) Good(lvs.Configuration) error { return nil }

func (m *memoryStore) Revisions() ([]lvs.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.revisions), nil
}

func (m *memoryStore) Revision(number uint64) (lvs.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.revisions {
		if r.Number == number {
			return r, nil
		}
	}
	return lvs.Revision{}, lvs.ErrNoRevision
}

func (m *memoryStore) Notes() []lvs.Warning { return nil }

func (m *memoryStore) Record(e lvs.HistoryEntry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history = append(m.history, e)
	m.history = m.history[max(0, len(m.history)-1000):]
	return nil
}

func (m *memoryStore) History(limit int) ([]lvs.HistoryEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if limit == 0 {
		limit = len(m.history)
	}
	return slices.Clone(m.history[max(0, len(m.history)-limit):]), nil
}
