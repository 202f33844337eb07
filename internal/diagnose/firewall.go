// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// ruleset is what `nft -j list ruleset` prints, as far as we look. iptables rules
// stand in it as well where iptables is the nft variant, as Debian's is.
type ruleset struct {
	Nftables []struct {
		Rule *rule `json:"rule"`
	} `json:"nftables"`
}

type rule struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Handle int    `json:"handle"`
	Expr   []struct {
		Match *match `json:"match"`
	} `json:"expr"`
}

type match struct {
	Op   string `json:"op"`
	Left struct {
		Payload struct {
			Protocol string `json:"protocol"`
			Field    string `json:"field"`
		} `json:"payload"`
	} `json:"left"`
	Right json.RawMessage `json:"right"`
}

// readRuleset asks nft for the host's rules. Without nft there is nothing to say.
func readRuleset() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	return exec.CommandContext(ctx, "nft", "-j", "list", "ruleset").Output()
}

// shadowedRules warns of rules that name a service's VIP or port: XDP runs before
// netfilter, so that the packets of a service do not meet them.
func shadowedRules(services []lvs.ServiceStatus, read func() ([]byte, error)) (list []lvs.Warning) {
	if len(services) == 0 {
		return nil
	}
	text, err := read()
	if err != nil {
		return nil
	}
	var rules ruleset
	if json.Unmarshal(text, &rules) != nil {
		return nil
	}
	for _, s := range services {
		for _, entry := range rules.Nftables {
			if entry.Rule != nil && entry.Rule.names(s.ServiceKey) {
				list = append(list, shadowed(s.ServiceKey, entry.Rule))
			}
		}
	}
	return list
}

func shadowed(key lvs.ServiceKey, r *rule) lvs.Warning {
	return lvs.Warning{
		Object: "service " + key.String(),
		Text: fmt.Sprintf("a firewall rule of this host names it (table %s %s, chain %s, handle %d), but XDP runs before the firewall: the service's packets do not meet the rule",
			r.Family, r.Table, r.Chain, r.Handle),
		Fix: "put the rule on the router or on the real servers; see: nft -a list ruleset",
	}
}

// names tells whether a rule is about packets of the service: each address, port
// or protocol that it asks for is the service's, and it asks for its VIP or port.
func (r *rule) names(key lvs.ServiceKey) bool {
	named := false
	for _, e := range r.Expr {
		if e.Match == nil {
			continue
		}
		switch p := e.Match.Left.Payload; {
		case p.Field == "daddr" && (p.Protocol == "ip" || p.Protocol == "ip6"):
			if !e.Match.holds(func(v string) bool { return sameNet(v, key.Address.Addr()) }) {
				return false
			}
			named = true
		case p.Field == "dport":
			if p.Protocol != key.Protocol.String() && p.Protocol != "th" || !e.Match.holds(func(v string) bool { return hasPort(v, key.Address.Port()) }) {
				return false
			}
			named = true
		}
	}
	return named
}

// holds tells whether the match takes a value that fits: a plain one, a prefix, a
// range or a set of them.
func (m *match) holds(fits func(string) bool) bool {
	found := false
	walk(m.Right, func(v string) { found = found || fits(v) })
	return found == (m.Op != "!=")
}

// walk calls each with every scalar of a JSON value; a prefix becomes "addr/len",
// a range "first-last".
func walk(raw json.RawMessage, each func(string)) {
	var value any
	if json.Unmarshal(raw, &value) == nil {
		walkValue(value, each)
	}
}

func walkValue(value any, each func(string)) {
	switch v := value.(type) {
	case map[string]any:
		if prefix, is := v["prefix"].(map[string]any); is {
			each(fmt.Sprintf("%v/%v", prefix["addr"], prefix["len"]))
			return
		}
		if ends, is := v["range"].([]any); is && len(ends) == 2 {
			each(fmt.Sprintf("%v-%v", ends[0], ends[1]))
			return
		}
		for _, inner := range v {
			walkValue(inner, each)
		}
	case []any:
		for _, inner := range v {
			walkValue(inner, each)
		}
	default:
		each(fmt.Sprint(v))
	}
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
	addr, err := netip.ParseAddr(value)
	return err == nil && addr == vip
}
