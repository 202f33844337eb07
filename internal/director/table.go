// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"lvx/internal/lvs"
)

// table is the services by key, in the order in which they were added, with the
// timeouts in force. A service in it is never changed, only replaced.
type table struct {
	services map[lvs.ServiceKey]lvs.Service
	order    []lvs.ServiceKey // the oldest first
	timeouts lvs.Timeouts
}

// newTable takes services as the plane has them, the newest first.
func newTable(list []lvs.Service, timeouts lvs.Timeouts) table {
	t := table{services: make(map[lvs.ServiceKey]lvs.Service, len(list)), timeouts: timeouts}
	for _, s := range slices.Backward(list) {
		t.services[s.ServiceKey] = s
		t.order = append(t.order, s.ServiceKey)
	}
	return t
}

// names gives services the names that they have in another table.
func (t table) names(named table) {
	for key, s := range t.services {
		s.Name = named.services[key].Name
		t.services[key] = s
	}
}

func (t table) clone() table {
	return table{services: maps.Clone(t.services), order: slices.Clone(t.order), timeouts: t.timeouts}
}

// list returns the services, the oldest first.
func (t table) list() []lvs.Service {
	list := make([]lvs.Service, 0, len(t.order))
	for _, key := range t.order {
		list = append(list, t.services[key].Clone())
	}
	return list
}

// same tells whether two tables make the plane do the same, and name it alike.
func (t table) same(o table) bool {
	return t.timeouts == o.timeouts && maps.EqualFunc(t.services, o.services, func(a, b lvs.Service) bool {
		return a.Equal(b) && a.Name == b.Name
	})
}

// desired is where changes lead: the services, and what is not in them.
type desired struct {
	table
	fresh map[lvs.ServiceKey]bool // deleted, and perhaps added again: then statistics begin anew
	zeros map[lvs.ServiceKey]bool
}

func (t table) desire() desired {
	return desired{table: t.clone(), fresh: map[lvs.ServiceKey]bool{}, zeros: map[lvs.ServiceKey]bool{}}
}

// follow makes the changes in their order. Those that cannot be made are returned
// if it keeps going; else the first of them ends it.
func (d *desired) follow(changes []lvs.Change, keepGoing bool) (refused []lvs.Refused, err error) {
	for i, c := range changes {
		err := d.change(c)
		switch {
		case err == nil:
		case keepGoing:
			refused = append(refused, lvs.Refused{Index: i, Err: err})
		case len(changes) > 1:
			return nil, fmt.Errorf("change %d (%s): %w", i+1, c.Operation, err)
		default:
			return nil, err
		}
	}
	d.tidy()
	return refused, nil
}

// become makes the table what the configuration says. Services that stay keep
// their place, new ones come behind, in their order.
func (d *desired) become(c lvs.Configuration) {
	wanted := make(map[lvs.ServiceKey]lvs.Service, len(c.Services))
	for _, s := range c.Services {
		wanted[s.ServiceKey] = s.Clone()
		if _, was := d.services[s.ServiceKey]; !was {
			d.order = append(d.order, s.ServiceKey)
		}
	}
	d.services = wanted
	d.timeouts = c.Timeouts.Merge(lvs.DefaultTimeouts())
	d.tidy()
}

// restore makes the table what the configuration says, in its order as well.
func (d *desired) restore(c lvs.Configuration) {
	d.become(c)
	d.order = d.order[:0]
	for _, s := range c.Services {
		d.order = append(d.order, s.ServiceKey)
	}
}

// tidy takes out of the order what is no more, and of what is there twice, because
// it was deleted and added again, the earlier.
func (d *desired) tidy() {
	seen := make(map[lvs.ServiceKey]bool, len(d.services))
	order := make([]lvs.ServiceKey, 0, len(d.services))
	for _, key := range slices.Backward(d.order) {
		if _, exists := d.services[key]; exists && !seen[key] {
			seen[key] = true
			order = append(order, key)
		}
	}
	slices.Reverse(order)
	d.order = order
}

func (d *desired) change(c lvs.Change) error {
	switch c.Operation {
	case lvs.AddService:
		return d.addService(c)
	case lvs.EditService:
		return d.editService(c)
	case lvs.DeleteService:
		return d.deleteService(c)
	case lvs.AddServer, lvs.EditServer, lvs.DeleteServer:
		return d.changeServer(c)
	case lvs.Clear:
		for key := range d.services {
			d.remove(key)
		}
		return nil
	case lvs.Zero:
		return d.zero(c)
	case lvs.SetTimeouts:
		if err := c.Timeouts.Validate(); err != nil {
			return err
		}
		d.timeouts = c.Timeouts.Merge(d.timeouts)
		return nil
	}
	return fmt.Errorf("operation %q is none: %w", c.Operation, lvs.ErrInvalid)
}

func (d *desired) addService(c lvs.Change) error {
	if _, exists := d.services[c.Service]; exists {
		return fmt.Errorf("service %s: %w", c.Service, lvs.ErrServiceExists)
	}
	if err := d.put(lvs.Service{ServiceKey: c.Service, Scheduler: c.Scheduler, Flags: c.Flags}); err != nil {
		return err
	}
	d.order = append(d.order, c.Service)
	return nil
}

func (d *desired) editService(c lvs.Change) error {
	s, err := d.find(c.Service)
	if err != nil {
		return err
	}
	s.Scheduler, s.Flags = c.Scheduler, c.Flags
	return d.put(s)
}

func (d *desired) deleteService(c lvs.Change) error {
	if _, err := d.find(c.Service); err != nil {
		return err
	}
	d.remove(c.Service)
	return nil
}

func (d *desired) remove(key lvs.ServiceKey) {
	delete(d.services, key)
	delete(d.zeros, key)
	d.fresh[key] = true
}

func (d *desired) changeServer(c lvs.Change) error {
	s, err := d.find(c.Service)
	if err != nil {
		return err
	}
	s = s.Clone()
	at := s.Find(c.RealServer.Address)
	switch {
	case c.Operation == lvs.AddServer && at >= 0:
		return fmt.Errorf("real server %s of %s: %w", c.RealServer.Address, c.Service, lvs.ErrServerExists)
	case c.Operation == lvs.AddServer:
		s.RealServers = slices.Insert(s.RealServers, 0, c.RealServer)
	case at < 0:
		return fmt.Errorf("real server %s of %s: %w", c.RealServer.Address, c.Service, lvs.ErrNoServer)
	case c.Operation == lvs.EditServer:
		s.RealServers[at] = c.RealServer
	default:
		s.RealServers = slices.Delete(s.RealServers, at, at+1)
	}
	if c.Operation != lvs.DeleteServer { // the others have been looked at when they came
		if err := s.ValidateRealServer(c.RealServer); err != nil {
			return err
		}
	}
	d.services[s.ServiceKey] = s
	return nil
}

func (d *desired) zero(c lvs.Change) error {
	if c.Service == (lvs.ServiceKey{}) {
		for key := range d.services {
			d.zeros[key] = true
		}
		return nil
	}
	if _, err := d.find(c.Service); err != nil {
		return err
	}
	d.zeros[c.Service] = true
	return nil
}

func (d *desired) find(key lvs.ServiceKey) (lvs.Service, error) {
	s, exists := d.services[key]
	if !exists {
		return s, fmt.Errorf("service %s: %w", key, lvs.ErrNoService)
	}
	return s, nil
}

func (d *desired) put(s lvs.Service) error {
	if err := s.Validate(); err != nil {
		return err
	}
	d.services[s.ServiceKey] = s
	return nil
}

// step is one write, and the one that takes it back; nil if there is no way back.
type step struct {
	name     string
	do, undo func(Plane) error
	parts    bool // it is several writes
}

// diff orders the writes so that no packet is worse off in between: services
// that come first, then those that change, then those that go, and last what
// cannot be taken back.
func diff(before table, after desired) (plan []step) {
	for _, k := range after.order {
		if _, was := before.services[k]; !was {
			plan = append(plan, addStep(after.services[k]))
		}
	}
	for _, k := range after.order {
		if old, was := before.services[k]; was && !after.services[k].Equal(old) {
			plan = append(plan, editStep(old, after.services[k]))
		}
	}
	for _, k := range before.order {
		if _, stays := after.services[k]; !stays {
			plan = append(plan, deleteStep(before.services[k]))
		}
	}
	if natural := naturalOrder(before, after.table); !slices.Equal(natural, after.order) {
		plan = append(plan, arrangeStep(before.order, after.order))
	}
	if after.timeouts != before.timeouts {
		plan = append(plan, timeoutsStep(before.timeouts, after.timeouts))
	}
	for _, k := range after.order {
		if _, was := before.services[k]; after.zeros[k] || was && after.fresh[k] {
			plan = append(plan, step{name: "zero " + k.String(), do: func(p Plane) error { return p.Zero(k) }})
		}
	}
	return plan
}

// naturalOrder is the order that services have after those steps: what stays keeps its
// place, what is added is the newest.
func naturalOrder(before, after table) (order []lvs.ServiceKey) {
	for _, k := range before.order {
		if _, stays := after.services[k]; stays {
			order = append(order, k)
		}
	}
	for _, k := range after.order {
		if _, was := before.services[k]; !was {
			order = append(order, k)
		}
	}
	return order
}

func arrangeStep(old, next []lvs.ServiceKey) step {
	arrange := func(order []lvs.ServiceKey) func(Plane) error { return func(p Plane) error { return p.Arrange(order) } }
	return step{name: "order the services", do: arrange(next), undo: arrange(old), parts: true}
}

func put(s lvs.Service) func(Plane) error { return func(p Plane) error { return p.Put(s) } }

func remove(k lvs.ServiceKey) func(Plane) error { return func(p Plane) error { return p.Delete(k) } }

func addStep(s lvs.Service) step {
	return step{name: "add service " + s.String(), do: put(s), undo: remove(s.ServiceKey)}
}

func editStep(old, next lvs.Service) step {
	return step{name: "change service " + next.String(), do: put(next), undo: put(old)}
}

func deleteStep(old lvs.Service) step {
	return step{name: "delete service " + old.String(), do: remove(old.ServiceKey), undo: put(old)}
}

func timeoutsStep(old, next lvs.Timeouts) step {
	set := func(t lvs.Timeouts) func(Plane) error { return func(p Plane) error { return p.SetTimeouts(t) } }
	do := func(p Plane) error {
		err := p.SetTimeouts(next)
		if err != nil { // of three writes some may have been made
			err = errors.Join(err, p.SetTimeouts(old))
		}
		return err
	}
	return step{name: "set timeouts", do: do, undo: set(old), parts: true}
}
