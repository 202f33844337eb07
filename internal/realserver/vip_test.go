// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"lvx/internal/lvs"
)

func TestParseVIP(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.100":        "192.0.2.100",
		"192.0.2.100/32":     "192.0.2.100",
		"2001:db8::1/128":    "2001:db8::1",
		"192.0.2.100/24":     "the whole subnet 192.0.2.0/24 local",
		"2001:db8::1/64":     "write 2001:db8::1/128",
		"192.0.2.100/33":     "no IP address",
		"web":                "no IP address",
		"":                   "no IP address",
		"0.0.0.0":            "one host",
		"224.0.0.18":         "one host",
		"255.255.255.255":    "one host",
		"127.0.0.2":          "loopback",
		"127.255.255.255/32": "loopback",
		"::1":                "loopback",
		"fe80::1":            "global IPv6",
		"2001:db8::1%eth0":   "global IPv6",
		"::ffff:192.0.2.100": "plain IPv4",
	} {
		got, err := ParseVIP(text)
		switch {
		case err == nil && got.String() != want:
			t.Errorf("ParseVIP(%q) = %s, want %s", text, got, want)
		case err != nil && (!errors.Is(err, lvs.ErrInvalid) || !strings.Contains(err.Error(), want)):
			t.Errorf("ParseVIP(%q): %v, want lvs.ErrInvalid with %q", text, err, want)
		}
	}
}

func TestReserved(t *testing.T) {
	for _, c := range []struct{ vip, subnet, want string }{
		{"192.0.2.0", "192.0.2.11/24", "the network address"},
		{"192.0.2.255", "192.0.2.11/24", "the broadcast address"},
		{"192.0.2.255", "192.0.2.11/23", ""},
		{"192.0.2.1", "192.0.2.11/24", ""},
		{"192.0.2.3", "192.0.2.1/30", "the broadcast address"},
		{"192.0.2.0", "192.0.2.1/31", ""},
		{"192.0.2.1", "192.0.2.1/31", ""},
		{"192.0.2.1", "192.0.2.1/32", ""},
		{"198.51.100.255", "192.0.2.11/24", ""},
		{"2001:db8::", "2001:db8::11/64", "the subnet-router anycast address"},
		{"2001:db8::", "2001:db8::1/127", ""},
		{"2001:db8::ffff:ffff:ffff:ffff", "2001:db8::11/64", ""}, // IPv6 has no broadcast
		{"2001:db8::1", "192.0.2.11/24", ""},
	} {
		if got := reserved(netip.MustParseAddr(c.vip), netip.MustParsePrefix(c.subnet)); got != c.want {
			t.Errorf("%s in %s is %q, want %q", c.vip, c.subnet, got, c.want)
		}
	}
}

func TestGateway(t *testing.T) {
	six := net.ParseIP("2001:db8::1")
	for _, c := range []struct {
		hop  netlink.NexthopInfo
		want netip.Addr
	}{
		{netlink.NexthopInfo{}, netip.Addr{}},
		{netlink.NexthopInfo{Gw: net.ParseIP("192.0.2.1")}, netip.MustParseAddr("192.0.2.1")},
		{netlink.NexthopInfo{Via: &netlink.Via{Addr: six}}, netip.MustParseAddr("2001:db8::1")},
	} {
		if got := gateway(&c.hop); got != c.want {
			t.Errorf("%v: %s, want %s", c.hop, got, c.want)
		}
	}
}
