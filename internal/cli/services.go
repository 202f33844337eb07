// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

func (e *Env) servicesCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "services [SERVICE]",
		Short: "The virtual services, their connections and statistics",
		Long: "Lists the virtual services in the data plane.\n\n" +
			"SERVICE is [tcp/|udp/]VIP[:PORT]. CONNECTIONS, PACKETS and BYTES count from the\nservice's creation or its last ipvsadm -Z; ACTIVE and INACTIVE are now.",
		Example: "  lvx services\n  lvx services tcp/192.0.2.1:80 --json",
		Args:    cobra.MaximumNArgs(2), // "tcp 192.0.2.1:80" without quotes is two
		RunE: func(c *cobra.Command, args []string) error {
			return e.services(c.Context(), strings.Join(args, " "), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of services with their real servers")
	return c
}

func (e *Env) services(ctx context.Context, wanted string, asJSON bool) error {
	services, err := e.findServices(ctx, wanted)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, services)
	}
	t := e.newTable("SERVICE", "SCHEDULER", "REAL SERVERS", "ACTIVE", "INACTIVE", "CONNECTIONS", "PACKETS", "BYTES")
	for _, s := range services {
		var now lvs.Counts
		for _, r := range s.RealServers {
			now = now.Add(r.Counts)
		}
		if err := t.add(
			word(s.ServiceKey.String()), word(string(s.Scheduler)), number(uint64(len(s.RealServers))),
			number(now.Active), number(now.Inactive),
			number(s.Stats.Connections), number(s.Stats.InPackets), number(s.Stats.InBytes),
		); err != nil {
			return err
		}
	}
	return t.flush()
}

// findServices returns the services that the text picks. A service that was
// named and is not there is an error.
func (e *Env) findServices(ctx context.Context, wanted string) ([]lvs.ServiceStatus, error) {
	filter, err := parseServiceFilter(wanted)
	if err != nil {
		return nil, usageError("%s", err)
	}
	client := e.client()
	defer client.Close()
	all, err := client.Services(ctx)
	if err != nil {
		return nil, err
	}
	picked := []lvs.ServiceStatus{}
	for _, s := range all {
		if filter.picks(s.ServiceKey) {
			picked = append(picked, s)
		}
	}
	if wanted != "" && len(picked) == 0 {
		return nil, noSuchService(wanted)
	}
	return picked, nil
}

func noSuchService(wanted string) error {
	return &ExitError{Code: ExitFailed, Message: "there is no service " + wanted + "; list them with: lvx services"}
}
