// SPDX-License-Identifier: Apache-2.0

// Package director is the brain: it turns the services as they are and the
// changes asked for into the services as they should be, validates all of it,
// and brings the data plane there in an order that no packet sees half of.
// Apply is the one place where things change.
//
// It is not for maps, packets or sockets: it sees the data plane through its own
// small interfaces, so that it runs on any machine.
package director

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lvx/internal/lvs"
)

// Plane is what the director changes. Package dataplane is the real one.
type Plane interface {
	// Load returns the services as packets see them, the newest first.
	Load() ([]lvs.Service, error)
	// Put adds a service or replaces it; a packet sees the old or the new.
	Put(lvs.Service) error
	Delete(lvs.ServiceKey) error
	// Zero sets statistics to 0.
	Zero(lvs.ServiceKey) error
	// SetTimeouts changes the idle times that are not 0.
	SetTimeouts(lvs.Timeouts) error
}

// Facts are what the director only reads.
type Facts interface {
	// Services returns the services with what was counted, the newest first.
	Services() ([]lvs.ServiceStatus, error)
	Connections(each func(lvs.Connection) error) error
	Reasons() ([]lvs.Reason, error)
	// Status returns what the plane knows of itself.
	Status() (lvs.Status, error)
	// Reach returns the next hops of real servers. It waits until all are known,
	// or ctx ends.
	Reach(ctx context.Context, addrs []netip.Addr) []lvs.NextHop
}

// Options are what a Director is made of.
type Options struct {
	Plane Plane
	Facts Facts
	// Advise looks at the host for what will not work as it stands. It may be nil.
	Advise func([]lvs.ServiceStatus) []lvs.Warning
	Log    *slog.Logger
}

// Director is the one writer of a data plane. Its methods may be called at the
// same time.
type Director struct {
	Options
	mu sync.Mutex // one change at a time
}

// New returns a director of a plane that may hold services already.
func New(options Options) *Director { return &Director{Options: options} }

// Services returns the services as packets see them, the newest first.
func (d *Director) Services() ([]lvs.ServiceStatus, error) { return d.Facts.Services() }

// Connections calls each for every connection; see Facts. No lock is held.
func (d *Director) Connections(each func(lvs.Connection) error) error {
	return d.Facts.Connections(each)
}

// Reasons returns every reason with its count.
func (d *Director) Reasons() ([]lvs.Reason, error) { return d.Facts.Reasons() }

// Status returns the director at a glance, with what does not work.
func (d *Director) Status() (lvs.Status, error) {
	status, err := d.Facts.Status()
	if err != nil {
		return status, err
	}
	reasons, err := d.Facts.Reasons()
	if err != nil {
		return status, err
	}
	for _, r := range reasons {
		switch r.Verdict {
		case lvs.Forwarded:
			status.Packets.Forwarded += r.Packets
		case lvs.Passed:
			status.Packets.Passed += r.Packets
		case lvs.Dropped:
			status.Packets.Dropped += r.Packets
		}
	}
	services, err := d.Facts.Services()
	if err != nil {
		return status, err
	}
	status.Warnings = append(warnings(services), status.Warnings...)
	if d.Advise != nil {
		status.Warnings = append(status.Warnings, d.Advise(services)...)
	}
	return status, nil
}

// Apply makes all changes, one after the other, or with an error none. Then it
// waits at most that long for the next hops of the real servers that the changes
// added or edited, or of all if there is no change. The warnings are about those
// that cannot be reached.
//
// Returns lvs.ErrServiceExists and its like when a change is refused.
func (d *Director) Apply(ctx context.Context, changes []lvs.Change, wait time.Duration) ([]lvs.Warning, error) {
	if err := d.apply(changes); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return d.unreachable(waiting, changes)
}

func (d *Director) apply(changes []lvs.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before, err := d.load(changes)
	if err != nil {
		return err
	}
	plan, err := makePlan(before, changes)
	if err != nil {
		return err
	}
	if err := d.run(plan); err != nil {
		return err
	}
	for _, c := range changes {
		d.Log.Info("changed", "change", c)
	}
	return nil
}

// load reads the table as it is, and the timeouts if they are to change.
func (d *Director) load(changes []lvs.Change) (table, error) {
	services, err := d.Plane.Load()
	if err != nil {
		return table{}, err
	}
	before := newTable(services)
	if slices.ContainsFunc(changes, func(c lvs.Change) bool { return c.Operation == lvs.SetTimeouts }) {
		status, err := d.Facts.Status()
		if err != nil {
			return table{}, err
		}
		before.timeouts = status.Timeouts
	}
	return before, nil
}

// attempts is how often a write is tried before the plan is taken back.
const attempts = 3

// run takes the steps. If one fails for good, those taken are taken back.
func (d *Director) run(plan []step) error {
	for i, s := range plan {
		err := retry(s.do, d.Plane)
		if err == nil {
			continue
		}
		for j := i - 1; j >= 0; j-- {
			if plan[j].undo == nil {
				continue
			}
			if undone := retry(plan[j].undo, d.Plane); undone != nil {
				d.Log.Error("take back a step", "step", plan[j].name, "err", undone)
				err = errors.Join(err, fmt.Errorf("taking back %s: %w", plan[j].name, undone))
			}
		}
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return nil
}

func retry(do func(Plane) error, plane Plane) (err error) {
	for range attempts {
		if err = do(plane); err == nil || errors.Is(err, lvs.ErrFull) {
			return err // waiting makes no room
		}
	}
	return err
}
