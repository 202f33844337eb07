// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lvx/internal/lvs"
)

// File is the file that the daemon reads itself, as it was read.
type File struct {
	Name          string
	Configuration *lvs.Configuration // nil if there is none, or it is wrong
	Err           error              // what is wrong with it
}

// Start takes up what the process before has left, and applies the file, if there is
// one; with one that is wrong the last revision is restored after a boot. fresh tells
// that nothing was pinned: the tables are empty, as after a boot of the machine. Call
// it once, before anything else.
//
//   - A change that was under way when the process was killed is taken back.
//   - An apply that still waits to be confirmed goes on waiting; after a boot, or if
//     its time is up, it goes back.
//   - The file is applied if it is neither the one that was read last nor what was
//     applied last, or after a boot. Else the tables stay as they are, with what was
//     changed since.
//
// Returns an error if after a boot neither the file nor what was there before can be
// applied: then the next start tries again.
func (d *Director) Start(ctx context.Context, file File, fresh bool) error {
	defer d.events.add(lvs.EventStarted, "director", "it answers")
	if err := d.takeUp(fresh); err != nil {
		return err
	}
	d.takeNames()
	d.setBooted(fresh && d.state.Revision != 0)
	if u := d.state.Unconfirmed; u != nil {
		went := d.goBack(d.limit(u), fresh)
		if !fresh || went {
			d.noteUnapplied(file)
			d.settle(nil)
			return nil
		}
		if d.state.Unconfirmed != nil {
			return fmt.Errorf("go back to revision %d, as nobody confirmed revision %d: it failed, see the log", u.Back, u.Revision)
		} // else there is nothing to go back to any more
	}
	err := file.Err
	if err == nil {
		err = d.startWith(ctx, file, fresh)
	}
	if err == nil {
		d.settle(file.Configuration)
		return nil
	}
	if fresh {
		if last := d.restore("start without " + file.Name); last != nil {
			return errors.Join(err, last)
		}
	}
	// Forwarding goes on with the tables as they are: an operator who is not let in
	// could not even look.
	d.NoteFile(file.Name, err)
	d.settle(nil)
	return nil
}

// noteUnapplied tells of a file that was not applied because of an apply that waits.
func (d *Director) noteUnapplied(file File) {
	switch {
	case file.Err != nil:
		d.NoteFile(file.Name, file.Err)
	case file.Configuration != nil && !d.seen(*file.Configuration):
		d.NoteFile(file.Name, errors.New("an apply was waiting to be confirmed"))
	}
}

// seen tells whether the file is the one that was read last, or what was applied last.
func (d *Director) seen(file lvs.Configuration) bool {
	sum := digest(file)
	return sum == d.state.File || sum == d.state.Applied
}

func (d *Director) startWith(ctx context.Context, file File, fresh bool) error {
	if file.Configuration == nil || !fresh && d.seen(*file.Configuration) {
		return nil
	}
	if fresh && d.state.Revision != 0 && digest(*file.Configuration) == d.state.Applied {
		if err := d.restore("start with " + file.Name); !errors.Is(err, lvs.ErrNoRevision) {
			return err
		}
	}
	_, err := d.Configure(ctx, *file.Configuration, lvs.Request{Who: ourselves, What: "start with " + file.Name, AllowEmpty: fresh})
	return err
}

// restore makes the tables the last revision again, as after a boot.
//
// Returns lvs.ErrNoRevision if there is none.
func (d *Director) restore(what string) error {
	r := lvs.Request{Who: ourselves, What: what + ": back"}
	applied, err := func() (lvs.Applied, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		applied, _, err := d.goTo(d.state.Revision, &r, true)
		return applied, err
	}()
	d.record(lvs.EventRolledBack, r, applied, err)
	return err
}

// settle notes that the tables are what they should be, and which file was read.
func (d *Director) settle(file *lvs.Configuration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booted = false
	d.state.Settled = true
	if file != nil {
		d.state.File = digest(*file)
	}
	if err := d.Store.Save(d.state); err != nil {
		d.cannotNote(err)
	}
}

// ConfigureFile is Configure for the file that the daemon reads itself.
func (d *Director) ConfigureFile(ctx context.Context, file lvs.Configuration, r lvs.Request) error {
	if _, err := d.Configure(ctx, file, r); err != nil {
		return err
	}
	d.settle(&file)
	return nil
}

func (d *Director) setBooted(booted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.booted = booted
}

// limit keeps a clock that was set back from making an apply wait for ever.
func (d *Director) limit(u *lvs.Unconfirmed) *lvs.Unconfirmed {
	d.mu.Lock()
	defer d.mu.Unlock()
	if latest := time.Now().Add(time.Duration(u.Within)); u.Within > 0 && u.Deadline.After(latest) {
		limited := *u
		limited.Deadline = latest
		d.state.Unconfirmed = &limited
		d.publish()
	}
	return d.state.Unconfirmed
}

// takeUp ends a change that was under way: it is taken back. After a boot there is
// nothing to take back. If it cannot be, Run tries again, and the journal stays open.
func (d *Director) takeUp(fresh bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.state.Before
	if before == nil {
		return nil
	}
	if fresh {
		d.tookUp(before)
		return nil
	}
	live, err := d.live()
	if err != nil {
		return err
	}
	after := live.desire()
	after.restore(before.Configuration)
	d.current = after.table
	d.publish()
	if err := d.run(diff(live, after), nil); err != nil {
		d.Note(lvs.Warning{Object: noteKilled, Text: "it cannot be taken back: " + err.Error(), Fix: "it is tried again every few seconds"})
		return nil
	}
	d.tookUp(before)
	return nil
}

// tookUp notes that a change was taken back.
func (d *Director) tookUp(before *lvs.Revision) {
	d.state.Before = nil
	if err := d.dropAfter(before.Number); err != nil {
		d.Log.Warn("drop revisions of a change that did not end", "err", err)
	}
	if err := d.Store.End(d.state); err != nil {
		d.cannotNote(err)
	} else {
		d.journal = false
	}
	const taken = "the daemon was killed in the middle of it, so it was taken back"
	d.Note(lvs.Warning{Object: noteKilled, Text: taken, Fix: "see with lvx history what it was, and make it again if it is still wanted"})
	entry := lvs.HistoryEntry{Time: time.Now(), Generation: d.state.Generation, Who: before.Who, What: before.What, Result: taken}
	if err := d.Store.Record(entry); err != nil {
		d.Log.Error("write the audit log", "err", err)
	}
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

// takeNames gives the services that were pinned the names of the last revision: the
// data plane does not know names.
func (d *Director) takeNames() {
	d.mu.Lock()
	defer d.mu.Unlock()
	revision, err := d.Store.Revision(d.state.Revision)
	if err != nil {
		return // none, or not kept: then services have no names
	}
	named := d.current.clone() // readers may have it
	named.names(configured(revision.Configuration))
	d.current = named
	d.publish()
}
