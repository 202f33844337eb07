// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

// realServerQuery is what `lvx real-servers` was asked for.
type realServerQuery struct {
	asJSON, rates       bool
	service, realServer string
}

func (e *Env) realServersCommand() *cobra.Command {
	var q realServerQuery
	c := &cobra.Command{
		Use:   "real-servers",
		Short: "The real servers of the virtual services, and how they are reached",
		Long: "Lists every real server of every service, in scheduling order.\n\n" +
			"METHOD is how packets reach it: dr, nat or tun; TUNNEL what tun puts them into,\nwith the port of gue and the checksum, if it has one.\n\n" +
			"NEXT HOP tells where its packets go: ready with a MAC address, or why none can\nbe sent. ACTIVE and INACTIVE are connections now; CONNECTIONS, PACKETS and\nBYTES count from its addition or its service's last ipvsadm -Z.",
		Example: "  lvx real-servers --service 192.0.2.1:80\n  lvx real-servers --real-server 10.0.0.5 --rates",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.realServers(c.Context(), q)
		},
	}
	c.Flags().BoolVar(&q.asJSON, "json", false, "print JSON: an array of real servers")
	c.Flags().BoolVar(&q.rates, "rates", false, "show connections, packets and bytes a second instead of totals")
	c.Flags().StringVar(&q.service, "service", "", "only those of this service: [tcp/|udp/]VIP[:PORT] or its name")
	c.Flags().StringVar(&q.realServer, "real-server", "", "only those at this address: ADDRESS[:PORT] or ADDRESS/BITS")
	e.complete(c, "service", e.completeService)
	e.complete(c, "real-server", e.completeRealServer)
	return c
}

func (e *Env) realServers(ctx context.Context, q realServerQuery) error {
	at, err := lvs.ParseAddressFilter(q.realServer)
	if err != nil {
		return usageError("real-servers: --real-server %s", err)
	}
	services, err := e.findServices(ctx, q.service)
	if err != nil {
		return err
	}
	servers := []api.RealServer{}
	for _, s := range services {
		for _, r := range s.RealServers {
			if at.Picks(r.Address) {
				servers = append(servers, api.RealServer{Service: s.ServiceKey, RealServerStatus: r})
			}
		}
	}
	if q.asJSON {
		return printJSON(e.Out, servers)
	}
	return e.realServerTable(servers, q.rates)
}

func (e *Env) realServerTable(servers []api.RealServer, rates bool) error {
	heading := []string{"SERVICE", "REAL SERVER", "METHOD", "TUNNEL", "WEIGHT", "ACTIVE", "INACTIVE"}
	heading = append(heading, counterHeading(rates)...)
	t := e.newTable(append(heading, "NEXT HOP")...)
	for _, r := range servers {
		row := []cell{
			word(r.Service.String()), word(r.Address.String()), word(string(r.Method)), name(r.Tunnel.String()), number(r.Weight),
			number(r.Counts.Active), number(r.Counts.Inactive),
		}
		row = append(row, counterCells(rates, r.Stats, r.Rates)...)
		if err := t.add(append(row, nextHop(r.NextHop, r.Method))...); err != nil {
			return err
		}
	}
	return t.flush()
}

// nextHop returns for instance "ready, 02:00:00:00:00:05 on eth0".
func nextHop(n lvs.NextHop, m lvs.Method) cell {
	var where strings.Builder
	if n.MAC != "" {
		where.WriteString(", " + n.MAC)
	}
	if n.Interface != "" {
		where.WriteString(" on " + n.Interface)
	}
	if n.VLAN != 0 {
		fmt.Fprintf(&where, " vlan %d", n.VLAN)
	}
	return coloured(nextHopColour(n, m), string(n.State)+where.String())
}

// nextHopColour is red where packets of the method do not go.
func nextHopColour(n lvs.NextHop, m lvs.Method) colour {
	if n.State != lvs.NextHopLocal && n.Reaches(m) {
		return green
	}
	return red
}
