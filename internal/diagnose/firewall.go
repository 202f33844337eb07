// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// readRuleset asks nft for the host's rules. Without nft there is nothing to say.
func readRuleset() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	return exec.CommandContext(ctx, "nft", "-j", "list", "ruleset").Output()
}

// firewall warns of what the host's firewall says and the services' packets do
// not hear: XDP runs before netfilter.
func firewall(services []lvs.ServiceStatus, read func() ([]byte, error)) []lvs.Warning {
	if len(services) == 0 {
		return nil
	}
	text, err := read()
	if err != nil {
		return nil
	}
	rules, err := parseRuleset(text)
	if err != nil {
		return nil
	}
	return append(shadowedRules(services, rules), shadowedDrops(services, rules)...)
}

// shadowedRules warns of rules that name a service's VIP or port.
func shadowedRules(services []lvs.ServiceStatus, all ruleset) (list []lvs.Warning) {
	for _, s := range services {
		for _, r := range all.rules {
			if r.names(s.ServiceKey) {
				list = append(list, shadowed(s.ServiceKey, r))
			}
		}
	}
	return list
}

func shadowed(key lvs.ServiceKey, r rule) lvs.Warning {
	return lvs.Warning{
		Object: "service " + key.String(),
		Text:   fmt.Sprintf("a firewall rule of this host names it (%s), but XDP runs before the firewall: the service's packets do not meet the rule", r),
		Fix:    "put the rule on the router or on the real servers; see: nft -a list ruleset",
	}
}

// String says where the rule is.
func (r rule) String() string {
	return fmt.Sprintf("table %s %s, chain %s, handle %d", r.family, r.table, r.chain, r.handle)
}

// names tells whether a rule is about packets of the service: each address, port
// or protocol that it asks for is the service's, and it asks for its VIP or port.
func (r rule) names(key lvs.ServiceKey) bool {
	named := false
	for _, c := range r.conditions {
		if !c.holds(key) {
			return false
		}
		named = named || slices.ContainsFunc(c.fields, field.names)
	}
	return named
}

// known tells whether we can say what a service's packets have there.
func (f field) known() bool { return f.names() || f.isProtocol() }

// names tells whether the field is one by which a rule names a service.
func (f field) names() bool { return f.isDestination() || f.name == "dport" }

func (f field) isDestination() bool {
	return f.name == "daddr" && (f.protocol == "ip" || f.protocol == "ip6")
}

func (f field) isSource() bool {
	return f.name == "saddr" && (f.protocol == "ip" || f.protocol == "ip6")
}

func (f field) isProtocol() bool {
	return f == field{"meta", "l4proto"} || f == field{"ip", "protocol"} || f == field{"ip6", "nexthdr"}
}

// holds tells whether a service's packets can meet the condition; one on fields
// that we do not know they can.
func (c condition) holds(key lvs.ServiceKey) bool {
	if !slices.ContainsFunc(c.fields, field.known) {
		return true
	}
	if slices.ContainsFunc(c.fields, func(f field) bool { return !f.has(key) }) {
		return false // a port of udp is asked for, the service is tcp
	}
	found := slices.ContainsFunc(c.elements, func(values []string) bool { return c.fit(values, key) })
	return found != c.not
}

// has tells whether the service's packets have such a field at all.
func (f field) has(key lvs.ServiceKey) bool {
	return f.name != "dport" || f.protocol == "th" || f.protocol == key.Protocol.String()
}

func (c condition) fit(values []string, key lvs.ServiceKey) bool {
	if len(values) != len(c.fields) {
		return false
	}
	for i, f := range c.fields {
		if !f.fits(values[i], key) {
			return false
		}
	}
	return true
}

// fits tells whether a value of the field is the service's.
func (f field) fits(value string, key lvs.ServiceKey) bool {
	switch {
	case f.isDestination():
		return sameNet(value, key.Address.Addr())
	case f.name == "dport":
		return hasPort(value, key.Address.Port())
	case f.isProtocol(): // without /etc/protocols nft prints the number
		return value == key.Protocol.String() || value == strconv.Itoa(int(key.Protocol))
	}
	return true
}

func hasPort(value string, port uint16) bool {
	first, last, isRange := strings.Cut(value, "-")
	if !isRange {
		last = first
	}
	low, lowErr := strconv.ParseUint(first, 10, 16)
	high, highErr := strconv.ParseUint(last, 10, 16)
	return lowErr == nil && highErr == nil && low <= uint64(port) && uint64(port) <= high
}

func sameNet(value string, vip netip.Addr) bool {
	if prefix, err := netip.ParsePrefix(value); err == nil {
		return prefix.Contains(vip)
	}
	first, last, isRange := strings.Cut(value, "-")
	if !isRange {
		last = first
	}
	low, lowErr := netip.ParseAddr(first)
	high, highErr := netip.ParseAddr(last)
	return lowErr == nil && highErr == nil && low.Compare(vip) <= 0 && vip.Compare(high) <= 0
}

// shadowedDrops gives one warning if the firewall drops packets without naming a
// service: by their source alone, as a blocklist does, or whatever no rule
// accepts.
func shadowedDrops(services []lvs.ServiceStatus, all ruleset) []lvs.Warning {
	var how []string
	if i := slices.IndexFunc(all.rules, func(r rule) bool { return all.dropsSource(r, services) }); i >= 0 {
		how = append(how, fmt.Sprintf("by source address (%s)", all.rules[i]))
	}
	if i := slices.IndexFunc(all.chains, func(c chain) bool { return c.dropsRest(services) }); i >= 0 {
		c := all.chains[i]
		how = append(how, fmt.Sprintf("by policy (table %s %s, chain %s)", c.Family, c.Table, c.Name))
	}
	if len(how) == 0 {
		return nil
	}
	return []lvs.Warning{{
		Object: "firewall",
		Text:   fmt.Sprintf("the host's firewall drops %s, but XDP runs before it: the services' packets are forwarded all the same", strings.Join(how, " and ")),
		Fix:    "drop them on the router or on the real servers; see: nft -a list ruleset",
	}}
}

// dropsSource tells whether a rule drops what comes from certain addresses, and
// asks for nothing else.
func (all ruleset) dropsSource(r rule, services []lvs.ServiceStatus) bool {
	if !r.drops || len(r.conditions) == 0 {
		return false
	}
	for _, c := range r.conditions {
		if len(c.fields) != 1 || !c.fields[0].isSource() || !concerns(c.fields[0].protocol, services) {
			return false
		}
	}
	// A chain without a hook is called from others; we do not look from where.
	return !slices.ContainsFunc(all.chains, func(c chain) bool {
		return c.Family == r.family && c.Table == r.table && c.Name == r.chain && c.Hook != "" && !c.incoming()
	})
}

// dropsRest tells whether the chain drops what no rule of it accepts.
func (c chain) dropsRest(services []lvs.ServiceStatus) bool {
	return c.Type == "filter" && c.Policy == "drop" && c.incoming() && concerns(c.Family, services)
}

// incoming tells whether packets for an address of this host pass the chain.
func (c chain) incoming() bool { return c.Hook == "input" || c.Hook == "prerouting" }

// concerns tells whether a service is of a family as nft names them.
func concerns(family string, services []lvs.ServiceStatus) bool {
	return slices.ContainsFunc(services, func(s lvs.ServiceStatus) bool {
		return family == "inet" || family == "ip" && s.Address.Addr().Is4() || family == "ip6" && s.Address.Addr().Is6()
	})
}
