// SPDX-License-Identifier: Apache-2.0

package director

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lvx/internal/lvs"
)

// Plan tells what Configure would do, seen from the tables as packets see them now.
func (d *Director) Plan(wanted lvs.Configuration) (lvs.Plan, error) {
	if err := wanted.Validate(); err != nil {
		return lvs.Plan{}, err
	}
	d.mu.Lock()
	live, err := d.live()
	after := live.desire()
	generation := d.state.Generation
	d.mu.Unlock()
	if err != nil {
		return lvs.Plan{}, err
	}
	after.become(wanted)
	plan, err := d.describe(live, after.table)
	plan.Generation = generation
	plan.Emptied = emptied(live, after.table)
	plan.Warnings = append(plan.Warnings, d.settingsWarnings(wanted.Settings)...)
	return plan, err
}

// live reads the tables as packets see them, with the names that only the director
// knows. The caller holds mu.
func (d *Director) live() (table, error) {
	live, err := d.load()
	if err == nil {
		live.names(d.current)
	}
	return live, err
}

// Configure makes the tables what the configuration says: what it does not name is
// taken out. It is kept as a revision. With Confirm it goes back by itself unless
// Confirm is called in time.
//
// Returns lvs.ErrInvalid and its like when the configuration cannot be,
// lvs.ErrGeneration, lvs.ErrUnconfirmed and lvs.ErrEmptied.
func (d *Director) Configure(ctx context.Context, wanted lvs.Configuration, r lvs.Request) (lvs.Applied, error) {
	r.What = cmp.Or(r.What, "configure")
	d.mu.Lock()
	applied, servers, err := d.configure(wanted, r)
	d.mu.Unlock()
	d.record(lvs.EventChanged, r, applied, err)
	if err != nil {
		return applied, err
	}
	if applied.Unconfirmed != nil {
		d.events.add(lvs.EventUnconfirmed, fmt.Sprintf("revision %d", applied.Revision), fmt.Sprintf(
			"it goes back to revision %d at %s unless it is confirmed", applied.Unconfirmed.Back, applied.Unconfirmed.Deadline.Format(time.TimeOnly)))
		d.resync()
	}
	waiting, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	applied.Warnings = append(d.unreachable(waiting, servers), applied.Warnings...)
	return applied, nil
}

func (d *Director) configure(wanted lvs.Configuration, r lvs.Request) (applied lvs.Applied, servers []serverOf, err error) {
	applied.Generation, applied.Revision = d.state.Generation, d.state.Revision
	if err := wanted.Validate(); err != nil {
		return applied, nil, err
	}
	if err := d.mayChange(r); err != nil {
		return applied, nil, err
	}
	live, err := d.live()
	if err != nil {
		return applied, nil, err
	}
	after := live.desire()
	after.become(wanted)
	if empty := emptied(live, after.table); len(empty) > 0 && !r.AllowEmpty {
		return applied, nil, fmt.Errorf("%s would have no real server left: %w", someServices(empty), lvs.ErrEmptied)
	}
	applied.Warnings = append(d.adviceFor(after.table), d.settingsWarnings(wanted.Settings)...)
	t := &transaction{steps: diff(live, after), after: after.table, next: d.state, progress: r.Progress, durable: true}
	t.next.Settings, t.next.File = wanted.Settings, digest(wanted)
	if live.same(after.table) && d.current.same(live) && d.state.Settings.Equal(wanted.Settings) && d.state.Revision != 0 {
		d.state = t.next
		return applied, nil, d.Store.Save(d.state)
	}
	if err := d.keepsRevision(t, r); err != nil {
		return applied, nil, err
	}
	if r.Confirm > 0 {
		t.next.Unconfirmed = &lvs.Unconfirmed{Deadline: time.Now().Add(r.Confirm), Back: d.state.Revision}
	}
	if err := d.commit(t); err != nil {
		return applied, nil, err
	}
	if r.Confirm == 0 {
		d.good()
	}
	applied.Changed, applied.Generation, applied.Revision = true, d.state.Generation, d.state.Revision
	applied.Unconfirmed = d.state.Unconfirmed
	return applied, newServers(live, after.table), nil
}

// keepsRevision makes the transaction a revision. If the tables as they are are not
// the last revision, because changes were made one by one, they are kept as well.
func (d *Director) keepsRevision(t *transaction, r lvs.Request) error {
	now := time.Now()
	t.revision = &lvs.Revision{
		Back: d.state.Revision, Generation: d.state.Generation + 1, Time: now, Who: r.Who, What: r.What,
		Configuration: lvs.Configuration{Settings: t.next.Settings, Timeouts: t.after.timeouts, Services: t.after.list()},
	}
	asItIs, err := d.isRevision(d.state.Revision)
	if err != nil {
		return err
	}
	if !asItIs {
		t.earlier = &lvs.Revision{
			Back: d.state.Revision, Generation: d.state.Generation, Time: now, Who: r.Who, What: "as it was before: " + r.What,
			Configuration: d.configuration(d.current),
		}
	}
	return nil
}

// isRevision tells whether the tables are what a revision says.
func (d *Director) isRevision(number uint64) (bool, error) {
	if number == 0 {
		return false, nil
	}
	if d.booted {
		return true, nil // it was, until the machine went down
	}
	revision, err := d.Store.Revision(number)
	if errors.Is(err, lvs.ErrNoRevision) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return d.current.same(configured(revision.Configuration)), nil
}

// configured returns the table that a configuration asks for.
func configured(c lvs.Configuration) table {
	empty := table{}.desire()
	empty.services = map[lvs.ServiceKey]lvs.Service{}
	empty.become(c)
	return empty.table
}

func (d *Director) configuration(t table) lvs.Configuration {
	return lvs.Configuration{Settings: d.state.Settings, Timeouts: t.timeouts, Services: t.list()}
}

// good notes that the tables as they are may be gone back to in need.
func (d *Director) good() {
	if err := d.Store.Good(d.configuration(d.current)); err != nil {
		d.Log.Warn("keep the last good configuration", "err", err)
	}
}

// emptied returns the services that lose their last real server and stay, or all
// services if the last one goes.
func emptied(before, after table) (list []lvs.ServiceKey) {
	for _, key := range before.order {
		s, stays := after.services[key]
		gone := !stays && len(after.services) == 0
		if len(before.services[key].RealServers) > 0 && len(s.RealServers) == 0 && (stays || gone) {
			list = append(list, key)
		}
	}
	return list
}

func someServices(keys []lvs.ServiceKey) string {
	if len(keys) == 1 {
		return "service " + keys[0].String()
	}
	return fmt.Sprintf("service %s and %d more", keys[0], len(keys)-1)
}

// digest returns the SHA-256 of what a configuration says.
func digest(c lvs.Configuration) string {
	text, err := json.Marshal(c)
	if err != nil {
		return "" // never equal to another
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Confirm keeps what an apply with a deadline did.
//
// Returns lvs.ErrNothingWaits.
func (d *Director) Confirm(r lvs.Request) (lvs.Applied, error) {
	r.What = cmp.Or(r.What, "confirm")
	d.mu.Lock()
	applied, err := d.confirm()
	d.mu.Unlock()
	d.record(lvs.EventConfirmed, r, applied, err)
	return applied, err
}

func (d *Director) confirm() (lvs.Applied, error) {
	applied := lvs.Applied{Generation: d.state.Generation, Revision: d.state.Revision, Warnings: []lvs.Warning{}}
	if d.state.Unconfirmed == nil {
		return applied, lvs.ErrNothingWaits
	}
	next := d.state
	next.Unconfirmed = nil
	if err := d.Store.End(next); err != nil {
		return applied, err
	}
	d.state = next
	d.publish()
	d.good()
	return applied, nil
}

// Rollback goes back to a revision; 0 is the one before the present: what was there
// before changes that were made one by one, or before the last apply. It ends the
// waiting of an apply that is not confirmed.
//
// Returns lvs.ErrNoRevision and lvs.ErrGeneration.
func (d *Director) Rollback(ctx context.Context, number uint64, r lvs.Request) (lvs.Applied, error) {
	d.mu.Lock()
	applied, servers, err := d.rollback(number, &r)
	d.mu.Unlock()
	d.record(lvs.EventRolledBack, r, applied, err)
	if err != nil {
		return applied, err
	}
	waiting, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	applied.Warnings = append(d.unreachable(waiting, servers), applied.Warnings...)
	return applied, nil
}

func (d *Director) rollback(number uint64, r *lvs.Request) (applied lvs.Applied, servers []serverOf, err error) {
	applied.Generation, applied.Revision = d.state.Generation, d.state.Revision
	if r.What == "" {
		r.What = "rollback"
	}
	if r.Generation != 0 && r.Generation != d.state.Generation {
		return applied, nil, fmt.Errorf("the rollback is for generation %d, they are at %d: %w", r.Generation, d.state.Generation, lvs.ErrGeneration)
	}
	asItIs, err := d.isRevision(d.state.Revision)
	if err != nil {
		return applied, nil, err
	}
	if number == 0 {
		if number, err = d.previous(asItIs); err != nil {
			return applied, nil, err
		}
	}
	revision, err := d.Store.Revision(number)
	if err != nil {
		return applied, nil, fmt.Errorf("revision %d: %w", number, err)
	}
	r.What = fmt.Sprintf("%s to revision %d", r.What, number)
	live, err := d.live()
	if err != nil {
		return applied, nil, err
	}
	if !asItIs {
		// What was changed one by one since is kept: a rollback loses nothing.
		if err := d.keepNow(*r); err != nil {
			return applied, nil, err
		}
	}
	after := live.desire()
	after.become(revision.Configuration)
	t := &transaction{steps: diff(live, after), after: after.table, next: d.state, progress: r.Progress, durable: true}
	t.next.Unconfirmed, t.next.Revision, t.next.Settings = nil, number, revision.Configuration.Settings
	t.next.File = digest(revision.Configuration)
	applied.Changed = !live.same(after.table)
	applied.Warnings = append(d.adviceFor(after.table), d.settingsWarnings(revision.Configuration.Settings)...)
	if err := d.commit(t); err != nil {
		return applied, nil, err
	}
	d.good()
	applied.Generation, applied.Revision = d.state.Generation, number
	return applied, newServers(live, after.table), nil
}

// previous returns the revision before the present one.
func (d *Director) previous(asItIs bool) (uint64, error) {
	switch {
	case d.state.Unconfirmed != nil && d.state.Unconfirmed.Back != 0:
		return d.state.Unconfirmed.Back, nil
	case !asItIs && d.state.Revision != 0:
		return d.state.Revision, nil
	}
	if d.state.Revision != 0 {
		revision, err := d.Store.Revision(d.state.Revision)
		if err != nil || revision.Back != 0 {
			return revision.Back, err
		}
	}
	return 0, fmt.Errorf("go back before revision %d: %w", d.state.Revision, lvs.ErrNoRevision)
}

// keepNow keeps the tables as they are as a revision.
func (d *Director) keepNow(r lvs.Request) error {
	_, err := d.Store.Keep(lvs.Revision{
		Back: d.state.Revision, Generation: d.state.Generation, Time: time.Now(), Who: r.Who, What: "as it was before: " + r.What,
		Configuration: d.configuration(d.current),
	})
	return err
}
