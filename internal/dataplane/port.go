// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// flagOutputOnly, in the flags of bpf `struct interface`, marks an interface that
// packets leave by but that nothing is attached to. The other bits are offload.go's.
const flagOutputOnly = 1 << 14

// portTable attaches to interfaces and follows them. Safe for concurrent use.
type portTable struct {
	plane  *Plane
	handle *netlink.Handle

	mu      sync.Mutex
	ports   map[int]*attached
	entries map[uint32]bpfInterface // what `interfaces` should hold
}

type attached struct {
	lvs.Interface
	index int
	link  link.Link
	made  bool // by this process, where nothing was attached before
}

// openPorts attaches to every interface asked for, and lets go of the others that
// earlier daemons were attached to. With an error every interface is as it was.
func (p *Plane) openPorts() (err error) {
	t := p.ports
	defer func() {
		if err != nil {
			t.takeBack()
		}
	}()
	if t.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	links, err := listLinks(t.handle)
	if err != nil {
		return err
	}
	for _, name := range p.options.Interfaces {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name }) {
			return fmt.Errorf("interface %s: there is none of that name; see: ip link", name)
		}
	}
	for _, l := range links {
		if !t.wanted(l) {
			continue
		}
		if err := t.attach(l); err != nil && (len(p.options.Interfaces) > 0 || errors.Is(err, os.ErrPermission)) {
			return err
		} else if err != nil {
			p.log.Warn("attach", "interface", l.Attrs().Name, "err", err)
		}
	}
	if len(t.ports) == 0 {
		return errors.New("no Ethernet interface is up to attach to: bring one up (ip link set eth0 up), or name one with --interface")
	}
	t.letGo(links)
	return nil
}

// takeBack lets go of what this process attached to.
func (t *portTable) takeBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for index, a := range t.ports {
		if !a.made {
			continue
		}
		err := errors.Join(
			detach(t.plane.instance.link(index)), a.link.Close(),
			restoreOffload(index, t.plane.interfaceFlags(index)), t.deleteEntry(index),
		)
		if err != nil {
			t.plane.log.Warn("take an interface back", "interface", a.Name, "err", err)
		}
		delete(t.ports, index)
	}
}

// listLinks lists all interfaces. A dump that a change interrupts is worth
// nothing: it is asked for again.
func listLinks(handle *netlink.Handle) (links []netlink.Link, err error) {
	for range 5 {
		if links, err = handle.LinkList(); err == nil {
			return links, nil
		}
	}
	return nil, fmt.Errorf("list interfaces: %w", err)
}

// letGo ends what is left of interfaces that are gone or no longer asked for.
func (t *portTable) letGo(links []netlink.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	here := map[int]bool{}
	for _, l := range links {
		here[l.Attrs().Index] = true
	}
	for index := range t.ports {
		if !here[index] {
			t.remove(index)
		}
	}
	for _, index := range t.plane.instance.links() {
		if t.ports[index] == nil {
			if err := detach(t.plane.instance.link(index)); err != nil {
				t.plane.log.Warn("let an interface go", "err", err)
			}
		}
	}
	t.forgetInterfaces(here)
}

// forgetInterfaces deletes the entries of `interfaces` that nothing is attached
// to, and turns their offloads on again. Those that packets leave by come back
// with the next look at the next hops.
func (t *portTable) forgetInterfaces(here map[int]bool) {
	var index uint32
	var entry bpfInterface
	var stale []uint32
	for all := t.plane.objects.Interfaces.Iterate(); all.Next(&index, &entry); {
		_, known := t.entries[index]
		switch {
		case t.ports[int(index)] == nil && (entry.Flags&flagOutputOnly == 0 || !here[int(index)]):
			stale = append(stale, index)
		case !known:
			t.entries[index] = entry // an earlier daemon's
			t.storePlace(index % uint32(bpfGlancePORTS))
		}
	}
	for _, index := range stale {
		err := errors.Join(restoreOffload(int(index), t.plane.interfaceFlags(int(index))), t.deleteEntry(int(index)))
		if err != nil {
			t.plane.log.Warn("forget an interface", "index", index, "err", err)
		}
	}
}

// wanted tells whether to attach to a link: one that was named, or any Ethernet
// interface that is up, is nobody's member (a bond, not its members) and is not a
// part of another (a VLAN's frames are seen, tagged, on the port below).
func (t *portTable) wanted(l netlink.Link) bool {
	a := l.Attrs()
	if names := t.plane.options.Interfaces; len(names) > 0 {
		return slices.Contains(names, a.Name)
	}
	part := l.Type() == "vlan" || l.Type() == "macvlan" || l.Type() == "ipvlan"
	return a.EncapType == "ether" && a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && a.MasterIndex == 0 && !part
}

// attach puts the program on an interface, in the best mode there is. A program
// of ours that is there already is replaced without a gap.
func (t *portTable) attach(l netlink.Link) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	index := l.Attrs().Index
	if t.ports[index] != nil {
		return nil
	}
	a := &attached{Interface: lvs.Interface{Name: l.Attrs().Name}, index: index}
	if err := t.adopt(a, l); err != nil {
		a.made = a.Mode == ""
		if err := t.attachAnew(a); err != nil {
			return errors.Join(err, t.attachAgain(a))
		}
	}
	if err := t.turnOffloadsOff(a, l); err != nil {
		_ = a.link.Close()
		return err
	}
	t.ports[index] = a
	t.plane.log.Info("attached", "interface", a.Name, "mode", a.Mode)
	return nil
}

// turnOffloadsOff turns off what hides from the program how packets came. It is
// noted first, so that unload can undo it whenever the daemon dies. A device that
// refuses is used as it is.
func (t *portTable) turnOffloadsOff(a *attached, l netlink.Link) error {
	off, err := offloadsOn(a.Name, a.Mode)
	if err != nil {
		t.plane.log.Warn("read offloads", "interface", a.Name, "err", err)
	}
	flags := t.plane.interfaceFlags(a.index)&^flagOutputOnly | off
	a.OffloadsOff = offloadNames(flags)
	if err := t.putEntry(l, flags); err != nil {
		return err
	}
	if err := changeOffloads(a.Name, off, false); err != nil {
		t.plane.log.Warn("turn offloads off", "interface", a.Name, "err", err)
	}
	return nil
}

// adopt takes over a pinned link. An error means that there is none to use; a.Mode
// is then how an earlier daemon was attached, or empty.
func (t *portTable) adopt(a *attached, on netlink.Link) error {
	l, err := link.LoadPinnedLink(t.plane.instance.link(a.index), nil)
	if err != nil {
		return err
	}
	a.Mode = lvs.XDPNative
	if xdp := on.Attrs().Xdp; xdp != nil && xdp.AttachMode == nl.XDP_ATTACHED_SKB {
		a.Mode, a.Why = lvs.XDPGeneric, "so attached by an earlier daemon"
	}
	usable := t.plane.options.Mode == Auto || t.plane.options.Mode == Mode(a.Mode)
	info, err := l.Info()
	if err == nil && usable && info.XDP() != nil && int(info.XDP().Ifindex) == a.index {
		if err = l.Update(t.plane.objects.LvsDirect); err == nil {
			a.link = l
			return nil
		}
	}
	// The interface was made anew (ENOLINK), or another mode is wanted.
	_ = l.Detach()
	return errors.Join(errors.New("not usable"), l.Unpin(), l.Close())
}

func (t *portTable) attachAnew(a *attached) error {
	mode := t.plane.options.Mode
	a.Why = ""
	var err error
	if mode != Generic {
		if a.link, err = t.try(a.index, link.XDPDriverMode); err == nil {
			a.Mode = lvs.XDPNative
			return t.pin(a)
		}
		if mode == Native || errors.Is(err, unix.EBUSY) {
			return explainAttach(a.Name, err)
		}
		a.Why = err.Error()
	}
	if a.link, err = t.try(a.index, link.XDPGenericMode); err != nil {
		return explainAttach(a.Name, err)
	}
	a.Mode = lvs.XDPGeneric
	if mode == Generic {
		a.Why = "asked for"
	}
	return t.pin(a)
}

// attachAgain attaches as an earlier daemon had, since what was asked for instead
// cannot be had: forwarding goes on.
func (t *portTable) attachAgain(a *attached) (err error) {
	flags := map[lvs.XDPMode]link.XDPAttachFlags{lvs.XDPNative: link.XDPDriverMode, lvs.XDPGeneric: link.XDPGenericMode}
	if a.made {
		return nil
	}
	if a.link, err = t.try(a.index, flags[a.Mode]); err != nil {
		return fmt.Errorf("interface %s: attach again: %w", a.Name, err)
	}
	if err := t.pin(a); err != nil {
		return err
	}
	return a.link.Close()
}

func (t *portTable) try(index int, flags link.XDPAttachFlags) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: t.plane.objects.LvsDirect, Interface: index, Flags: flags})
}

func (t *portTable) pin(a *attached) error {
	if err := a.link.Pin(t.plane.instance.link(a.index)); err != nil {
		_ = a.link.Close()
		return fmt.Errorf("interface %s: pin the link: %w", a.Name, err)
	}
	return nil
}

func explainAttach(name string, err error) error {
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("interface %s: another XDP program is attached to it; see: ip link show dev %s", name, name)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("interface %s: its driver has no native XDP; use --xdp auto or --xdp generic", name)
	}
	return fmt.Errorf("interface %s: attach: %w", name, err)
}

// know makes sure that an interface which packets leave by is in `interfaces`.
func (t *portTable) know(index int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handle == nil {
		return nil
	}
	if _, known := t.entries[uint32(index)]; known {
		return nil
	}
	l, err := t.handle.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("interface %d: %w", index, err)
	}
	return t.putEntry(l, flagOutputOnly)
}

func (p *Plane) interfaceFlags(index int) uint16 {
	var entry bpfInterface
	if p.objects.Interfaces.Lookup(uint32(index), &entry) != nil {
		return 0
	}
	return entry.Flags
}

func (t *portTable) putEntry(l netlink.Link, flags uint16) error {
	index, entry := uint32(l.Attrs().Index), bpfInterface{Flags: flags}
	copy(entry.Mac[:], l.Attrs().HardwareAddr)
	if err := t.plane.objects.Interfaces.Put(index, entry); err != nil {
		return fmt.Errorf("interface %s: write interfaces: %w", l.Attrs().Name, err)
	}
	t.entries[index] = entry
	t.storePlace(index % uint32(bpfGlancePORTS))
	return nil
}

// deleteEntry does the opposite. It is no error if there is none.
func (t *portTable) deleteEntry(index int) error {
	delete(t.entries, uint32(index))
	t.storePlace(uint32(index) % uint32(bpfGlancePORTS))
	err := t.plane.objects.Interfaces.Delete(uint32(index))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("interface %d: delete from interfaces: %w", index, err)
	}
	return nil
}

// interfaces returns the interfaces that the data plane is attached to, by index.
func (t *portTable) interfaces() []lvs.Interface {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]lvs.Interface, 0, len(t.ports))
	for _, index := range slices.Sorted(maps.Keys(t.ports)) {
		i := t.ports[index].Interface
		i.LostAfterVerdict = lostAfterVerdict(i.Name)
		list = append(list, i)
	}
	return list
}

// warnings names interfaces that are asked for and not there.
func (t *portTable) warnings() (list []lvs.Warning) {
	t.mu.Lock()
	defer t.mu.Unlock()
	warn := func(object, text, fix string) { list = append(list, lvs.Warning{Object: object, Text: text, Fix: fix}) }
	for _, name := range t.plane.options.Interfaces {
		attached := func(a *attached) bool { return a.Name == name }
		if !slices.ContainsFunc(slices.Collect(maps.Values(t.ports)), attached) {
			warn("interface "+name, "it is gone, or the data plane could not be attached to it: its packets do not reach the data plane", "see: ip link show dev "+name)
		}
	}
	if len(t.ports) == 0 && len(list) == 0 {
		warn("interfaces", "the data plane is attached to none: no packet reaches it", "bring an Ethernet interface up: ip link set eth0 up")
	}
	return list
}

// run follows interfaces until ctx ends: new ones are attached to, gone ones
// forgotten, and a changed MAC address is learned.
func (t *portTable) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := t.follow(ctx); err != nil {
			t.plane.log.Warn("follow interfaces", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (t *portTable) follow(ctx context.Context) error {
	done := make(chan struct{})
	events := make(chan netlink.LinkUpdate, 1024)
	err := netlink.LinkSubscribeWithOptions(events, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, ListExisting: true,
	})
	if err != nil {
		close(done)
		return fmt.Errorf("subscribe: %w", err)
	}
	defer func() {
		close(done)
		go drain(events)
	}()
	// What went while nobody listened is in no event.
	if links, err := listLinks(t.handle); err == nil {
		t.letGo(links)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-events:
			if !open {
				return errors.New("events were lost")
			}
			t.changed(event)
		}
	}
}

func (t *portTable) changed(event netlink.LinkUpdate) {
	// A port that leaves a bridge is told of as deleted, from that family.
	if event.Family == unix.AF_BRIDGE {
		return
	}
	if event.Header.Type == unix.RTM_DELLINK {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.remove(event.Attrs().Index)
		return
	}
	t.learn(event.Link)
	if t.wanted(event.Link) {
		if err := t.attach(event.Link); err != nil {
			t.plane.log.Warn("attach", "interface", event.Attrs().Name, "err", err)
		}
	}
}

// learn takes over the name and the MAC address of an interface that we know.
func (t *portTable) learn(l netlink.Link) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.ports[l.Attrs().Index]; a != nil {
		a.Name = l.Attrs().Name
	}
	entry, known := t.entries[uint32(l.Attrs().Index)]
	if !known || slices.Equal(entry.Mac[:], l.Attrs().HardwareAddr) {
		return
	}
	if err := t.putEntry(l, entry.Flags); err != nil {
		t.plane.log.Warn("learn a MAC address", "interface", l.Attrs().Name, "err", err)
	}
}

// remove forgets an interface that is gone; called with the lock held.
func (t *portTable) remove(index int) {
	err := t.deleteEntry(index)
	a := t.ports[index]
	if a == nil {
		return
	}
	delete(t.ports, index)
	t.plane.log.Warn("interface gone", "interface", a.Name)
	if err = errors.Join(err, a.link.Unpin(), a.link.Close()); err != nil {
		t.plane.log.Warn("let an interface go", "interface", a.Name, "err", err)
	}
}

func (t *portTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.ports {
		_ = a.link.Close() // pinned: it stays
	}
	if t.handle != nil {
		t.handle.Close()
	}
}

// storePlace writes the interface that a place of the map ports stands for: the one
// that has the place alone, else none. It tells whether that is a change.
//
// A place that stands for an interface is emptied before it gets another.
func (t *portTable) storePlace(place uint32) bool {
	var want bpfPort
	for index, entry := range t.entries {
		if index%uint32(bpfGlancePORTS) != place {
			continue
		}
		if want.Ifindex != 0 {
			want = bpfPort{}
			break
		}
		want = bpfPort{Interface: entry, Ifindex: index}
	}
	items := t.plane.arrays.ports.items
	if items[place] == want {
		return false
	}
	if before := atomic.SwapUint32(&items[place].Ifindex, 0); before != 0 && before != want.Ifindex {
		synchronize() // packets may be reading it as that one's
	}
	word := (*uint64)(unsafe.Pointer(&items[place].Interface)) // packets read all of it at once
	atomic.StoreUint64(word, *(*uint64)(unsafe.Pointer(&want.Interface)))
	atomic.StoreUint32(&items[place].Ifindex, want.Ifindex)
	return true
}
