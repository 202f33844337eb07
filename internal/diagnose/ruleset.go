// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// ruleset is what `nft -j list ruleset` prints, as far as we look. iptables rules
// stand in it as well where iptables is the nft variant, as Debian's is.
type ruleset struct {
	rules  []rule
	chains []chain
}

type rule struct {
	family, table, chain string
	handle               int
	conditions           []condition
	drops                bool // or rejects
}

// chain is a chain. Only a base chain has a type, a hook and a policy.
type chain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	Type   string `json:"type"`
	Hook   string `json:"hook"`
	Policy string `json:"policy"`
}

// condition is what a rule asks of a packet: that its fields have the values of
// one of the elements.
type condition struct {
	fields   []field    // several if they are concatenated
	elements [][]string // each has a value per field; a prefix is "addr/len", a range "first-last"
	not      bool
}

// field is a part of a packet: ip daddr, tcp dport, meta l4proto. One that we do
// not look at is empty.
type field struct{ protocol, name string }

// The forms of nft's JSON.
type (
	document struct {
		Nftables []struct {
			Rule  *ruleObject `json:"rule"`
			Chain *chain      `json:"chain"`
			Set   *setObject  `json:"set"`
			Map   *setObject  `json:"map"`
		} `json:"nftables"`
	}
	ruleObject struct {
		Family string                       `json:"family"`
		Table  string                       `json:"table"`
		Chain  string                       `json:"chain"`
		Handle int                          `json:"handle"`
		Expr   []map[string]json.RawMessage `json:"expr"`
	}
	setObject struct {
		Family string `json:"family"`
		Table  string `json:"table"`
		Name   string `json:"name"`
		Elem   []any  `json:"elem"`
	}
	matchObject struct {
		Op    string  `json:"op"`
		Left  operand `json:"left"`
		Right any     `json:"right"`
	}
	vmapObject struct {
		Key  operand `json:"key"`
		Data any     `json:"data"`
	}
	operand struct {
		Payload struct {
			Protocol string `json:"protocol"`
			Field    string `json:"field"`
		} `json:"payload"`
		Meta struct {
			Key string `json:"key"`
		} `json:"meta"`
		Concat []operand `json:"concat"`
	}
)

// sets holds the elements of the named sets and maps. Names are per table.
type sets map[[3]string][]any

func parseRuleset(text []byte) (ruleset, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return ruleset{}, fmt.Errorf("read nft's rules: %w", err)
	}
	named := sets{}
	for _, entry := range d.Nftables {
		for _, s := range []*setObject{entry.Set, entry.Map} {
			if s != nil {
				named[[3]string{s.Family, s.Table, s.Name}] = s.Elem
			}
		}
	}
	var all ruleset
	for _, entry := range d.Nftables {
		if entry.Chain != nil {
			all.chains = append(all.chains, *entry.Chain)
		}
		if entry.Rule != nil {
			all.rules = append(all.rules, newRule(entry.Rule, named))
		}
	}
	return all, nil
}

func newRule(o *ruleObject, named sets) rule {
	r := rule{family: o.Family, table: o.Table, chain: o.Chain, handle: o.Handle}
	for _, e := range o.Expr {
		for kind, raw := range e {
			switch kind {
			case "match":
				var m matchObject
				_ = json.Unmarshal(raw, &m) // what we cannot read stays a condition on an unknown field
				r.conditions = append(r.conditions, r.condition(m.Left, m.Right, m.Op == "!=", named))
			case "vmap": // what is no key of it meets no verdict
				var v vmapObject
				_ = json.Unmarshal(raw, &v)
				r.conditions = append(r.conditions, r.condition(v.Key, v.Data, false, named))
			case "drop", "reject":
				r.drops = true
			}
		}
	}
	return r
}

func (r rule) condition(left operand, right any, not bool, named sets) condition {
	c := condition{fields: left.fields(), not: not}
	if slices.ContainsFunc(c.fields, field.known) { // a blocklist of sources can be long
		c.elements = r.elements(right, named)
	}
	return c
}

func (o operand) fields() []field {
	if len(o.Concat) == 0 {
		return []field{o.field()}
	}
	var list []field
	for _, part := range o.Concat {
		list = append(list, part.field())
	}
	return list
}

func (o operand) field() field {
	if o.Meta.Key != "" {
		return field{"meta", o.Meta.Key}
	}
	return field{o.Payload.Protocol, o.Payload.Field}
}

// elements returns the values that an operand stands for: those of a set, be it
// named or written in the rule, or the one it is.
func (r rule) elements(right any, named sets) [][]string {
	list := []any{right}
	switch v := right.(type) {
	case string:
		if name, isSet := strings.CutPrefix(v, "@"); isSet {
			list = named[[3]string{r.family, r.table, name}]
		}
	case map[string]any:
		if set, is := v["set"].([]any); is {
			list = set
		}
	}
	var all [][]string
	for _, e := range list {
		all = append(all, element(e))
	}
	return all
}

// element returns the values of a set's element, or the key of a map's.
func element(e any) []string {
	switch v := e.(type) {
	case []any: // key and value
		if len(v) > 0 {
			return element(v[0])
		}
	case map[string]any:
		if inner, is := v["elem"].(map[string]any); is { // with a timeout, a counter, a comment
			return element(inner["val"])
		}
		if parts, is := v["concat"].([]any); is {
			var values []string
			for _, p := range parts {
				values = append(values, scalar(p))
			}
			return values
		}
	}
	return []string{scalar(e)}
}

func scalar(v any) string {
	object, _ := v.(map[string]any)
	if prefix, is := object["prefix"].(map[string]any); is {
		return fmt.Sprintf("%v/%v", prefix["addr"], prefix["len"])
	}
	if ends, is := object["range"].([]any); is && len(ends) == 2 {
		return fmt.Sprintf("%v-%v", ends[0], ends[1])
	}
	return fmt.Sprint(v)
}
