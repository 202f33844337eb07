// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"lvx/internal/lvs"
)

// keptRevisions is how many configurations there are to go back to.
const keptRevisions = 10

// Keep keeps a configuration under the next number, which it returns, durably. Of
// those kept before the oldest goes, when there are more than ten, but never the
// one that is applied, the one that is gone back to if nobody confirms, nor one
// that is needed.
func (s *Store) Keep(r lvs.Revision, needed ...uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Number = s.number + 1
	text, err := json.Marshal(r)
	if err == nil {
		err = s.disk.replaceDurably(s.path(revisionName(r.Number)), text)
	}
	if err != nil {
		_ = os.Remove(s.path(revisionName(r.Number))) // it may be there, but not durably
		return 0, fmt.Errorf("keep revision %d: %w", r.Number, err)
	}
	s.number = r.Number
	s.forget(needed)
	return r.Number, nil
}

// forget removes the revisions that are too many. One that cannot be removed is
// tried again with the next.
func (s *Store) forget(needed []uint64) {
	numbers, _ := s.numbers()
	needed = append(slices.Clone(needed), s.state.Revision)
	if s.state.Unconfirmed != nil {
		needed = append(needed, s.state.Unconfirmed.Back)
	}
	for _, number := range numbers[:max(0, len(numbers)-keptRevisions)] {
		if !slices.Contains(needed, number) {
			_ = s.disk.remove(s.path(revisionName(number)))
		}
	}
}

// Drop takes back a Keep whose apply did not end. It is no error if there is no
// such revision.
func (s *Store) Drop(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.disk.remove(s.path(revisionName(number))); err != nil {
		return fmt.Errorf("drop revision %d: %w", number, err)
	}
	return nil
}

// Revisions returns the configurations that are kept, oldest first. One that is
// damaged is left out, see Notes.
func (s *Store) Revisions() ([]lvs.Revision, error) {
	numbers, err := s.numbers()
	if err != nil {
		return nil, fmt.Errorf("read the revisions: %w", err)
	}
	revisions := make([]lvs.Revision, 0, len(numbers))
	for _, number := range numbers {
		if r, err := s.Revision(number); err == nil { // else it was forgotten meanwhile, or is damaged
			revisions = append(revisions, r)
		}
	}
	return revisions, nil
}

// Revision returns the configuration with this number.
//
// Returns lvs.ErrNoRevision if there is none.
func (s *Store) Revision(number uint64) (lvs.Revision, error) {
	name := revisionName(number)
	text, err := os.ReadFile(s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return lvs.Revision{}, fmt.Errorf("revision %d: %w", number, lvs.ErrNoRevision)
	}
	if err != nil && !errors.Is(err, syscall.EISDIR) {
		return lvs.Revision{}, fmt.Errorf("read revision %d: %w", number, err) // the file may be sound
	}
	var r lvs.Revision
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Number != number {
		err = fmt.Errorf("it says that it is revision %d", r.Number)
	}
	if err != nil {
		s.moveAside(name, err, "it cannot be gone back to", "go back to another one: lvx history lists them")
		return lvs.Revision{}, fmt.Errorf("revision %d is damaged: %w", number, lvs.ErrNoRevision)
	}
	return r, nil
}

func revisionName(number uint64) string {
	return filepath.Join("revisions", strconv.FormatUint(number, 10)+".json")
}

// numbers returns the numbers of the revisions that are kept, smallest first.
func (s *Store) numbers() (numbers []uint64, err error) {
	entries, err := os.ReadDir(s.path("revisions"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name, isRevision := strings.CutSuffix(e.Name(), ".json")
		if number, err := strconv.ParseUint(name, 10, 64); err == nil && isRevision {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// Newest returns the number of the newest revision there was, or 0. It reads nothing.
func (s *Store) Newest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

// readNumber finds the greatest number that a revision has or had, as far as the
// directory shows.
func (s *Store) readNumber() {
	numbers, err := s.numbers()
	if err != nil {
		s.note("revisions", fmt.Sprintf("cannot be read: %v", cause(err)), "let lvx read and write there: no configuration can be gone back to meanwhile")
	}
	numbers = append(numbers, s.state.Revision)
	for _, number := range numbers {
		s.number = max(s.number, number)
	}
}
