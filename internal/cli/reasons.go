// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

var verdicts = []lvs.Verdict{lvs.Forwarded, lvs.Passed, lvs.Dropped}

func (e *Env) reasonsCommand() *cobra.Command {
	var asJSON, all bool
	var only string
	c := &cobra.Command{
		Use:     "reasons",
		Short:   "Why packets left the data plane as they did",
		Long:    "Every packet leaves the data plane for one reason: forwarded to a real server,\npassed to the kernel untouched, or dropped. Reasons that no packet had are left\nout.",
		Example: "  lvx reasons\n  lvx reasons --verdict dropped --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if only != "" && !slices.Contains(verdicts, lvs.Verdict(only)) {
				return wrongUsage(c, notOneOf("--verdict", only, verdicts))
			}
			return e.reasons(c.Context(), lvs.Verdict(only), all, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of reasons")
	c.Flags().BoolVar(&all, "all", false, "show reasons without packets too")
	c.Flags().StringVar(&only, "verdict", "", "only those with this verdict: forwarded, passed or dropped")
	e.complete(c, "verdict", completeWords(verdicts...))
	return c
}

func (e *Env) reasons(ctx context.Context, only lvs.Verdict, all, asJSON bool) error {
	client := e.client()
	defer client.Close()
	reasons, err := client.Reasons(ctx)
	if err != nil {
		return err
	}
	shown := []lvs.Reason{}
	for _, r := range reasons {
		if (all || r.Packets > 0) && (only == "" || r.Verdict == only) {
			shown = append(shown, r)
		}
	}
	if asJSON {
		return printJSON(e.Out, shown)
	}
	t := e.newTable("REASON", "VERDICT", "PACKETS", "MEANING")
	for _, r := range shown {
		if err := t.add(word(r.Name), verdict(r), number(r.Packets), word(r.Help)); err != nil {
			return err
		}
	}
	return t.flush()
}

func verdict(r lvs.Reason) cell {
	c := map[lvs.Verdict]colour{lvs.Forwarded: green, lvs.Dropped: red}[r.Verdict]
	if r.Packets == 0 {
		c = plain
	}
	return coloured(c, string(r.Verdict))
}
