// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A client's segments get a tunnel header on the way, so they have to be smaller
// than what the client's own network allows. The real server says how large in its
// SYN-ACK, and it takes that from the route: connections of a VIP have a table of
// their own, with the routes of table main and a smaller MSS.

const (
	// firstTable is the number of our table, or the next one that nobody uses.
	firstTable = 16080
	// rulePriority puts our rules before table main and behind what the operator has.
	rulePriority = 32000
	// mostRoutes are copied at most: a host with more is a router.
	mostRoutes = 4096
	largestMSS = 65495 // the kernel takes no larger one
)

// Bytes that headers take. A tunnel's are those of the largest one: gue, with the
// outer IP header.
const (
	ip4Bytes, ip6Bytes, tcpBytes = 20, 40, 20
	tunnel4Bytes, tunnel6Bytes   = 32, 52
)

// overhead is what the largest tunnel of these directors takes.
func overhead(directors []netip.Addr) int {
	if slices.ContainsFunc(directors, netip.Addr.Is6) {
		return tunnel6Bytes
	}
	return tunnel4Bytes
}

// clampedMSS is the MSS for a route: its MTU without all headers.
func (h *host) clampedMSS(r reading, overhead int) int {
	mtu := r.mtu
	for _, hop := range r.hops {
		if m := h.mtus[hop.link]; mtu == 0 || m != 0 && m < mtu {
			mtu = m
		}
	}
	headers := ip4Bytes + tcpBytes + overhead
	if r.family == unix.AF_INET6 {
		headers = ip6Bytes + tcpBytes + overhead
	}
	mss := min(max(mtu-headers, 1), largestMSS)
	if r.mss != 0 {
		mss = min(mss, r.mss)
	}
	return mss
}

// clampedRoutes returns the routes of table main as our table is to have them: those
// without a gateway first, since the others need them.
func (h *host) clampedRoutes(family int, t tunnels) ([]route, error) {
	main, err := h.routes(family, unix.RT_TABLE_MAIN)
	if err != nil {
		return nil, err
	}
	if len(main) > mostRoutes {
		return nil, fmt.Errorf("table main has %d routes of %s, too many to copy for the MSS of tunnels (%d): use method dr, or a host that is no router", len(main), familyText(family), mostRoutes)
	}
	var list []route
	for _, r := range main {
		got := r.read()
		if got.metric == kernelMetric || got.staysHere(h.links) {
			continue
		}
		r, err := r.wanted(h.links)
		if err != nil {
			return nil, err
		}
		mss := 0
		if got.kind == unix.RTN_UNICAST {
			mss = h.clampedMSS(got, overhead(t.Directors))
		}
		copied := r.inTable(t.Table, mss)
		copied.Text = copied.read().text(h.links)
		list = append(list, copied)
	}
	slices.SortStableFunc(list, func(a, b route) int { return cmp.Compare(a.read().gateways(), b.read().gateways()) })
	return list, nil
}

// staysHere tells whether no packet to a client takes the route: it leads to this
// host itself, as the kernel makes one for each VIP of IPv6, or to neighbours by
// link-local addresses.
func (r reading) staysHere(links map[int]string) bool {
	elsewhere := slices.ContainsFunc(r.hops, func(hop nextHop) bool { return links[hop.link] != loopback })
	return r.kind == unix.RTN_UNICAST && !elsewhere || r.destination.Addr().Is6() && r.destination.Addr().IsLinkLocalUnicast()
}

func familyText(family int) string {
	if family == unix.AF_INET {
		return "IPv4"
	}
	return "IPv6"
}

// gateways counts the next hops that are routers.
func (r reading) gateways() (n int) {
	for _, hop := range r.hops {
		if hop.gateway.IsValid() {
			n++
		}
	}
	return n
}

// inTable returns the route in another table, made by an operator, for good, and
// with this MSS, if it is not 0.
func (r route) inTable(table, mss int) route {
	message := slices.Clone(r.Message[:rtmsgBytes])
	message[4], message[5] = unix.RT_TABLE_UNSPEC, unix.RTPROT_STATIC
	metrics := []attribute{}
	var list []attribute
	for _, a := range parseAttributes(r.Message[rtmsgBytes:]) {
		switch a.kind {
		case unix.RTA_TABLE, rtaExpires:
		case unix.RTA_METRICS:
			metrics = parseAttributes(a.value)
		default:
			list = append(list, a)
		}
	}
	if mss != 0 {
		metrics = slices.DeleteFunc(metrics, func(a attribute) bool { return a.kind == unix.RTAX_ADVMSS })
		metrics = append(metrics, attribute{unix.RTAX_ADVMSS, words(uint32(mss))})
	}
	if len(metrics) > 0 {
		list = append(list, attribute{unix.RTA_METRICS, appendAttributes(nil, metrics)})
	}
	list = append(list, attribute{unix.RTA_TABLE, words(uint32(table))})
	return route{Message: appendAttributes(message, list), Links: r.Links, Text: r.Text}
}

// freeTable returns the number of a table that nobody uses.
func (h *host) freeTable() (int, error) {
	for table := firstTable; table < firstTable+100; table++ {
		used := false
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			list, err := h.routes(family, table)
			if err != nil {
				return 0, err
			}
			rules, err := h.rules(family)
			if err != nil {
				return 0, err
			}
			used = used || len(list) > 0 || slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Table == table })
		}
		if !used {
			return table, nil
		}
	}
	return 0, fmt.Errorf("all routing tables from %d to %d are in use", firstTable, firstTable+99)
}

func (h *host) rules(family int) ([]netlink.Rule, error) {
	list, err := whole(func() ([]netlink.Rule, error) { return h.netlink.RuleList(family) })
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return list, nil
}

// planMSS plans our table and the rules of the VIPs in it.
func (h *host) planMSS(next *state) ([]change, error) {
	var changes []change
	for _, family := range next.tunnelFamilies() {
		c, err := h.tableChange(family, *next.Tunnels)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	for _, vip := range next.tunnelled() {
		there, err := h.hasRule(vip, next.Tunnels.Table)
		if err != nil {
			return nil, err
		}
		changes = append(changes, h.ruleChange(vip, next.Tunnels.Table, there, true))
	}
	return changes, nil
}

func tableObject(family, table int) string {
	return fmt.Sprintf("routes of %s in table %d", familyText(family), table)
}

// tableChange is the change that makes our table of a family a copy of table main.
func (h *host) tableChange(family int, t tunnels) (change, error) {
	wanted, err := h.clampedRoutes(family, t)
	if err != nil {
		return change{}, err
	}
	add, remove, err := h.tableDifference(family, t.Table, wanted)
	if err != nil {
		return change{}, err
	}
	object := tableObject(family, t.Table)
	if len(add)+len(remove) == 0 {
		return already(object, "as wanted", fmt.Sprintf("%s: %d, already so", object, len(wanted))), nil
	}
	return swapRoutes(Step{
		Object: object, Before: fmt.Sprint(len(wanted) - len(add) + len(remove)), After: fmt.Sprint(len(wanted)), Changed: true,
		Text: fmt.Sprintf("%s: %d, with an MSS that leaves room for tunnels", object, len(wanted)),
	}, remove, add), nil
}

// tableDifference returns what has to be added to and removed from a table.
func (h *host) tableDifference(family, table int, wanted []route) (add, remove []route, err error) {
	current, err := h.routes(family, table)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range wanted {
		if !slices.ContainsFunc(current, func(c route) bool { return sameClamped(c, r) }) {
			add = append(add, r)
		}
	}
	for _, c := range current {
		if slices.ContainsFunc(wanted, func(r route) bool { return sameClamped(c, r) }) {
			continue
		}
		clean, err := c.wanted(h.links)
		if err != nil {
			return nil, nil, err
		}
		remove = append(remove, clean)
	}
	return add, remove, nil
}

func sameClamped(a, b route) bool { return sameRoute(a, b) && a.read().mss == b.read().mss }

// swapRoutes is the change that removes some routes, the last first, and adds
// others, as one.
func swapRoutes(step Step, remove, add []route) change {
	var parts []change
	for _, r := range slices.Backward(remove) {
		parts = append(parts, routeChange(step.Object, r, false))
	}
	for _, r := range add {
		parts = append(parts, routeChange(step.Object, r, true))
	}
	return change{
		step: step,
		do:   func() error { _, err := run(parts); return err },
		undo: func() error { return takeBack(parts) },
	}
}

// takeBack undoes changes that were all made.
func takeBack(parts []change) (err error) {
	for _, c := range slices.Backward(parts) {
		err = errors.Join(err, c.undo())
	}
	return err
}

func vipRule(vip netip.Addr, table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Table, r.Priority = familyOf(vip), table, rulePriority
	r.Src = &net.IPNet{IP: vip.AsSlice(), Mask: net.CIDRMask(vip.BitLen(), vip.BitLen())}
	return r
}

func ruleObject(vip netip.Addr) string { return "rule from " + vip.String() }

// hasRule tells whether a VIP's connections have our table.
func (h *host) hasRule(vip netip.Addr, table int) (bool, error) {
	list, err := h.rules(familyOf(vip))
	return slices.ContainsFunc(list, func(r netlink.Rule) bool {
		return r.Table == table && r.Priority == rulePriority && r.Src != nil && r.Src.String() == vipRule(vip, table).Src.String()
	}), err
}

// ruleChange is the change that adds the rule of a VIP, or takes it away.
func (h *host) ruleChange(vip netip.Addr, table int, there, wanted bool) change {
	object := ruleObject(vip)
	lookup := fmt.Sprintf("lookup %d", table)
	add := func() error {
		if err := h.netlink.RuleAdd(vipRule(vip, table)); err != nil {
			return fmt.Errorf("ip rule add from %s lookup %d: %w", vip, table, err)
		}
		return nil
	}
	remove := func() error {
		if err := h.netlink.RuleDel(vipRule(vip, table)); err != nil {
			return fmt.Errorf("ip rule del from %s lookup %d: %w", vip, table, err)
		}
		return nil
	}
	switch {
	case there == wanted && there:
		return already(object, lookup, object+" "+lookup+": already so")
	case there == wanted:
		return already(object, "absent", object+": already gone")
	case wanted:
		return change{step: Step{Object: object, Before: "absent", After: lookup, Changed: true, Text: object + " " + lookup + ": added"}, do: add, undo: remove}
	}
	return change{step: Step{Object: object, Before: lookup, After: "absent", Changed: true, Text: object + " " + lookup + ": removed"}, do: remove, undo: add}
}

// planMSSBack plans the end of the rules of VIPs that leave, and of our table with
// the last one of a family.
func (h *host) planMSSBack(next *state) ([]change, error) {
	t := h.state.Tunnels
	if t == nil {
		return nil, nil
	}
	var changes []change
	left := next.tunnelled()
	for _, vip := range h.state.tunnelled() {
		if slices.Contains(left, vip) {
			continue
		}
		there, err := h.hasRule(vip, t.Table)
		if err != nil {
			return nil, err
		}
		changes = append(changes, h.ruleChange(vip, t.Table, there, false))
	}
	for _, family := range h.state.tunnelFamilies() {
		if slices.Contains(next.tunnelFamilies(), family) {
			continue
		}
		_, remove, err := h.tableDifference(family, t.Table, nil)
		if err != nil {
			return nil, err
		}
		if len(remove) == 0 {
			continue
		}
		object := tableObject(family, t.Table)
		changes = append(changes, swapRoutes(Step{
			Object: object, Before: fmt.Sprint(len(remove)), After: "0", Changed: true, Text: object + ": removed",
		}, remove, nil))
	}
	return changes, nil
}

// mssFacts tells whether the connections of the VIPs leave room for tunnels.
func (h *host) mssFacts() ([]Fact, error) {
	t := h.state.Tunnels
	var facts []Fact
	for _, family := range h.state.tunnelFamilies() {
		wanted, err := h.clampedRoutes(family, *t)
		if err != nil {
			return nil, err
		}
		add, remove, err := h.tableDifference(family, t.Table, wanted)
		if err != nil {
			return nil, err
		}
		fact := Fact{Object: tableObject(family, t.Table), Wanted: "those of main, with less MSS", Effective: "so", OK: true}
		if len(add)+len(remove) > 0 {
			fact.OK, fact.Effective, fact.Fix = false, fmt.Sprintf("%d missing, %d too many", len(add), len(remove)), h.state.joinTunnels()
			fact.Note = "the routes of this host have changed since join"
		}
		facts = append(facts, fact)
	}
	for _, vip := range h.state.tunnelled() {
		there, err := h.hasRule(vip, t.Table)
		if err != nil {
			return nil, err
		}
		fact := Fact{Object: ruleObject(vip), Wanted: fmt.Sprintf("lookup %d", t.Table), Effective: fmt.Sprintf("lookup %d", t.Table), OK: there}
		if !there {
			fact.Effective, fact.Fix = "absent", h.state.joinTunnels()
			fact.Note = "clients may send segments that are too large for the tunnel"
		}
		facts = append(facts, fact)
	}
	return facts, nil
}

// metricOf returns a metric of a route, or 0.
func metricOf(metrics []attribute, kind uint16) int {
	for _, a := range metrics {
		if a.kind == kind && len(a.value) >= 4 {
			return int(binary.NativeEndian.Uint32(a.value))
		}
	}
	return 0
}
