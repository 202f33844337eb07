// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// route is a route as the kernel tells it and takes it, so that nothing is lost
// of it, known to this program or not.
type route struct {
	// Message is a struct rtmsg and its attributes.
	Message []byte `json:"message"`
	// Links are the names of the interfaces in it: numbers change with a reboot.
	Links map[int]string `json:"links,omitempty"`
	// Text is the route as ip(8) writes it.
	Text string `json:"text"`
}

const (
	rtmsgBytes   = 12 // of struct rtmsg
	rtaNextHopID = 30 // RTA_NH_ID of linux/rtnetlink.h
	rtaExpires   = 23 // RTA_EXPIRES
)

// The flags of a route that somebody wanted; the others tell how it is.
const routeFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE

// attribute is one of netlink's: a kind and a value.
type attribute struct {
	kind  uint16
	value []byte
}

// parseAttributes returns the attributes that b is made of; what is broken at
// the end is left out.
func parseAttributes(b []byte) (list []attribute) {
	for len(b) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtAttr || length > len(b) {
			return list
		}
		list = append(list, attribute{kind: binary.NativeEndian.Uint16(b[2:]), value: b[unix.SizeofRtAttr:length]})
		b = b[min(align4(length), len(b)):]
	}
	return list
}

func align4(n int) int { return (n + 3) &^ 3 }

// appendAttributes appends the attributes in the kernel's form.
func appendAttributes(b []byte, list []attribute) []byte {
	for _, a := range list {
		b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(a.value)))
		b = binary.NativeEndian.AppendUint16(b, a.kind)
		b = append(b, a.value...)
		b = append(b, make([]byte, align4(len(a.value))-len(a.value))...)
	}
	return b
}

// words is the value of an attribute that is a number.
func words(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

// nextHop is where a route leads.
type nextHop struct {
	link    int
	gateway netip.Addr // zero: the destination itself
	weight  int
}

// reading is what this program knows of a route.
type reading struct {
	family, table, metric      int
	mtu, mss                   int // that the route itself has; 0: none
	destination                netip.Prefix
	from                       int // bits of a source that it is for; IPv6 only
	source                     netip.Addr
	protocol, kind, scope, tos uint8
	hops                       []nextHop
}

// read takes a route to pieces.
func (r route) read() reading {
	m := r.Message
	got := reading{
		family: int(m[0]), from: int(m[2]), tos: m[3], table: int(m[4]),
		protocol: m[5], scope: m[6], kind: m[7],
	}
	got.destination = netip.PrefixFrom(got.anything(), int(m[1]))
	var hop nextHop
	for _, a := range parseAttributes(m[rtmsgBytes:]) {
		switch a.kind {
		case unix.RTA_TABLE:
			got.table = number(a.value)
		case unix.RTA_PRIORITY:
			got.metric = number(a.value)
		case unix.RTA_DST:
			got.destination = netip.PrefixFrom(addressOf(a.value), int(m[1]))
		case unix.RTA_PREFSRC:
			got.source = addressOf(a.value)
		case unix.RTA_MULTIPATH:
			got.hops = parseHops(a.value)
		case unix.RTA_METRICS:
			metrics := parseAttributes(a.value)
			got.mtu, got.mss = metricOf(metrics, unix.RTAX_MTU), metricOf(metrics, unix.RTAX_ADVMSS)
		default:
			hop.learn(a)
		}
	}
	if len(got.hops) == 0 && hop.link != 0 {
		got.hops = []nextHop{hop}
	}
	return got
}

// anything is the address that stands for all of the family.
func (r reading) anything() netip.Addr {
	if r.family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func number(value []byte) int {
	if len(value) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}

func addressOf(value []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(value)
	return a
}

// learn takes what an attribute says of a next hop.
func (n *nextHop) learn(a attribute) {
	switch a.kind {
	case unix.RTA_OIF:
		n.link = number(a.value)
	case unix.RTA_GATEWAY:
		n.gateway = addressOf(a.value)
	case unix.RTA_VIA: // a family, then an address of it
		n.gateway = addressOf(a.value[min(2, len(a.value)):])
	}
}

// parseHops reads the value of RTA_MULTIPATH: struct rtnexthop and attributes,
// as often as there are next hops.
func parseHops(b []byte) (hops []nextHop) {
	eachHop(b, func(head, rest []byte) {
		hop := nextHop{link: int(binary.NativeEndian.Uint32(head[4:])), weight: int(head[3]) + 1}
		for _, a := range parseAttributes(rest) {
			hop.learn(a)
		}
		hops = append(hops, hop)
	})
	return hops
}

// eachHop calls f with the struct rtnexthop and the attributes of each next hop.
func eachHop(b []byte, f func(head, rest []byte)) {
	for len(b) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(b))
		if length < unix.SizeofRtNexthop || length > len(b) {
			return
		}
		f(b[:unix.SizeofRtNexthop], b[unix.SizeofRtNexthop:length])
		b = b[min(align4(length), len(b)):]
	}
}

// leadsTo tells whether the route has one next hop, and it is this gateway.
func (r reading) leadsTo(gateway netip.Addr, link int) bool {
	return len(r.hops) == 1 && r.hops[0].gateway == gateway && r.hops[0].link == link
}

// text is the route as ip(8) writes it.
func (r reading) text(links map[int]string) string {
	words := []string{r.destination.String()}
	if r.destination.Bits() == 0 {
		words[0] = "default"
	}
	for _, hop := range r.hops {
		if len(r.hops) > 1 {
			words = append(words, "nexthop")
		}
		switch {
		case hop.gateway.IsValid() && hop.gateway.Is6() && r.family == unix.AF_INET:
			words = append(words, "via inet6 "+hop.gateway.String())
		case hop.gateway.IsValid():
			words = append(words, "via "+hop.gateway.String())
		}
		words = append(words, "dev "+links[hop.link])
		if len(r.hops) > 1 {
			words = append(words, fmt.Sprint("weight ", hop.weight))
		}
	}
	if r.source.IsValid() {
		words = append(words, "src "+r.source.String())
	}
	if r.metric != 0 {
		words = append(words, fmt.Sprint("metric ", r.metric))
	}
	return strings.Join(words, " ")
}

// routes lists the routes of one table of a family, in the kernel's order.
func (h *host) routes(family, table int) ([]route, error) {
	messages, err := whole(func() ([][]byte, error) {
		request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}})
		return request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var list []route
	for _, m := range messages {
		if len(m) < rtmsgBytes || int(m[0]) != family {
			continue
		}
		r := route{Message: m, Links: map[int]string{}}
		got := r.read()
		if got.table != table || binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
			continue
		}
		for _, hop := range got.hops {
			r.Links[hop.link] = h.links[hop.link]
		}
		r.Text = got.text(h.links)
		list = append(list, r)
	}
	return list, nil
}

// sendRoute makes or deletes a route.
func sendRoute(kind, flags int, message []byte) error {
	request := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	request.AddRawData(message)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addRoute makes a route before others of its kind, which it so hides.
func addRoute(r route) error {
	if err := sendRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, r.Message); err != nil {
		return fmt.Errorf("ip route add %s: %w", r.Text, err)
	}
	return nil
}

// restoreRoute makes a route that there was, behind others of its kind, so that
// several get back into their order. It may be there already.
func restoreRoute(r route) error {
	err := sendRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, r.Message)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("ip route add %s: %w", r.Text, err)
	}
	return nil
}

func deleteRoute(r route) error {
	if err := sendRoute(unix.RTM_DELROUTE, 0, r.Message); err != nil {
		return fmt.Errorf("ip route del %s: %w", r.Text, err)
	}
	return nil
}

// wanted returns the route without what the kernel only tells, and with the
// numbers that its interfaces have now. Returns an error if one of them is gone.
func (r route) wanted(links map[int]string) (route, error) {
	numbers := map[int]uint32{}
	for old, name := range r.Links {
		now, there := linkNumber(links, name)
		if !there {
			return route{}, fmt.Errorf("there is no interface %s any more", name)
		}
		numbers[old] = uint32(now)
	}
	message := slices.Clone(r.Message[:rtmsgBytes])
	binary.NativeEndian.PutUint32(message[8:], binary.NativeEndian.Uint32(message[8:])&routeFlags)
	list := parseAttributes(r.Message[rtmsgBytes:])
	byID := slices.ContainsFunc(list, func(a attribute) bool { return a.kind == rtaNextHopID })
	var kept []attribute
	for _, a := range list {
		switch a.kind {
		case unix.RTA_CACHEINFO:
			continue
		case unix.RTA_OIF:
			a.value = words(numbers[number(a.value)])
		case unix.RTA_MULTIPATH:
			a.value = wantedHops(a.value, numbers)
		}
		// A next hop that has an id is told in full, but taken by its id alone.
		if byID && slices.Contains(hopAttributes, a.kind) {
			continue
		}
		kept = append(kept, a)
	}
	return route{Message: appendAttributes(message, kept), Links: r.Links, Text: r.Text}, nil
}

var hopAttributes = []uint16{unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH, unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE}

func wantedHops(b []byte, numbers map[int]uint32) []byte {
	b = slices.Clone(b)
	eachHop(b, func(head, _ []byte) {
		head[2] &= routeFlags
		link := binary.NativeEndian.Uint32(head[4:])
		binary.NativeEndian.PutUint32(head[4:], numbers[int(link)])
	})
	return b
}

func linkNumber(links map[int]string, name string) (int, bool) {
	for number, n := range links {
		if n == name {
			return number, true
		}
	}
	return 0, false
}
