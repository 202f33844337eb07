// SPDX-License-Identifier: Apache-2.0

// Package director is the brain: it turns the services as they are and what is
// asked for into the services as they should be, validates all of it, and brings
// the data plane there in an order that no packet sees half of. It is the one
// place where things change:
//
//	Apply       makes changes, one after the other     (ipvsadm, the API)
//	Configure   makes the tables what a file says      (lvx apply, SIGHUP)
//	Rollback    makes them what they were
//
// Each of them is validated whole, planned, written, and noted in the state
// directory, so that it can be taken back. Between them, Run keeps the plane as it
// should be: it repairs what was changed behind lvx's back.
//
// It is not for maps, packets, files or sockets: it sees the data plane and the
// state directory through its own small interfaces, so that it runs on any machine.
package director

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
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
	// Arrange makes the services be listed in this order, the oldest first. What is
	// not there is passed over.
	Arrange(oldestFirst []lvs.ServiceKey) error
	// Repair mends what Load does not show, and says what it found.
	Repair() (repaired []string, err error)
}

// Facts are what the director only reads.
type Facts interface {
	// Services returns the services with what was counted, the newest first.
	Services() ([]lvs.ServiceStatus, error)
	Connections(each func(lvs.Connection) error) error
	Reasons() ([]lvs.Reason, error)
	// Status returns what the plane knows of itself.
	Status() (lvs.Status, error)
	Neighbours() ([]lvs.Neighbour, error)
	// Timeouts returns the idle times in force.
	Timeouts() (lvs.Timeouts, error)
	// Reach returns the next hops of real servers. It waits until all are known,
	// or ctx ends.
	Reach(ctx context.Context, addrs []netip.Addr) []lvs.NextHop
}

// Options are what a Director is made of.
type Options struct {
	Plane Plane
	Facts Facts
	// Store outlives the process. Nil keeps everything in memory.
	Store Store
	// Settings are those that the daemon started with: what a configuration says
	// differently waits for the next start.
	Settings lvs.Settings
	// Advise looks at the host for what will not work as it stands. It may be nil.
	Advise func([]lvs.ServiceStatus) []lvs.Warning
	Log    *slog.Logger
}

// Director is the one writer of a data plane. Its methods may be called at the
// same time.
type Director struct {
	Options
	started time.Time
	events  eventLog
	rates   rateTable
	host    advice
	notes   notes
	dirty   atomic.Bool   // a change was not wholly taken back: Run repairs it at once
	wake    chan struct{} // tells Run that the deadline of an apply changed
	watch   watch         // Run's own

	mu      sync.Mutex // one change at a time; guards what follows
	current table      // as it should be; the plane is kept like it
	state   State      // as the store has it
	booted  bool       // the machine was: that the tables are empty is nobody's change
	journal bool       // it is open: a change that ended has to close it
	unnoted bool       // a change was made that the store does not know
	failing bool       // to go back failed, and was told

	// view is what readers see: they never wait for a change under way.
	view atomic.Pointer[view]
}

// view is one moment of the director. It never changes, nor does its table: current
// is replaced, not written to.
type view struct {
	table
	settings    lvs.Settings
	generation  uint64
	revision    uint64
	changed     bool
	unconfirmed *lvs.Unconfirmed
}

// New returns a director of a plane that may hold services already. What was begun
// and not ended by a process before is taken up by Start.
func New(options Options) (*Director, error) {
	if options.Store == nil {
		options.Store = &memoryStore{}
	}
	d := &Director{Options: options, started: time.Now(), wake: make(chan struct{}, 1)}
	d.events.next = uint64(d.started.UnixMilli())
	d.state = d.Store.State()
	// A process that was killed may have changed more than it could note.
	d.state.Generation++
	if err := d.Store.Save(d.state); err != nil {
		d.cannotNote(err)
	}
	d.journal = d.state.Before != nil
	current, err := d.load()
	if err != nil {
		return nil, err
	}
	d.current = d.sound(current)
	d.publish()
	return d, nil
}

// sound returns the table without services that cannot be, which somebody made in
// the maps while no daemon ran: they are as in the last revision, or gone, and Run
// repairs them.
func (d *Director) sound(t table) table {
	last := table{}
	for key, s := range t.services {
		if s.Validate() == nil {
			continue
		}
		if last.services == nil {
			revision, _ := d.Store.Revision(d.state.Revision) // else there is nothing to take it from
			last = configured(revision.Configuration)
		}
		if was, known := last.services[key]; known {
			t.services[key] = was
			continue
		}
		delete(t.services, key)
		t.order = slices.DeleteFunc(t.order, func(k lvs.ServiceKey) bool { return k == key })
	}
	return t
}

// load reads the tables as packets see them.
func (d *Director) load() (table, error) {
	services, err := d.Plane.Load()
	if err != nil {
		return table{}, err
	}
	timeouts, err := d.Facts.Timeouts()
	return newTable(services, timeouts), err
}

// publish shows the present to readers. The caller holds mu, or is alone.
func (d *Director) publish() {
	d.view.Store(&view{
		table: d.current, settings: d.state.Settings, generation: d.state.Generation,
		revision: d.state.Revision, changed: d.state.Changed, unconfirmed: d.state.Unconfirmed,
	})
}

// Services returns the services as packets see them, the newest first.
func (d *Director) Services() ([]lvs.ServiceStatus, error) {
	services, err := d.Facts.Services()
	if err != nil {
		return nil, err
	}
	view := d.view.Load()
	for i := range services {
		services[i].Name = view.services[services[i].ServiceKey].Name
	}
	d.rates.fill(services)
	return services, nil
}

// Connections calls each for every connection; see Facts. No lock is held.
func (d *Director) Connections(each func(lvs.Connection) error) error {
	return d.Facts.Connections(each)
}

// Reasons returns every reason with its count.
func (d *Director) Reasons() ([]lvs.Reason, error) { return d.Facts.Reasons() }

// Neighbours returns the next hops of all real servers.
func (d *Director) Neighbours() ([]lvs.Neighbour, error) { return d.Facts.Neighbours() }

// Configuration returns the configuration as it is, whoever made it so, and its
// generation.
func (d *Director) Configuration() (lvs.Configuration, uint64) {
	v := d.view.Load()
	return lvs.Configuration{Settings: v.settings, Timeouts: v.timeouts, Services: v.list()}, v.generation
}

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
	v := d.view.Load()
	status.Started, status.Unconfirmed = d.started, v.unconfirmed
	status.Generation, status.Revision, status.Changed = v.generation, v.revision, v.changed
	services, err := d.Facts.Services()
	if err != nil {
		return status, err
	}
	status.Warnings = append(warnings(services), status.Warnings...)
	status.Warnings = append(status.Warnings, d.Store.Notes()...)
	status.Warnings = append(status.Warnings, d.notes.all()...)
	status.Warnings = append(status.Warnings, d.settingsWarnings(v.settings)...)
	status.Warnings = append(status.Warnings, d.hostAdvice(services)...)
	return status, nil
}

// hostAdvice says what on this host does not work with the services as they are. It
// is not asked anew every time: metrics read the status as well.
func (d *Director) hostAdvice(services []lvs.ServiceStatus) []lvs.Warning {
	if d.Advise == nil {
		return nil
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	generation := d.view.Load().generation
	if d.host.generation != generation || time.Since(d.host.at) >= advicePeriod {
		d.host.list, d.host.at, d.host.generation = d.Advise(services), time.Now(), generation
	}
	return d.host.list
}

// advice is what Advise said last.
type advice struct {
	mu         sync.Mutex
	list       []lvs.Warning
	at         time.Time
	generation uint64
}
