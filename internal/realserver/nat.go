// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// With method nat the director rewrites packets in both directions, so replies
// have to pass it: it is this host's default gateway, and nothing may teach the
// host a shorter way.

// defaultGateway is a director that Join made the default gateway of a family.
type defaultGateway struct {
	Director netip.Addr `json:"director"`
	Link     string     `json:"link"` // it is reached by
	Made     bool       `json:"made"` // by Join; otherwise the route was there before
	Removed  []route    `json:"removed,omitempty"`
	Persist  bool       `json:"persist"`
}

// The metrics of our routes: no other is preferred. For IPv6 the kernel reads 0 as 1024.
const (
	metric4 = 0
	metric6 = 1
)

// kernelMetric is that of the IPv6 route which says that there is none.
const kernelMetric = 0xffffffff

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// checkGateways tells why the directors cannot be default gateways, or returns nil.
func checkGateways(directors []netip.Addr) error {
	if len(directors) == 0 {
		return fmt.Errorf("%w: method nat needs the director's address, which becomes the default gateway: --director A", lvs.ErrInvalid)
	}
	for i, d := range directors {
		for _, before := range directors[:i] {
			if before != d && before.Is4() == d.Is4() {
				return fmt.Errorf("directors %s and %s are %w together: method nat has one default gateway of each family; give the address that moves between the two",
					before, d, lvs.ErrInvalid)
			}
		}
	}
	return nil
}

// object is what a step about the gateway is about.
func (g defaultGateway) object() string { return "default route of " + familyName(g.Director) }

func (s *state) gateway(family int) *defaultGateway {
	for i := range s.Gateways {
		if familyOf(s.Gateways[i].Director) == family {
			return &s.Gateways[i]
		}
	}
	return nil
}

// planGateways plans what makes the directors the default gateways, and
// remembers it in next.
func (h *host) planGateways(next *state) ([]change, error) {
	var changes []change
	for i, director := range h.Directors {
		if slices.Contains(h.Directors[:i], director) {
			continue
		}
		link, err := h.onLink(director)
		if err != nil {
			return nil, err
		}
		list, err := h.planRedirects(next, director, link.Name)
		if err != nil {
			return nil, err
		}
		changes = append(changes, list...)
		if list, err = h.planGateway(next, director, link); err != nil {
			return nil, err
		}
		changes = append(changes, list...)
	}
	return changes, nil
}

// onLink returns the interface by which a director is reached without a router.
func (h *host) onLink(director netip.Addr) (*net.Interface, error) {
	const advice = "method nat needs it as the next hop: give the director's address on a network of this host"
	all, err := h.addresses()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(p placed) bool { return p.prefix.Addr() == director }) {
		return nil, fmt.Errorf("director %s is an address of this host itself; give the director's", director)
	}
	list, err := h.netlink.RouteGetWithOptions(director.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err != nil {
		return nil, fmt.Errorf("director %s cannot be reached (%w); %s", director, err, advice)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("director %s cannot be reached; %s", director, advice)
	}
	r := list[0]
	bits := 0
	if r.Dst != nil {
		bits, _ = r.Dst.Mask.Size()
	}
	if len(r.MultiPath) > 0 || r.Gw != nil || r.Via != nil || bits == 0 || r.Type != unix.RTN_UNICAST {
		return nil, fmt.Errorf("director %s is behind a router (ip route get %s); %s", director, director, advice)
	}
	return &net.Interface{Index: r.LinkIndex, Name: h.links[r.LinkIndex]}, nil
}

// defaults lists the default routes of a family that somebody made. Those that
// routers advertise come and go by themselves, and ours is preferred to them.
func (h *host) defaults(family int) ([]route, error) {
	all, err := h.routes(family, unix.RT_TABLE_MAIN)
	return slices.DeleteFunc(all, func(r route) bool {
		got := r.read()
		return got.destination.Bits() != 0 || got.protocol == unix.RTPROT_RA || got.metric == kernelMetric
	}), err
}

// gatewayRoute returns the default route by way of a director.
func gatewayRoute(director netip.Addr, link int, name string) route {
	message := make([]byte, rtmsgBytes)
	message[0], message[4], message[5], message[7] = uint8(familyOf(director)), unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RTN_UNICAST
	list := []attribute{{unix.RTA_GATEWAY, director.AsSlice()}, {unix.RTA_OIF, words(uint32(link))}}
	if director.Is6() {
		list = append(list, attribute{unix.RTA_PRIORITY, words(metric6)})
	}
	r := route{Message: appendAttributes(message, list), Links: map[int]string{link: name}}
	r.Text = r.read().text(r.Links)
	return r
}

// made tells whether a route is the one that Join makes for a gateway.
func (g *defaultGateway) made(r route, links map[int]string) bool {
	if g == nil || !g.Made {
		return false
	}
	link, there := linkNumber(links, g.Link)
	return there && sameRoute(r, gatewayRoute(g.Director, link, g.Link))
}

// sameRoute compares what this program knows of two routes.
func sameRoute(a, b route) bool {
	x, y := a.read(), b.read()
	return slices.Equal(x.hops, y.hops) && x.metric == y.metric && x.protocol == y.protocol && x.destination == y.destination &&
		x.source == y.source && x.kind == y.kind && x.tos == y.tos && x.from == y.from && x.table == y.table
}

// planGateway plans the default route by way of one director, and remembers in
// next which ones there were.
func (h *host) planGateway(next *state, director netip.Addr, link *net.Interface) ([]change, error) {
	current, err := h.defaults(familyOf(director))
	if err != nil {
		return nil, err
	}
	old := h.state.gateway(familyOf(director))
	record := next.gateway(familyOf(director))
	if record == nil {
		next.Gateways = append(next.Gateways, defaultGateway{})
		record = &next.Gateways[len(next.Gateways)-1]
	}
	same := record.Director == director && record.Link == link.Name
	record.Director, record.Link, record.Persist = director, link.Name, record.Persist || h.Persist
	if len(current) == 1 && current[0].read().leadsTo(director, link.Index) && (same || !old.made(current[0], h.links)) {
		if !same || !old.made(current[0], h.links) {
			record.Made, record.Removed = false, nil // it is somebody else's, and so is the way back
		}
		return []change{already(record.object(), current[0].Text, record.object()+" is "+current[0].Text+": already so")}, nil
	}
	record.Made = true
	return h.replaceDefaults(record, old, current, gatewayRoute(director, link.Index, link.Name))
}

// replaceDefaults plans a new default route, and then the end of the others:
// this host is never without one.
func (h *host) replaceDefaults(record, old *defaultGateway, current []route, wanted route) ([]change, error) {
	var changes []change
	var removals []change
	found := false
	for _, r := range current {
		if sameRoute(r, wanted) {
			found = true
			continue
		}
		clean, err := r.wanted(h.links)
		if err != nil {
			return nil, err
		}
		removals = append(removals, routeChange(record.object(), clean, false))
		known := slices.ContainsFunc(record.Removed, func(k route) bool { return bytes.Equal(k.Message, clean.Message) })
		if !known && !old.made(r, h.links) {
			record.Removed = append(record.Removed, clean)
		}
	}
	if !found {
		c := routeChange(record.object(), wanted, true)
		c.do = func() error { return addRoute(wanted) }
		changes = append(changes, c)
	}
	slices.Reverse(removals) // taken back in the order there was
	return append(changes, removals...), nil
}

// routeChange is the change that makes a route, behind others of its kind, or
// takes it away.
func routeChange(object string, r route, add bool) change {
	if add {
		return change{
			step: Step{Object: object, Before: "absent", After: r.Text, Changed: true, Text: "route added: " + r.Text},
			do:   func() error { return restoreRoute(r) },
			undo: func() error { return deleteRoute(r) },
		}
	}
	return change{
		step: Step{Object: object, Before: r.Text, After: "absent", Changed: true, Text: "route removed: " + r.Text},
		do:   func() error { return deleteRoute(r) },
		undo: func() error { return restoreRoute(r) },
	}
}

// planGatewaysBack plans the way back to the default routes there were, and
// forgets them in next.
func (h *host) planGatewaysBack(next *state) ([]change, error) {
	var changes []change
	for _, g := range next.Gateways {
		list, err := h.planGatewayBack(g)
		if err != nil {
			return nil, err
		}
		changes = append(changes, list...)
	}
	next.Gateways = nil
	return changes, nil
}

func (h *host) planGatewayBack(g defaultGateway) ([]change, error) {
	if !g.Made {
		return []change{already(g.object(), "present", g.object()+": stays, it was there before join")}, nil
	}
	current, err := h.defaults(familyOf(g.Director))
	if err != nil {
		return nil, err
	}
	ours := slices.IndexFunc(current, func(r route) bool { return g.made(r, h.links) })
	if ours < 0 && len(current) > 0 {
		return []change{warning(g.object(), "%s stays %s: it is not what join made, somebody has changed it since; before join it was: %s",
			g.object(), current[0].Text, routeTexts(g.Removed))}, nil
	}
	var changes []change
	for _, r := range g.Removed {
		back, err := h.restorable(r)
		if err != nil {
			changes = append(changes, warning(g.object(), "the route %s is not restored: %v; to have it back: ip route add %s", r.Text, err, r.Text))
			continue
		}
		changes = append(changes, routeChange(g.object(), back, true))
	}
	if ours >= 0 {
		clean, err := current[ours].wanted(h.links)
		if err != nil {
			return nil, err
		}
		changes = append(changes, routeChange(g.object(), clean, false))
	}
	return changes, nil
}

func routeTexts(list []route) string {
	if len(list) == 0 {
		return "none"
	}
	text := list[0].Text
	for _, r := range list[1:] {
		text += ", " + r.Text
	}
	return text
}

// restorable returns a route that there was in a form that the kernel takes now,
// or an error that says what it lacks.
func (h *host) restorable(r route) (route, error) {
	for _, name := range r.Links {
		i, err := h.netlink.LinkByName(name)
		if err != nil {
			return route{}, fmt.Errorf("there is no interface %s any more", name)
		}
		if i.Attrs().Flags&net.FlagUp == 0 {
			return route{}, fmt.Errorf("%s is down", name)
		}
	}
	source := r.read().source
	all, err := h.addresses()
	if err != nil {
		return route{}, err
	}
	if source.IsValid() && !slices.ContainsFunc(all, func(p placed) bool { return p.prefix.Addr() == source }) {
		return route{}, fmt.Errorf("this host does not have its source address %s any more", source)
	}
	return r.wanted(h.links)
}

// redirects lists the sysctls that let a host be taught another way than by the
// director. On a host the larger of conf/all and conf/IF counts for IPv4, on a router
// the smaller, so both have to be 0; for IPv6 conf/IF alone counts.
func redirects(director netip.Addr, link string) []sysctl {
	own := sysctl{Six: director.Is6(), Interface: link, Key: redirectKey}
	if director.Is6() {
		return []sysctl{own}
	}
	return []sysctl{{Interface: all, Key: redirectKey}, own}
}

const redirectKey = "accept_redirects"

// planRedirects plans that no ICMP redirect is believed on the director's
// interface, and remembers it in next: a director that sends a packet back where it
// came from would have one sent, as any router does.
func (h *host) planRedirects(next *state, director netip.Addr, link string) ([]change, error) {
	var changes []change
	for _, s := range redirects(director, link) {
		now, err := s.read()
		if err != nil {
			return nil, err
		}
		if now == 0 {
			changes = append(changes, already(s.String(), "0", s.String()+" = 0: already so"))
			continue
		}
		next.remember(sysctlRecord{sysctl: s, Before: now, After: 0})
		changes = append(changes, s.set(now, 0))
	}
	if director.Is4() {
		changes = append(changes, change{do: forgetRedirects})
	}
	return changes, nil
}

// forgetRedirects makes the kernel forget what redirects have taught it already.
func forgetRedirects() error {
	err := os.WriteFile(netDir+"/ipv4/route/flush", []byte("1"), 0)
	if err != nil {
		return fmt.Errorf("forget redirects: %w", err)
	}
	return nil
}

// gatewayFacts tells of each director whether it is the default gateway, and
// whether a redirect could change that.
func (h *host) gatewayFacts() ([]Fact, error) {
	var facts []Fact
	for _, g := range h.state.Gateways {
		fact, err := h.gatewayFact(g)
		if err != nil {
			return nil, err
		}
		facts = append(facts, fact)
		list, err := redirectFacts(g)
		if err != nil {
			return nil, err
		}
		facts = append(facts, list...)
	}
	return facts, nil
}

func (h *host) gatewayFact(g defaultGateway) (Fact, error) {
	fact := Fact{
		Object: g.object(), Wanted: fmt.Sprintf("via %s dev %s", g.Director, g.Link), Effective: "none",
		Fix: "lvx realserver join --method nat --director " + joinAddresses(h.state.directors()),
	}
	list, err := h.routes(familyOf(g.Director), unix.RT_TABLE_MAIN)
	if err != nil {
		return Fact{}, err
	}
	link, _ := linkNumber(h.links, g.Link)
	least := kernelMetric
	for _, r := range list {
		got := r.read()
		if got.destination.Bits() != 0 || got.metric >= least {
			continue
		}
		least, fact.Effective, fact.OK = got.metric, r.Text, got.leadsTo(g.Director, link)
	}
	if fact.OK {
		fact.Fix = ""
	} else {
		fact.Note = "replies that do not pass the director have the real server's address, and clients drop them"
	}
	return fact, nil
}

// directors lists the default gateways that have joined.
func (s *state) directors() (list []netip.Addr) {
	for _, g := range s.Gateways {
		list = append(list, g.Director)
	}
	return list
}

func redirectFacts(g defaultGateway) ([]Fact, error) {
	fact := Fact{Object: "accept_redirects of " + familyName(g.Director) + " on " + g.Link, Wanted: "0", Effective: "0", OK: true}
	for _, s := range redirects(g.Director, g.Link) {
		value, err := s.read()
		if err != nil {
			return nil, err
		}
		if value != 0 && fact.OK {
			fact.OK, fact.Effective, fact.Fix = false, fmt.Sprint(value), fmt.Sprintf("sysctl -w %s=0", s)
			fact.Note = "an ICMP redirect could lead replies past the director"
		}
	}
	return []Fact{fact}, nil
}
