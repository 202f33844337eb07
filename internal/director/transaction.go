// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// transaction is one change of the tables that is made whole or not at all, also
// if the process is killed in the middle of it.
type transaction struct {
	steps []step
	after table // what the tables are then
	next  State // what is noted then, but for the generation
	// revision is kept with it, if it is not nil; earlier before it.
	revision, earlier *lvs.Revision
	needed            []uint64 // revisions that stay, however old
	// durable has to be noted before it counts: what cannot be, is refused.
	durable bool
	// insist goes on although it cannot be noted. It needs no journal: the state that
	// is noted makes a restart do the same again.
	insist  bool
	request lvs.Request // whose it is
}

// commit makes the change. With an error everything is as it was, or, if writes
// failed that were to take others back, as near to it as can be. The caller holds mu.
//
// The order is what a kill -9 is safe against: the journal is open while steps are
// taken, and closing it is the moment at which the change counts.
func (d *Director) commit(t *transaction) error {
	if err := d.begin(t); err != nil {
		return err
	}
	if err := d.run(t.steps, t.request.Progress); err != nil {
		return errors.Join(err, d.abandon(nil))
	}
	t.next.Generation, t.next.Settled, t.next.Before = d.state.Generation+1, true, nil
	numbers, err := d.keep(t)
	if err == nil {
		err = d.end(t)
	}
	if err != nil {
		return errors.Join(err, d.undo(t.steps), d.abandon(numbers))
	}
	d.state, d.current, d.booted = t.next, t.after, false
	d.over(noteKilled)
	if d.state.Unconfirmed == nil {
		d.nothingWaits()
	}
	d.publish()
	return nil
}

// begin opens the journal for changes of several steps; one step is a change at
// once by itself. Where the journal cannot be written, changes of a file are
// refused; those that an operator makes one by one are not: a full disk must not
// keep him from taking a real server out.
func (d *Director) begin(t *transaction) error {
	if t.insist || !t.durable && atOnce(t.steps) {
		return nil
	}
	err := d.Store.Begin(lvs.Revision{
		Number: d.Store.Newest(), Generation: d.state.Generation, Time: time.Now(),
		Who: t.request.Who, What: t.request.What, Configuration: d.configuration(d.current),
	})
	d.journal = d.journal || err == nil
	if err != nil && !t.durable {
		d.Log.Warn("a change is made without the journal", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("the state directory cannot be written, so nothing was changed: %w", err)
	}
	return nil
}

// atOnce tells whether nobody can be killed in the middle of the steps.
func atOnce(steps []step) bool { return len(steps) == 0 || len(steps) == 1 && !steps[0].parts }

func (d *Director) keep(t *transaction) (numbers []uint64, err error) {
	for _, r := range []*lvs.Revision{t.earlier, t.revision} {
		if r == nil {
			continue
		}
		if r == t.revision && t.earlier != nil {
			r.Back = t.earlier.Number
		}
		switch r.Number, err = d.Store.Keep(*r, append(t.needed, numbers...)...); {
		case err == nil:
			numbers = append(numbers, r.Number)
		case t.insist:
			d.Log.Warn("keep a revision", "err", err)
		default:
			return numbers, err
		}
	}
	if t.revision == nil {
		return numbers, nil
	}
	t.next.Revision = t.revision.Number
	if t.next.Unconfirmed != nil {
		t.next.Unconfirmed.Revision = t.revision.Number
		if t.earlier != nil {
			t.next.Unconfirmed.Back = t.earlier.Number
		}
	}
	return numbers, nil
}

// end makes the change count. What is not durable, or insists, does so whether it
// can be noted or not: then Run tries again.
func (d *Director) end(t *transaction) (err error) {
	if d.journal || t.durable || t.insist {
		err = d.Store.End(t.next)
		d.journal = d.journal && err != nil
	} else {
		err = d.Store.Save(t.next)
	}
	if err != nil && (!t.durable || t.insist) {
		d.cannotNote(err)
		return nil
	}
	return err
}

// cannotNote remembers that a change was made that is not noted: Run tries again.
func (d *Director) cannotNote(err error) {
	d.unnoted = true
	d.Note(lvs.Warning{
		Object: noteUnnoted, Text: "changes that were made cannot be noted, and would not be known after a restart: " + err.Error(),
		Fix: "make room there, or let lvx write; it is tried again every few seconds",
	})
}

// noteAgain notes what could not be noted when it was made, and closes a journal
// that could not be closed.
func (d *Director) noteAgain() {
	if !d.unnoted && !d.journal || d.state.Before != nil {
		return
	}
	if err := d.Store.End(d.state); err != nil {
		d.cannotNote(err)
		return
	}
	d.unnoted, d.journal = false, false
	d.over(noteUnnoted)
}

// abandon closes the journal of a change that was taken back.
func (d *Director) abandon(kept []uint64) (err error) {
	d.dirty.Store(true) // what was to be taken back may not have been
	d.wakeUp()
	for _, number := range kept {
		err = errors.Join(err, d.Store.Drop(number))
	}
	if d.journal {
		ended := d.Store.End(d.state)
		d.journal = ended != nil
		err = errors.Join(err, ended)
	}
	return err
}

// attempts is how often a write is tried before the plan is taken back.
const attempts = 3

// run takes the steps. If one fails for good, those taken are taken back.
func (d *Director) run(steps []step, progress func(lvs.Progress)) error {
	for i, s := range steps {
		if err := retry(s.do, d.Plane); err != nil {
			verb, _, _ := strings.Cut(s.name, " ") // what of is in the error
			return errors.Join(fmt.Errorf("%s: %w", verb, err), d.undo(steps[:i]))
		}
		if progress != nil {
			progress(lvs.Progress{Done: i + 1, Total: len(steps), Step: s.name})
		}
	}
	return nil
}

// undo takes steps back, the last first.
func (d *Director) undo(steps []step) (err error) {
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].undo == nil {
			continue
		}
		if undone := retry(steps[i].undo, d.Plane); undone != nil {
			d.Log.Error("take back a step", "step", steps[i].name, "err", undone)
			err = errors.Join(err, fmt.Errorf("taking back %s: %w", steps[i].name, undone))
		}
	}
	if len(steps) > 0 {
		// What was deleted came back as the newest.
		err = errors.Join(err, retry(func(p Plane) error { return p.Arrange(d.current.order) }, d.Plane))
	}
	return err
}

func retry(do func(Plane) error, plane Plane) (err error) {
	for range attempts {
		if err = do(plane); err == nil || errors.Is(err, lvs.ErrFull) {
			return err // waiting makes no room
		}
	}
	return err
}

// wakeUp makes Run look at once.
func (d *Director) wakeUp() {
	select {
	case d.wake <- struct{}{}:
	default: // it will
	}
}
