// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
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

// refreshAll looks every next hop up anew.
func (t *hopTable) refreshAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, h := range t.hops {
		t.refresh(addr, h)
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

func (t *hopTable) refresh(addr netip.Addr, h *hop) {
	if t.handle == nil {
		return
	}
	p, err := t.look(addr)
	if err != nil {
		t.plane.log.Warn("look up a next hop", "address", addr, "err", err)
		return
	}
	t.write(h, p)
}

// look asks the kernel for the path to an address on one of our segments.
func (t *hopTable) look(addr netip.Addr) (path, error) {
	routes, err := t.handle.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return path{state: bpfHopStateHOP_NO_ROUTE}, nil //nolint:nilerr // ENETUNREACH and its like are the answer
	}
	route := routes[0]
	switch {
	case route.Type == unix.RTN_LOCAL:
		return path{state: bpfHopStateHOP_LOCAL}, nil
	case route.Gw != nil || route.Via != nil:
		return path{state: bpfHopStateHOP_OFF_LINK}, nil
	}
	link, err := t.handle.LinkByIndex(route.LinkIndex)
	if err != nil {
		return path{}, fmt.Errorf("interface %d: %w", route.LinkIndex, err)
	}
	p := path{ifindex: link.Attrs().Index, mtu: link.Attrs().MTU}
	if route.MTU > 0 {
		p.mtu = min(p.mtu, route.MTU)
	}
	p.ifindex, p.vlan = t.port(link)
	if err := t.plane.ports.know(p.ifindex); err != nil {
		return path{}, err
	}
	p.mac, p.state, err = t.neighbour(link.Attrs().Index, addr)
	return p, err
}

// port returns the interface that frames leave by and the tag they carry.
func (t *hopTable) port(link netlink.Link) (ifindex int, vlan uint16) {
	if v, is := link.(*netlink.Vlan); is {
		return v.ParentIndex, uint16(v.VlanId)
	}
	links, err := t.handle.LinkList()
	if err == nil && slices.ContainsFunc(links, func(l netlink.Link) bool {
		return l.Type() == "vlan" && l.Attrs().ParentIndex == link.Attrs().Index
	}) {
		return link.Attrs().Index, 0 // the port has VLANs, and the real server is in none
	}
	return link.Attrs().Index, uint16(bpfHopStateVLAN_KEEP)
}

const validNeighbour = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE |
	netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// neighbour returns what the kernel knows of an address, and lets it manage it.
func (t *hopTable) neighbour(link int, addr netip.Addr) (net.HardwareAddr, bpfHopState, error) {
	list, err := t.handle.NeighList(link, family(addr))
	if err != nil {
		return nil, 0, fmt.Errorf("list neighbours: %w", err)
	}
	i := slices.IndexFunc(list, func(n netlink.Neigh) bool { return n.IP.Equal(addr.AsSlice()) })
	if i < 0 || !managed(list[i]) {
		if err := t.manage(link, addr); err != nil {
			return nil, 0, err
		}
	}
	if i >= 0 && list[i].State&validNeighbour != 0 && len(list[i].HardwareAddr) == 6 {
		return list[i].HardwareAddr, bpfHopStateHOP_READY, nil
	}
	return nil, bpfHopStateHOP_UNRESOLVED, nil
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
	routes, err := t.handle.RouteGet(addr.AsSlice())
	if err != nil || len(routes) == 0 {
		return
	}
	_ = t.handle.NeighSet(&netlink.Neigh{
		LinkIndex: routes[0].LinkIndex, Family: family(addr), IP: addr.AsSlice(),
		Flags: netlink.NTF_USE, FlagsExt: netlink.NTF_EXT_MANAGED,
	}) // refused or lost: the next second has another one
}

// forget ends the managing of a neighbour that was ours; the kernel resolves it
// again when it needs it.
func (t *hopTable) forget(addr netip.Addr) {
	if t.handle == nil {
		return
	}
	if err := forgetNeighbour(t.handle, addr); err != nil {
		t.plane.log.Warn("forget a neighbour", "address", addr, "err", err)
	}
}

func forgetNeighbour(handle *netlink.Handle, addr netip.Addr) error {
	list, err := handle.NeighList(0, family(addr))
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	for _, n := range list {
		if n.IP.Equal(addr.AsSlice()) && n.FlagsExt&netlink.NTF_EXT_MANAGED != 0 {
			if err := handle.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("delete neighbour %s: %w", addr, err)
			}
		}
	}
	return nil
}

// forgetNeighbours does so for every real server of pinned maps.
func forgetNeighbours(p pins) error {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir(), "real_servers"), nil)
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
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	for i := range servers.items {
		if record := &servers.items[i]; record.State != bpfServerStateSERVER_FREE {
			err = errors.Join(err, forgetNeighbour(handle, decodeAddr(record.Addr)))
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

// follow returns when a subscription breaks.
func (t *hopTable) follow(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	neighbours := make(chan netlink.NeighUpdate, 1024)
	routes := make(chan netlink.RouteUpdate, 1024)
	links := make(chan netlink.LinkUpdate, 1024)
	quiet := func(error) {} // the channel closes as well
	err := errors.Join(
		netlink.NeighSubscribeWithOptions(neighbours, done, netlink.NeighSubscribeOptions{ErrorCallback: quiet}),
		netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: quiet}),
		netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: quiet}),
	)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	t.refreshAll()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for beat := 1; ; {
		open := true
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-neighbours:
			if open = ok; ok {
				if addr, valid := netip.AddrFromSlice(event.IP); valid {
					t.refreshOne(addr.Unmap())
				}
			}
		case _, open = <-routes:
			t.refreshAll()
		case _, open = <-links:
			t.refreshAll()
		case <-second.C:
			t.beat(beat)
			beat++
		}
		if !open {
			return errors.New("events were lost")
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
