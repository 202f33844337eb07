// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

func (e *Env) servicesCommand() *cobra.Command {
	var asJSON, rates bool
	c := &cobra.Command{
		Use:   "services [SERVICE]",
		Short: "The virtual services, their connections and statistics",
		Long: "Lists the virtual services in the data plane.\n\n" +
			"SERVICE is [tcp/|udp/]VIP[:PORT], or the name that the file gives it. METHODS are\nthose by which its real servers are reached.\nCONNECTIONS, PACKETS and BYTES count from the service's creation or its last\nipvsadm -Z; ACTIVE and INACTIVE are now. Rates are averages over the last\nseconds.",
		Example: "  lvx services\n  lvx services tcp/192.0.2.1:80 --json\n  lvx services web --rates",
		Args:    cobra.MaximumNArgs(2), // "tcp 192.0.2.1:80" without quotes is two
		RunE: func(c *cobra.Command, args []string) error {
			return e.services(c.Context(), strings.Join(args, " "), rates, asJSON)
		},
		ValidArgsFunction: e.completeFirst(e.completeService),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of services with their real servers")
	c.Flags().BoolVar(&rates, "rates", false, "show connections, packets and bytes a second instead of totals")
	return c
}

func (e *Env) services(ctx context.Context, wanted string, rates, asJSON bool) error {
	services, err := e.findServices(ctx, wanted)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, services)
	}
	heading := []string{"SERVICE", "NAME", "SCHEDULER", "FLAGS", "METHODS", "REAL SERVERS", "ACTIVE", "INACTIVE"}
	t := e.newTable(append(heading, counterHeading(rates)...)...)
	for _, s := range services {
		var now lvs.Counts
		for _, r := range s.RealServers {
			now = now.Add(r.Counts)
		}
		row := []cell{
			word(s.ServiceKey.String()), name(s.Name), word(string(s.Scheduler)), name(string(s.Flags)),
			name(methods(s)), number(uint64(len(s.RealServers))), number(now.Active), number(now.Inactive),
		}
		if err := t.add(append(row, counterCells(rates, s.Stats, s.Rates)...)...); err != nil {
			return err
		}
	}
	return t.flush()
}

// methods returns the forwarding methods of a service's real servers, each once, for
// instance "dr,tun".
func methods(s lvs.ServiceStatus) string {
	var list []string
	for _, m := range lvs.Methods() {
		if slices.ContainsFunc(s.RealServers, func(r lvs.RealServerStatus) bool { return r.Method == m }) {
			list = append(list, string(m))
		}
	}
	return strings.Join(list, ",")
}

// counterHeading is over what counterCells returns.
func counterHeading(rates bool) []string {
	if rates {
		return []string{"CONNECTIONS/S", "PACKETS/S", "BYTES/S"}
	}
	return []string{"CONNECTIONS", "PACKETS", "BYTES"}
}

func counterCells(rates bool, total lvs.Stats, now lvs.Rates) []cell {
	if rates {
		return []cell{rate(now.Connections), rate(now.InPackets), rate(now.InBytes)}
	}
	return []cell{number(total.Connections), number(total.InPackets), number(total.InBytes)}
}

// findServices returns the services that the text picks. A service that was
// named and is not there is an error.
func (e *Env) findServices(ctx context.Context, wanted string) ([]lvs.ServiceStatus, error) {
	if _, err := lvs.ParseServiceFilter(wanted); err != nil && !mayBeName(wanted) {
		return nil, usageError("%s", err)
	}
	client := e.client()
	defer client.Close()
	return pickServices(ctx, client, wanted)
}

// mayBeName tells whether the text can be the name of a service at all.
func mayBeName(text string) bool { return !strings.ContainsAny(text, ":/[] ") }

// pickServices returns the services that the text names or picks, at least one
// unless the text is empty.
func pickServices(ctx context.Context, client *api.Client, wanted string) ([]lvs.ServiceStatus, error) {
	all, err := client.Services(ctx)
	if err != nil {
		return nil, err
	}
	if at := slices.IndexFunc(all, func(s lvs.ServiceStatus) bool { return wanted != "" && s.Name == wanted }); at >= 0 {
		return all[at : at+1], nil
	}
	picked := []lvs.ServiceStatus{}
	if filter, err := lvs.ParseServiceFilter(wanted); err == nil {
		for _, s := range all {
			if filter.Picks(s.ServiceKey) {
				picked = append(picked, s)
			}
		}
	}
	if wanted != "" && len(picked) == 0 {
		return nil, &ExitError{Code: ExitFailed, Message: "there is no service " + wanted + "; list them with: lvx services"}
	}
	return picked, nil
}
