// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

// witness watches the steps of a disk. At one of them it copies the directory, as
// a process that ends there leaves it, or lets the step fail.
type witness struct {
	dir   string
	at    int  // the step to act at, from 0; negative is none
	fail  bool // else copy
	power bool // the copy is what a power failure may leave: what was not synced is empty

	steps []string // taken so far
	dirty map[string]bool
	copy  string // where it is
}

func (w *witness) before(step, path string) error {
	if w.at == len(w.steps) {
		if w.fail {
			w.steps = append(w.steps, "failed "+step)
			return syscall.ENOSPC
		}
		w.photograph()
	}
	name, _ := filepath.Rel(w.dir, path)
	w.steps = append(w.steps, step+" "+name)
	switch step {
	case "write", "append":
		w.dirty[path] = true
	case "sync":
		delete(w.dirty, path)
	case "rename":
		from := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+unfinished)
		w.dirty[path] = w.dirty[from]
		delete(w.dirty, from)
	}
	return nil
}

func (w *witness) photograph() {
	w.copy, _ = os.MkdirTemp(inMemory(), "store-crash-")
	if err := os.CopyFS(w.copy, os.DirFS(w.dir)); err != nil {
		panic(err)
	}
	for path, dirty := range w.dirty {
		name, _ := filepath.Rel(w.dir, path)
		if w.power && dirty && filepath.Base(name) != "audit.jsonl" {
			_ = os.Truncate(filepath.Join(w.copy, name), 0)
		}
	}
}

// inMemory is where directories are made that are synced again and again; "" is where
// all temporary ones are.
func inMemory() string {
	if _, err := os.Stat("/dev/shm"); err != nil {
		return ""
	}
	return "/dev/shm"
}

// scratch makes a directory in memory that goes with the test.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(inMemory(), "store-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// watched opens a directory under a witness.
func watched(t interface{ Fatal(...any) }, dir string) (*Store, *witness) {
	w := &witness{dir: dir, at: -1, dirty: map[string]bool{}}
	s, err := open(Options{Dir: dir, Encode: encode}, disk{before: w.before})
	if err != nil {
		t.Fatal(err)
	}
	w.steps = nil
	return s, w
}

func encode(c lvs.Configuration) ([]byte, error) { return []byte(c.Settings.XDP + "\n"), nil }

// facts are all that a directory says.
type facts struct {
	State     State
	Revisions []uint64
	History   []string
	Good      string
}

func factsOf(t interface{ Fatal(...any) }, s *Store) facts {
	revisions, err := s.Revisions()
	if err != nil {
		t.Fatal(err)
	}
	history, err := s.History(0)
	if err != nil {
		t.Fatal(err)
	}
	f := facts{State: s.State()}
	for _, r := range revisions {
		f.Revisions = append(f.Revisions, r.Number)
	}
	for _, e := range history {
		f.History = append(f.History, e.What)
	}
	good, err := os.ReadFile(s.path("last-good.yaml"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f.Good = string(good)
	return f
}

func revision(what string) lvs.Revision {
	return lvs.Revision{Generation: 7, Time: time.Unix(1700000000, 0).UTC(), Who: "root", What: what}
}

// operations are what a director does, each with arguments that are told apart by n.
var operations = []struct {
	name string
	do   func(s *Store, n uint64) error
}{
	{"begin", func(s *Store, n uint64) error { return s.Begin(revision(tell(n))) }},
	{"end", func(s *Store, n uint64) error { return s.End(State{Generation: n, File: tell(n)}) }},
	{"end unconfirmed", func(s *Store, n uint64) error {
		s.mu.Lock()
		newest := s.number
		s.mu.Unlock()
		return s.End(State{Generation: n, Unconfirmed: &lvs.Unconfirmed{Deadline: time.Unix(1800000000, 0).UTC(), Revision: newest, Back: max(newest, 1) - 1}})
	}},
	{"save", func(s *Store, n uint64) error {
		next := s.State()
		next.Generation = n
		return s.Save(next)
	}},
	{"keep", func(s *Store, n uint64) error { _, err := s.Keep(revision(tell(n))); return err }},
	{"drop", func(s *Store, _ uint64) error { return s.Drop(s.number) }},
	{"record", func(s *Store, n uint64) error { return s.Record(lvs.HistoryEntry{What: tell(n), Result: lvs.Done}) }},
	{"good", func(s *Store, n uint64) error { return s.Good(lvs.Configuration{Settings: lvs.Settings{XDP: tell(n)}}) }},
}

func tell(n uint64) string { return strings.Repeat("x", int(n%7)) + string(rune('a'+n%26)) }

// The process may end before any step of anything it does: opened again, the
// directory says what it said before, or what it was to say.
func TestKilledAtAnyStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(inMemory(), "store-")
		if err != nil {
			t.Fatal(err)
		}
		s, w := watched(t, dir)
		for n := uint64(1); n <= 12; n++ {
			operation := operations[rapid.IntRange(0, len(operations)-1).Draw(t, "operation")]
			old := factsOf(t, s)
			w.steps, w.copy = nil, ""
			w.at = rapid.IntRange(0, 7).Draw(t, "step")
			if err := operation.do(s, n); err != nil {
				t.Fatal(operation.name, err)
			}
			steps, copied := w.steps, w.copy
			w.at = -1
			if copied == "" {
				continue
			}
			after := factsOf(t, s)
			os.RemoveAll(dir)
			dir = copied
			s, w = watched(t, dir)
			now := factsOf(t, s)
			if !between(now, old, after) {
				t.Fatalf("%s, killed before %v: it says\n%+v\nwhere it said\n%+v\nand was to say\n%+v", operation.name, steps, now, old, after)
			}
			if notes := s.Notes(); len(notes) > 0 {
				t.Fatalf("%s, killed before %v: %v", operation.name, steps, notes)
			}
		}
		os.RemoveAll(dir)
	})
}

// between tells whether f is the one or the other. The oldest revision goes after
// the newest came, and both ways it may be there.
func between(f, old, after facts) bool {
	if reflect.DeepEqual(f, old) || reflect.DeepEqual(f, after) {
		return true
	}
	f.Revisions = slices.DeleteFunc(slices.Clone(f.Revisions), func(n uint64) bool {
		return slices.Contains(old.Revisions, n) && !slices.Contains(after.Revisions, n)
	})
	return reflect.DeepEqual(f, after)
}

// The power may fail as well: then what was only saved may be lost, but what was
// ended, begun, kept or called good is not.
func TestPowerFailsAtAnyStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(inMemory(), "store-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { os.RemoveAll(dir) }()
		s, w := watched(t, dir)
		w.power = true
		ended := s.State() // as it was ended last
		for n := uint64(1); n <= 12; n++ {
			operation := operations[rapid.IntRange(0, len(operations)-1).Draw(t, "operation")]
			old := factsOf(t, s)
			w.steps, w.copy = nil, ""
			w.at = rapid.IntRange(0, 7).Draw(t, "step")
			if err := operation.do(s, n); err != nil {
				t.Fatal(operation.name, err)
			}
			after := factsOf(t, s)
			if w.copy != "" {
				steps := w.steps
				os.RemoveAll(dir)
				dir = w.copy
				s, w = watched(t, dir)
				w.power = true
				now := factsOf(t, s)
				if !between(now, old, after) && !between(now, without(old, ended), without(after, ended)) {
					t.Fatalf("%s, power failed before %v: it says\n%+v\nwhere it said\n%+v\nand was to say\n%+v", operation.name, steps, now, old, after)
				}
				ended = now.State
			} else if strings.HasPrefix(operation.name, "end") {
				ended = after.State
			}
		}
	})
}

// without returns the facts without what was only saved since the last end.
func without(f facts, ended State) facts {
	before := f.State.Before
	f.State = ended
	f.State.Before = before
	return f
}

// A disk that is full or cannot be written to: the error names the file and the
// cause, and the directory says what it said, now and opened again.
func TestFailsAtAnyStep(t *testing.T) {
	for _, operation := range operations {
		for step := range 8 {
			s, w := watched(t, scratch(t))
			prepare(t, s)
			if operation.name != "begin" {
				if err := s.Begin(revision("before")); err != nil {
					t.Fatal(err)
				}
			}
			old := factsOf(t, s)
			w.steps, w.at, w.fail = nil, step, true
			err := operation.do(s, 1000)
			w.at = -1
			if !slices.ContainsFunc(w.steps, func(s string) bool { return strings.HasPrefix(s, "failed") }) {
				break // it has no more steps
			}
			// Then it may not survive a power failure, but it is there.
			committed := slices.Contains(w.steps, "rename state.json") || slices.Contains(w.steps, "rename last-good.yaml")
			leftover := err == nil // what is only tidied up may fail
			if !leftover && (!errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), s.Dir)) {
				t.Errorf("%s, %v: the error is %q", operation.name, w.steps, err)
			}
			again, openErr := Open(Options{Dir: s.Dir})
			if openErr != nil {
				t.Fatal(openErr)
			}
			for _, now := range []facts{factsOf(t, s), factsOf(t, again)} {
				if !leftover && !committed && !reflect.DeepEqual(now, old) {
					t.Errorf("%s, %v: it says\n%+v\nwhere it said\n%+v", operation.name, w.steps, now, old)
				}
			}
			if !reflect.DeepEqual(factsOf(t, s), factsOf(t, again)) {
				t.Errorf("%s, %v: it says one thing and, opened again, another:\n%+v\n%+v", operation.name, w.steps, factsOf(t, s), factsOf(t, again))
			}
		}
	}
}

// prepare fills a directory.
func prepare(t *testing.T, s *Store) {
	t.Helper()
	for n := range uint64(keptRevisions) {
		for _, operation := range operations {
			if operation.name == "begin" || operation.name == "drop" {
				continue
			}
			if err := operation.do(s, n); err != nil {
				t.Fatal(operation.name, err)
			}
		}
	}
}

// What is durable is synced before it takes its name, and its directory after.
func TestOrderOfSteps(t *testing.T) {
	s, w := watched(t, scratch(t))
	for _, test := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return s.Record(lvs.HistoryEntry{What: "a"}) }, []string{"append audit.jsonl"}},
		{func() error { return s.Begin(revision("a")) },
			[]string{"write .journal.json.unfinished", "sync .journal.json.unfinished", "rename journal.json", "sync ."}},
		{func() error { return s.End(State{Generation: 1}) },
			[]string{"sync audit.jsonl", "write .state.json.unfinished", "sync .state.json.unfinished", "rename state.json", "sync .", "remove recent.json", "remove journal.json"}},
		{func() error { return s.Save(State{Generation: 2}) }, []string{"write .recent.json.unfinished", "rename recent.json"}},
		{func() error { _, err := s.Keep(revision("a")); return err },
			[]string{"write revisions/.1.json.unfinished", "sync revisions/.1.json.unfinished", "rename revisions/1.json", "sync revisions"}},
	} {
		w.steps = nil
		if err := test.do(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(w.steps, test.want) {
			t.Errorf("steps %q, want %q", w.steps, test.want)
		}
	}
}
