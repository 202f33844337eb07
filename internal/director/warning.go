// SPDX-License-Identifier: Apache-2.0

package director

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// hopTroubles says what is wrong with a next hop that is not ready.
var hopTroubles = map[lvs.NextHopState]struct{ text, fix string }{
	lvs.NextHopUnresolved: {"it does not answer ARP or neighbour solicitation, so that its connections are dropped (NO_NEIGHBOUR)",
		"check that it is up and on a segment of the director"},
	lvs.NextHopOffLink: {"it is behind a router, where dr cannot reach it: its connections are dropped (OFF_LINK)",
		"put it on a segment of the director, or use the method tun, which crosses routers"},
	lvs.NextHopNoRoute: {"the director has no route to it: its connections are dropped (NO_ROUTE)",
		"give the director an address on its segment"},
}

// warnings names the real servers that cannot be reached.
func warnings(services []lvs.ServiceStatus) []lvs.Warning {
	list := []lvs.Warning{}
	for _, s := range services {
		for _, r := range s.RealServers {
			list = appendTrouble(list, placed{s.ServiceKey, r.RealServer}, r.NextHop)
		}
	}
	return list
}

func appendTrouble(list []lvs.Warning, r placed, hop lvs.NextHop) []lvs.Warning {
	t, trouble := hopTroubles[hop.State]
	if !trouble || hop.Reaches(r.Method) {
		return list
	}
	return append(list, lvs.Warning{Object: fmt.Sprintf("real server %s of %s", r.Address, r.service), Text: t.text, Fix: t.fix})
}

// placed is a real server with its service.
type placed struct {
	service lvs.ServiceKey
	lvs.RealServer
}

// serverOf is a real server of a service.
type serverOf struct {
	service lvs.ServiceKey
	address netip.AddrPort
}

// newServers returns the real servers of after that before has not, or not alike.
func newServers(before, after table) (list []placed) {
	for _, key := range after.order {
		was := before.services[key]
		for _, r := range after.services[key].RealServers {
			if at := was.Find(r.Address); at < 0 || was.RealServers[at] != r {
				list = append(list, placed{key, r})
			}
		}
	}
	return list
}

// unreachable waits at most that long for the next hops of real servers, and warns of
// those that cannot be reached.
func (d *Director) unreachable(ctx context.Context, wait time.Duration, servers []placed) []lvs.Warning {
	list := []lvs.Warning{}
	if len(servers) == 0 {
		return list
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	addrs := make([]netip.Addr, 0, len(servers))
	for _, s := range servers {
		addrs = append(addrs, s.Address.Addr())
	}
	for i, hop := range d.Facts.Reach(waiting, addrs) {
		list = appendTrouble(list, servers[i], hop)
	}
	return list
}

// settingsWarnings name the settings that a configuration asks for and that the
// daemon did not start with.
func (d *Director) settingsWarnings(wanted lvs.Settings) (list []lvs.Warning) {
	for _, f := range fields(settingsProperties(d.Settings), settingsProperties(wanted)) {
		list = append(list, lvs.Warning{
			Object: f.Name, Text: "it is not what the director started with, and is read at its start alone",
			Fix: "restart lvx director with this file (forwarding goes on meanwhile)",
		})
	}
	return list
}

// settingsProperties words settings as the file has them; "" is the default.
func settingsProperties(s lvs.Settings) []property {
	number := func(n uint32) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(uint64(n), 10)
	}
	xdp := s.XDP
	if xdp == "auto" {
		xdp = ""
	}
	files := s.API.TLS
	return []property{
		{"director.interfaces", strings.Join(s.Interfaces, " ")},
		{"director.xdp", xdp},
		{"director.capacity.connections", number(s.Capacity.Connections)},
		{"director.capacity.services", number(s.Capacity.Services)},
		{"director.capacity.real_servers", number(s.Capacity.RealServers)},
		{"director.mh_table", number(s.MHTable)},
		{"api.listen", s.API.Listen},
		{"api.tls", strings.TrimSpace(files.Cert + " " + files.Key + " " + files.ClientCA)},
		{"metrics.listen", s.Metrics.Listen},
		{"metrics.node_ipvs", map[bool]string{true: "true"}[s.Metrics.NodeIPVS]},
	}
}
