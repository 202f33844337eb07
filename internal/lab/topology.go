// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lvx/internal/lvs"
)

// The hosts of every topology. Real servers are rs1, rs2, ….
const (
	Client   = "client"
	Router   = "router"
	Switch   = "switch"
	Director = "director"
)

// RealServerName returns the name of the i-th real server, from 1.
func RealServerName(i int) string { return fmt.Sprintf("rs%d", i) }

// The names of the topologies.
const (
	DR        = "dr"
	NATTwoArm = "nat-two-arm"
	NATOneArm = "nat-one-arm"
	TunRouted = "tun-routed"
)

// Topology is a network that can be built by name.
type Topology struct {
	Name   string     `json:"name"`
	Method lvs.Method `json:"method"` // the forwarding method that it is for
	Text   string     `json:"text"`   // one line
}

// Topologies lists those there are. The first of a method is the one that its
// demonstration runs in.
func Topologies() []Topology {
	return []Topology{
		{DR, lvs.DR, "client - router - switch - director, rs1, rs2: direct routing, the real servers answer straight through the router"},
		{NATTwoArm, lvs.NAT, "client - router - switch - director - switch - rs1, rs2: the real servers are in a network of their own behind the director"},
		{NATOneArm, lvs.NAT, "client - router - switch - director, rs1, rs2: the real servers' default route goes by way of the director"},
		{TunRouted, lvs.Tun, "client - router - director, router - rs1, router - rs2: real servers in other networks answer straight through the router"},
	}
}

// FindTopology returns the topology of that name, and false if there is none.
func FindTopology(name string) (Topology, bool) {
	list := Topologies()
	i := slices.IndexFunc(list, func(t Topology) bool { return t.Name == name })
	if i < 0 {
		return Topology{}, false
	}
	return list[i], true
}

// topologyOf returns the name of the topology that shows a method, "" if none does.
func topologyOf(method lvs.Method) string {
	for _, t := range Topologies() {
		if t.Method == method {
			return t.Name
		}
	}
	return ""
}

// Method returns the forwarding method that the lab's topology is for.
func (l *Lab) Method() lvs.Method {
	if t, ok := FindTopology(l.Name); ok {
		return t.Method
	}
	return lvs.DR
}

// BuildDR builds topology dr.
func BuildDR(ctx context.Context, options Options) (*Lab, error) { return Build(ctx, DR, options) }

// Build builds a topology: hosts, wires, addresses and routes of both families.
// Nothing of lvx runs in it yet. It takes about half a second.
func Build(ctx context.Context, name string, options Options) (*Lab, error) {
	if _, ok := FindTopology(name); !ok {
		return nil, fmt.Errorf("there is no topology %q", name)
	}
	l, err := New(options)
	if err != nil {
		return nil, err
	}
	l.Name = name
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context) error {
	names := []string{Client, Router, Switch, Director}
	for i := range l.options.RealServers {
		names = append(names, RealServerName(i+1))
	}
	for _, name := range names {
		if _, err := l.AddHost(ctx, name); err != nil {
			return err
		}
	}
	for _, build := range []func() error{l.buildOutside, l.buildSegments, l.setRoutes} {
		if err := build(); err != nil {
			return err
		}
	}
	return nil
}
