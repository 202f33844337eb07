// SPDX-License-Identifier: Apache-2.0

// Package store is the state directory of one instance: what has to outlive the
// process. It holds the generation of the tables, an apply that waits to be
// confirmed, what to go back to if the process ends in the middle of an apply,
// the last ten configurations, the last good one as a file, and the audit log.
//
// It is not for the tables themselves, which are pinned and outlive the process
// on their own, and it decides nothing: what a configuration means, and when to go
// back to one, is the director's.
//
//	state.json          State as the last End left it
//	recent.json         State as a Save left it since
//	journal.json        an apply is under way: what was before it
//	revisions/N.json    configurations to go back to
//	last-good.yaml      the last configuration that was good, for people and for the next start
//	audit.jsonl         one line for every change that was asked for; audit.1.jsonl the older ones
//	NAME.damaged        what could not be read
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"lvx/internal/lvs"
)

// Options are what a Store is made of.
type Options struct {
	// Dir is the state directory. What is missing of it is made, 0750.
	Dir string
	// Encode writes a configuration as the operator's file. If it is nil there is
	// no last-good.yaml.
	Encode func(lvs.Configuration) ([]byte, error)
}

// Store is an open state directory. Its methods may be called at the same time,
// by the one process that has the instance.
type Store struct {
	Options
	disk disk

	mu      sync.Mutex // guards what follows, and orders the writes of state, journal and revisions
	state   State      // as last written, without Before
	before  *lvs.Revision
	applies uint64 // how many have ended; the journal of the next one has the number after it
	number  uint64 // of the newest revision there was

	audit audit

	noting sync.Mutex // guards notes
	notes  []lvs.Warning
}

// Open opens a state directory and makes it if it is missing. It removes what an
// interrupted write left, and moves aside what cannot be read: see Notes. That is
// no reason not to start.
//
// Returns an error if there is no directory and none can be made.
func Open(o Options) (*Store, error) { return open(o, disk{}) }

func open(o Options, d disk) (*Store, error) {
	s := &Store{Options: o, disk: d}
	if err := os.MkdirAll(s.path("revisions"), directoryMode); err != nil {
		if _, missing := os.Stat(o.Dir); missing != nil {
			return nil, fmt.Errorf("make the state directory: %w", err)
		}
		s.note("revisions", fmt.Sprintf("cannot be made: %v", cause(err)), "let lvx write there: no configuration can be kept meanwhile")
	}
	_, _ = d.sync(o.Dir), d.sync(filepath.Dir(o.Dir)) // for the directories; else they are made again
	s.sweep(s.Dir)
	s.sweep(s.path("revisions"))
	head := s.readState()
	s.readJournal()
	s.readNumber()
	s.openAudit(head)
	return s, nil
}

// openAudit opens the audit log, whose chain had this end when it was synced last.
func (s *Store) openAudit(head string) {
	s.audit = audit{disk: s.disk, dir: s.Dir, synced: head}
	err := s.audit.open()
	if unreadable := (*fs.PathError)(nil); errors.As(err, &unreadable) {
		s.moveAside(filepath.Base(unreadable.Path), err, "what it says is not in the history", "look at it there")
		err = s.audit.open()
	}
	if err != nil {
		s.note("audit.jsonl", err.Error(), "find out who changed it; what is written from here on is whole")
	}
}

// Notes returns what was wrong with the directory when it was opened or read
// since: files that are damaged, a log that was cut or edited.
func (s *Store) Notes() []lvs.Warning {
	s.noting.Lock()
	defer s.noting.Unlock()
	return slices.Clone(s.notes)
}

func (s *Store) note(name, text, fix string) {
	s.noting.Lock()
	defer s.noting.Unlock()
	s.notes = append(s.notes, lvs.Warning{Object: "file " + s.path(name), Text: text, Fix: fix})
}

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

// read reads a file as JSON and tells whether it could. One that is damaged is
// moved aside; lost says what is missing without it, and fix what to do.
func (s *Store) read(name string, into any, lost, fix string) bool {
	text, err := os.ReadFile(s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err == nil {
		return true
	}
	s.moveAside(name, err, lost, fix)
	return false
}

func (s *Store) moveAside(name string, why error, lost, fix string) {
	text := fmt.Sprintf("is damaged (%v) and was moved to %s.damaged: %s", cause(why), name, lost)
	if err := s.disk.rename(s.path(name), s.path(name+".damaged")); err != nil {
		text = fmt.Sprintf("is damaged (%v) and cannot be moved aside (%v): %s", cause(why), cause(err), lost)
	}
	s.note(name, text, fix)
}

// sweep removes what interrupted writes left. What cannot be removed is overwritten
// by the next write.
func (s *Store) sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), unfinished) {
			_ = s.disk.remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Good writes a configuration to last-good.yaml, durably and at once.
func (s *Store) Good(c lvs.Configuration) error {
	if s.Encode == nil {
		return nil
	}
	text, err := s.Encode(c)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		err = s.disk.replaceDurably(s.path("last-good.yaml"), text)
	}
	if err != nil {
		return fmt.Errorf("write the last good configuration: %w", err)
	}
	return nil
}
