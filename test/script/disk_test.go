// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvx/internal/director"
	"lvx/internal/lvs"
	"lvx/internal/store"
)

var errFullDisk = errors.New("no space left on device")

// fullStore is a store whose disk can be full.
type fullStore struct {
	*store.Store
	full    atomic.Bool
	filling atomic.Bool // only the last write of an apply fails
}

func (f *fullStore) write(do func() error) error {
	if f.full.Load() {
		return errFullDisk
	}
	return do()
}

func (f *fullStore) Begin(r lvs.Revision) error {
	return f.write(func() error { return f.Store.Begin(r) })
}
func (f *fullStore) End(s director.State) error {
	return f.write(func() error {
		if f.filling.Swap(false) {
			return errFullDisk
		}
		return f.Store.End(s)
	})
}
func (f *fullStore) Save(s director.State) error {
	return f.write(func() error { return f.Store.Save(s) })
}
func (f *fullStore) Keep(r lvs.Revision, needed ...uint64) (n uint64, err error) {
	return n, f.write(func() error { n, err = f.Store.Keep(r, needed...); return err })
}
func (f *fullStore) Record(e lvs.HistoryEntry) error {
	return f.write(func() error { return f.Store.Record(e) })
}

// On a full disk an apply is refused and changes nothing, what an operator does by
// hand is done, and an apply that was not confirmed goes back all the same. Status
// tells; once there is room, everything is noted.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, other := two(t)
		disk := &fullStore{Store: openStore(t, t.TempDir())}
		d := openDirector(t, director.Options{Plane: m, Facts: m, Store: disk})
		ctx, stop := context.WithCancel(t.Context())
		go d.Run(ctx)
		configure(t, d, one, lvs.Request{})
		before, kept := text(t, m), revisions(t, d)

		disk.full.Store(true)
		if _, err := d.Configure(ctx, other, anything); !errors.Is(err, errFullDisk) || text(t, m) != before || revisions(t, d) != kept {
			t.Errorf("an apply on a full disk: %v\n%s", err, cmp.Diff(before, text(t, m)))
		}
		disk.full.Store(false)
		disk.filling.Store(true)
		if _, err := d.Configure(ctx, other, anything); !errors.Is(err, errFullDisk) || text(t, m) != before || revisions(t, d) != kept {
			t.Errorf("an apply that fills the disk: %v, %d revisions of %d\n%s", err, revisions(t, d), kept, cmp.Diff(before, text(t, m)))
		}
		disk.full.Store(true)
		out := lvs.Change{Operation: lvs.DeleteServer, Service: key(80), RealServer: realServer(1, 80, 1)}
		if _, err := d.Apply(ctx, []lvs.Change{out}, lvs.Request{}); err != nil || text(t, m) == before {
			t.Errorf("a change by hand on a full disk: %v", err)
		}
		warned(t, d, true)
		disk.full.Store(false)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		warned(t, d, false)

		byHand := text(t, m)
		configure(t, d, other, lvs.Request{Confirm: 10 * time.Second})
		disk.full.Store(true)
		time.Sleep(12 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff(byHand, text(t, m)); diff != "" {
			t.Errorf("not gone back on a full disk:\n%s", diff)
		}
		warned(t, d, true)
		disk.full.Store(false)
		time.Sleep(6 * time.Second)
		stop()
		synctest.Wait()
		warned(t, d, false)
		if s := disk.State(); s.Unconfirmed != nil || s.Before != nil {
			t.Errorf("there is room again, but noted is %+v", s)
		}
	})
}

// warned checks whether status warns of what could not be noted.
func warned(t *testing.T, d *director.Director, want bool) {
	t.Helper()
	status, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	got := false
	for _, w := range status.Warnings {
		got = got || strings.Contains(w.Text, errFullDisk.Error())
	}
	if got != want {
		t.Errorf("warned %v, want %v: %+v", got, want, status.Warnings)
	}
}

// The start after a boot that is killed, or fails, is no start: the next one fills
// the tables. A boot also takes back an apply that was not confirmed.
func TestBootIsTakenUpAgain(t *testing.T) {
	for _, c := range []struct{ unconfirmed, broken bool }{{}, {unconfirmed: true}, {broken: true}, {true, true}} {
		_, one, other := two(t)
		dir := t.TempDir()
		m := NewMemory()
		d := openDirector(t, director.Options{Plane: m, Facts: m, Store: openStore(t, dir)})
		if err := d.Start(t.Context(), director.File{Name: "F", Configuration: &one}, true); err != nil {
			t.Fatal(err)
		}
		file := director.File{Name: "F", Configuration: &one}
		if c.unconfirmed {
			configure(t, d, other, lvs.Request{Confirm: time.Hour})
			file.Configuration = &other // the operator wrote it to the file as well
		}
		if c.broken {
			file = director.File{Name: "F", Err: errors.New("F:1:1: wrong")}
		}
		m = NewMemory() // the boot
		for write := 1; ; write++ {
			life := &mortal{Store: openStore(t, dir), n: write}
			unsettle(t, life.Store)
			died := dies(func() error {
				d := openDirector(t, director.Options{Plane: mortalPlane{m, life}, Facts: m, Store: life})
				return d.Start(context.Background(), file, true)
			})
			if !died {
				break
			}
			if life.Store.State().Settled {
				t.Errorf("killed at write %d, but settled", write)
			}
		}
		d = openDirector(t, director.Options{Plane: m, Facts: m, Store: openStore(t, dir)})
		agree(t, d, m)
		if diff := cmp.Diff(unnamed(one), inPlane(t, m)); diff != "" {
			t.Errorf("%+v: after the boot (-want +got):\n%s", c, diff)
		}
		if !openStore(t, dir).State().Settled {
			t.Error("not settled in the end")
		}
	}
}

// unsettle notes, as the daemon does, that nothing is pinned.
func unsettle(t *testing.T, s *store.Store) {
	t.Helper()
	state := s.State()
	state.Settled = false
	if err := s.Save(state); err != nil {
		t.Fatal(err)
	}
}

// Going back to the oldest revision that is kept does not push it out, and ten
// rollbacks later it is still there.
func TestRollbackKeepsItsTarget(t *testing.T) {
	m, one, _ := two(t)
	d := openDirector(t, director.Options{Plane: m, Facts: m, Store: openStore(t, t.TempDir())})
	for weight := range uint32(12) {
		one = one.Clone()
		one.Services[0].RealServers[0].Weight = weight + 1
		configure(t, d, one, lvs.Request{})
	}
	list, err := d.Revisions()
	if err != nil || len(list) != 10 {
		t.Fatalf("%d revisions, %v", len(list), err)
	}
	oldest := list[0].Number
	byHand := lvs.Change{Operation: lvs.EditServer, Service: key(80), RealServer: realServer(2, 80, 99)}
	if _, err := d.Apply(t.Context(), []lvs.Change{byHand}, lvs.Request{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Rollback(t.Context(), oldest, lvs.Request{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unnamed(list[0].Configuration), inPlane(t, m)); diff != "" {
		t.Errorf("gone back to %d:\n%s", oldest, diff)
	}
	for range 3 {
		if _, err := d.Rollback(t.Context(), oldest, lvs.Request{}); err != nil {
			t.Fatalf("again: %v", err)
		}
	}
}

// A confirmation for another apply than the one that waits is refused, and so is one
// that comes when it has gone back.
func TestConfirmIsForOneApply(t *testing.T) {
	m, one, other := two(t)
	dir := t.TempDir()
	d := openDirector(t, director.Options{Plane: m, Facts: m, Store: openStore(t, dir)})
	configure(t, d, one, lvs.Request{})
	first := configure(t, d, other, lvs.Request{Confirm: time.Hour})
	if _, err := d.Rollback(t.Context(), 0, lvs.Request{}); err != nil {
		t.Fatal(err)
	}
	second := configure(t, d, other, lvs.Request{Confirm: time.Hour})
	if _, err := d.Confirm(lvs.Request{Generation: first.Generation}); !errors.Is(err, lvs.ErrGeneration) {
		t.Errorf("the first operator confirmed what the second applied: %v", err)
	}
	if _, err := d.Confirm(lvs.Request{Generation: second.Generation}); err != nil {
		t.Error(err)
	}
	if u := openStore(t, dir).State().Unconfirmed; u != nil {
		t.Errorf("confirmed, but noted is %+v", u)
	}
}
