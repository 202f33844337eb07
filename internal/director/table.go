// SPDX-License-Identifier: Apache-2.0

package director

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"lvx/internal/lvs"
)

// table is the services by key, with the order in which they were added. A service
// in it is never changed, only replaced.
type table struct {
	services map[lvs.ServiceKey]lvs.Service
	order    []lvs.ServiceKey // the oldest first
	timeouts lvs.Timeouts
}

func newTable(list []lvs.Service) table {
	t := table{services: map[lvs.ServiceKey]lvs.Service{}}
	for _, s := range slices.Backward(list) {
		t.services[s.ServiceKey] = s
		t.order = append(t.order, s.ServiceKey)
	}
	return t
}

func (t table) clone() table {
	return table{services: maps.Clone(t.services), order: slices.Clone(t.order), timeouts: t.timeouts}
}

// desired is where the changes lead: the services, and what is not in them.
type desired struct {
	table
	fresh    map[lvs.ServiceKey]bool // deleted, and perhaps added again: then statistics begin anew
	zeros    []lvs.ServiceKey
	timeouts lvs.Timeouts // those to change
}

// makePlan validates the changes in their order and returns the steps from the
// table as it is to where they lead.
func makePlan(before table, changes []lvs.Change) ([]step, error) {
	after := desired{table: before.clone(), fresh: map[lvs.ServiceKey]bool{}}
	for i, c := range changes {
		if err := after.change(c); err != nil {
			if len(changes) > 1 {
				return nil, fmt.Errorf("change %d (%s): %w", i+1, c.Operation, err)
			}
			return nil, err
		}
	}
	return diff(before, after), nil
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
		for _, k := range slices.Clone(d.order) {
			d.remove(k)
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
	return fmt.Errorf("operation %q: %w", c.Operation, lvs.ErrUnsupported)
}

func (d *desired) addService(c lvs.Change) error {
	if _, exists := d.services[c.Service]; exists {
		return fmt.Errorf("service %s: %w", c.Service, lvs.ErrServiceExists)
	}
	d.order = append(d.order, c.Service)
	return d.put(lvs.Service{ServiceKey: c.Service, Scheduler: c.Scheduler})
}

func (d *desired) editService(c lvs.Change) error {
	s, err := d.find(c.Service)
	if err != nil {
		return err
	}
	s.Scheduler = c.Scheduler
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
	d.order = slices.DeleteFunc(d.order, func(k lvs.ServiceKey) bool { return k == key })
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
	return d.put(s)
}

func (d *desired) zero(c lvs.Change) error {
	if c.Service == (lvs.ServiceKey{}) {
		d.zeros = append(d.zeros, d.order...)
		return nil
	}
	_, err := d.find(c.Service)
	d.zeros = append(d.zeros, c.Service)
	return err
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
	if after.timeouts != (lvs.Timeouts{}) {
		plan = append(plan, timeoutsStep(before.timeouts, after.timeouts))
	}
	for _, k := range after.order {
		_, was := before.services[k]
		if slices.Contains(after.zeros, k) || was && after.fresh[k] {
			plan = append(plan, step{name: "zero " + k.String(), do: func(p Plane) error { return p.Zero(k) }})
		}
	}
	return plan
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
	return step{name: "set timeouts", do: do, undo: set(old)}
}
