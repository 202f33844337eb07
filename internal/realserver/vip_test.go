// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"strings"
	"testing"

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
