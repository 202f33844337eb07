// SPDX-License-Identifier: Apache-2.0

// Package dataplane loads the programs of bpf/, attaches them to interfaces and
// owns every map: it turns services into map entries and map entries into
// listings. It is the only border between lvs's nouns and the kernel's bytes
// (encode.go), and it keeps the next hops of real servers fresh.
//
// It is not for deciding: what should be in the maps is package director's.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// Mode says which XDP mode to attach in.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // native where the driver can, else generic
	Native  Mode = "native"  // the driver's, or an error
	Generic Mode = "generic" // the kernel's own, slower, for every driver
)

// Options say how to open a data plane. The zero value opens it on all Ethernet
// interfaces of the network namespace.
type Options struct {
	// Interfaces to attach to, by name. Default: every Ethernet interface that
	// is up and not a member or a VLAN of another.
	Interfaces []string
	// Mode of XDP. Default Auto.
	Mode Mode
	// Connections is how many connections of each of IPv4 and IPv6 there is room for;
	// one of each takes 96 bytes together, used or not. Default 1,000,000. When there
	// is no room, new flows go by their service's hash ring (STATELESS). A table that
	// is pinned keeps its size.
	Connections uint32
	// Services and RealServers are the capacities of those tables. A real server
	// counts once per service, and as long as it has connections. Default 4,096
	// and 16,384; at most 2^20 real servers. Tables that are pinned keep their sizes.
	Services, RealServers uint32
	// MHTable is how many slots a table of the scheduler mh has, a prime; one takes
	// 8 bytes, and there is room for 64 tables at least. Fewer slots share out less
	// evenly. Default 65,537. A service keeps the table that it has until it is
	// changed.
	MHTable uint32
	// Log receives state changes. Default: none.
	Log *slog.Logger

	asked    lvs.Capacity // before the defaults were put in
	detached bool         // for tests: no interface, no next hops
}

func (o *Options) setDefaults() error {
	o.asked = lvs.Capacity{Connections: o.Connections, Services: o.Services, RealServers: o.RealServers}
	set(&o.Mode, Auto)
	set(&o.Connections, lvs.DefaultConnections)
	set(&o.Services, lvs.DefaultServices)
	set(&o.RealServers, lvs.DefaultRealServers)
	set(&o.MHTable, lvs.DefaultMHTable)
	set(&o.Log, slog.New(slog.DiscardHandler))
	if o.Mode != Auto && o.Mode != Native && o.Mode != Generic {
		return fmt.Errorf("xdp mode %q is not one of auto, native, generic", o.Mode)
	}
	if o.Connections > lvs.MaxConnections {
		return fmt.Errorf("%d connections: at most %d are possible", o.Connections, lvs.MaxConnections)
	}
	if o.RealServers > uint32(bpfConnBitsCONN_SERVER_MASK)+1 {
		return fmt.Errorf("%d real servers: at most %d are possible", o.RealServers, bpfConnBitsCONN_SERVER_MASK+1)
	}
	if err := sched.CheckMHTable(o.MHTable); err != nil {
		return err
	}
	if seats := o.seatCapacity(); seats > maxSeats {
		return fmt.Errorf("%d services with tables of %d slots for mh take %d GB: lower director.mh_table or director.capacity.services", o.Services, o.MHTable, seats>>27)
	}
	return nil
}

func set[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Plane is a loaded data plane. Its methods may be called at the same time.
type Plane struct {
	instance *Instance
	options  Options
	log      *slog.Logger
	notes    []lvs.Warning // what the operator should know of how it was opened
	secrets  [bpfSecretUseSECRET_MAX]sched.Secret
	objects  bpfObjects
	arrays   arrays
	hops     *hopTable
	ports    *portTable

	reclaiming sync.Mutex // one grace period at a time; taken before mu

	// settling is held by who moves connections, and by readers of all: those share it.
	settling  sync.RWMutex
	questions atomic.Uint64 // asked so far, see askFronts
	flooded   atomic.Bool   // the last pass found one of the tables nearly full

	// mu guards the tables below and every write to a map that is not the BPF
	// programs'.
	mu    sync.Mutex
	table table
}

// Open loads the data plane, or adopts the one that is pinned: services,
// connections and counters stay, the program is replaced without a gap. Several
// instances may be open, each in its network namespace.
//
// Returns an error that says what to do if a privilege is missing, the pins are of
// another version, or no interface can be attached to; then all is as it was.
func (i *Instance) Open(o Options) (*Plane, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	fresh := !i.Loaded()
	p := &Plane{instance: i, options: o, log: o.Log}
	p.ports = &portTable{plane: p, ports: map[int]*attached{}, entries: map[uint32]bpfInterface{}}
	if err := p.open(); err != nil {
		p.Close()
		if fresh {
			err = errors.Join(err, i.Unload()) // as it was: nothing
		}
		return nil, err
	}
	return p, nil
}

func (p *Plane) open() error {
	if err := p.instance.prepare(); err != nil {
		return err
	}
	if err := p.load(); err != nil {
		return err
	}
	if err := p.arrays.open(&p.objects.bpfMaps); err != nil {
		return err
	}
	if err := p.initTimeouts(); err != nil {
		return err
	}
	if err := p.initSecrets(); err != nil {
		return err
	}
	if err := p.adopt(); err != nil {
		return err
	}
	if !p.options.detached {
		if err := p.openPorts(); err != nil {
			return err
		}
		if err := p.openHops(); err != nil {
			return err
		}
	}
	// Not before all else went well: an earlier daemon's program begins anew here, too.
	if err := p.setAgain(); err != nil {
		return err
	}
	repaired, err := p.Repair()
	for _, what := range repaired {
		p.log.Warn("repaired", "what", what)
	}
	return err
}

// load creates the maps that are not pinned yet, and the programs.
func (p *Plane) load() error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the BPF object: %w", err)
	}
	if err := p.setSizes(spec); err != nil {
		return err
	}
	if err := setConstants(spec, spec.Maps["connections4"].MaxEntries, spec.Maps["vips"].MaxEntries); err != nil {
		return err
	}
	options := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.instance.dir()}}
	if err := spec.LoadAndAssign(&p.objects, options); err != nil {
		return explainLoad(err, p.instance.name)
	}
	return nil
}

// setAgain tells the program of itself.
func (p *Plane) setAgain() error {
	if err := p.objects.Again.Put(uint32(0), p.objects.LvsDirect); err != nil {
		return fmt.Errorf("tell the program of itself: %w", err)
	}
	return nil
}

// setSizes sets the capacities that the options ask for, or that pinned maps have.
func (p *Plane) setSizes(spec *ebpf.CollectionSpec) error {
	o := p.options
	sizes := map[string]uint32{
		"addresses":    o.Services + o.RealServers,
		"backends":     o.RealServers,
		"vips":         4 * (o.Services + o.RealServers),
		"connections4": sets(o.Connections), "connections6": sets(o.Connections),
		"counts": o.RealServers, "real_servers": o.RealServers, "server_stats": o.RealServers, "server_zeros": o.RealServers,
		"service_ids": o.Services, "services": o.Services, "service_stats": o.Services, "service_zeros": o.Services, "stateless": o.Services,
		"pools":     2*o.Services + 64,
		"seats":     uint32(o.seatCapacity()),
		"next_hops": 2*o.RealServers + 64,
	}
	pinned := false // the connection tables
	for name, m := range spec.Maps {
		if name[0] == '.' {
			continue // constants: they belong to the program, not to the state
		}
		m.Pinning = ebpf.PinByName
		if size, sized := sizes[name]; sized {
			m.MaxEntries = size
		}
		size, err := p.instance.size(name)
		if err != nil {
			return err
		}
		if size > 0 {
			m.MaxEntries = size
			pinned = pinned || name == "connections4"
		}
	}
	if err := p.checkWhole(spec); err != nil {
		return err
	}
	if has := connections(spec.Maps["connections4"].MaxEntries); connections(sets(o.asked.Connections)) != has {
		p.noteSize("connection", o.asked.Connections, has)
	}
	p.noteSize("service", o.asked.Services, spec.Maps["services"].MaxEntries)
	p.noteSize("real server", o.asked.RealServers, spec.Maps["real_servers"].MaxEntries)
	if pinned {
		return nil
	}
	return p.checkMemory(spec)
}

// checkWhole refuses maps that belong together and have different sizes: those of a
// start that was cut short, and of other options.
func (p *Plane) checkWhole(spec *ebpf.CollectionSpec) error {
	for _, names := range [][]string{
		{"connections4", "connections6"},
		{"real_servers", "counts", "server_stats", "server_zeros"},
		{"services", "service_stats", "service_zeros", "stateless"},
	} {
		for _, name := range names[1:] {
			if spec.Maps[name].MaxEntries != spec.Maps[names[0]].MaxEntries {
				return fmt.Errorf("what is pinned was not made whole, by a start that was cut short (%s and %s have different sizes): take it away with: lvx director unload --instance %s",
					names[0], name, p.instance.name)
			}
		}
	}
	return nil
}

// noteSize warns if a table has another size than was asked for, which is 0 if
// nobody did.
func (p *Plane) noteSize(what string, asked, is uint32) {
	if asked == 0 || asked == is {
		return
	}
	p.notes = append(p.notes, lvs.Warning{
		Object: what + " table",
		Text:   fmt.Sprintf("%d %ss were asked for, but the table that is pinned holds %d and is kept, with the %ss in it", asked, what, is, what),
		Fix:    "stop the daemon, take the data plane away with lvx director unload (its connections are lost), and start again",
	})
}

// explainLoad says in one line what the operator can do about a load error.
func explainLoad(err error, instance string) error {
	var verifier *ebpf.VerifierError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return fmt.Errorf("what is pinned is of another version of lvx: %w; take it away with: lvx director unload --instance %s", err, instance)
	case errors.As(err, &verifier):
		return fmt.Errorf("this kernel refuses the BPF program (lvx needs Linux 6.1 or newer): %w", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("load the data plane: %w; it takes root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON", err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("load the data plane: %w; ask for fewer --connections, or a smaller director.mh_table", err)
	}
	return fmt.Errorf("load the data plane: %w", err)
}

// Run keeps the data plane in order until ctx ends: it ends connections whose
// time is up, follows neighbours, routes and interfaces, and frees what removed
// real servers held. It blocks; run it once.
func (p *Plane) Run(ctx context.Context) {
	var wait sync.WaitGroup
	if !p.options.detached {
		wait.Go(func() { p.hops.run(ctx) })
		wait.Go(func() { p.resolveSought(ctx) })
		wait.Go(func() { p.ports.run(ctx) })
	}
	p.sweepLoop(ctx)
	wait.Wait()
}

// A pass over all sets takes a second, or up to ten where a part of it takes longer
// than a fiftieth of a tick.
const (
	fastPass = int(time.Second / tick)
	slowPass = 10 * fastPass
	partTime = tick / 50
)

// sweepLoop sweeps a part of the connection tables every tick.
func (p *Plane) sweepLoop(ctx context.Context) {
	timer := time.NewTicker(tick)
	defer timer.Stop()
	way := pass{sets: int(p.sets())}
	way.part = way.largest()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		p.sweepPart(&way)
		p.reclaim()
	}
}

// pass is a way through all sets, a part each tick.
type pass struct {
	sets, part, first int
	swept             Swept
	question          uint64 // of askFronts
	failed            bool
}

func (p *pass) largest() int  { return (p.sets + fastPass - 1) / fastPass }
func (p *pass) smallest() int { return (p.sets + slowPass - 1) / slowPass }

// took makes parts smaller that take long, and larger again that do not.
func (p *pass) took(d time.Duration) {
	switch {
	case d > partTime:
		p.part = max(p.part/2, p.smallest())
	case d < partTime/4:
		p.part = min(p.part*2, p.largest())
	}
}

func (p *Plane) sweepPart(pass *pass) {
	start := time.Now()
	if pass.first == 0 {
		pass.question = p.askFronts()
	}
	part := bpfSweep{NowNs: uint64(coarseNow()), First: uint32(pass.first), Sets: uint32(min(pass.part, pass.sets-pass.first))}
	swept, err := p.settle(part)
	if err != nil && !pass.failed {
		p.log.Error("sweep connections", "err", err)
	}
	pass.failed = pass.failed || err != nil
	pass.swept.add(swept)
	if pass.first += pass.part; pass.first >= pass.sets {
		if !pass.failed {
			p.gather(pass.swept, pass.question)
		}
		pass.first, pass.swept, pass.failed = 0, Swept{}, false
	}
	pass.took(time.Since(start))
}

// askFronts has those who go into the front of a table say so, from now on: a pass
// that finds nobody there, and whose question still stands, has found it empty.
func (p *Plane) askFronts() (question uint64) {
	question = p.questions.Add(1) + uint64(bpfInsideINSIDE_ASKED)
	for i := range p.arrays.crowds.items {
		inside := &p.arrays.crowds.items[i].Inside
		for {
			was := atomic.LoadUint64(inside)
			if was == uint64(bpfInsideINSIDE_NOBODY) || atomic.CompareAndSwapUint64(inside, was, question) {
				break
			}
		}
	}
	return question
}

// gather learns from a pass over all sets, and its question. Packets need not look
// into a front in which nobody is. New connections go there first if there are few,
// half as many as it has slots, and no more if there are many, three quarters: packets
// say that it is full only where many of them come at once. It is not any more if half
// of it is free, unless a flood goes on: three quarters of all slots are taken.
func (p *Plane) gather(swept Swept, question uint64) {
	half, flooded := uint64(front)*uint64(perSet), false
	for i := range p.arrays.crowds.items {
		crowd, seen, inside := &p.arrays.crowds.items[i], swept.seen[i], swept.inside[i]
		if inside == 0 {
			atomic.CompareAndSwapUint64(&crowd.Inside, question, uint64(bpfInsideINSIDE_NOBODY))
		} else { // whoever wrote otherwise was not lvx
			atomic.CompareAndSwapUint64(&crowd.Inside, uint64(bpfInsideINSIDE_NOBODY), uint64(bpfInsideINSIDE_SOMEBODY))
		}
		flood := seen > uint64(connections(p.sets()))*3/2
		switch {
		case seen < half:
			atomic.StoreUint64(&crowd.Fill, uint64(bpfFillFILL_FRONT))
		case seen > half*3/2 && (inside > half || flood):
			atomic.StoreUint64(&crowd.Fill, uint64(bpfFillFILL_TIGHT))
		case seen > half*3/2:
			atomic.StoreUint64(&crowd.Fill, uint64(bpfFillFILL_SETS))
		}
		atomic.StoreUint64(&crowd.Missed, 0)
		flooded = flooded || flood
	}
	p.flooded.Store(flooded)
}

// Close lets go of the data plane. What is pinned goes on forwarding.
func (p *Plane) Close() {
	p.ports.close()
	if p.hops != nil {
		p.hops.close()
	}
	p.arrays.close()
	p.objects.Close()
}
