// SPDX-License-Identifier: Apache-2.0

package diagnose

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

func service(protocol lvs.Protocol, address string) lvs.ServiceStatus {
	return lvs.ServiceStatus{ServiceKey: lvs.ServiceKey{Protocol: protocol, Address: netip.MustParseAddrPort(address)}}
}

func TestMisplacedVIPs(t *testing.T) {
	owned := map[netip.Addr][]string{netip.MustParseAddr("192.0.2.1"): {"eth0"}}
	got := misplacedVIPs([]lvs.ServiceStatus{
		service(lvs.TCP, "192.0.2.1:80"), service(lvs.TCP, "192.0.2.2:80"), service(lvs.UDP, "192.0.2.2:53"), service(lvs.TCP, "[2001:db8::1]:80"),
	}, owned, nil)
	if len(got) != 2 || got[0].Object != "VIP 192.0.2.2" || got[1].Object != "VIP 2001:db8::1" {
		t.Fatalf("warnings %+v", got)
	}
	if !strings.HasPrefix(got[1].Fix, "ip addr add 2001:db8::1/128 dev ") {
		t.Errorf("fix %q", got[1].Fix)
	}
}

// TestVIPOnLo: the kernel answers for some addresses of lo, not for all.
func TestVIPOnLo(t *testing.T) {
	for _, c := range []struct {
		vip                string
		interfaces, silent []string
		want               string
	}{
		{"192.0.2.1", nil, nil, "on no interface"},
		{"192.0.2.1", []string{"eth0"}, []string{"eth0"}, ""},
		{"192.0.2.1", []string{"lo"}, nil, ""},
		{"192.0.2.1", []string{"lo"}, []string{"eth0", "eth1"}, "on eth0, eth1,"},
		{"192.0.2.1", []string{"lo", "eth0"}, []string{"eth0"}, ""},
		{"2001:db8::1", nil, nil, "on no interface"},
		{"2001:db8::1", []string{"eth0"}, nil, ""},
		{"2001:db8::1", []string{"lo"}, nil, "neighbour discovery does not answer for addresses of lo"},
		{"2001:db8::1", []string{"lo", "eth0"}, nil, ""},
	} {
		got := misplaced(netip.MustParseAddr(c.vip), c.interfaces, c.silent)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s on %q, %q silent: %q, want %q", c.vip, c.interfaces, c.silent, got, c.want)
		}
	}
}

func TestSilent(t *testing.T) {
	const up = net.FlagUp | net.FlagBroadcast
	interfaces := []net.Interface{
		{Name: "lo", Flags: net.FlagUp | net.FlagLoopback}, {Name: "eth0", Flags: up}, {Name: "eth1", Flags: up},
		{Name: "down", Flags: net.FlagBroadcast}, {Name: "tun0", Flags: net.FlagUp | net.FlagPointToPoint},
	}
	for _, c := range []struct {
		all, eth1 int
		want      string
	}{
		{0, 0, ""}, {1, 0, "eth0 eth1"}, {2, 0, "eth0 eth1"}, {8, 0, "eth0 eth1"},
		{0, 1, "eth1"}, {0, 8, "eth1"}, {1, 2, "eth0 eth1"},
		{3, 0, ""}, {5, 0, ""}, {1, 3, "eth0"}, // the larger counts, and 3 to 7 answer
	} {
		got := silent(interfaces, func(name string) int { return map[string]int{"all": c.all, "eth1": c.eth1, "lo": 1}[name] })
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("arp_ignore of all %d, of eth1 %d: silent %q, want %q", c.all, c.eth1, got, c.want)
		}
	}
}

// TestPlaces looks at this machine, which has a lo.
func TestPlaces(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	if got := places(interfaces)[netip.MustParseAddr("127.0.0.1")]; !slices.Contains(got, loopback) {
		t.Errorf("127.0.0.1 is on %q", got)
	}
	if got := arpIgnore("no such interface"); got != 0 {
		t.Errorf("arp_ignore of an interface that is not there: %d", got)
	}
}
