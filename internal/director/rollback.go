// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"lvx/internal/lvs"
)

// Confirm keeps what an apply with a deadline did.
//
// Returns lvs.ErrNothingWaits, and lvs.ErrGeneration if another apply waits than the
// request's.
func (d *Director) Confirm(r lvs.Request) (lvs.Applied, error) {
	r.What = cmp.Or(r.What, "confirm")
	applied, err := d.confirm(r)
	d.record(lvs.EventConfirmed, r, applied, err)
	return applied, err
}

func (d *Director) confirm(r lvs.Request) (lvs.Applied, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	applied := lvs.Applied{Generation: d.state.Generation, Revision: d.state.Revision, Warnings: []lvs.Warning{}}
	if d.state.Unconfirmed == nil {
		return applied, lvs.ErrNothingWaits
	}
	if err := d.isFor(r); err != nil {
		return applied, err
	}
	if err := d.settleUnconfirmed(); err != nil {
		return applied, err
	}
	d.good()
	return applied, nil
}

// settleUnconfirmed notes that the apply does not wait any more.
func (d *Director) settleUnconfirmed() error {
	next := d.state
	next.Unconfirmed = nil
	if err := d.Store.End(next); err != nil {
		return err
	}
	d.state, d.journal = next, false
	d.nothingWaits()
	d.publish()
	return nil
}

// nothingWaits forgets that going back failed.
func (d *Director) nothingWaits() {
	d.failing = false
	d.over(noteGoBack)
}

// Rollback goes back to a revision; 0 is the one before the present: what was there
// before changes that were made one by one, or before the last apply. It ends the
// waiting of an apply that is not confirmed.
//
// Returns lvs.ErrNoRevision and lvs.ErrGeneration.
func (d *Director) Rollback(ctx context.Context, number uint64, r lvs.Request) (lvs.Applied, error) {
	r.What = cmp.Or(r.What, "rollback")
	applied, servers, err := d.rollback(number, &r)
	d.record(lvs.EventRolledBack, r, applied, err)
	if err != nil {
		return applied, err
	}
	applied.Warnings = d.afterwards(ctx, r.Wait, servers, d.view.Load().settings)
	return applied, nil
}

func (d *Director) rollback(number uint64, r *lvs.Request) (applied lvs.Applied, servers []placed, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	applied.Generation, applied.Revision = d.state.Generation, d.state.Revision
	if err := d.isFor(*r); err != nil {
		return applied, nil, err
	}
	if number == 0 {
		if number, err = d.previous(); err != nil {
			return applied, nil, err
		}
	}
	return d.goTo(number, r, false)
}

// goTo goes to a revision. What was changed one by one since the last one is kept:
// nothing is lost by it. The caller holds mu.
func (d *Director) goTo(number uint64, r *lvs.Request, insist bool) (applied lvs.Applied, servers []placed, err error) {
	applied.Generation, applied.Revision = d.state.Generation, d.state.Revision
	revision, err := d.Store.Revision(number)
	if err != nil {
		return applied, nil, err
	}
	r.What = fmt.Sprintf("%s to revision %d", r.What, number)
	asItIs, err := d.isRevision(d.state.Revision)
	if err != nil {
		return applied, nil, err
	}
	live, err := d.live()
	if err != nil {
		return applied, nil, err
	}
	after := live.desire()
	after.restore(revision.Configuration)
	t := &transaction{
		steps: diff(live, after), after: after.table, next: d.state, needed: []uint64{number},
		request: *r, durable: true, insist: insist,
	}
	t.next.Unconfirmed, t.next.Revision, t.next.Changed = nil, number, false
	t.next.Settings = revision.Configuration.Settings
	if !asItIs {
		t.earlier = d.asItWas(*r)
	}
	if asItIs && len(t.steps) == 0 && number == d.state.Revision && d.state.Unconfirmed == nil {
		return applied, nil, nil // it is what is there
	}
	applied.Changed = len(t.steps) > 0
	if err := d.commit(t); err != nil {
		return applied, nil, err
	}
	d.good()
	applied.Generation, applied.Revision = d.state.Generation, number
	return applied, newServers(live, after.table), nil
}

// previous returns the revision before the present one.
func (d *Director) previous() (uint64, error) {
	if u := d.state.Unconfirmed; u != nil && u.Back != 0 {
		return u.Back, nil
	}
	asItIs, err := d.isRevision(d.state.Revision)
	if err != nil || !asItIs && d.state.Revision != 0 {
		return d.state.Revision, err
	}
	if d.state.Revision != 0 {
		revision, err := d.Store.Revision(d.state.Revision)
		if err != nil || revision.Back != 0 {
			return revision.Back, err
		}
	}
	return 0, fmt.Errorf("go back before revision %d: %w", d.state.Revision, lvs.ErrNoRevision)
}

// goBack takes back an apply that nobody confirmed, if it is still the one that waits
// and its time is up, or now. It tells whether it did.
//
// If that fails it is told once, and the next round tries again; if there is nothing
// left to go back to, the apply stays.
func (d *Director) goBack(u *lvs.Unconfirmed, now bool) bool {
	r := lvs.Request{Who: ourselves, What: fmt.Sprintf("rollback, for revision %d was not confirmed,", u.Revision)}
	applied, err, tell := d.takeBack(u, now, &r)
	if tell {
		d.record(lvs.EventRolledBack, r, applied, err)
	}
	return tell && err == nil
}

func (d *Director) takeBack(u *lvs.Unconfirmed, now bool, r *lvs.Request) (applied lvs.Applied, err error, tell bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state.Unconfirmed != u || !now && time.Now().Before(u.Deadline) {
		return applied, nil, false
	}
	applied, _, err = d.goTo(u.Back, r, true)
	if errors.Is(err, lvs.ErrNoRevision) {
		tell = d.settleUnconfirmed() == nil
		d.Note(lvs.Warning{Object: noteGoBack, Text: fmt.Sprintf("it stays: %s", err), Fix: "apply what you want: lvx apply F"})
		return applied, err, tell
	}
	tell = err == nil || !d.failing
	if d.failing = err != nil; d.failing {
		d.Note(lvs.Warning{Object: noteGoBack, Text: fmt.Sprintf("it cannot be taken back: %s", err), Fix: "it is tried again every second"})
	}
	return applied, err, tell
}
