// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// With method tun the director puts each packet into another one, for this host's
// own address. A program takes that off again before the kernel sees it; then all
// is as with method dr.

// DefaultTunnelPort is the UDP port of GUE.
const DefaultTunnelPort = 6080

// tunnels is what the VIPs that are reached through tunnels have in common.
type tunnels struct {
	Directors  []netip.Addr `json:"directors"`
	Ports      []uint16     `json:"ports"`
	Interfaces []string     `json:"interfaces,omitempty"` // that were named; none: all Ethernet interfaces
	Table      int          `json:"table"`                // of routes that leave room
}

func (t *tunnels) clone() *tunnels {
	if t == nil {
		return nil
	}
	return &tunnels{slices.Clone(t.Directors), slices.Clone(t.Ports), slices.Clone(t.Interfaces), t.Table}
}

// tunnelled returns the VIPs that are reached through tunnels.
func (s *state) tunnelled() (list []netip.Addr) {
	for _, v := range s.VIPs {
		if v.Tunnel {
			list = append(list, v.Address)
		}
	}
	return list
}

// tunnelFamilies returns the families of the VIPs that are reached through tunnels.
func (s *state) tunnelFamilies() (families []int) {
	for _, vip := range s.tunnelled() {
		if !slices.Contains(families, familyOf(vip)) {
			families = append(families, familyOf(vip))
		}
	}
	slices.Sort(families)
	return families
}

// union appends what is not there yet.
func union[T comparable](list, more []T) []T {
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// planTun plans all that dr has, and before the VIPs are there, what takes the
// tunnels off.
func (h *host) planTun(next *state) ([]change, error) {
	if err := h.checkBPFFS(); err != nil {
		return nil, err
	}
	if next.Tunnels == nil {
		table, err := h.freeTable()
		if err != nil {
			return nil, err
		}
		next.Tunnels = &tunnels{Ports: []uint16{DefaultTunnelPort}, Table: table}
	}
	t := next.Tunnels
	t.Directors = union(t.Directors, h.Directors)
	t.Ports = union(t.Ports, h.TunnelPorts)
	if len(h.Interfaces) > 0 {
		t.Interfaces = union(t.Interfaces, h.Interfaces)
	}
	links, err := h.tunnelLinks(t.Interfaces)
	if err != nil {
		return nil, err
	}
	changes, err := h.planSilence(next)
	if err != nil {
		return nil, err
	}
	vips, err := h.planVIPs(next) // also marks them, for what follows
	if err != nil {
		return nil, err
	}
	for _, plan := range []func(*state, []netlink.Link) ([]change, error){h.planReversePath, h.planProgram} {
		list, err := plan(next, links)
		if err != nil {
			return nil, err
		}
		changes = append(changes, list...)
	}
	list, err := h.planMSS(next)
	if err != nil {
		return nil, err
	}
	return slices.Concat(changes, list, vips, h.silenceCheck()), nil
}

// planProgram plans the program and what it knows, and then its places.
func (h *host) planProgram(next *state, links []netlink.Link) ([]change, error) {
	t := next.Tunnels
	changes := []change{h.loadChange()}
	for _, port := range t.Ports {
		changes = append(changes, h.keyChange(decapMapGuePorts, fmt.Sprintf("tunnel port %d", port), portKey(port)))
	}
	for _, d := range t.Directors {
		changes = append(changes, h.keyChange(decapMapDirectors, "director "+d.String(), encode(d)))
	}
	for _, vip := range next.tunnelled() {
		changes = append(changes, h.keyChange(decapMapVips, tunnelObject(vip), encode(vip)))
	}
	for _, l := range links {
		changes = append(changes, h.attachChange(l))
	}
	return changes, nil
}

func tunnelObject(vip netip.Addr) string { return "tunnels for " + vip.String() }

// portKey is a port as it is on the wire.
func portKey(port uint16) [2]byte { return [2]byte{byte(port >> 8), byte(port)} }

// planTunBack plans the end of what the VIPs that leave had of tunnels, and of all
// of it with the last one. The pins go last: nothing is taken back after them.
func (h *host) planTunBack(next *state) (changes, last []change, err error) {
	if changes, err = h.planMSSBack(next); err != nil {
		return nil, nil, err
	}
	left := next.tunnelled()
	if len(left) == 0 {
		next.Tunnels = nil
		return append(changes, h.detachChanges()...), h.unloadChanges(), nil
	}
	for _, vip := range h.state.tunnelled() {
		if slices.Contains(left, vip) || !h.has(decapMapVips, encode(vip)) {
			continue
		}
		changes = append(changes, change{
			step: Step{Object: tunnelObject(vip), Before: "known", After: "unknown", Changed: true, Text: tunnelObject(vip) + ": no longer taken off"},
			do:   func() error { return h.drop(decapMapVips, encode(vip)) },
			undo: func() error { return h.put(decapMapVips, encode(vip), uint32(1)) },
		})
	}
	return changes, nil, nil
}

// detachChanges are the changes that take the program from its interfaces.
func (h *host) detachChanges() (changes []change) {
	for _, index := range h.attachedLinks() {
		name, there := h.links[index]
		if !there {
			continue // gone, and the pin goes with the others
		}
		mac := h.mac(index)
		object := "tunnel program on " + name
		changes = append(changes, change{
			step: Step{Object: object, Before: "attached", After: "absent", Changed: true, Text: object + ": detached"},
			do:   func() error { return h.letGo(index) },
			undo: func() error { return h.attach(index, name, mac) },
		})
	}
	return changes
}

// unloadChanges is the change that removes the program, if there is one.
func (h *host) unloadChanges() []change {
	if _, err := os.Lstat(h.pins()); err != nil {
		return nil
	}
	const object = "tunnel program"
	return []change{{
		step: Step{Object: object, Before: "loaded", After: "absent", Changed: true, Text: object + " removed"},
		do:   h.unload,
	}}
}

// reversePathKey is the sysctl that drops packets whose source is not where they
// came from. The larger of conf/all and conf/IF counts: 0 off, 1 strict, 2 loose.
const reversePathKey = "rp_filter"

// planReversePath makes strict filters loose on interfaces where tunnels come in,
// if the answers may leave by another: what was in the tunnel has the client's
// address, and the client is anywhere.
func (h *host) planReversePath(next *state, links []netlink.Link) ([]change, error) {
	if !has4(next.tunnelled()) {
		return nil, nil
	}
	var changes []change
	for _, l := range links {
		value, strict, err := h.strict(l.Attrs().Index, l.Attrs().Name)
		if err != nil {
			return nil, err
		}
		if !strict {
			continue
		}
		s := sysctl{Interface: l.Attrs().Name, Key: reversePathKey}
		next.remember(sysctlRecord{sysctl: s, Before: value, After: 2})
		changes = append(changes, s.set(value, 2))
	}
	return changes, nil
}

// strict tells whether the filter of an interface would drop what was in a
// tunnel, and what the interface's own value is.
func (h *host) strict(index int, name string) (own int, drops bool, err error) {
	if own, err = (sysctl{Interface: name, Key: reversePathKey}).read(); err != nil {
		return 0, false, err
	}
	general, err := (sysctl{Interface: all, Key: reversePathKey}).read()
	if err != nil || max(own, general) != 1 {
		return own, false, err
	}
	list, err := h.routes(unix.AF_INET, unix.RT_TABLE_MAIN)
	if err != nil {
		return 0, false, err
	}
	elsewhere, byDefault := false, false
	for _, r := range list {
		got := r.read()
		for _, hop := range got.hops {
			elsewhere = elsewhere || hop.link != index && h.links[hop.link] != loopback
			byDefault = byDefault || got.destination.Bits() == 0 && hop.link == index
		}
	}
	return own, elsewhere || !byDefault, nil
}

// joinTunnels is the command that mends what belongs to tunnels.
func (s *state) joinTunnels() string {
	t := s.Tunnels
	line := "lvx realserver join --vip " + joinAddresses(s.tunnelled()) + " --method tun --director " + joinAddresses(t.Directors)
	if len(t.Interfaces) > 0 {
		line += " --interface " + strings.Join(t.Interfaces, ",")
	}
	for _, port := range t.Ports {
		if port != DefaultTunnelPort {
			line += fmt.Sprintf(" --tun-port %d", port)
		}
	}
	return line
}

// tunnelFacts tells whether tunnels are taken off, and what became of packets.
func (h *host) tunnelFacts() ([]Fact, error) {
	if h.state.Tunnels == nil {
		return nil, nil
	}
	if _, err := os.Lstat(h.pin(programPin)); errors.Is(err, os.ErrPermission) {
		return []Fact{{Object: "tunnel program", Wanted: "loaded", Effective: "unknown", OK: true, Note: "only root can look: sudo lvx realserver status"}}, nil
	}
	links, err := h.tunnelLinks(h.state.Tunnels.Interfaces)
	if err != nil {
		return nil, err
	}
	facts := h.knownFacts()
	for _, l := range links {
		facts = append(facts, h.attachFact(l))
		if !has4(h.state.tunnelled()) {
			continue
		}
		_, strict, err := h.strict(l.Attrs().Index, l.Attrs().Name)
		if err != nil {
			return nil, err
		}
		facts = append(facts, reversePathFact(l.Attrs().Name, strict))
	}
	list, err := h.mssFacts()
	if err != nil {
		return nil, err
	}
	return slices.Concat(facts, list, h.countFacts()), nil
}

// knownFacts tells whether the program knows what it has to.
func (h *host) knownFacts() (facts []Fact) {
	t := h.state.Tunnels
	add := func(object string, ok bool) {
		fact := Fact{Object: object, Wanted: "known", Effective: "known", OK: ok}
		if !ok {
			fact.Effective, fact.Fix, fact.Note = "unknown", h.state.joinTunnels(), "its packets stay in the tunnel, and nobody answers them"
		}
		facts = append(facts, fact)
	}
	for _, d := range t.Directors {
		add("director "+d.String(), h.has(decapMapDirectors, encode(d)))
	}
	for _, vip := range h.state.tunnelled() {
		add(tunnelObject(vip), h.has(decapMapVips, encode(vip)))
	}
	for _, port := range t.Ports {
		add("tunnel port "+strconv.Itoa(int(port)), h.has(decapMapGuePorts, portKey(port)))
	}
	return facts
}

// attachFact tells whether the program is at work at an interface.
func (h *host) attachFact(l netlink.Link) Fact {
	fact := Fact{Object: "tunnel program on " + l.Attrs().Name, Wanted: "attached", Effective: "absent", Fix: h.state.joinTunnels()}
	xdp := l.Attrs().Xdp
	switch {
	case h.loaded() && h.atWork(l) && h.mac(l.Attrs().Index) != macOf(l):
		fact.Effective, fact.Note = "other MAC address", "the interface has got another MAC address since join"
	case h.loaded() && h.atWork(l):
		fact.Effective, fact.OK, fact.Fix = "attached, native", true, ""
		if xdp.AttachMode == nl.XDP_ATTACHED_SKB {
			fact.Effective = "attached, generic"
		}
	case xdp != nil && xdp.Attached:
		fact.Effective, fact.Fix = "another program", "see: ip link show dev "+l.Attrs().Name
	}
	return fact
}

// atWork tells whether the pinned link is the interface's, and its program the one
// that packets meet.
func (h *host) atWork(l netlink.Link) bool {
	pinned, err := link.LoadPinnedLink(h.linkPin(l.Attrs().Index), nil)
	if err != nil {
		return false
	}
	defer pinned.Close()
	info, err := pinned.Info()
	return err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == l.Attrs().Index && l.Attrs().Xdp != nil && info.Program == ebpf.ProgramID(l.Attrs().Xdp.ProgId)
}

func reversePathFact(name string, strict bool) Fact {
	fact := Fact{Object: reversePathKey + " on " + name, Wanted: "lets clients' packets in", Effective: "so", OK: true}
	if strict {
		fact.OK, fact.Effective = false, "1, drops them"
		fact.Fix = fmt.Sprintf("sysctl -w %s=2", sysctl{Interface: name, Key: reversePathKey})
		fact.Note = "what was in the tunnel has the client's address, and answers may leave by another interface"
	}
	return fact
}

// countFacts tells how many packets had which outcome.
func (h *host) countFacts() (facts []Fact) {
	counts, err := h.counts()
	if err != nil {
		return nil // the program is not there, or not ours to look into: told above
	}
	for _, o := range outcomes {
		facts = append(facts, Fact{Object: "packets " + o.text, Wanted: "-", Effective: strconv.FormatUint(counts[o.outcome], 10), OK: true})
	}
	return facts
}

// checkTunnels tells why the options cannot be meant for tunnels, or returns nil.
func (o Options) checkTunnels() error {
	if o.Method != lvs.Tun {
		if len(o.Interfaces) > 0 || len(o.TunnelPorts) > 0 {
			return fmt.Errorf("%w: --interface and --tun-port are for method tun", lvs.ErrInvalid)
		}
		return nil
	}
	if slices.Contains(o.TunnelPorts, 0) {
		return fmt.Errorf("tunnel port 0 is %w: it is 1 to 65535", lvs.ErrInvalid)
	}
	return nil
}
