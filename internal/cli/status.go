// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
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
		Args:  cobra.NoArgs,
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
	fmt.Fprintf(&page, "lvx %s, instance %s\n", status.Version, status.Instance)
	e.interfaceLines(&page, status.Interfaces)
	e.tableLines(&page, status)
	e.warningLines(&page, status.Warnings)
	_, err = io.WriteString(e.Out, page.String())
	return err
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

func (e *Env) tableLines(page *strings.Builder, s api.Status) {
	e.heading(page, "Tables")
	for _, line := range []struct {
		name  string
		usage api.Usage
	}{{"services", s.Services}, {"real servers", s.RealServers}, {"connections", s.Connections}} {
		fmt.Fprintf(page, "  %-12s  %d of %d\n", line.name, line.usage.Used, line.usage.Capacity)
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
	for _, w := range warnings {
		fmt.Fprintf(page, "  %s\n", e.paint(yellow, w.Object+": "+w.Text))
		if w.Fix != "" {
			fmt.Fprintf(page, "    to mend it: %s\n", w.Fix)
		}
	}
}
