// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lvx/internal/director"
	"lvx/internal/lvs"
)

// types returns the types of the events after an ID, and the last ID.
func types(d *director.Director, after uint64) (list []lvs.EventType, last uint64) {
	events, _ := d.Events(after)
	for _, e := range events {
		list, last = append(list, e.Type), e.ID
	}
	return list, max(after, last)
}

// A real server that cannot be reached is told once, and once when it can be again;
// a thousand are told in a few words.
func TestWarningsBecomeEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, _ := two(t)
		for n := range uint16(100) {
			s := one.Services[0].Clone()
			s.ServiceKey, s.Name = key(1000+n), ""
			s.RealServers = []lvs.RealServer{realServer(3, 1000+n, 1)}
			one.Services = append(one.Services, s)
		}
		var silent atomic.Value // the address that does not answer
		m.Hop = func(a netip.Addr) lvs.NextHopState {
			if a == silent.Load() {
				return lvs.NextHopUnresolved
			}
			return lvs.NextHopReady
		}
		d := newDirector(t, m)
		configure(t, d, one, lvs.Request{})
		ctx, stop := context.WithCancel(t.Context())
		go d.Run(ctx)
		_, last := types(d, 0)
		for _, step := range []struct {
			silent string
			want   []lvs.EventType
		}{
			{"10.0.0.1", []lvs.EventType{lvs.EventWarning}},
			{"", []lvs.EventType{lvs.EventCleared}},
			{"10.0.0.3", slices.Repeat([]lvs.EventType{lvs.EventWarning}, 21)},
			{"", slices.Repeat([]lvs.EventType{lvs.EventCleared}, 21)},
		} {
			addr, _ := netip.ParseAddr(step.silent)
			silent.Store(addr)
			time.Sleep(12 * time.Second)
			synctest.Wait()
			var got []lvs.EventType
			if got, last = types(d, last); !slices.Equal(got, step.want) {
				t.Errorf("with %q silent: events %v, want %v", step.silent, got, step.want)
			}
		}
		stop()
	})
}

// Behind a router it is dr alone that does not reach a real server; a change to dr is
// warned of as well.
func TestBehindARouter(t *testing.T) {
	m := NewMemory()
	m.Hop = func(netip.Addr) lvs.NextHopState { return lvs.NextHopOffLink }
	d := newDirector(t, m)
	changes := []lvs.Change{{Operation: lvs.AddService, Service: key(80), Scheduler: lvs.RR}}
	for n, method := range lvs.Methods() {
		r := realServer(uint16(n+1), 80, 1)
		if r.Method = method; method == lvs.Tun {
			r.Tunnel = lvs.Tunnel{Type: lvs.IPIP}
		}
		changes = append(changes, lvs.Change{Operation: lvs.AddServer, Service: key(80), RealServer: r})
	}
	moved := changes[2]
	moved.Operation, moved.RealServer.Method = lvs.EditServer, lvs.DR
	for _, step := range []struct {
		changes []lvs.Change
		warned  string
	}{{changes, "10.0.0.1:80"}, {[]lvs.Change{moved}, "10.0.0.2:80"}} {
		applied, err := d.Apply(t.Context(), step.changes, lvs.Request{})
		if err != nil {
			t.Fatal(err)
		}
		if len(applied.Warnings) != 1 || applied.Warnings[0].Object != "real server "+step.warned+" of tcp 198.51.100.1:80" ||
			!strings.Contains(applied.Warnings[0].Text, "dr cannot reach it") {
			t.Errorf("%s: %+v", step.warned, applied.Warnings)
		}
	}
}

// Rates follow what is counted, and go to 0 when nothing is; a Zero is no negative
// rate.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, _ := two(t)
		d := newDirector(t, m)
		configure(t, d, one, lvs.Request{})
		ctx, stop := context.WithCancel(t.Context())
		go d.Run(ctx)
		rates := func() lvs.Rates {
			services, err := d.Services()
			if err != nil || services[0].Rates != services[0].RealServers[1].Rates {
				t.Errorf("the rates are %+v, %v", services, err)
			}
			return services[0].Rates
		}
		for range 120 {
			m.Count(key(80), lvs.Stats{Connections: 10, InPackets: 100, InBytes: 50_000})
			time.Sleep(time.Second)
		}
		if r := rates(); r.Connections < 8 || r.Connections > 12 || r.InPackets < 80 || r.InPackets > 120 || r.InBytes < 40_000 || r.InBytes > 60_000 || r.OutBytes != 0 {
			t.Errorf("after two minutes of 10 connections a second: %+v", r)
		}
		if _, err := d.Apply(ctx, []lvs.Change{{Operation: lvs.Zero}}, lvs.Request{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if r := rates(); r.InPackets < 0 || r.InPackets > 120 {
			t.Errorf("after a zero: %+v", r)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if r := rates(); r.InPackets > 0.1 {
			t.Errorf("two minutes after the last packet: %+v", r)
		}
		stop()
	})
}
