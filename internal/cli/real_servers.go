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

func (e *Env) realServersCommand() *cobra.Command {
	var asJSON bool
	var service string
	c := &cobra.Command{
		Use:     "real-servers",
		Short:   "The real servers of the virtual services, and how they are reached",
		Example: "  lvx real-servers --service 192.0.2.1:80",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.realServers(c.Context(), service, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of real servers")
	c.Flags().StringVar(&service, "service", "", "only those of this service: [tcp/|udp/]VIP[:PORT]")
	return c
}

func (e *Env) realServers(ctx context.Context, service string, asJSON bool) error {
	services, err := e.findServices(ctx, service)
	if err != nil {
		return err
	}
	servers := []api.RealServer{}
	for _, s := range services {
		for _, r := range s.RealServers {
			servers = append(servers, api.RealServer{Service: s.ServiceKey, RealServerStatus: r})
		}
	}
	if asJSON {
		return printJSON(e.Out, servers)
	}
	return e.realServerTable(servers)
}

func (e *Env) realServerTable(servers []api.RealServer) error {
	t := e.newTable("SERVICE", "REAL SERVER", "METHOD", "WEIGHT", "ACTIVE", "INACTIVE", "CONNECTIONS", "PACKETS", "BYTES", "NEXT HOP")
	for _, r := range servers {
		if err := t.add(
			word(r.Service.String()), word(r.Address.String()), word(string(r.Method)), number(r.Weight),
			number(r.Counts.Active), number(r.Counts.Inactive),
			number(r.Stats.Connections), number(r.Stats.InPackets), number(r.Stats.InBytes),
			nextHop(r.NextHop),
		); err != nil {
			return err
		}
	}
	return t.flush()
}

// nextHop returns for instance "ready, 02:00:00:00:00:05 on eth0".
func nextHop(n lvs.NextHop) cell {
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
	c := red
	if n.State == lvs.NextHopReady {
		c = green
	}
	return coloured(c, string(n.State)+where.String())
}
