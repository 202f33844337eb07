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
// It waits for no change: one under way makes the plan out of date, which its
// generation shows.
func (d *Director) Plan(wanted lvs.Configuration) (lvs.Plan, error) {
	if err := wanted.Validate(); err != nil {
		return lvs.Plan{}, err
	}
	v := d.view.Load()
	live, err := d.load()
	for again := 0; again < 3 && err == nil && d.view.Load() != v; again++ { // it changed meanwhile
		v = d.view.Load()
		live, err = d.load()
	}
	if err != nil {
		return lvs.Plan{}, err
	}
	live.names(v.table)
	after := live.desire()
	after.become(wanted)
	plan, err := d.describe(live, after.table)
	if changes := fields(settingsProperties(v.settings), settingsProperties(wanted.Settings)); len(changes) > 0 {
		plan.Changes = append(plan.Changes, lvs.Difference{
			Action: lvs.Modify, Object: "settings", Fields: changes, Effect: "they are read at the start of the director alone",
		})
	}
	plan.Generation = v.generation
	plan.Emptied = emptied(live, after.table)
	plan.Warnings = append(d.adviceFor(after.table), d.settingsWarnings(wanted.Settings)...)
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
	applied, servers, err := d.configure(wanted, r)
	d.record(lvs.EventChanged, r, applied, err)
	if err != nil {
		return applied, err
	}
	if u := applied.Unconfirmed; u != nil {
		d.events.add(lvs.EventUnconfirmed, fmt.Sprintf("revision %d", applied.Revision),
			fmt.Sprintf("it goes back to revision %d at %s unless it is confirmed", u.Back, u.Deadline.Format(time.TimeOnly)))
		d.wakeUp()
	}
	applied.Warnings = d.afterwards(ctx, r.Wait, servers, wanted.Settings)
	return applied, nil
}

// afterwards says what of a configuration that was applied will not work. It waits
// for the next hops of these real servers.
func (d *Director) afterwards(ctx context.Context, wait time.Duration, servers []placed, s lvs.Settings) []lvs.Warning {
	list := d.unreachable(ctx, wait, servers)
	list = append(list, d.adviceFor(d.view.Load().table)...)
	return append(list, d.settingsWarnings(s)...)
}

func (d *Director) configure(wanted lvs.Configuration, r lvs.Request) (applied lvs.Applied, servers []placed, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
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
		what := "would have no real server left"
		if len(after.services) == 0 {
			what = "would be gone, with all others"
		}
		return applied, nil, fmt.Errorf("%s %s: %w", someServices(empty), what, lvs.ErrEmptied)
	}
	asItIs, err := d.isRevision(d.state.Revision)
	if err != nil {
		return applied, nil, err
	}
	t := &transaction{steps: diff(live, after), after: after.table, next: d.state, request: r, durable: true}
	t.next.Settings, t.next.Applied, t.next.Changed = wanted.Settings, digest(wanted), false
	if asItIs && !d.booted && live.same(after.table) && d.current.same(live) && d.state.Settings.Equal(wanted.Settings) {
		if err := d.Store.Save(t.next); err != nil {
			return applied, nil, err
		}
		d.state = t.next
		d.over(noteFile)
		return applied, nil, nil
	}
	d.keepsRevision(t, r, asItIs)
	if r.Confirm > 0 {
		t.next.Unconfirmed = &lvs.Unconfirmed{
			Deadline: time.Now().Add(r.Confirm), Back: d.state.Revision, Within: lvs.Duration(r.Confirm),
		}
	}
	if err := d.commit(t); err != nil {
		return applied, nil, err
	}
	if r.Confirm == 0 {
		d.good()
	}
	d.over(noteFile, noteGoBack)
	applied.Changed, applied.Generation, applied.Revision = true, d.state.Generation, d.state.Revision
	applied.Unconfirmed = d.state.Unconfirmed
	return applied, newServers(live, after.table), nil
}

// keepsRevision makes the transaction a revision. If the tables as they are are not
// the last revision, because changes were made one by one, they are kept as well.
func (d *Director) keepsRevision(t *transaction, r lvs.Request, asItIs bool) {
	t.revision = &lvs.Revision{
		Back: d.state.Revision, Generation: d.state.Generation + 1, Time: time.Now(), Who: r.Who, What: r.What,
		Configuration: lvs.Configuration{Settings: t.next.Settings, Timeouts: t.after.timeouts, Services: t.after.list()},
	}
	if !asItIs {
		t.earlier = d.asItWas(r)
	}
}

// asItWas is the tables before a change, as a revision.
func (d *Director) asItWas(r lvs.Request) *lvs.Revision {
	return &lvs.Revision{
		Back: d.state.Revision, Generation: d.state.Generation, Time: time.Now(), Who: r.Who, What: "as it was before: " + r.What,
		Configuration: d.configuration(d.current),
	}
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
