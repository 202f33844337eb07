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

	"lvx/internal/lvs"
)

// Host looks at the host of a director: does it own the VIPs, and does it have
// firewall rules that its services' packets no longer meet? It takes some
// milliseconds, and half a second at most.
func Host(services []lvs.ServiceStatus) []lvs.Warning {
	owned, err := ownedAddresses()
	if err != nil {
		return nil
	}
	return append(missingVIPs(services, owned), shadowedRules(services, readRuleset)...)
}

func ownedAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	owned := map[netip.Addr]bool{}
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			owned[prefix.Addr()] = true
		}
	}
	return owned, nil
}

// missingVIPs warns of VIPs that no interface has: nobody answers ARP for them.
func missingVIPs(services []lvs.ServiceStatus, owned map[netip.Addr]bool) (list []lvs.Warning) {
	seen := map[netip.Addr]bool{}
	for _, s := range services {
		vip := s.Address.Addr()
		if owned[vip] || seen[vip] {
			continue
		}
		seen[vip] = true
		list = append(list, lvs.Warning{
			Object: "VIP " + vip.String(),
			Text:   "it is on no interface of this director, so that nobody answers ARP or neighbour solicitation for it here",
			Fix:    fmt.Sprintf("ip addr add %s/%d dev eth0 (on the interface that faces the clients), unless another director has it", vip, vip.BitLen()),
		})
	}
	return list
}
