// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

func service(protocol lvs.Protocol, address string) lvs.ServiceStatus {
	return lvs.ServiceStatus{ServiceKey: lvs.ServiceKey{Protocol: protocol, Address: netip.MustParseAddrPort(address)}}
}

func TestMissingVIPs(t *testing.T) {
	owned := map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}
	got := missingVIPs([]lvs.ServiceStatus{
		service(lvs.TCP, "192.0.2.1:80"), service(lvs.TCP, "192.0.2.2:80"), service(lvs.UDP, "192.0.2.2:53"), service(lvs.TCP, "[2001:db8::1]:80"),
	}, owned)
	if len(got) != 2 || got[0].Object != "VIP 192.0.2.2" || got[1].Object != "VIP 2001:db8::1" {
		t.Fatalf("warnings %+v", got)
	}
	if !strings.HasPrefix(got[1].Fix, "ip addr add 2001:db8::1/128 dev ") {
		t.Errorf("fix %q", got[1].Fix)
	}
}

// testdata/ruleset.json is what nft printed for testdata/ruleset.nft.
func TestShadowedRules(t *testing.T) {
	text, err := os.ReadFile("testdata/ruleset.json")
	if err != nil {
		t.Fatal(err)
	}
	read := func() ([]byte, error) { return text, nil }
	for address, want := range map[string][]string{
		"192.0.2.1:80":     {"chain in_plain", "chain in_address"},
		"192.0.2.1:9999":   {"chain in_address"},
		"192.0.2.9:443":    {"chain in_set"},
		"192.0.2.9:8085":   {"chain in_range"},
		"198.51.100.7:22":  {"chain in_prefix"},
		"203.0.113.1:9999": nil,
		"[2001:db8::1]:81": {"chain in_six"},
	} {
		got := shadowedRules([]lvs.ServiceStatus{service(lvs.TCP, address)}, read)
		if len(got) != len(want) {
			t.Errorf("%s: %d warnings, want %v: %+v", address, len(got), want, got)
			continue
		}
		for i, chain := range want {
			if !strings.Contains(got[i].Text, chain+",") {
				t.Errorf("%s: %q does not name %s", address, got[i].Text, chain)
			}
		}
	}
	if got := shadowedRules([]lvs.ServiceStatus{service(lvs.UDP, "192.0.2.9:443")}, read); len(got) != 0 {
		t.Errorf("a rule for tcp warned of a udp service: %+v", got)
	}
}

func TestNoFirewallToRead(t *testing.T) {
	read := func() ([]byte, error) { return nil, errors.New("no nft") }
	if got := shadowedRules([]lvs.ServiceStatus{service(lvs.TCP, "192.0.2.1:80")}, read); got != nil {
		t.Errorf("warnings %+v", got)
	}
}
