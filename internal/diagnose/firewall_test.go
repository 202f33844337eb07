// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

// testRuleset is what nft 1.0.6 printed for testdata/ruleset.nft; to make it anew:
//
//	unshare -n sh -c 'nft -f ruleset.nft && nft -j list ruleset' > ruleset.json
func testRuleset(t *testing.T) ruleset {
	t.Helper()
	text, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	all, err := parseRuleset(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestShadowedRules(t *testing.T) {
	all := testRuleset(t)
	for _, c := range []struct {
		protocol lvs.Protocol
		address  string
		want     []string // chains
	}{
		{lvs.TCP, "192.0.2.1:80", []string{"in_plain", "in_address"}},
		{lvs.TCP, "192.0.2.1:9999", []string{"in_address"}},
		{lvs.TCP, "192.0.2.9:443", []string{"in_set"}},
		{lvs.UDP, "192.0.2.9:443", nil},
		{lvs.TCP, "192.0.2.9:8085", []string{"in_range"}},
		{lvs.TCP, "198.51.100.7:22", []string{"in_prefix"}},
		{lvs.TCP, "203.0.113.1:9999", nil},
		{lvs.TCP, "[2001:db8::1]:81", []string{"in_six"}},

		{lvs.TCP, "203.0.113.10:1", []string{"in_named"}},
		{lvs.TCP, "203.0.113.33:1", []string{"in_named"}},
		{lvs.TCP, "203.0.113.48:1", nil},
		{lvs.TCP, "203.0.113.1:5000", []string{"in_named_port"}},
		{lvs.TCP, "203.0.113.1:5001", []string{"in_named_port"}},
		{lvs.UDP, "203.0.113.1:5000", nil},
		{lvs.TCP, "203.0.113.1:3600", nil}, // the timeout of an element is no port
		{lvs.TCP, "203.0.113.90:6000", []string{"in_pair"}},
		{lvs.UDP, "203.0.113.90:6000", nil},
		{lvs.TCP, "203.0.113.90:6001", nil},
		{lvs.TCP, "203.0.113.92:6005", []string{"in_pair2"}},
		{lvs.TCP, "203.0.113.91:6005", nil},
		{lvs.TCP, "203.0.113.77:1", []string{"in_map"}},
		{lvs.TCP, "203.0.113.1:7001", []string{"in_vmap"}},
		{lvs.TCP, "203.0.113.105:1", []string{"in_range_of"}},
		{lvs.TCP, "203.0.113.111:1", nil},
		{lvs.TCP, "203.0.113.1:7200", []string{"in_protocol"}},
		{lvs.TCP, "203.0.113.1:7100", []string{"in_nobody"}},
		{lvs.TCP, "203.0.113.10:7100", []string{"in_named"}},
		{lvs.TCP, "[2001:db8::77]:1", []string{"in_named6"}}, // not in_named of the table of the same name
		{lvs.TCP, "[2001:db8::78]:1", nil},
	} {
		var got []string
		for _, w := range shadowedRules([]lvs.ServiceStatus{service(c.protocol, c.address)}, all) {
			_, rest, _ := strings.Cut(w.Text, "chain ")
			chain, _, _ := strings.Cut(rest, ",")
			got = append(got, chain)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %s: warned of chains %q, want %q", c.protocol, c.address, got, c.want)
		}
	}
}

// TestShadowedDrops looks at some chains of the ruleset at a time.
func TestShadowedDrops(t *testing.T) {
	four, six := service(lvs.TCP, "203.0.113.1:1"), service(lvs.TCP, "[2001:db8::1]:1")
	for _, c := range []struct {
		service lvs.ServiceStatus
		chains  string
		want    []string
	}{
		{four, "in_plain in_set source_and_more output", nil},
		{four, "in_other", []string{"drops by source address (table inet filter, chain in_other, handle "}},
		{four, "source_set", []string{"drops by source address (table inet named, chain source_set, handle "}},
		{six, "in_other source_set", nil},
		{six, "in_named6", []string{"chain in_named6"}},
		{four, "in_named6", nil},
		{four, "input", []string{"drops by policy (table ip closed, chain input), but XDP"}},
		{six, "input", nil},
		{four, "source_set in_other input", []string{"by source address (", ") and by policy ("}},
	} {
		all, chains := testRuleset(t), strings.Fields(c.chains)
		all.rules = slices.DeleteFunc(all.rules, func(r rule) bool { return !slices.Contains(chains, r.chain) })
		all.chains = slices.DeleteFunc(all.chains, func(o chain) bool { return !slices.Contains(chains, o.Name) })
		got := shadowedDrops([]lvs.ServiceStatus{c.service, c.service}, all)
		if len(got) != min(len(c.want), 1) {
			t.Errorf("%s: %d warnings: %+v", c.chains, len(got), got)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(got[0].Text, want) {
				t.Errorf("%s: %q does not say %q", c.chains, got[0].Text, want)
			}
		}
	}
}

func TestFirewall(t *testing.T) {
	text, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	services := []lvs.ServiceStatus{service(lvs.TCP, "203.0.113.10:80")}
	got := firewall(services, func() ([]byte, error) { return text, nil })
	if len(got) != 2 || got[0].Object != "service tcp 203.0.113.10:80" || got[1].Object != "firewall" {
		t.Errorf("warnings %+v", got)
	}
	for name, read := range map[string]func() ([]byte, error){
		"no nft":   func() ([]byte, error) { return nil, errors.New("no nft") },
		"no JSON":  func() ([]byte, error) { return []byte("table inet filter"), nil },
		"no rules": func() ([]byte, error) { return []byte(`{"nftables": [{"metainfo": {}}]}`), nil },
		"unknown": func() ([]byte, error) {
			return []byte(`{"nftables": [{"rule": {"expr": [{"match": 7}, {"drop": null}]}}]}`), nil
		},
	} {
		if got := firewall(services, read); len(got) != 0 {
			t.Errorf("%s: warnings %+v", name, got)
		}
	}
	if got := firewall(nil, func() ([]byte, error) { t.Error("asked without a service"); return text, nil }); len(got) != 0 {
		t.Errorf("no services: %+v", got)
	}
}
