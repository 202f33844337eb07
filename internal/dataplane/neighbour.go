// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// This file asks the kernel where real servers are, and listens for changes. The
// kernel keeps the neighbours resolved (NTF_EXT_MANAGED, Linux 5.16); no packet
// of a VIP ever goes up the director's own stack for it.

// openHops starts asking the kernel.
func (p *Plane) openHops() (err error) {
	if p.hops.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	p.hops.refreshAll()
	return nil
}

func (t *hopTable) close() {
	if t.handle != nil {
		t.handle.Close()
	}
}

// refreshAll looks every next hop up anew, one by one: changes and listings get
// their turn in between.
func (t *hopTable) refreshAll() {
	ports, err := t.listPorts()
	if err != nil {
		t.plane.log.Warn("look next hops up", "err", err)
		return // what was known stays; the next beat tries again
	}
	t.mu.Lock()
	t.ports = ports
	_, err = t.storeExits()
	t.mu.Unlock()
	if err != nil {
		t.plane.log.Warn("write how frames leave", "err", err)
	}
	for _, addr := range t.addresses() {
		t.refreshOne(addr)
	}
}

// refreshOne looks one up, if it is one of ours.
func (t *hopTable) refreshOne(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.hops[addr]; h != nil {
		t.refresh(addr, h)
	}
}

// refreshWho looks up those who have this neighbour.
func (t *hopTable) refreshWho(neighbour netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, h := range t.hops {
		if addr == neighbour || h.asks == neighbour {
			t.refresh(addr, h)
		}
	}
}

// refresh is called with the lock held.
func (t *hopTable) refresh(addr netip.Addr, h *hop) {
	if t.handle == nil {
		return
	}
	p, err := t.look(addr, h)
	if errors.Is(err, unix.ENOBUFS) {
		t.crowded = time.Now()
	}
	if err != nil {
		t.plane.log.Warn("look up a next hop", "address", addr, "err", err)
		return
	}
	h.seen = p
	t.write(h, p)
}

// noRoute are the answers that say "there is no way". Others are no answer.
var noRoute = []error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL}

// look asks the kernel for the path to an address on one of our segments.
func (t *hopTable) look(addr netip.Addr, h *hop) (path, error) {
	routes, err := t.handle.RouteGet(addr.AsSlice())
	for _, kind := range noRoute {
		if errors.Is(err, kind) {
			return path{state: bpfHopStateHOP_NO_ROUTE}, nil
		}
	}
	if err != nil {
		return path{}, fmt.Errorf("ask for the route: %w", err)
	}
	if len(routes) == 0 {
		return path{state: bpfHopStateHOP_NO_ROUTE}, nil
	}
	route := routes[0]
	switch {
	case route.Type == unix.RTN_LOCAL:
		return path{state: bpfHopStateHOP_LOCAL}, nil
	}
	asks, routed := neighbourOf(addr, route)
	if routed && !t.routable(h) || !asks.IsValid() {
		return path{state: bpfHopStateHOP_OFF_LINK}, nil
	}
	p, err := t.port(route.LinkIndex)
	if err != nil {
		return path{}, err
	}
	if route.MTU > 0 {
		p.mtu = min(p.mtu, route.MTU)
	}
	if p.source, err = t.source(route); err != nil {
		return path{}, err
	}
	if err := t.plane.ports.know(p.ifindex); err != nil {
		return path{}, err
	}
	if h.link != route.LinkIndex || h.asks != asks {
		t.forget(addr, h) // where it was before
		h.link, h.asks = route.LinkIndex, asks
	}
	if err := t.neighbour(&p, h); err != nil {
		return path{}, err
	}
	if routed && p.state == bpfHopStateHOP_READY {
		p.state = bpfHopStateHOP_ROUTED
	}
	return p, nil
}

// source returns our own address on the way: the one that the kernel would take, unless
// that is a VIP. Real servers have it too, and the other director may be its next owner.
func (t *hopTable) source(route netlink.Route) (netip.Addr, error) {
	first, _ := netip.AddrFromSlice(route.Src)
	if first = first.Unmap(); !first.IsValid() || !t.isVIP(first) {
		return first, nil
	}
	link, err := t.handle.LinkByIndex(route.LinkIndex)
	if err != nil {
		return first, fmt.Errorf("interface %d: %w", route.LinkIndex, err)
	}
	addrs, err := t.handle.AddrList(link, family(first))
	if err != nil {
		return first, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		addr, _ := netip.AddrFromSlice(a.IP)
		if addr = addr.Unmap(); addr.IsValid() && a.Scope == unix.RT_SCOPE_UNIVERSE && !t.isVIP(addr) {
			return addr, nil
		}
	}
	return netip.Addr{}, nil // NO_ROUTE, for tun
}

// isVIP tells whether packets look for the address as a destination.
func (t *hopTable) isVIP(addr netip.Addr) bool {
	var roles uint32
	return t.plane.objects.Addresses.Lookup(encodeAddr(addr), &roles) == nil && roles&uint32(bpfGlanceVIP_DESTINATION) != 0
}

// avoid looks again for the next hops that an address was the source on the way to, which
// is a VIP from now on.
func (t *hopTable) avoid(vip netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, h := range t.hops {
		if h.seen.source == vip {
			t.refresh(addr, h)
		}
	}
}

// neighbourOf returns whose MAC address frames for an address need: its own, or that of
// the router on the way. None for a router of the other family.
func neighbourOf(addr netip.Addr, route netlink.Route) (asks netip.Addr, routed bool) {
	switch {
	case route.Gw != nil:
		asks, _ = netip.AddrFromSlice(route.Gw)
		return asks.Unmap(), true
	case route.Via != nil:
		return netip.Addr{}, true
	}
	return addr, false
}

// listPorts returns for each interface how frames leave by it.
func (t *hopTable) listPorts() (map[int]path, error) {
	links, err := listLinks(t.handle)
	if err != nil {
		return nil, err
	}
	ports := map[int]path{}
	for _, l := range links {
		ports[l.Attrs().Index] = path{name: l.Attrs().Name, ifindex: l.Attrs().Index, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: l.Attrs().MTU}
	}
	for _, l := range links {
		v, is := l.(*netlink.Vlan)
		if !is {
			continue
		}
		ports[v.Index] = path{name: v.Name, ifindex: v.ParentIndex, vlan: uint16(v.VlanId), mtu: v.MTU}
		if parent, here := ports[v.ParentIndex]; here && parent.vlan == uint16(bpfHopStateVLAN_KEEP) {
			parent.vlan = 0 // the port has VLANs: what is in none of them has no tag
			ports[v.ParentIndex] = parent
		}
	}
	return ports, nil
}

// port returns how frames leave by an interface.
func (t *hopTable) port(index int) (path, error) {
	if p, known := t.ports[index]; known {
		return p, nil
	}
	ports, err := t.listPorts()
	if err != nil {
		return path{}, err
	}
	t.ports = ports
	if _, err := t.storeExits(); err != nil { // replies lack it, but packets to real servers do not
		t.plane.log.Warn("write how frames leave", "err", err)
	}
	if p, known := ports[index]; known {
		return p, nil
	}
	return path{}, fmt.Errorf("interface %d: there is none", index)
}

const validNeighbour = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE |
	netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// neighbour fills in what the kernel knows of an address, and lets it manage it.
// While the kernel asks, the MAC address known so far stays in use.
func (t *hopTable) neighbour(p *path, h *hop) error {
	n, err := getNeighbour(h.link, h.asks)
	if err != nil {
		return err
	}
	if n == nil || !managed(*n) {
		if err := t.manage(h.link, h.asks); err != nil {
			return err
		}
	}
	if n != nil && n.State&validNeighbour != 0 && len(n.HardwareAddr) == 6 {
		p.mac, p.state = n.HardwareAddr, bpfHopStateHOP_READY
		return nil
	}
	p.state = bpfHopStateHOP_UNRESOLVED
	if n == nil || n.State&netlink.NUD_FAILED == 0 {
		if mac, state := decodeMAC(t.item(h.index).MacState); state.ready() && t.item(h.index).Ifindex == uint32(p.ifindex) {
			p.mac, p.state = mac, bpfHopStateHOP_READY
		}
	}
	return nil
}

// getNeighbour asks for one entry, or returns nil if there is none: a dump of all
// for each of a thousand real servers would take seconds.
func getNeighbour(link int, addr netip.Addr) (*netlink.Neigh, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	request.AddData(&netlink.Ndmsg{Family: uint8(family(addr)), Index: uint32(link)})
	request.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	answers, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("ask for neighbour %s: %w", addr, err)
	}
	if len(answers) == 0 {
		return nil, nil //nolint:nilnil // as above
	}
	n, err := netlink.NeighDeserialize(answers[0])
	if err != nil {
		return nil, fmt.Errorf("read neighbour %s: %w", addr, err)
	}
	return n, nil
}

// managed tells whether the entry stays valid by itself: the kernel manages it,
// or the operator set it for good.
func managed(n netlink.Neigh) bool {
	return n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 || n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0
}

func (t *hopTable) manage(link int, addr netip.Addr) error {
	err := t.handle.NeighSet(&netlink.Neigh{
		LinkIndex: link, Family: family(addr), IP: addr.AsSlice(), FlagsExt: netlink.NTF_EXT_MANAGED,
	})
	if err != nil {
		return fmt.Errorf("resolve %s: %w", addr, err)
	}
	return nil
}

// solicit asks again for an address that did not answer. The kernel by itself
// asks a failed neighbour every five seconds only.
func (t *hopTable) solicit(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hops[addr]
	if h == nil || h.link == 0 {
		return
	}
	_ = t.handle.NeighSet(&netlink.Neigh{
		LinkIndex: h.link, Family: family(h.asks), IP: h.asks.AsSlice(),
		Flags: netlink.NTF_USE, FlagsExt: netlink.NTF_EXT_MANAGED,
	}) // refused or lost: the next second has another one
}

// forget ends the managing of a neighbour; the kernel resolves it again when it
// needs it.
func (t *hopTable) forget(addr netip.Addr, h *hop) {
	if t.handle == nil || h.link == 0 || t.shared(h) {
		return
	}
	n, err := getNeighbour(h.link, h.asks)
	if err == nil && n != nil {
		err = forgetNeighbour(t.handle, *n)
	}
	if err != nil {
		t.plane.log.Warn("forget a neighbour", "address", addr, "err", err)
	}
}

// shared tells whether another next hop has the same neighbour, a router.
func (t *hopTable) shared(h *hop) bool {
	for _, other := range t.hops {
		if other != h && other.link == h.link && other.asks == h.asks {
			return true
		}
	}
	return false
}

func forgetNeighbour(handle *netlink.Handle, n netlink.Neigh) error {
	if n.FlagsExt&netlink.NTF_EXT_MANAGED == 0 {
		return nil
	}
	if err := handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete neighbour %s: %w", n.IP, err)
	}
	return nil
}

// forgetNeighbours does so for every real server of pinned maps.
func forgetNeighbours(i *Instance) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(i.dir(), "real_servers"), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the pinned real_servers: %w", err)
	}
	defer m.Close()
	var servers array[bpfRealServer]
	if err := servers.open(m); err != nil {
		return err
	}
	defer servers.close()
	ours := map[netip.Addr]bool{}
	for i := range servers.items {
		if record := &servers.items[i]; record.State != bpfServerStateSERVER_FREE {
			ours[decodeAddr(record.Addr)] = true
		}
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	for addr := range maps.Clone(ours) {
		routes, err := handle.RouteGet(addr.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // there is no way to it any more, so no router is asked
		}
		if asks, _ := neighbourOf(addr, routes[0]); asks.IsValid() {
			ours[asks] = true
		}
	}
	return forgetThese(handle, ours)
}

func forgetThese(handle *netlink.Handle, ours map[netip.Addr]bool) (err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, listErr := handle.NeighList(0, family)
		if listErr != nil {
			err = errors.Join(err, fmt.Errorf("list neighbours: %w", listErr))
		}
		for _, n := range list {
			if addr, valid := netip.AddrFromSlice(n.IP); valid && ours[addr.Unmap()] {
				err = errors.Join(err, forgetNeighbour(handle, n))
			}
		}
	}
	return err
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// run follows the kernel until ctx ends. Events may be lost when there are very
// many: then everything is looked up anew.
func (t *hopTable) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := t.follow(ctx); err != nil {
			t.plane.log.Warn("follow neighbours", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// subscription is what the kernel tells of its own accord.
type subscription struct {
	neighbours chan netlink.NeighUpdate
	routes     chan netlink.RouteUpdate
	links      chan netlink.LinkUpdate
	done       chan struct{}
}

func subscribe() (*subscription, error) {
	s := &subscription{
		neighbours: make(chan netlink.NeighUpdate, 1024), routes: make(chan netlink.RouteUpdate, 1024),
		links: make(chan netlink.LinkUpdate, 1024), done: make(chan struct{}),
	}
	quiet := func(error) {} // the channel closes as well
	err := errors.Join(
		netlink.NeighSubscribeWithOptions(s.neighbours, s.done, netlink.NeighSubscribeOptions{ErrorCallback: quiet}),
		netlink.RouteSubscribeWithOptions(s.routes, s.done, netlink.RouteSubscribeOptions{ErrorCallback: quiet}),
		netlink.LinkSubscribeWithOptions(s.links, s.done, netlink.LinkSubscribeOptions{ErrorCallback: quiet}),
	)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return s, nil
}

// close ends the subscription. Its writers may be waiting at a full channel.
func (s *subscription) close() {
	close(s.done)
	go drain(s.neighbours)
	go drain(s.routes)
	go drain(s.links)
}

func drain[T any](events <-chan T) {
	for range events { //nolint:revive // until the writer closes it
	}
}

// settleTime is how long routes and interfaces may go on changing before all
// next hops are looked up: changes come in crowds.
const settleTime = 50 * time.Millisecond

// follow returns when a subscription breaks.
func (t *hopTable) follow(ctx context.Context) error {
	s, err := subscribe()
	if err != nil {
		return err
	}
	defer s.close()
	t.refreshAll()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	var settled <-chan time.Time // nil while nothing changed
	pause := settleTime
	for beat := 1; ; {
		changed, open := false, true
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-s.neighbours:
			if addr, valid := netip.AddrFromSlice(event.IP); ok && valid {
				t.refreshWho(addr.Unmap())
			}
			open = ok
		case _, open = <-s.routes:
			changed = true
		case _, open = <-s.links:
			changed = true
		case <-settled:
			start := time.Now()
			t.refreshAll()
			pause = max(settleTime, 10*time.Since(start)) // a tenth of a CPU at most
			settled = nil
		case <-second.C:
			t.beat(beat)
			beat++
		}
		if !open {
			return errors.New("events were lost")
		}
		if changed && settled == nil {
			settled = time.After(pause)
		}
	}
}

// beat is what happens every second: who does not answer is asked again, and
// every half minute all is compared with the kernel.
func (t *hopTable) beat(n int) {
	for _, addr := range t.unresolved() {
		t.solicit(addr)
	}
	if n%30 == 0 {
		t.refreshAll()
	}
	if n%routersBeat == 1 && atomic.LoadUint64(&t.plane.arrays.uses.items[0].Nat) != 0 {
		t.confirmRouters()
	}
}

// routersBeat is how often, in seconds, the kernel is to ask whether its routers are still
// where they were: the packets of replies do not tell it that anybody uses them.
const routersBeat = 10

// confirmRouters has the kernel ask for the routers of all routes: replies go by them.
func (t *hopTable) confirmRouters() {
	type router struct {
		link int
		addr netip.Addr
	}
	asked := map[router]bool{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := t.handle.RouteList(nil, family)
		if err != nil {
			t.plane.log.Warn("list routes", "err", err)
			continue
		}
		for _, route := range routes {
			addr, valid := netip.AddrFromSlice(route.Gw)
			if r := (router{route.LinkIndex, addr.Unmap()}); valid && !asked[r] && len(asked) < soughtMost {
				asked[r] = true
				t.plane.resolve(r.addr, r.link)
			}
		}
	}
}

// warnings names what keeps next hops from being found, besides the hosts.
func (t *hopTable) warnings() []lvs.Warning {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.crowded.IsZero() || time.Since(t.crowded) > time.Minute {
		return nil
	}
	return []lvs.Warning{{
		Object: "neighbour table",
		Text:   "the kernel's table of neighbours is full, so that not all real servers can be resolved",
		Fix:    "sysctl -w net.ipv4.neigh.default.gc_thresh3=16384 net.ipv6.neigh.default.gc_thresh3=16384 (twice the number of real servers at least)",
	}}
}

// Reach returns the next hops for addresses of real servers, or of all real
// servers if none is named. It waits until each is known or known to be none, or
// ctx ends.
func (p *Plane) Reach(ctx context.Context, addrs []netip.Addr) []lvs.NextHop {
	if len(addrs) == 0 {
		addrs = p.hops.addresses()
	}
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		hops := make([]lvs.NextHop, 0, len(addrs))
		waiting := false
		for _, addr := range addrs {
			hop := p.hops.status(addr)
			hops = append(hops, hop)
			waiting = waiting || hop.State == lvs.NextHopUnresolved
		}
		if !waiting {
			return hops
		}
		select {
		case <-ctx.Done():
			return hops
		case <-poll.C:
		}
	}
}
