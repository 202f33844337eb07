// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// What happens to live connections.
const (
	effectStay    = "its connections stay where they are"
	effectQuiet   = "its connections stay; it gets no new ones"
	effectMethod  = "its connections go by the new method from their next packet on"
	effectDropped = "packets of its connections are dropped until it is added again"
)

// counted is the live connections of each real server.
type counted map[serverOf]lvs.Counts

func (d *Director) count() (counted, error) {
	services, err := d.Facts.Services()
	if err != nil {
		return nil, err
	}
	counts := counted{}
	for _, s := range services {
		for _, r := range s.RealServers {
			counts[serverOf{s.ServiceKey, r.Address}] = r.Counts
		}
	}
	return counts, nil
}

// describe says in words what is different between two tables.
func (d *Director) describe(before, after table) (lvs.Plan, error) {
	counts, err := d.count()
	if err != nil {
		return lvs.Plan{}, err
	}
	p := &lvs.Plan{Changes: []lvs.Difference{}, Warnings: []lvs.Warning{}}
	for _, key := range after.order {
		old, was := before.services[key]
		if was {
			p.Changes = append(p.Changes, counts.changed(old, after.services[key])...)
		} else {
			p.Changes = append(p.Changes, added(after.services[key])...)
		}
	}
	for _, key := range before.order {
		if _, stays := after.services[key]; !stays {
			p.Changes = append(p.Changes, counts.removed(before.services[key])...)
		}
	}
	if fields := timeoutFields(before.timeouts, after.timeouts); len(fields) > 0 {
		p.Changes = append(p.Changes, lvs.Difference{
			Action: lvs.Modify, Object: "timeouts", Fields: fields, Effect: "a connection gets the new one with its next packet",
		})
	}
	for _, c := range p.Changes {
		if c.RealServer != "" {
			p.Touched = p.Touched.Add(c.Counts)
		}
	}
	return *p, nil
}

func serviceDifference(action lvs.Action, s lvs.Service) lvs.Difference {
	return lvs.Difference{Action: action, Object: "service " + s.String(), Service: s.ServiceKey}
}

func serverDifference(action lvs.Action, s lvs.Service, r lvs.RealServer) lvs.Difference {
	return lvs.Difference{
		Action: action, Object: fmt.Sprintf("real server %s of %s", r.Address, s.ServiceKey),
		Service: s.ServiceKey, RealServer: r.Address.String(),
	}
}

func added(s lvs.Service) []lvs.Difference {
	d := serviceDifference(lvs.Add, s)
	d.Fields = fields(serviceProperties(lvs.Service{}), serviceProperties(s))
	list := []lvs.Difference{d}
	for _, r := range s.RealServers {
		list = append(list, addedServer(s, r))
	}
	return list
}

func addedServer(s lvs.Service, r lvs.RealServer) lvs.Difference {
	d := serverDifference(lvs.Add, s, r)
	d.Fields = fields([]property{{"method", ""}, {"tunnel", ""}, {"weight", ""}}, serverProperties(r))
	return d
}

func (c counted) removed(s lvs.Service) []lvs.Difference {
	list := []lvs.Difference{serviceDifference(lvs.Remove, s)}
	for _, r := range s.RealServers {
		list = append(list, c.removedServer(s, r))
	}
	return list
}

func (c counted) removedServer(s lvs.Service, r lvs.RealServer) lvs.Difference {
	d := serverDifference(lvs.Remove, s, r)
	d.Counts = c[serverOf{s.ServiceKey, r.Address}]
	if d.Counts != (lvs.Counts{}) {
		d.Effect = effectDropped
	}
	return d
}

// changed compares a service with what it is to be.
func (c counted) changed(old, next lvs.Service) (list []lvs.Difference) {
	changes := fields(serviceProperties(old), serviceProperties(next))
	if was, is := kept(old, next), kept(next, old); was != is {
		changes = append(changes, lvs.Field{Name: "order of real_servers", Old: was, New: is})
	}
	if len(changes) > 0 {
		d := serviceDifference(lvs.Modify, next)
		d.Fields, d.Effect = changes, effectStay
		list = append(list, d)
	}
	for _, r := range next.RealServers {
		at := old.Find(r.Address)
		if at < 0 {
			list = append(list, addedServer(next, r))
			continue
		}
		differ := fields(serverProperties(old.RealServers[at]), serverProperties(r))
		if len(differ) == 0 {
			continue
		}
		d := serverDifference(lvs.Modify, next, r)
		d.Fields, d.Counts = differ, c[serverOf{next.ServiceKey, r.Address}]
		d.Effect = effectOf(old.RealServers[at], r)
		list = append(list, d)
	}
	for _, r := range old.RealServers {
		if next.Find(r.Address) < 0 {
			list = append(list, c.removedServer(old, r))
		}
	}
	return list
}

// effectOf says what a change of a real server means for its connections.
func effectOf(old, next lvs.RealServer) string {
	moved := next.Method != old.Method || next.Tunnel != old.Tunnel
	switch {
	case moved && next.Weight == 0:
		return effectMethod + "; it gets no new ones"
	case moved:
		return effectMethod
	case next.Weight == 0:
		return effectQuiet
	}
	return effectStay
}

// kept returns the real servers that another service has as well, in their order.
func kept(s, other lvs.Service) string {
	var list []string
	for _, r := range s.RealServers {
		if other.Find(r.Address) >= 0 {
			list = append(list, r.Address.String())
		}
	}
	return strings.Join(list, " ")
}

// property is what a file says of an object.
type property struct{ name, value string }

func serviceProperties(s lvs.Service) []property {
	return []property{
		{"name", s.Name},
		{"scheduler", string(s.Scheduler)},
		{"scheduler_flags", strings.ReplaceAll(string(s.Flags), ",", " ")},
	}
}

func serverProperties(r lvs.RealServer) []property {
	return []property{{"method", string(r.Method)}, {"tunnel", r.Tunnel.String()}, {"weight", fmt.Sprint(r.Weight)}}
}

// fields returns the properties that differ.
func fields(old, next []property) (list []lvs.Field) {
	for i, p := range next {
		if p.value != old[i].value {
			list = append(list, lvs.Field{Name: p.name, Old: old[i].value, New: p.value})
		}
	}
	return list
}

func timeoutFields(old, next lvs.Timeouts) []lvs.Field {
	properties := func(t lvs.Timeouts) []property {
		text := func(d lvs.Duration) string { return time.Duration(d).String() }
		return []property{{"tcp", text(t.TCP)}, {"tcp_fin", text(t.TCPFin)}, {"udp", text(t.UDP)}}
	}
	return fields(properties(old), properties(next))
}

// adviceFor says what on this host will not work with a table.
func (d *Director) adviceFor(t table) []lvs.Warning {
	if d.Advise == nil {
		return []lvs.Warning{}
	}
	services := make([]lvs.ServiceStatus, 0, len(t.order))
	for _, key := range t.order {
		services = append(services, lvs.ServiceStatus{ServiceKey: key})
	}
	return append([]lvs.Warning{}, d.Advise(services)...)
}
