// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
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
	durable           bool // it has to be noted before it counts
	progress          func(lvs.Progress)
}

// commit makes the change. With an error everything is as it was, or, if writes
// failed that were to take others back, as near to it as can be. The caller holds mu.
//
// The order is what a kill -9 is safe against: the journal is open while steps are
// taken, and closing it is the moment at which the change counts.
func (d *Director) commit(t *transaction) error {
	begun, err := d.begin(t)
	if err != nil {
		return err
	}
	if err := d.run(t.steps, t.progress); err != nil {
		d.resync()
		return errors.Join(err, d.abandon(begun, nil))
	}
	t.next.Generation = d.state.Generation + 1
	numbers, err := d.keep(t)
	if err == nil {
		err = d.end(t.next, begun)
	}
	if err != nil {
		return errors.Join(err, d.undo(t.steps), d.abandon(begun, numbers))
	}
	d.state, d.current, d.booted = t.next, t.after, false
	d.publish()
	return nil
}

// begin opens the journal for changes of several steps; one step is a change at
// once by itself. Where the journal cannot be written, changes of a file are
// refused; those that an operator makes one by one are not: a full disk must not
// keep him from taking a real server out.
func (d *Director) begin(t *transaction) (begun bool, err error) {
	if len(t.steps) < 2 && !t.durable {
		return false, nil
	}
	err = d.Store.Begin(lvs.Revision{
		Number: d.Store.Newest(), Generation: d.state.Generation, Time: time.Now(),
		What: "as it was before the change", Configuration: d.configuration(d.current),
	})
	if err != nil && !t.durable {
		d.Log.Warn("a change is made without the journal", "err", err)
		return false, nil
	}
	return err == nil, err
}

func (d *Director) keep(t *transaction) (numbers []uint64, err error) {
	if t.revision == nil {
		return nil, nil
	}
	for _, r := range []*lvs.Revision{t.earlier, t.revision} {
		if r == nil {
			continue
		}
		if len(numbers) > 0 {
			r.Back = numbers[0]
		}
		if r.Number, err = d.Store.Keep(*r); err != nil {
			return numbers, err
		}
		numbers = append(numbers, r.Number)
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

func (d *Director) end(next State, begun bool) error {
	if begun {
		return d.Store.End(next)
	}
	if err := d.Store.Save(next); err != nil {
		d.Log.Warn("note the change", "err", err) // it was made, and stays
	}
	return nil
}

// abandon closes the journal of a change that was taken back.
func (d *Director) abandon(begun bool, kept []uint64) (err error) {
	for _, number := range kept {
		err = errors.Join(err, d.Store.Drop(number))
	}
	if begun {
		err = errors.Join(err, d.Store.End(d.state))
	}
	return err
}

// attempts is how often a write is tried before the plan is taken back.
const attempts = 3

// run takes the steps. If one fails for good, those taken are taken back.
func (d *Director) run(steps []step, progress func(lvs.Progress)) error {
	for i, s := range steps {
		if err := retry(s.do, d.Plane); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", s.name, err), d.undo(steps[:i]))
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

// resync reads the tables anew after a failure, for what was to be taken back may
// not have been. What differs from what they should be is drift, and repaired.
func (d *Director) resync() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}
