// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

func (e *Env) statusCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "status",
		Short: "The director at a glance: interfaces, tables, packets, warnings",
		Long: "Shows what the director has and how full its tables are, which file it is as,\nand warns of what will not work as it stands, with what mends it.\n\n" +
			"Connections of IPv4 and of IPv6 have tables of their own: the number of\nconnections is that of both, the capacity is that of each.\n\n" +
			"A real server that was removed stays in its table until its last connection\nends.",
		Example: "  lvx status\n  lvx status --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.status(c.Context(), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of one object")
	return c
}

func (e *Env) status(ctx context.Context, asJSON bool) error {
	client := e.client()
	defer client.Close()
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, []api.Status{status})
	}
	var page strings.Builder
	fmt.Fprintf(&page, "lvx %s, instance %s", status.Version, status.Instance)
	if !status.Started.IsZero() {
		fmt.Fprintf(&page, ", up %s", e.clock().Sub(status.Started).Round(time.Second))
	}
	fmt.Fprintf(&page, "\n%s\n", generation(ctx, client, status))
	if status.Unconfirmed != nil {
		page.WriteString(e.paint(yellow, e.waits(*status.Unconfirmed)) + "\n")
	}
	e.interfaceLines(&page, status.Interfaces)
	e.tableLines(&page, status, removedServers(ctx, client, status.RealServers.Used))
	e.warningLines(&page, status.Warnings)
	_, err = io.WriteString(e.Out, page.String())
	return err
}

// generation says what made the tables as they are: a revision, or changes after it.
func generation(ctx context.Context, client *api.Client, s api.Status) string {
	text := fmt.Sprintf("generation %d", s.Generation)
	if s.Revision == 0 {
		return text
	}
	text += fmt.Sprintf(", revision %d", s.Revision)
	const enough = 100
	entries, err := client.History(ctx, enough) // if it cannot be read, the daemon says so in a warning
	first := slices.IndexFunc(entries, func(h lvs.HistoryEntry) bool { return h.Revision == s.Revision && made(h) })
	if err == nil && first >= 0 { // a later entry may be its confirmation, or a rollback to it
		text += " (" + printable(entries[first].What) + ")"
	}
	if s.Changed {
		text += ", changed since"
	}
	return text
}

// removedServers returns how many of the real servers in the table are no longer
// of a service.
func removedServers(ctx context.Context, client *api.Client, used uint64) uint64 {
	services, err := client.Services(ctx)
	if err != nil {
		return 0
	}
	listed := uint64(0)
	for _, s := range services {
		listed += uint64(len(s.RealServers))
	}
	return used - min(used, listed)
}

func (e *Env) heading(page *strings.Builder, title string) {
	page.WriteString("\n" + e.paint(bold, title) + "\n")
}

func (e *Env) interfaceLines(page *strings.Builder, interfaces []api.Interface) {
	e.heading(page, "Interfaces")
	if len(interfaces) == 0 {
		page.WriteString("  none: no packet reaches the data plane\n")
	}
	for _, i := range interfaces {
		fmt.Fprintf(page, "  %s: %s\n", i.Name, e.mode(i))
		if len(i.OffloadsOff) > 0 {
			fmt.Fprintf(page, "    offloads turned off: %s\n", strings.Join(i.OffloadsOff, ", "))
		}
		if i.LostAfterVerdict > 0 {
			fmt.Fprintf(page, "    %s\n", e.paint(red, fmt.Sprintf("lost by the driver after forwarding: %d packets", i.LostAfterVerdict)))
		}
	}
}

// mode says where XDP runs, and if not in the driver, why.
func (e *Env) mode(i api.Interface) string {
	if i.Mode != lvs.XDPGeneric {
		return e.paint(green, string(i.Mode)+" XDP")
	}
	text := "generic XDP, slower than native"
	if i.Why != "" {
		text += ": " + i.Why
	}
	return e.paint(yellow, text)
}

func (e *Env) tableLines(page *strings.Builder, s api.Status, removed uint64) {
	e.heading(page, "Tables")
	for _, line := range []struct {
		name  string
		usage api.Usage
	}{{"services", s.Services}, {"real servers", s.RealServers}} {
		fmt.Fprintf(page, "  %-12s  %d of %d\n", line.name, line.usage.Used, line.usage.Capacity)
	}
	fmt.Fprintf(page, "  %-12s  %d; there is room for %d of IPv4 and as many of IPv6\n", "connections", s.Connections.Used, s.Connections.Capacity)
	if removed > 0 {
		fmt.Fprintf(page, "    %s removed, until the last of their connections ends\n", counted(removed, "real server is", "real servers are"))
	}
	e.heading(page, "Timeouts")
	for _, line := range []struct {
		name string
		time lvs.Duration
	}{{"tcp", s.Timeouts.TCP}, {"tcp fin", s.Timeouts.TCPFin}, {"udp", s.Timeouts.UDP}} {
		fmt.Fprintf(page, "  %-12s  %s\n", line.name, time.Duration(line.time))
	}
	e.heading(page, "Packets")
	fmt.Fprintf(page, "  %-12s  %d\n  %-12s  %d\n  %-12s  %d\n", "forwarded", s.Packets.Forwarded, "passed", s.Packets.Passed, "dropped", s.Packets.Dropped)
}

func (e *Env) warningLines(page *strings.Builder, warnings []api.Warning) {
	if len(warnings) == 0 {
		return
	}
	e.heading(page, "Warnings")
	e.tellWarnings(page, "  ", "", warnings)
}

// maxWarnings are as many as somebody reads: when a link is down, each real server
// behind it is a warning.
const maxWarnings = 20

// tellWarnings writes warnings with what mends them, each line after the margin.
func (e *Env) tellWarnings(w io.Writer, margin, label string, warnings []api.Warning) {
	for _, one := range warnings[:min(len(warnings), maxWarnings)] {
		fmt.Fprintln(w, margin+e.paint(yellow, label+printable(one.Object+": "+one.Text)))
		if one.Fix != "" {
			fmt.Fprintln(w, margin+"  to mend it: "+printable(one.Fix))
		}
	}
	if more := len(warnings) - maxWarnings; more > 0 {
		fmt.Fprintln(w, margin+e.paint(yellow, label+grouped(uint64(more))+" more like these; --json has all"))
	}
}
