// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"slices"

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
			if t, trouble := hopTroubles[r.NextHop.State]; trouble {
				list = append(list, lvs.Warning{
					Object: fmt.Sprintf("real server %s of %s", r.Address, s.ServiceKey), Text: t.text, Fix: t.fix,
				})
			}
		}
	}
	return list
}

// touched returns the services with only those real servers that changes add or edit.
func touched(services []lvs.ServiceStatus, changes []lvs.Change) (list []lvs.ServiceStatus) {
	for _, s := range services {
		s.RealServers = slices.DeleteFunc(slices.Clone(s.RealServers), func(r lvs.RealServerStatus) bool {
			return !slices.ContainsFunc(changes, func(c lvs.Change) bool {
				named := c.Service == s.ServiceKey && c.RealServer.Address == r.Address
				return named && (c.Operation == lvs.AddServer || c.Operation == lvs.EditServer)
			})
		})
		list = append(list, s)
	}
	return list
}
