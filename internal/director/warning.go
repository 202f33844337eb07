// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"net/netip"

	"lvx/internal/lvs"
)

// hopTroubles says what is wrong with a next hop that is not ready.
var hopTroubles = map[lvs.NextHopState]struct{ text, fix string }{
	lvs.NextHopUnresolved: {"it does not answer ARP or neighbour solicitation, so that its connections are dropped (NO_NEIGHBOUR)",
		"check that it is up and on a segment of the director"},
	lvs.NextHopOffLink: {"it is behind a router, where dr cannot reach it: its connections are dropped (OFF_LINK)",
		"put it on a segment of the director; the methods tun and fullnat, which cross routers, come in a later version"},
	lvs.NextHopNoRoute: {"the director has no route to it: its connections are dropped (NO_ROUTE)",
		"give the director an address on its segment"},
}

// warnings names the real servers that cannot be reached.
func warnings(services []lvs.ServiceStatus) []lvs.Warning {
	list := []lvs.Warning{}
	for _, s := range services {
		for _, r := range s.RealServers {
			list = appendTrouble(list, s.ServiceKey, r.Address, r.NextHop)
		}
	}
	return list
}

func appendTrouble(list []lvs.Warning, service lvs.ServiceKey, server netip.AddrPort, hop lvs.NextHop) []lvs.Warning {
	t, trouble := hopTroubles[hop.State]
	if !trouble {
		return list
	}
	return append(list, lvs.Warning{Object: fmt.Sprintf("real server %s of %s", server, service), Text: t.text, Fix: t.fix})
}

// unreachable names the real servers that the changes added or edited and that
// cannot be reached; without a change, all such real servers that there are.
func (d *Director) unreachable(ctx context.Context, changes []lvs.Change) ([]lvs.Warning, error) {
	if len(changes) == 0 {
		d.Facts.Reach(ctx, nil)
		services, err := d.Facts.Services()
		return warnings(services), err
	}
	var touched []lvs.Change
	var addrs []netip.Addr
	for _, c := range changes {
		if c.Operation == lvs.AddServer || c.Operation == lvs.EditServer {
			touched = append(touched, c)
			addrs = append(addrs, c.RealServer.Address.Addr())
		}
	}
	list := []lvs.Warning{}
	if len(addrs) == 0 {
		return list, nil
	}
	for i, hop := range d.Facts.Reach(ctx, addrs) {
		list = appendTrouble(list, touched[i].Service, touched[i].RealServer.Address, hop)
	}
	return list, nil
}
