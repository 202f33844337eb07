// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvx/internal/director"
	"lvx/internal/lvs"
	"lvx/internal/store"
)

// drawConfiguration draws a configuration out of a small world.
func drawConfiguration(t *rapid.T) lvs.Configuration {
	c := lvs.Configuration{Services: []lvs.Service{}}
	for _, port := range rapid.SliceOfNDistinct(rapid.Uint16Range(80, 85), 0, 5, rapid.ID).Draw(t, "ports") {
		s := lvs.Service{ServiceKey: key(port), Scheduler: rapid.SampledFrom([]lvs.Scheduler{lvs.RR, lvs.WLC, lvs.SH}).Draw(t, "scheduler")}
		if s.Scheduler == lvs.SH {
			s.Flags = rapid.SampledFrom([]lvs.SchedulerFlags{"", "sh-port", "sh-fallback,sh-port"}).Draw(t, "flags")
		}
		if rapid.Bool().Draw(t, "named") {
			s.Name = fmt.Sprintf("s%d", port)
		}
		for _, n := range rapid.SliceOfNDistinct(rapid.Uint16Range(1, 6), 0, 4, rapid.ID).Draw(t, "servers") {
			s.RealServers = append(s.RealServers, drawServer(t, n, port))
		}
		c.Services = append(c.Services, s)
	}
	if rapid.Bool().Draw(t, "timeouts") {
		c.Timeouts = lvs.Timeouts{TCP: lvs.Duration(rapid.IntRange(60, 90).Draw(t, "tcp")) * 1e9}
	}
	return c
}

// shuffled puts the real servers of some services into another order.
func shuffled(t *rapid.T, c lvs.Configuration) lvs.Configuration {
	c = c.Clone()
	for i := range c.Services {
		c.Services[i].RealServers = rapid.Permutation(c.Services[i].RealServers).Draw(t, "order")
	}
	return c
}

// configured words a configuration so that order of services does not matter.
func configured(c lvs.Configuration) string {
	slices.SortFunc(c.Services, func(a, b lvs.Service) int { return a.Address.Compare(b.Address) })
	out := fmt.Sprintln(c.Timeouts.Merge(lvs.DefaultTimeouts()))
	for _, s := range c.Services {
		out += fmt.Sprintln(s.ServiceKey, s.Name, s.Scheduler, s.Flags, s.RealServers)
	}
	return out
}

func present(d *director.Director) string {
	c, _ := d.Configuration()
	return configured(c)
}

var anything = lvs.Request{Who: "test", AllowEmpty: true}

// From wherever the tables are, a plan names what is different, an apply leads to
// what was asked for, a plan afterwards is empty, and a rollback leads back exactly.
func TestPlanApplyRollback(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMemory()
		d := newDirector(t, m)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			if rapid.Bool().Draw(t, "by hand") {
				_, _ = d.Apply(t.Context(), rapid.SliceOfN(rapid.Custom(drawChange), 1, 4).Draw(t, "changes"), lvs.Request{KeepGoing: true})
			}
			before, ordered, wanted := present(d), text(t, m), drawConfiguration(t)
			if rapid.Bool().Draw(t, "reorder") {
				now, _ := d.Configuration()
				wanted = shuffled(t, now)
			}
			plan, err := d.Plan(wanted)
			if err != nil {
				t.Fatal(err)
			}
			if differs := before != configured(wanted.Clone()); differs != (len(plan.Changes) > 0) {
				t.Fatalf("the plan has %d changes\nfrom %s\nto %s", len(plan.Changes), before, configured(wanted))
			}
			applied, err := d.Configure(t.Context(), wanted, anything)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(configured(wanted.Clone()), present(d)); diff != "" {
				t.Fatalf("applied (-want +got):\n%s", diff)
			}
			agree(t, d, m)
			if again, err := d.Plan(wanted); err != nil || len(again.Changes) > 0 {
				t.Fatalf("a plan of what was applied: %+v, %v", again, err)
			}
			if !applied.Changed || rapid.Bool().Draw(t, "stays") {
				continue
			}
			if _, err := d.Rollback(t.Context(), 0, anything); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(ordered, text(t, m)); diff != "" {
				t.Fatalf("gone back, packets see (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(before, present(d)); diff != "" {
				t.Fatalf("gone back (-before +after):\n%s", diff)
			}
		}
	})
}

// A write that fails for good in the middle of an apply or a rollback leaves all as it
// was: tables, their order, revisions, generation.
func TestConfigureIsAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := NewMemory()
		d := newDirector(t, m)
		for range 2 {
			if _, err := d.Configure(t.Context(), drawConfiguration(t), anything); err != nil {
				t.Fatal(err)
			}
		}
		before, kept, generation := text(t, m), revisions(t, d), generationOf(d)
		first := m.writes + rapid.IntRange(1, 8).Draw(t, "first failure")
		m.Fail = func(n int) bool { return n >= first && n < first+3 } // one more than retries
		err := drawAct(t, drawConfiguration(t)).do(d)
		m.Fail = nil
		if err == nil {
			return
		}
		if got := text(t, m); got != before || revisions(t, d) != kept || generationOf(d) != generation {
			t.Fatalf("%v, but changed (-before +after):\n%s", err, cmp.Diff(before, got))
		}
		agree(t, d, m)
	})
}

// crash ends a director at one of its writes, as kill -9 does.
type crash struct{}

// mortal is a store and a plane of which the n-th write is the last thing that
// happens: it is not made, or was just made.
type mortal struct {
	*store.Store
	n     int  // writes left
	after bool // die after the last one
}

func (m *mortal) write(do func() error) error {
	if m.n--; m.n == 0 && !m.after {
		panic(crash{})
	}
	err := do()
	if m.n == 0 && m.after {
		panic(crash{})
	}
	return err
}

func (m *mortal) Begin(r lvs.Revision) error {
	return m.write(func() error { return m.Store.Begin(r) })
}
func (m *mortal) End(s director.State) error { return m.write(func() error { return m.Store.End(s) }) }
func (m *mortal) Save(s director.State) error {
	return m.write(func() error { return m.Store.Save(s) })
}
func (m *mortal) Keep(r lvs.Revision, needed ...uint64) (number uint64, err error) {
	return number, m.write(func() error { number, err = m.Store.Keep(r, needed...); return err })
}

type mortalPlane struct {
	*Memory
	life *mortal
}

func (p mortalPlane) Put(s lvs.Service) error {
	return p.life.write(func() error { return p.Memory.Put(s) })
}
func (p mortalPlane) Delete(k lvs.ServiceKey) error {
	return p.life.write(func() error { return p.Memory.Delete(k) })
}
func (p mortalPlane) SetTimeouts(t lvs.Timeouts) error {
	return p.life.write(func() error { return p.Memory.SetTimeouts(t) })
}

// act is something that an operator or the daemon does to the tables.
type act struct {
	name string
	do   func(d *director.Director) error
}

// drawAct draws an act; wanted is where it may lead.
func drawAct(t *rapid.T, wanted lvs.Configuration) act {
	configure := func(confirm time.Duration) func(*director.Director) error {
		return func(d *director.Director) error {
			r := anything
			r.Confirm = confirm
			_, err := d.Configure(context.Background(), wanted, r)
			return err
		}
	}
	return rapid.SampledFrom([]act{
		{"apply", configure(0)},
		{"apply, unconfirmed", configure(time.Hour)},
		{"rollback", func(d *director.Director) error {
			_, err := d.Rollback(context.Background(), 0, anything)
			return err
		}},
		{"changes", func(d *director.Director) error {
			changes := []lvs.Change{{Operation: lvs.Clear}}
			for _, s := range wanted.Services {
				changes = append(changes, lvs.Change{Operation: lvs.AddService, Service: s.ServiceKey, Scheduler: s.Scheduler, Flags: s.Flags})
			}
			_, err := d.Apply(context.Background(), changes, lvs.Request{})
			return err
		}},
	}).Draw(t, "act")
}

// inPlane words what packets see; agree fails unless the director believes the same.
func inPlane(t fataler, m *Memory) string {
	t.Helper()
	services, err := m.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := lvs.Configuration{Timeouts: m.timeouts, Services: services}
	return unnamed(c)
}

// unnamed words a configuration without the names, which packets do not see.
func unnamed(c lvs.Configuration) string {
	c = c.Clone()
	for i := range c.Services {
		c.Services[i].Name = ""
	}
	return configured(c)
}

func agree(t fataler, d *director.Director, m *Memory) {
	t.Helper()
	c, _ := d.Configuration()
	if diff := cmp.Diff(unnamed(c), inPlane(t, m)); diff != "" {
		t.Fatal("the director believes (-), packets see (+):\n" + diff)
	}
}

// Killed at any write, and again at any write of the start that follows, a director
// has in the end what was before or what was asked for, never something between.
func TestKilledAtEveryStep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir := temporary(t)
		m, first, second := NewMemory(), drawConfiguration(t), drawConfiguration(t)
		life := &mortal{}
		open := func() *director.Director {
			life.Store = openStore(t, dir)
			return openDirector(t, director.Options{Plane: mortalPlane{m, life}, Facts: m, Store: life})
		}
		d := open()
		for _, c := range []lvs.Configuration{first, drawConfiguration(t)} {
			if _, err := d.Configure(t.Context(), c, anything); err != nil {
				t.Fatal(err)
			}
		}
		what := drawAct(t, second)
		before, kept := inPlane(t, m), revisions(t, d)
		after := asked(t, what, d, m, second)

		life.n, life.after = rapid.IntRange(1, 14).Draw(t, "write"), rapid.Bool().Draw(t, "after it")
		died := dies(func() error { return what.do(d) })
		life.n, life.after = rapid.IntRange(0, 8).Draw(t, "write of the start"), rapid.Bool().Draw(t, "after that")
		_ = dies(func() error { d = open(); return d.Start(context.Background(), director.File{}, false) })
		life.n = 0
		d = open()
		if err := d.Start(t.Context(), director.File{}, false); err != nil {
			t.Fatal(err)
		}
		agree(t, d, m)
		got := inPlane(t, m)
		if got != before && got != after {
			t.Fatalf("%s: between before and after:\n%s", what.name, cmp.Diff(before, got))
		}
		if !died && got != after {
			t.Fatalf("%s: not killed, but not done:\n%s", what.name, cmp.Diff(after, got))
		}
		if died && got == before && before != after && revisions(t, d) != kept {
			t.Fatalf("%s: %d revisions were kept, now %d", what.name, kept, revisions(t, d))
		}
	})
}

// asked returns where an act leads, seen on a copy.
func asked(t *rapid.T, what act, d *director.Director, m *Memory, second lvs.Configuration) string {
	c, _ := d.Configuration()
	copied := NewMemory()
	copied.timeouts = m.timeouts
	copied.services, _ = m.Services()
	switch what.name {
	case "rollback":
		list, err := d.Revisions()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if len(list) > 1 && r.Number == list[len(list)-1].Back {
				return unnamed(r.Configuration)
			}
		}
		return unnamed(c)
	case "changes":
		if err := what.do(newDirector(t, copied)); err != nil {
			t.Fatal(err)
		}
		return inPlane(t, copied)
	}
	second = second.Clone()
	return unnamed(second)
}

func generationOf(d *director.Director) uint64 {
	_, generation := d.Configuration()
	return generation
}

func revisions(t fataler, d *director.Director) int {
	list, err := d.Revisions()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func dies(do func() error) (died bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, killed := r.(crash); !killed {
				panic(r)
			}
			died = true
		}
	}()
	_ = do()
	return false
}

func openStore(t fataler, dir string) *store.Store {
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func two(t *testing.T) (m *Memory, one, other lvs.Configuration) {
	t.Helper()
	service := func(weight uint32) lvs.Configuration {
		return lvs.Configuration{Services: []lvs.Service{{
			ServiceKey: key(80), Name: "web", Scheduler: lvs.RR,
			RealServers: []lvs.RealServer{realServer(1, 80, weight), realServer(2, 80, weight)},
		}}}
	}
	return NewMemory(), service(1), service(2)
}

// An apply that nobody confirms goes back by itself, also when the daemon was
// restarted meanwhile; one that is confirmed stays.
func TestUnconfirmedGoesBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, one, other := two(t)
				options := director.Options{Plane: m, Facts: m, Store: openStore(t, t.TempDir())}
				d := openDirector(t, options)
				ctx, stop := context.WithCancel(t.Context())
				configure(t, d, one, lvs.Request{})
				go d.Run(ctx)
				applied := configure(t, d, other, lvs.Request{Confirm: 10 * time.Second})
				if applied.Unconfirmed == nil {
					t.Fatal("nothing waits")
				}
				if _, err := d.Apply(ctx, []lvs.Change{{Operation: lvs.Clear}}, lvs.Request{}); !errors.Is(err, lvs.ErrUnconfirmed) {
					t.Errorf("a change meanwhile: %v", err)
				}
				time.Sleep(9 * time.Second)
				if restart {
					stop()
					synctest.Wait()
					options.Store = openStore(t, options.Store.(*store.Store).Dir)
					d = openDirector(t, options)
					if err := d.Start(t.Context(), director.File{Name: "start", Configuration: &other}, false); err != nil {
						t.Fatal(err)
					}
					ctx, stop = context.WithCancel(t.Context())
					go d.Run(ctx)
				}
				if diff := cmp.Diff(configured(other.Clone()), present(d)); diff != "" {
					t.Errorf("gone back too early:\n%s", diff)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if diff := cmp.Diff(configured(one.Clone()), present(d)); diff != "" {
					t.Errorf("not gone back:\n%s", diff)
				}
				if _, err := d.Confirm(lvs.Request{}); !errors.Is(err, lvs.ErrNothingWaits) {
					t.Errorf("confirmed too late: %v", err)
				}
				configure(t, d, other, lvs.Request{Confirm: 10 * time.Second})
				if _, err := d.Confirm(lvs.Request{}); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Minute)
				if diff := cmp.Diff(configured(other.Clone()), present(d)); diff != "" {
					t.Errorf("gone back although confirmed:\n%s", diff)
				}
				stop()
			})
		})
	}
}

func configure(t *testing.T, d *director.Director, c lvs.Configuration, r lvs.Request) lvs.Applied {
	t.Helper()
	r.Who = "test"
	applied, err := d.Configure(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// What was changed in the tables behind the director's back is repaired and told.
func TestDriftIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, one, other := two(t)
		d := newDirector(t, m)
		configure(t, d, one, lvs.Request{})
		before := text(t, m)
		ctx, stop := context.WithCancel(t.Context())
		go d.Run(ctx)
		for name, spoil := range map[string]func() error{
			"a weight":  func() error { return m.Put(other.Services[0]) },
			"a service": func() error { return m.Delete(key(80)) },
			"one more":  func() error { return m.Put(lvs.Service{ServiceKey: key(99), Scheduler: lvs.RR}) },
			"a timeout": func() error { return m.SetTimeouts(lvs.Timeouts{UDP: 1e9}) },
		} {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
			synctest.Wait()
			if diff := cmp.Diff(before, text(t, m)); diff != "" {
				t.Errorf("%s is not repaired:\n%s", name, diff)
			}
		}
		stop()
		events, _ := d.Events(0)
		drifts := 0
		for _, e := range events {
			if e.Type == lvs.EventDrift {
				drifts++
			}
		}
		if drifts != 4 {
			t.Errorf("%d events of drift, want 4: %+v", drifts, events)
		}
	})
}

// Of two operators who saw the same tables, the second is refused.
func TestTwoWriters(t *testing.T) {
	m, one, other := two(t)
	d := newDirector(t, m)
	configure(t, d, one, lvs.Request{})
	_, generation := d.Configuration()
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := d.Configure(context.Background(), other, lvs.Request{Who: "test", Generation: generation})
			done <- err
		}()
	}
	errs := []error{<-done, <-done}
	if !slices.Contains(errs, nil) || !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, lvs.ErrGeneration) }) {
		t.Errorf("one had to go through and one to be refused: %v", errs)
	}
	if entries, err := d.History(0); err != nil || len(entries) != 3 || entries[2].Result == entries[1].Result {
		t.Errorf("the history has %+v, %v", entries, err)
	}
}

func TestEmptiedServiceIsRefused(t *testing.T) {
	m, one, _ := two(t)
	d := newDirector(t, m)
	configure(t, d, one, lvs.Request{})
	before := text(t, m)
	bare := one.Clone()
	bare.Services[0].RealServers = nil
	for _, c := range []lvs.Configuration{bare, {}} {
		if plan, err := d.Plan(c); err != nil || len(plan.Emptied) != 1 {
			t.Errorf("the plan does not say so: %+v, %v", plan, err)
		}
		_, err := d.Configure(t.Context(), c, lvs.Request{})
		if !errors.Is(err, lvs.ErrEmptied) || !strings.Contains(err.Error(), "tcp 198.51.100.1:80") {
			t.Errorf("got %v", err)
		}
		if got := text(t, m); got != before {
			t.Errorf("refused, but changed:\n%s", got)
		}
	}
	configure(t, d, bare, lvs.Request{AllowEmpty: true})
}

// A boot of the machine takes the tables away; the file brings them back, without a
// new revision, and what was changed by hand since is gone. A restart of the daemon
// takes nothing away.
func TestStart(t *testing.T) {
	m, one, other := two(t)
	dir := t.TempDir()
	open := func(m *Memory, file *lvs.Configuration, fresh bool) *director.Director {
		d := openDirector(t, director.Options{Plane: m, Facts: m, Store: openStore(t, dir)})
		if err := d.Start(t.Context(), director.File{Name: "start", Configuration: file}, fresh); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open(m, &one, true)
	if n := revisions(t, d); n != 2 { // the empty tables, and the file
		t.Errorf("%d revisions", n)
	}
	byHand := lvs.Change{Operation: lvs.EditServer, Service: key(80), RealServer: realServer(1, 80, 7)}
	if _, err := d.Apply(t.Context(), []lvs.Change{byHand}, lvs.Request{}); err != nil {
		t.Fatal(err)
	}
	changed := present(d)
	d = open(m, &one, false)
	if diff := cmp.Diff(changed, present(d)); diff != "" {
		t.Errorf("a restart changed the tables:\n%s", diff)
	}
	d = open(NewMemory(), &one, true)
	if diff := cmp.Diff(configured(one.Clone()), present(d)); diff != "" {
		t.Errorf("after a boot:\n%s", diff)
	}
	if n := revisions(t, d); n != 2 {
		t.Errorf("%d revisions after a boot", n)
	}
	d = open(m, &other, false)
	if diff := cmp.Diff(configured(other.Clone()), present(d)); diff != "" {
		t.Errorf("a file that is another:\n%s", diff)
	}
}

func temporary(t *rapid.T) string {
	dir, err := os.MkdirTemp("", "lvx-script")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
