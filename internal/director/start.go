// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lvx/internal/lvs"
)

// Start takes up what the process before has left, and applies the file, if there is
// one (nil: none). fresh tells that nothing was pinned: the tables are empty, as
// after a boot of the machine. Call it once, before anything else.
//
//   - A change that was under way when the process was killed is taken back.
//   - An apply that still waits to be confirmed goes on waiting; after a boot, or if
//     its time is up, it goes back.
//   - The file is applied if it is another than the one applied last, or after a
//     boot. Else the tables stay as they are, with what was changed since.
//
// Returns an error if the file cannot be applied. The tables then are as they were.
func (d *Director) Start(ctx context.Context, file *lvs.Configuration, what string, fresh bool) error {
	defer d.events.add(lvs.EventStarted, "director", "it answers")
	if err := d.takeUp(fresh); err != nil {
		return err
	}
	went, err := d.takeBack(ctx, fresh)
	if err != nil || went {
		return err
	}
	d.takeNames()
	if file == nil || !fresh && digest(*file) == d.state.File || d.state.Unconfirmed != nil {
		return nil
	}
	d.booted = fresh && d.state.Revision != 0
	if d.booted && digest(*file) == d.state.File {
		_, err = d.Rollback(ctx, d.state.Revision, lvs.Request{Who: ourselves, What: what + ": back"})
		return err
	}
	_, err = d.Configure(ctx, *file, lvs.Request{Who: ourselves, What: what, AllowEmpty: fresh})
	return err
}

// takeUp ends a change that was under way: it is taken back.
func (d *Director) takeUp(fresh bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.state.Before
	d.state.Before = nil
	if before == nil {
		return nil
	}
	if !fresh {
		live, err := d.live()
		if err != nil {
			return err
		}
		after := live.desire()
		after.become(before.Configuration)
		if err := d.run(diff(live, after), nil); err != nil {
			return fmt.Errorf("take back the change that was under way: %w", err)
		}
		d.current = after.table
	}
	if err := d.dropAfter(before.Number); err != nil {
		return err
	}
	if err := d.Store.End(d.state); err != nil {
		return err
	}
	d.publish()
	d.note("the last change", "the daemon was killed in the middle of it, so it was taken back")
	return nil
}

// dropAfter takes back revisions of a change that was not ended.
func (d *Director) dropAfter(number uint64) error {
	revisions, err := d.Store.Revisions()
	for _, r := range revisions {
		if r.Number > number {
			err = errors.Join(err, d.Store.Drop(r.Number))
		}
	}
	return err
}

// takeBack goes back from an apply that was not confirmed.
func (d *Director) takeBack(ctx context.Context, fresh bool) (went bool, err error) {
	u := d.state.Unconfirmed
	if u == nil || !fresh && time.Now().Before(u.Deadline) {
		return false, nil
	}
	_, err = d.Rollback(ctx, u.Back, lvs.Request{Who: ourselves, What: fmt.Sprintf("rollback, for revision %d was not confirmed,", u.Revision)})
	return true, err
}

// takeNames gives the services that were pinned the names of the last revision: the
// data plane does not know names.
func (d *Director) takeNames() {
	d.mu.Lock()
	defer d.mu.Unlock()
	revision, err := d.Store.Revision(d.state.Revision)
	if err != nil {
		return // none, or not kept: then services have no names
	}
	d.current.names(configured(revision.Configuration))
	d.publish()
}

// LastGood applies the last revision, for a start without a file that can be used.
// It tells whether there was one.
func (d *Director) LastGood(ctx context.Context, cause error) (bool, error) {
	revision, err := d.Store.Revision(d.state.Revision)
	if errors.Is(err, lvs.ErrNoRevision) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	_, err = d.Configure(ctx, revision.Configuration, lvs.Request{
		Who: ourselves, What: fmt.Sprintf("revision %d, for the file cannot be used,", revision.Number), AllowEmpty: true,
	})
	d.Note("the file", fmt.Sprintf("it was not applied: %s", cause))
	return true, err
}

// Note adds a warning to the status, to stay there as long as the process lives.
func (d *Director) Note(object, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(object, text)
}

func (d *Director) note(object, text string) {
	d.notes = append(d.notes, lvs.Warning{Object: object, Text: text, Fix: "look at it with: lvx history"})
	d.Log.Warn("note", "object", object, "text", text)
	d.events.add(lvs.EventWarning, object, text)
	d.publish()
}
