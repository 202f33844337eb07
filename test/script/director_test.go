// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvx/internal/director"
	"lvx/internal/lvs"
)

func newDirector(t fataler, m *Memory) *director.Director {
	return openDirector(t, director.Options{Plane: m, Facts: m})
}

func openDirector(t fataler, o director.Options) *director.Director {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	d, err := director.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func key(port uint16) lvs.ServiceKey {
	return lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), port)}
}

func realServer(n, port uint16, weight uint32) lvs.RealServer {
	return lvs.RealServer{Address: netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:%d", n, port)), Method: lvs.DR, Weight: weight}
}

// text is a table to compare by.
func text(t fataler, m *Memory) string {
	t.Helper()
	list, err := m.Services()
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintln("timeouts", m.timeouts.TCP.Seconds(), m.timeouts.TCPFin.Seconds(), m.timeouts.UDP.Seconds())
	for _, s := range list {
		out += fmt.Sprintln(append([]any{s.ServiceKey, s.Scheduler}, anys(s.Flags.Names())...)...)
		for _, r := range s.RealServers {
			out += strings.TrimRight(fmt.Sprintln("  ", r.Address, r.Method, r.Weight, r.Tunnel), " \n") + "\n"
		}
	}
	return out
}

func anys(names []string) (list []any) {
	for _, name := range names {
		list = append(list, name)
	}
	return list
}

type fataler interface {
	Helper()
	Fatal(...any)
}

// drawServer draws how a real server is used.
func drawServer(t *rapid.T, n, port uint16) lvs.RealServer {
	r := realServer(n, port, rapid.Uint32Range(0, 3).Draw(t, "weight"))
	r.Method = rapid.SampledFrom([]lvs.Method{lvs.DR, lvs.DR, lvs.NAT, lvs.Tun}).Draw(t, "method")
	if r.Method == lvs.Tun {
		r.Tunnel = rapid.SampledFrom([]lvs.Tunnel{
			{Type: lvs.IPIP}, {Type: lvs.GRE, Checksum: lvs.HeaderChecksum}, {Type: lvs.GUE, Port: 6080}, {Type: lvs.GUE, Port: 6081},
		}).Draw(t, "tunnel")
	}
	return r
}

// drawChange draws a change out of a small world, so that many meet.
func drawChange(t *rapid.T) lvs.Change {
	port := rapid.Uint16Range(80, 83).Draw(t, "port")
	c := lvs.Change{
		Operation: rapid.SampledFrom([]lvs.Operation{
			lvs.AddService, lvs.EditService, lvs.DeleteService, lvs.AddServer, lvs.AddServer, lvs.AddServer,
			lvs.EditServer, lvs.DeleteServer, lvs.Clear, lvs.Zero, lvs.SetTimeouts,
		}).Draw(t, "operation"),
	}
	switch c.Operation {
	case lvs.Clear:
		return c
	case lvs.SetTimeouts:
		c.Timeouts.TCP = lvs.Duration(rapid.Int64Range(-1, 1000).Draw(t, "timeout")) * 1e9
		return c
	case lvs.AddService, lvs.EditService:
		c.Scheduler = rapid.SampledFrom([]lvs.Scheduler{lvs.RR, lvs.WLC, "dh", "nonsense"}).Draw(t, "scheduler")
	case lvs.AddServer, lvs.EditServer, lvs.DeleteServer:
		c.RealServer = drawServer(t, rapid.Uint16Range(1, 4).Draw(t, "server"), port)
	}
	c.Service = key(port)
	return c
}

// Apply makes all changes or none, whichever write fails, and one by one or all
// at once they lead to the same table.
func TestApplyIsAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, model := NewMemory(), NewMemory()
		d, sound := newDirector(t, m), newDirector(t, model)
		for range rapid.IntRange(1, 12).Draw(t, "applies") {
			changes := rapid.SliceOfN(rapid.Custom(drawChange), 1, 6).Draw(t, "changes")
			before := text(t, m)
			// A run of failures long enough to defeat the retries, or a single one.
			first := m.writes + rapid.IntRange(1, 6).Draw(t, "first failure")
			length := rapid.SampledFrom([]int{0, 1, 3}).Draw(t, "failures")
			m.Fail = func(n int) bool { return n >= first && n < first+length }
			_, err := d.Apply(context.Background(), changes, lvs.Request{})
			m.Fail = nil
			if err != nil {
				if got := text(t, m); got != before {
					t.Fatalf("%v, but the table changed:\n%s", err, cmp.Diff(before, got))
				}
				if !errors.Is(err, ErrInjected) {
					if _, sure := sound.Apply(context.Background(), changes, lvs.Request{}); sure == nil {
						t.Fatalf("refused (%v) what a sound plane takes", err)
					}
				}
				continue
			}
			if _, err := sound.Apply(context.Background(), changes, lvs.Request{}); err != nil {
				t.Fatalf("taken, but a sound plane refuses it: %v", err)
			}
			if diff := cmp.Diff(text(t, model), text(t, m)); diff != "" {
				t.Fatalf("the tables differ (-sound +faulty):\n%s", diff)
			}
		}
	})
}

// A refused change names its object and what is wrong with it.
func TestRefusals(t *testing.T) {
	add := lvs.Change{Operation: lvs.AddService, Service: key(80), Scheduler: lvs.RR}
	server := lvs.Change{Operation: lvs.AddServer, Service: key(80), RealServer: realServer(1, 80, 1)}
	for _, c := range []struct {
		name    string
		changes []lvs.Change
		kind    error
		text    string
	}{
		{"twice", []lvs.Change{add, add}, lvs.ErrServiceExists, "change 2 (add-service): service tcp 198.51.100.1:80: the service exists already"},
		{"no service", []lvs.Change{server}, lvs.ErrNoService, "service tcp 198.51.100.1:80: there is no such service"},
		{"server twice", []lvs.Change{add, server, server}, lvs.ErrServerExists, "change 3 (add-server): real server 10.0.0.1:80 of tcp 198.51.100.1:80: the real server exists already"},
		{"no server", []lvs.Change{add, {Operation: lvs.DeleteServer, Service: key(80), RealServer: realServer(9, 80, 1)}}, lvs.ErrNoServer, "change 2 (delete-server): real server 10.0.0.9:80 of tcp 198.51.100.1:80: there is no such real server"},
		{"another port", []lvs.Change{add, {Operation: lvs.AddServer, Service: key(80), RealServer: realServer(1, 8080, 1)}}, lvs.ErrInvalid, "change 2 (add-server): service tcp 198.51.100.1:80: real server 10.0.0.1:8080: dr cannot change the port (the service has 80): not possible"},
		{"no scheduler", []lvs.Change{{Operation: lvs.AddService, Service: key(80), Scheduler: "zz"}}, lvs.ErrNoScheduler, `service tcp 198.51.100.1:80: scheduler "zz": there is no such scheduler`},
		{"a later one", []lvs.Change{{Operation: lvs.AddService, Service: key(80), Scheduler: "dh"}}, lvs.ErrUnsupported, "service tcp 198.51.100.1:80: scheduler dh: not in this version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMemory()
			_, err := newDirector(t, m).Apply(context.Background(), c.changes, lvs.Request{})
			if !errors.Is(err, c.kind) || err.Error() != c.text {
				t.Errorf("got  %v\nwant %s", err, c.text)
			}
			if m.writes != 0 {
				t.Errorf("%d writes", m.writes)
			}
		})
	}
}
