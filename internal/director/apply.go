// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"slices"
	"time"

	"lvx/internal/lvs"
)

// Apply makes all changes, one after the other, or with an error none; with
// KeepGoing those that can be made. Then it waits for the next hops of the real
// servers that are new or changed, or of all if there is no change. The warnings are
// about those that cannot be reached.
//
// Returns lvs.ErrServiceExists and its like when a change is refused,
// lvs.ErrGeneration and lvs.ErrUnconfirmed.
func (d *Director) Apply(ctx context.Context, changes []lvs.Change, r lvs.Request) (lvs.Applied, error) {
	if r.What == "" {
		r.What = summary(changes)
	}
	applied, servers, err := d.apply(changes, r)
	if len(changes) > 0 && !r.DryRun {
		d.record(lvs.EventChanged, r, applied, err)
	}
	if err != nil || r.DryRun {
		return applied, err
	}
	if len(changes) == 0 {
		servers = newServers(table{}, d.view.Load().table)
	}
	applied.Warnings = d.unreachable(ctx, r.Wait, servers)
	return applied, nil
}

func (d *Director) apply(changes []lvs.Change, r lvs.Request) (applied lvs.Applied, servers []placed, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	applied.Generation = d.state.Generation
	if len(changes) == 0 {
		return applied, nil, nil
	}
	if err := d.mayChange(r); err != nil {
		return applied, nil, err
	}
	after := d.current.desire()
	if applied.Refused, err = after.follow(changes, r.KeepGoing); err != nil {
		return applied, nil, err
	}
	steps := diff(d.current, after)
	if r.DryRun {
		plan, err := d.describe(d.current, after.table)
		plan.Generation = d.state.Generation
		applied.Plan = &plan
		return applied, nil, err
	}
	servers = newServers(d.current, after.table)
	if applied.Changed = len(steps) > 0; !applied.Changed {
		return applied, servers, nil
	}
	next := d.state
	next.Changed = true
	err = d.commit(&transaction{steps: steps, after: after.table, next: next, request: r})
	applied.Generation = d.state.Generation
	return applied, servers, err
}

// mayChange tells why nobody, or not this one, may change the tables now.
func (d *Director) mayChange(r lvs.Request) error {
	if u := d.state.Unconfirmed; u != nil {
		return fmt.Errorf("revision %d goes back at %s unless it is confirmed: %w", u.Revision, u.Deadline.Format(time.TimeOnly), lvs.ErrUnconfirmed)
	}
	return d.isFor(r)
}

// isFor tells whether the tables are those that the request is for.
func (d *Director) isFor(r lvs.Request) error {
	if r.Generation != 0 && r.Generation != d.state.Generation {
		return fmt.Errorf("the request is for generation %d, they are at %d: %w", r.Generation, d.state.Generation, lvs.ErrGeneration)
	}
	return nil
}

// summary words a list of changes for the audit log.
func summary(changes []lvs.Change) string {
	if len(changes) == 1 {
		return changes[0].String()
	}
	counts := map[lvs.Operation]int{}
	var order []lvs.Operation
	for _, c := range changes {
		if !slices.Contains(order, c.Operation) {
			order = append(order, c.Operation)
		}
		counts[c.Operation]++
	}
	text := fmt.Sprintf("%d changes:", len(changes))
	for i, o := range order {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %d %s", counts[o], o)
	}
	return text
}
