// SPDX-License-Identifier: Apache-2.0

// Package diagnose looks at a host and names what will not work as it stands,
// with the command that mends it.
//
// It only reads. What the director itself knows comes to it as values.
package diagnose

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"lvx/internal/lvs"
)

// loopback is the interface that is not on any network.
const loopback = "lo"

// Host looks at the host of a director: does it own the VIPs, where they are
// answered for, and does it have firewall rules that its services' packets no
// longer meet? It takes some milliseconds, and half a second at most.
func Host(services []lvs.ServiceStatus) []lvs.Warning {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	list := misplacedVIPs(services, places(interfaces), silent(interfaces, arpIgnore))
	return append(list, firewall(services, readRuleset)...)
}

// places returns for each address of this host the interfaces that have it.
func places(interfaces []net.Interface) map[netip.Addr][]string {
	owned := map[netip.Addr][]string{}
	for _, i := range interfaces {
		list, err := i.Addrs()
		if err != nil {
			continue // it has gone since
		}
		for _, a := range list {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				owned[prefix.Addr()] = append(owned[prefix.Addr()], i.Name)
			}
		}
	}
	return owned
}

// silent returns the interfaces on which this host does not answer ARP for an
// address that only lo has. value returns arp_ignore of an interface or of "all";
// the larger of the two counts.
func silent(interfaces []net.Interface, value func(string) int) (names []string) {
	const arps = net.FlagUp | net.FlagBroadcast // a tunnel has no ARP
	for _, i := range interfaces {
		if i.Name == loopback || i.Flags&arps != arps {
			continue
		}
		// 1 and 2 ask for an address of the interface itself, 8 answers for
		// none; 3 hides only what has scope host, and the kernel takes the
		// rest for 0.
		if slices.Contains([]int{1, 2, 8}, max(value(i.Name), value("all"))) {
			names = append(names, i.Name)
		}
	}
	return names
}

// arpIgnore reads the sysctl, 0 if it cannot.
func arpIgnore(name string) int {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv4/conf", name, "arp_ignore"))
	if err != nil {
		return 0
	}
	value, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return value
}

// misplacedVIPs warns of VIPs for which nobody answers ARP or neighbour
// solicitations. owned are the interfaces that have an address, silent those
// that do not answer for an IPv4 address of lo.
func misplacedVIPs(services []lvs.ServiceStatus, owned map[netip.Addr][]string, silent []string) (list []lvs.Warning) {
	seen := map[netip.Addr]bool{}
	for _, s := range services {
		vip := s.Address.Addr()
		if seen[vip] {
			continue
		}
		seen[vip] = true
		if text := misplaced(vip, owned[vip], silent); text != "" {
			list = append(list, lvs.Warning{
				Object: "VIP " + vip.String(),
				Text:   text,
				Fix:    fmt.Sprintf("ip addr add %s/%d dev eth0 (on the interface that faces the clients), unless another director has it", vip, vip.BitLen()),
			})
		}
	}
	return list
}

// misplaced says why nobody answers for the VIP, if so.
func misplaced(vip netip.Addr, interfaces, silent []string) string {
	onlyLo := !slices.ContainsFunc(interfaces, func(name string) bool { return name != loopback })
	switch {
	case len(interfaces) == 0:
		return "it is on no interface of this director, so that nobody answers ARP or neighbour solicitation for it here"
	case onlyLo && vip.Is6():
		return "only lo of this director has it, and neighbour discovery does not answer for addresses of lo: nobody answers neighbour solicitation for it here"
	case onlyLo && len(silent) > 0:
		return fmt.Sprintf("only lo of this director has it, and arp_ignore keeps this host from answering ARP for addresses of lo on %s, as it is meant for a real server", strings.Join(silent, ", "))
	}
	return ""
}
