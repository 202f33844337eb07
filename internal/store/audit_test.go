// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

// logged returns a store whose log has these entries, the first few of them synced.
func logged(t *testing.T, synced int, what ...string) *Store {
	t.Helper()
	s := opened(t, scratch(t))
	for i, w := range what {
		if i == synced {
			done(t, s.End(State{}))
		}
		done(t, s.Record(lvs.HistoryEntry{Generation: 1, Who: "root", What: w, Result: lvs.Done}))
	}
	if synced == len(what) {
		done(t, s.End(State{}))
	}
	return s
}

func history(t *testing.T, s *Store, limit int) (what []string) {
	t.Helper()
	entries, err := s.History(limit)
	done(t, err)
	for _, e := range entries {
		what = append(what, e.What)
	}
	return what
}

func TestHistory(t *testing.T) {
	s := logged(t, 0)
	same(t, history(t, s, 0), []string(nil))
	done(t, s.Verify())

	entry := lvs.HistoryEntry{Time: revision("").Time, Generation: 2, Who: "root", What: "a", Result: "not possible", Revision: 3}
	done(t, s.Record(entry))
	got, err := s.History(5)
	done(t, err)
	same(t, got, []lvs.HistoryEntry{entry})

	s = opened(t, logged(t, 2, "a", "b", "c").Dir)
	done(t, s.Record(lvs.HistoryEntry{What: "d"}))
	same(t, history(t, s, 0), []string{"a", "b", "c", "d"})
	same(t, history(t, s, 2), []string{"c", "d"})
	done(t, s.Verify())
	same(t, s.Notes(), []lvs.Warning(nil))
}

// A process that ends while it writes a line leaves a part of it.
func TestTornLine(t *testing.T) {
	s := logged(t, 2, "a", "b")
	whole, err := os.ReadFile(s.audit.current())
	done(t, err)
	done(t, s.Record(lvs.HistoryEntry{What: "c"}))
	all, err := os.ReadFile(s.audit.current())
	done(t, err)
	for size := len(whole); size < len(all); size++ {
		done(t, os.WriteFile(s.audit.current(), all[:size], fileMode))
		same(t, history(t, s, 0), []string{"a", "b"})
		again := opened(t, s.Dir)
		same(t, again.Notes(), []lvs.Warning(nil))
		done(t, again.Record(lvs.HistoryEntry{What: "d"}))
		same(t, history(t, again, 0), []string{"a", "b", "d"})
		done(t, again.Verify())
	}
}

func TestCutOrEdited(t *testing.T) {
	line := func(i int, change func(line []byte) []byte) func([][]byte) [][]byte {
		return func(lines [][]byte) [][]byte {
			lines[i] = change(lines[i])
			return lines
		}
	}
	for name, edit := range map[string]func(lines [][]byte) [][]byte{
		"first line gone":   func(lines [][]byte) [][]byte { return lines[1:] },
		"middle line gone":  func(lines [][]byte) [][]byte { return slices.Delete(lines, 1, 2) },
		"last lines gone":   func(lines [][]byte) [][]byte { return lines[:2] },
		"all gone":          func([][]byte) [][]byte { return nil },
		"two lines swapped": func(lines [][]byte) [][]byte { lines[1], lines[2] = lines[2], lines[1]; return lines },
		"a name edited": line(1, func(line []byte) []byte {
			return bytes.Replace(line, []byte("root"), []byte("toor"), 1)
		}),
		"no line of ours": line(1, func([]byte) []byte { return []byte("# nothing happened\n") }),
	} {
		t.Run(name, func(t *testing.T) {
			s := logged(t, 4, "a", "b", "c", "d")
			text, err := os.ReadFile(s.audit.current())
			done(t, err)
			edited := bytes.Join(edit(bytes.SplitAfter(text, []byte("\n"))), nil)
			done(t, os.WriteFile(s.audit.current(), edited, fileMode))
			check := func(s *Store) {
				t.Helper()
				if err := s.Verify(); !errors.Is(err, ErrAudit) {
					t.Errorf("the error is %v", err)
				}
			}
			check(s)
			s = opened(t, s.Dir) // and it stays seen
			check(s)
			if notes := s.Notes(); len(notes) != 1 || !strings.Contains(notes[0].Text, ErrAudit.Error()) {
				t.Errorf("the notes are %q", notes)
			}
			done(t, s.Record(lvs.HistoryEntry{What: "e"}))
			done(t, s.End(State{}))
			check(s)
			check(opened(t, s.Dir))
			if what := history(t, s, 1); !slices.Equal(what, []string{"e"}) {
				t.Errorf("the history ends with %q", what)
			}
		})
	}
}

// A log that is cut or edited under a running daemon shows as well.
func TestCutWhileOpen(t *testing.T) {
	s := logged(t, 0, "a", "b", "c")
	text, err := os.ReadFile(s.audit.current())
	done(t, err)
	lines := bytes.SplitAfter(text, []byte("\n"))
	done(t, os.WriteFile(s.audit.current(), bytes.Join(lines[:2], nil), fileMode))
	if err := s.Verify(); !errors.Is(err, ErrAudit) {
		t.Errorf("the error is %v", err)
	}
	done(t, s.Record(lvs.HistoryEntry{What: "d"}))
	if err := s.Verify(); !errors.Is(err, ErrAudit) {
		t.Errorf("with a line more, the error is %v", err)
	}
}

func TestDamagedLineIsSeen(t *testing.T) {
	s := logged(t, 2, "a", "b")
	text, err := os.ReadFile(s.audit.current())
	done(t, err)
	done(t, os.WriteFile(s.audit.current(), append([]byte("{\n"), text...), fileMode))
	entries, err := s.History(0)
	done(t, err)
	if len(entries) != 3 || !strings.HasPrefix(entries[0].Result, "this line of the audit log is damaged") {
		t.Errorf("the history is %+v", entries)
	}
}

// The log begins a new file when it is long, and the chain goes on.
func TestRotation(t *testing.T) {
	s := logged(t, 0)
	long := strings.Repeat("x", 4<<20)
	var want []string
	for n := range uint64(10) { // more than twice
		want = append(want, tell(n)+long)
		done(t, s.Record(lvs.HistoryEntry{What: want[n]}))
	}
	same(t, history(t, s, 0), want[4:]) // 8 of them filled two files, 2 are in the third
	same(t, history(t, s, 3), want[7:])
	done(t, s.Verify())

	s = opened(t, s.Dir)
	same(t, s.Notes(), []lvs.Warning(nil))
	done(t, s.Record(lvs.HistoryEntry{What: "next"}))
	done(t, s.Verify())
	same(t, history(t, s, 1), []string{"next"})

	older, err := os.ReadFile(s.audit.older())
	done(t, err)
	done(t, os.WriteFile(s.audit.older(), bytes.Replace(older, []byte("xx"), []byte("xy"), 1), fileMode))
	if err := s.Verify(); !errors.Is(err, ErrAudit) {
		t.Errorf("the older file was edited, and the error is %v", err)
	}
}
