// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"net/netip"
	"testing"
)

func TestFiltersPick(t *testing.T) {
	web := ServiceKey{Protocol: TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	for text, want := range map[string]bool{
		"": true, "tcp 192.0.2.1:80": true, "tcp/192.0.2.1:80": true, "TCP/192.0.2.1": true, "192.0.2.1": true, "192.0.2.0/24": true,
		"tcp/192.0.2.0/24": true, "tcp/": true, "udp/": false, "udp/192.0.2.1:80": false, "192.0.2.1:81": false, "192.0.3.0/24": false,
		"[2001:db8::1]:80": false, "2001:db8::1": false,
	} {
		filter, err := ParseServiceFilter(text)
		if err != nil || filter.Picks(web) != want {
			t.Errorf("%q: %v, %v", text, filter, err)
		}
	}
	for _, text := range []string{"tcp", "web", "192.0.2.1:x", "192.0.2.1/33", "icmp/192.0.2.1", "tcp/udp/192.0.2.1"} {
		if filter, err := ParseServiceFilter(text); err == nil {
			t.Errorf("%q is taken for %v", text, filter)
		}
	}
}

func FuzzServiceFilter(f *testing.F) {
	for _, text := range []string{"tcp/192.0.2.1:80", "udp [2001:db8::1]:53", "192.0.2.0/24", "tcp", "/", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := ParseServiceFilter(text)
		if err != nil && filter.address.prefix.IsValid() {
			t.Errorf("%q is refused (%v) and still picks %v", text, err, filter)
		}
	})
}
