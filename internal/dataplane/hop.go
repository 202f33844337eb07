// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"lvx/internal/lvs"
)

// hopTable keeps the next hops: one for each address of a real server, however
// many services it stands in. What the kernel's routes and neighbours say is
// written into next_hops; neighbour.go asks the kernel. Safe for concurrent use.
type hopTable struct {
	plane  *Plane
	handle *netlink.Handle // nil for a detached plane

	mu      sync.Mutex
	hops    map[netip.Addr]*hop
	indexes extents
	ports   map[int]path // by interface: how frames leave by it
	crowded time.Time    // when the kernel last had no room for a neighbour
}

type hop struct {
	index uint32
	users map[uint32]bool // ids of the real servers that point to it
	link  int             // the interface that has the neighbour, 0 if not known
	asks  netip.Addr      // the neighbour: the address itself, or the router on the way to it
	seen  path            // what the kernel said last
}

func newHopTable(p *Plane) *hopTable {
	most := p.objects.NextHops.MaxEntries()
	return &hopTable{
		plane: p, hops: map[netip.Addr]*hop{},
		indexes: newExtents("next hops", 1, most-1), // 0 is never resolved
	}
}

// adopt takes over the next hop that a real server's record names. A daemon that was
// killed may have turned only some records of an address to a new entry: all get the
// first. One that cannot be, or that another address has, becomes a new one.
//
// Returns lvs.ErrFull if there is no room for it.
func (t *hopTable) adopt(addr netip.Addr, id, index uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	if h == nil && t.indexes.reserve(index, 1) {
		h = t.add(addr, index)
	}
	if h == nil {
		var err error
		if h, err = t.addNew(addr); err != nil {
			return err
		}
	}
	t.point(h, id)
	return nil
}

func (t *hopTable) add(addr netip.Addr, index uint32) *hop {
	h := &hop{index: index, users: map[uint32]bool{}, asks: addr}
	t.hops[addr] = h
	return h
}

// addNew adds one that is not resolved yet.
func (t *hopTable) addNew(addr netip.Addr) (*hop, error) {
	index, err := t.indexes.take(1)
	if err != nil {
		return nil, err
	}
	*t.item(index) = bpfNextHop{}
	return t.add(addr, index), nil
}

// point makes a real server's packets take a next hop.
func (t *hopTable) point(h *hop, id uint32) {
	h.users[id] = true
	atomic.StoreUint32(&t.plane.arrays.servers.items[id].NextHop, h.index)
}

// acquire points a real server to the next hop for its address. A new one is
// asked for at once, so that it is on its way when the first packet comes.
func (t *hopTable) acquire(addr netip.Addr, id uint32) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	if h == nil {
		var err error
		if h, err = t.addNew(addr); err != nil {
			return err
		}
		t.point(h, id)
		t.refresh(addr, h)
		return nil
	}
	t.point(h, id)
	t.reroute(addr, h)
	return nil
}

// reroute looks again for the way of a next hop that was behind a router, which only now
// does not matter.
func (t *hopTable) reroute(addr netip.Addr, h *hop) {
	if h.seen.state == bpfHopStateHOP_OFF_LINK && t.routable(h) {
		t.refresh(addr, h)
	}
}

// bind points a real server to its next hop again, and tells whether it pointed to
// another.
func (t *hopTable) bind(addr netip.Addr, id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	t.reroute(addr, h)
	if t.plane.arrays.servers.items[id].NextHop == h.index {
		return false
	}
	t.point(h, id)
	return true
}

// release forgets a user, and the next hop with its last one.
func (t *hopTable) release(addr netip.Addr, id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	if h == nil {
		return
	}
	delete(h.users, id)
	if len(h.users) > 0 {
		return
	}
	delete(t.hops, addr)
	t.forget(addr, h)
	t.retire(h.index)
}

// retire gives an index back once no packet can hold it.
func (t *hopTable) retire(index uint32) {
	t.plane.table.retired.add(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.indexes.put(index, 1)
	})
}

func (t *hopTable) item(index uint32) *bpfNextHop { return &t.plane.arrays.hops.items[index] }

// path is where frames for an address go.
type path struct {
	name    string // of the interface, if this is one's own path
	state   bpfHopState
	mac     net.HardwareAddr
	ifindex int    // of the port, where frames leave
	vlan    uint16 // VLAN_KEEP, 0 or a tag
	mtu     int
	source  netip.Addr // our own address on this way; may be none
}

// write makes a path the one that packets take. Packets read mac_state first, so
// the other fields may change in place only while that says "not ready".
func (t *hopTable) write(h *hop, p path) {
	next := bpfNextHop{
		MacState: encodeMAC(p.mac, p.state), Ifindex: uint32(p.ifindex),
		Vlan: p.vlan, Mtu: uint16(min(p.mtu, 0xffff)),
	}
	if p.source.IsValid() {
		next.Source = encodeAddr(p.source)
	}
	item := t.item(h.index)
	now := *item
	now.MacState = next.MacState
	_, state := decodeMAC(atomic.LoadUint64(&item.MacState))
	if now != next && state.ready() && p.state.ready() {
		t.move(h, next)
		return
	}
	if now != next && p.state.ready() {
		item.Ifindex, item.Vlan, item.Mtu, item.Source = next.Ifindex, next.Vlan, next.Mtu, next.Source
	}
	atomic.StoreUint64(&item.MacState, next.MacState)
}

// move writes a new entry and turns the users to it one by one.
func (t *hopTable) move(h *hop, next bpfNextHop) {
	index, err := t.indexes.take(1)
	if err != nil {
		t.plane.log.Error("move a next hop", "err", err) // the table has twice the room: retired entries are late
		return
	}
	*t.item(index) = next
	old := h.index
	h.index = index
	for id := range h.users {
		t.point(h, id)
	}
	t.retire(old) // now that nobody is pointed to it
}

// ready tells whether frames can take the way.
func (s bpfHopState) ready() bool { return s == bpfHopStateHOP_READY || s == bpfHopStateHOP_ROUTED }

// routable tells whether a real server takes the next hop that a router may stand before.
func (t *hopTable) routable(h *hop) bool {
	for id := range h.users {
		if t.plane.arrays.servers.items[id].Method != bpfMethodMETHOD_DR {
			return true
		}
	}
	return false
}

// direct tells whether a real server of method dr takes the next hop, which may not be a
// router's then.
func (t *hopTable) direct(h *hop) bool {
	for id := range h.users {
		if t.plane.arrays.servers.items[id].Method == bpfMethodMETHOD_DR {
			return true
		}
	}
	return false
}

// status returns a next hop as people read it.
func (t *hopTable) status(addr netip.Addr) lvs.NextHop {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	if h == nil {
		return lvs.NextHop{State: lvs.NextHopUnresolved}
	}
	return t.describe(t.read(h), t.direct(h))
}

// statuses returns all of them by address, for real servers of method dr or of others.
func (t *hopTable) statuses(direct bool) map[netip.Addr]lvs.NextHop {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[netip.Addr]lvs.NextHop, len(t.hops))
	for addr, h := range t.hops {
		all[addr] = t.describe(t.read(h), direct)
	}
	return all
}

// read returns what packets find.
func (t *hopTable) read(h *hop) path {
	item := t.item(h.index)
	mac, state := decodeMAC(atomic.LoadUint64(&item.MacState))
	return path{state: state, mac: mac, ifindex: int(item.Ifindex), vlan: item.Vlan, mtu: int(item.Mtu), source: decodeAddr(item.Source)}
}

// describe names the way only if frames can take it: those of method dr not by way of a
// router.
func (t *hopTable) describe(p path, direct bool) lvs.NextHop {
	if direct && p.state == bpfHopStateHOP_ROUTED {
		p.state = bpfHopStateHOP_OFF_LINK
	}
	s := lvs.NextHop{State: hopStates[p.state]}
	if p.state.ready() {
		s.MAC = p.mac.String()
		s.Interface, s.VLAN = t.exit(p)
	}
	return s
}

// exit names the interface where frames leave, and their tag.
func (t *hopTable) exit(p path) (name string, vlan uint16) {
	if p.vlan != uint16(bpfHopStateVLAN_KEEP) {
		vlan = p.vlan
	}
	if port, known := t.ports[p.ifindex]; known {
		return port.name, vlan
	}
	return fmt.Sprintf("if%d", p.ifindex), vlan
}

// neighbours returns all next hops, in no order.
func (t *hopTable) neighbours() []lvs.Neighbour {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]lvs.Neighbour, 0, len(t.hops))
	for addr, h := range t.hops {
		p := t.read(h)
		n := lvs.Neighbour{Address: addr, NextHop: t.describe(p, t.direct(h)), MTU: uint16(p.mtu)}
		if !p.state.ready() { // the entry says no more than that
			n.MTU = uint16(min(h.seen.mtu, 0xffff))
		}
		if p.state == bpfHopStateHOP_UNRESOLVED && h.seen.ifindex != 0 {
			n.Interface, n.VLAN = t.exit(h.seen)
		}
		for id := range h.users {
			if t.plane.arrays.servers.items[id].State == bpfServerStateSERVER_LISTED {
				n.RealServers++
			}
		}
		list = append(list, n)
	}
	return list
}

// Neighbours returns the next hops of all real servers, by address. Those that were
// taken out have one as long as they have connections, and are not counted.
func (p *Plane) Neighbours() ([]lvs.Neighbour, error) {
	list := p.hops.neighbours()
	slices.SortFunc(list, func(a, b lvs.Neighbour) int { return a.Address.Compare(b.Address) })
	return list, nil
}

// addresses returns all there are.
func (t *hopTable) addresses() []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Collect(maps.Keys(t.hops))
}

// unresolved returns the addresses that have not answered yet.
func (t *hopTable) unresolved() (addrs []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, h := range t.hops {
		if _, state := decodeMAC(atomic.LoadUint64(&t.item(h.index).MacState)); state == bpfHopStateHOP_UNRESOLVED {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}
