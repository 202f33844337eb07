// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Fact is one thing that makes a host a correct real server, and how it is.
type Fact struct {
	// Object is what it is about: "VIP 192.0.2.1/32 on lo", "arp_ignore on
	// eth0", the path of a file.
	Object string `json:"object"`
	Wanted string `json:"wanted"`
	// Effective is what counts: of a sysctl the larger of conf/all and conf/IF.
	Effective string `json:"effective"`
	OK        bool   `json:"ok"`
	// Fix is the command that mends it, empty if it is right.
	Fix string `json:"fix"`
	// Note says what is easily misunderstood about it.
	Note string `json:"note,omitempty"`
}

// Status tells, for each VIP and each interface, what is wanted and what is.
// Without VIPs in the options it looks at those that have joined; if none has,
// at those that somebody else has put on lo. It changes nothing and needs no
// privilege.
func Status(o Options) ([]Fact, error) {
	h, err := open(o)
	if err != nil {
		return nil, err
	}
	defer h.close()
	if len(h.VIPs) == 0 {
		if h.VIPs, err = h.joined(); err != nil {
			return nil, err
		}
	}
	if len(h.VIPs) == 0 && h.state.empty() {
		return []Fact{{Object: "real server", Wanted: "joined", Effective: "no VIP on lo", Fix: "lvx realserver join --vip A"}}, nil
	}
	return h.facts()
}

// joined returns the VIPs that have joined, else what looks like VIPs on lo.
func (h *host) joined() ([]netip.Addr, error) {
	if !h.state.empty() {
		return h.state.addresses(), nil
	}
	all, err := h.addresses()
	var vips []netip.Addr
	for _, p := range all {
		if p.link == loopback && checkUnicast(p.prefix.Addr()) == nil {
			vips = append(vips, p.prefix.Addr())
		}
	}
	slices.SortFunc(vips, netip.Addr.Compare)
	return slices.Compact(vips), err
}

func (h *host) facts() ([]Fact, error) {
	facts, err := h.gatewayFacts()
	if err != nil {
		return nil, err
	}
	if len(h.VIPs) > 0 {
		facts = append(facts, h.loFact())
	}
	for _, vip := range h.VIPs {
		fact, err := h.vipFact(vip)
		if err != nil {
			return nil, err
		}
		facts = append(facts, fact)
	}
	if has4(h.VIPs) {
		for _, r := range rules() {
			list, err := r.facts()
			if err != nil {
				return nil, err
			}
			facts = append(facts, list...)
		}
	}
	list, err := h.tunnelFacts()
	if err != nil {
		return nil, err
	}
	facts = append(facts, list...)
	list, err = h.fileFacts()
	return append(facts, list...), err
}

func (h *host) loFact() Fact {
	if h.lo.Attrs().Flags&net.FlagUp == 0 {
		return Fact{Object: "lo", Wanted: "up", Effective: "down", Fix: "ip link set lo up"}
	}
	return Fact{Object: "lo", Wanted: "up", Effective: "up", OK: true}
}

// vipFact tells whether lo, and only lo, has the VIP.
func (h *host) vipFact(vip netip.Addr) (Fact, error) {
	fact := Fact{Object: vipObject(vip), Wanted: "present", Effective: "absent", Fix: "lvx realserver join --vip " + vip.String()}
	places, err := h.where(vip)
	if err != nil {
		return Fact{}, err
	}
	var found []string
	for _, p := range places {
		if p == (placed{prefix: host32(vip), link: loopback}) {
			found = append(found, "present")
			continue
		}
		found = append(found, fmt.Sprintf("%s on %s", p.prefix, p.link))
	}
	if len(found) > 0 {
		fact.Effective = strings.Join(found, ", ")
	}
	for _, p := range places {
		switch {
		case p.link != loopback:
			fact.Fix = fmt.Sprintf("ip addr del %s dev %s", p.prefix, p.link)
			fact.Note = p.link + " answers ARP for the VIP: clients may bypass the director"
			return fact, nil
		case !p.prefix.IsSingleIP():
			fact.Fix = fmt.Sprintf("ip addr del %s dev lo", p.prefix)
			fact.Note = fmt.Sprintf("the whole subnet %s is local: this host reaches none of its neighbours there", p.prefix.Masked())
			return fact, nil
		}
		fact.OK, fact.Fix = true, ""
	}
	return fact, nil
}

// facts tells for each interface what it does under a rule.
func (r rule) facts() ([]Fact, error) {
	allValue, err := sysctl{Interface: all, Key: r.key}.read()
	if err != nil {
		return nil, err
	}
	loValue, err := sysctl{Interface: loopback, Key: r.key}.read()
	if err != nil {
		return nil, err
	}
	list, err := effectives(r.key, allValue)
	if err != nil {
		return nil, err
	}
	var facts []Fact
	for _, e := range list {
		facts = append(facts, r.fact(e, allValue, loValue))
	}
	return facts, nil
}

func (r rule) fact(e effective, allValue, loValue int) Fact {
	fact := Fact{
		Object: r.key + " on " + e.Interface,
		Wanted: strconv.Itoa(r.wanted), Effective: strconv.Itoa(e.value), OK: r.holds(e.value),
	}
	if e.Interface == "default" {
		fact.Object = r.key + " on interfaces made later"
	}
	switch {
	case fact.OK && e.value == 8:
		fact.Note = "8 answers ARP for no address at all: the director needs a static neighbour entry for this host"
	case fact.OK:
	case !r.holds(max(allValue, r.wanted)):
		fact.Fix = fmt.Sprintf("sysctl -w %s=%d", sysctl{Interface: all, Key: r.key}, r.wanted)
	case !r.holds(max(allValue, r.wanted, e.own)):
		fact.Fix = fmt.Sprintf("sysctl -w %s=%d", e.sysctl, r.wanted)
		fact.Note = "the larger of conf/all and conf/" + e.Interface + " counts"
	default:
		fact.Fix = fmt.Sprintf("sysctl -w %s=%d", sysctl{Interface: all, Key: r.key}, r.wanted)
		if r.holds(loValue) {
			fact.Note = fmt.Sprintf("%s has no effect: ARP comes in on %s", sysctl{Interface: loopback, Key: r.key}, e.Interface)
		}
	}
	return fact
}

// fileFacts tells whether the files that Join --persist wrote are as they were.
func (h *host) fileFacts() ([]Fact, error) {
	wanted, _, err := h.persistentFiles(h.state)
	if err != nil {
		return nil, err
	}
	var facts []Fact
	for _, path := range sortedKeys(wanted) {
		fact := Fact{Object: path, Wanted: "as join wrote it", Effective: "as join wrote it", OK: true}
		text, err := os.ReadFile(path)
		if err != nil || string(text) != wanted[path] {
			fact.OK, fact.Effective = false, "changed"
			if err != nil {
				fact.Effective = "missing"
			}
			fact.Fix = h.state.persistCommand()
		}
		facts = append(facts, fact)
	}
	return facts, nil
}

// persistCommand writes the files of --persist again.
func (s *state) persistCommand() string {
	if vips := s.persistent(); len(vips) > 0 {
		return "lvx realserver join --persist --vip " + joinAddresses(vips)
	}
	return "lvx realserver join --persist --method nat --director " + joinAddresses(s.directors())
}
