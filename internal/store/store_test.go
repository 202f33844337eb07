// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvx/internal/lvs"
)

func opened(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(Options{Dir: dir, Encode: encode})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func done(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// configuration has services with that many real servers each.
func configuration(services, realServers int) (c lvs.Configuration) {
	for i := range services {
		vip := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		s := lvs.Service{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrPortFrom(vip, 80)},
			Name:       fmt.Sprintf("web-%d", i), Scheduler: lvs.MH, Flags: "mh-fallback,mh-port",
		}
		for j := range realServers {
			rip := netip.AddrFrom4([4]byte{10, byte(j), byte(i >> 8), byte(i)})
			s.RealServers = append(s.RealServers, lvs.RealServer{Address: netip.AddrPortFrom(rip, 80), Method: lvs.DR, Weight: uint32(j)})
		}
		c.Services = append(c.Services, s)
	}
	return c
}

func TestAnInterruptedApply(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lvx", "default")
	s := opened(t, dir)
	before := revision("as it was")
	before.Configuration = configuration(2, 2)
	done(t, s.Save(State{Generation: 3}))
	done(t, s.Begin(before))

	s = opened(t, dir) // the process ended
	same(t, s.State(), State{Generation: 3, Before: &before})
	done(t, s.Begin(revision("half of an apply")))
	done(t, s.Save(State{Generation: 4}))
	same(t, s.State().Before, &before)

	s = opened(t, dir)
	same(t, s.State(), State{Generation: 4, Before: &before})
	next := State{Generation: 5, File: "abc", Unconfirmed: &lvs.Unconfirmed{Deadline: time.Unix(1700000000, 0).UTC(), Revision: 2, Back: 1}}
	done(t, s.End(next))
	same(t, s.State(), next)
	same(t, opened(t, dir).State(), next)
	same(t, names(t, dir), []string{"revisions", "state.json"})
}

// A journal that could not be removed is stale all the same.
func TestAStaleJournal(t *testing.T) {
	s := opened(t, scratch(t))
	done(t, s.Begin(revision("before")))
	journal, err := os.ReadFile(s.path("journal.json"))
	done(t, err)
	done(t, s.End(State{}))
	done(t, os.WriteFile(s.path("journal.json"), journal, fileMode))
	if before := opened(t, s.Dir).State().Before; before != nil {
		t.Errorf("the journal of an apply that ended is to be gone back to: %v", before)
	}
	if _, err := os.Stat(s.path("journal.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestRevisions(t *testing.T) {
	s := opened(t, scratch(t))
	for n := range uint64(12) {
		r := revision(tell(n))
		r.Configuration = configuration(1, 1)
		number, err := s.Keep(r)
		done(t, err)
		if number != n+1 {
			t.Errorf("the number is %d, want %d", number, n+1)
		}
		if number == 3 {
			done(t, s.Save(State{Revision: 3, Unconfirmed: &lvs.Unconfirmed{Revision: 4, Back: 1}}))
		}
		got, err := s.Revision(number)
		done(t, err)
		r.Number = number
		same(t, got, r)
	}
	// 2 went with the twelfth; 1 is what the unconfirmed one goes back to.
	same(t, factsOf(t, s).Revisions, []uint64{1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	done(t, s.Save(State{Revision: 1}))
	_, err := s.Keep(revision("one more"))
	done(t, err)
	same(t, factsOf(t, s).Revisions, []uint64{1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}) // 1 is applied
	done(t, s.Drop(13))
	done(t, s.Save(State{}))
	done(t, s.Drop(12))
	done(t, s.Drop(12))
	s = opened(t, s.Dir)
	number, err := s.Keep(revision("again"))
	done(t, err)
	same(t, number, uint64(12))
	same(t, factsOf(t, s).Revisions, []uint64{1, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	if _, err := s.Revision(2); !errors.Is(err, lvs.ErrNoRevision) {
		t.Errorf("the error is %v", err)
	}
}

func TestRights(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022))
	s := opened(t, filepath.Join(t.TempDir(), "default"))
	prepare(t, s)
	done(t, s.Begin(revision("before")))
	done(t, filepath.WalkDir(s.Dir, func(path string, entry os.DirEntry, err error) error {
		done(t, err)
		info, err := entry.Info()
		done(t, err)
		if want := map[bool]os.FileMode{true: 0o750 | os.ModeDir, false: 0o640}[entry.IsDir()]; info.Mode() != want {
			t.Errorf("%s has the mode %v, want %v", path, info.Mode(), want)
		}
		return nil
	}))
}

// A damaged file is moved aside and reported; everything else is as it was.
func TestDamaged(t *testing.T) {
	for _, name := range []string{"state.json", "recent.json", "journal.json", "revisions/5.json", "audit.jsonl"} {
		for kind, damage := range map[string]func(path string) error{
			"empty": func(path string) error { return os.Truncate(path, 0) },
			"cut":   func(path string) error { info, _ := os.Stat(path); return os.Truncate(path, info.Size()/2) },
			"zeros": func(path string) error { return os.WriteFile(path, make([]byte, 512), fileMode) },
			"a field": func(path string) error {
				return os.WriteFile(path, []byte(`{"generation":"x","apply":"x","time":7}`+"\n"), fileMode)
			},
			"a directory": func(path string) error {
				return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
			},
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := opened(t, scratch(t))
				prepare(t, s)
				done(t, s.Begin(revision("before")))
				done(t, s.Record(lvs.HistoryEntry{What: "last"}))
				was := factsOf(t, s)
				done(t, damage(s.path(name)))

				s = opened(t, s.Dir)
				is := factsOf(t, s)
				if len(s.Notes()) == 0 || s.Notes()[0].Object != "file "+s.path(name) {
					t.Errorf("the notes are %q", s.Notes())
				}
				if name != "audit.jsonl" {
					if _, err := os.Stat(s.path(name + ".damaged")); err != nil {
						t.Error(err)
					}
					same(t, is.History, was.History)
				}
				switch name {
				case "state.json": // recent.json has the state
					same(t, is, was)
				case "recent.json", "journal.json":
					same(t, is.Revisions, was.Revisions)
				case "revisions/5.json":
					same(t, is.Revisions, slices.DeleteFunc(was.Revisions, func(n uint64) bool { return n == 5 }))
				}
				// It goes on.
				prepare(t, s)
				done(t, s.Record(lvs.HistoryEntry{What: "on"}))
				if notes := opened(t, s.Dir).Notes(); name != "audit.jsonl" && len(notes) > 0 {
					t.Errorf("later, the notes are %q", notes)
				}
			})
		}
	}
}

func TestLeftoversAreSwept(t *testing.T) {
	s := opened(t, scratch(t))
	for _, name := range []string{".state.json.unfinished", "revisions/.7.json.unfinished"} {
		done(t, os.WriteFile(s.path(name), []byte("{"), fileMode))
	}
	s = opened(t, s.Dir)
	same(t, append(names(t, s.Dir), names(t, s.path("revisions"))...), []string{"revisions"})
	same(t, s.Notes(), []lvs.Warning(nil))
}

func names(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	done(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestGood(t *testing.T) {
	s := opened(t, scratch(t))
	done(t, s.Good(lvs.Configuration{Settings: lvs.Settings{XDP: "native"}}))
	same(t, factsOf(t, s).Good, "native\n")
	s.Encode = func(lvs.Configuration) ([]byte, error) { return nil, errors.New("no word for it") }
	if err := s.Good(lvs.Configuration{}); err == nil || !strings.Contains(err.Error(), "no word for it") {
		t.Errorf("the error is %v", err)
	}
	s.Encode = nil
	done(t, s.Good(lvs.Configuration{}))
	same(t, factsOf(t, s).Good, "native\n")
}

func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	done(t, os.WriteFile(file, nil, fileMode))
	if _, err := Open(Options{Dir: filepath.Join(file, "default")}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("the error is %v", err)
	}
}

func BenchmarkBegin(b *testing.B) {
	for _, size := range [][2]int{{10, 10}, {1000, 10}, {10000, 10}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			s, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			r := revision("before")
			r.Configuration = configuration(size[0], size[1])
			for b.Loop() {
				if err := s.Begin(r); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.End(State{}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkSave(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := errors.Join(s.Record(lvs.HistoryEntry{What: "add-server tcp 192.0.2.1:80"}), s.Save(State{})); err != nil {
			b.Fatal(err)
		}
	}
}
