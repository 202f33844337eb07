// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"time"

	"lvx/internal/lvs"
)

const (
	// driftPeriod is how often the tables are compared with what they should be.
	driftPeriod = 5 * time.Second
	// advicePeriod is how old what is said of the host may be: to look takes processes.
	advicePeriod = 2 * time.Second
)

// ourselves is who changes things without being asked.
const ourselves = "lvx director"

// watch is what Run remembers from one look to the next.
type watch struct {
	warnings map[lvs.Warning]bool // those that were told
}

// Run keeps the plane as it should be until ctx ends: it takes back an apply that
// nobody confirms, repairs what was changed behind lvx's back, and keeps rates. It
// blocks; run it once, after Start.
func (d *Director) Run(ctx context.Context) {
	rates, drift := time.NewTicker(ratePeriod), time.NewTicker(driftPeriod)
	defer rates.Stop()
	defer drift.Stop()
	for {
		deadline := time.NewTimer(d.untilDeadline())
		select {
		case <-ctx.Done():
			deadline.Stop()
			return
		case <-deadline.C:
			d.expire(ctx)
		case <-d.wake:
			if d.dirty.Swap(false) {
				d.repair()
			}
		case <-rates.C:
			d.sample()
		case <-drift.C:
			d.repair()
			d.look()
		}
		deadline.Stop()
	}
}

// untilDeadline returns how long an apply still waits to be confirmed; very long if
// none does.
func (d *Director) untilDeadline() time.Duration {
	if u := d.view.Load().unconfirmed; u != nil {
		return max(0, time.Until(u.Deadline))
	}
	return time.Hour
}

// expire goes back if the deadline has passed.
func (d *Director) expire(ctx context.Context) {
	u := d.view.Load().unconfirmed
	if u == nil || time.Now().Before(u.Deadline) || d.goBack(u, false) {
		return
	}
	select { // not at once again: whatever is wrong needs a moment
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

func (d *Director) sample() {
	services, err := d.Facts.Services()
	if err != nil {
		d.Log.Error("read statistics", "err", err)
		return
	}
	d.rates.sample(time.Now(), services)
}

// repair makes the tables what they should be again, and tells what was not. It is
// what the last change made of them, whoever made it.
func (d *Director) repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteAgain()
	found, err := d.Plane.Repair()
	if err != nil {
		d.Log.Error("repair the tables", "err", err)
	}
	for _, text := range found {
		d.drifted("data plane", text)
	}
	live, err := d.live()
	if err != nil {
		d.Log.Error("read the tables", "err", err)
		return
	}
	steps := diff(live, d.current.desire())
	defer func() {
		if before := d.state.Before; before != nil && len(steps) == 0 {
			d.tookUp(before)
		}
	}()
	if len(steps) == 0 {
		return
	}
	plan, err := d.describe(live, d.current)
	if err != nil {
		d.Log.Error("compare the tables", "err", err)
	}
	if err := d.run(steps, nil); err != nil {
		d.Log.Error("repair the tables", "err", err)
		return
	}
	for _, step := range steps {
		d.drifted("tables", "they were not as they should be; repaired: "+step.name+details(plan, step.name))
	}
}

// details says what of an object was different.
func details(plan lvs.Plan, step string) (text string) {
	for _, c := range plan.Changes {
		for _, f := range c.Fields {
			if c.Action == lvs.Modify && step == "change service "+c.Service.String() {
				text += fmt.Sprintf("; %s of %s was %s, is %s again", f.Name, c.Object, f.Old, f.New)
			}
		}
	}
	return text
}

func (d *Director) drifted(object, text string) {
	d.Log.Warn("drift repaired", "object", object, "text", text)
	d.events.add(lvs.EventDrift, object, text)
}

// look tells, as events, of warnings that are new or over.
func (d *Director) look() {
	services, err := d.Facts.Services()
	if err != nil {
		return // said elsewhere
	}
	now := map[lvs.Warning]bool{}
	for _, w := range append(warnings(services), d.hostAdvice(services)...) {
		now[w] = true
	}
	d.tell(lvs.EventWarning, now, d.watch.warnings, "")
	d.tell(lvs.EventCleared, d.watch.warnings, now, "no longer: ")
	d.watch.warnings = now
}

// mostTold is how many warnings are told one by one at a time: when a switch fails,
// what happened besides shall not drown.
const mostTold = 20

// tell makes an event of each warning that is in one set and not in the other.
func (d *Director) tell(kind lvs.EventType, in, notIn map[lvs.Warning]bool, prefix string) {
	told := 0
	for w := range in {
		if notIn[w] {
			continue
		}
		if told++; told <= mostTold {
			d.events.add(kind, w.Object, prefix+w.Text)
		}
	}
	if told > mostTold {
		d.events.add(kind, "warnings", fmt.Sprintf("and %d more at the same time; those that hold now are in lvx status", told-mostTold))
	}
}
