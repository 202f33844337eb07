// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"lvx/api"
)

func (e *Env) confirmCommand() *cobra.Command {
	asJSON, generation := false, uint64(0)
	c := &cobra.Command{
		Use:     "confirm",
		Short:   "Keep what was applied with --confirm",
		Long:    "Keeps an apply that waits to be confirmed: without it the director would go\nback by itself at the deadline, which lvx status shows. If none waits, that is\nan error.",
		Example: "  lvx apply /etc/lvx/lvx.yaml --confirm 60s && lvx confirm",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := e.client()
			defer client.Close()
			applied, err := client.Confirm(c.Context(), generation)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.Out, []api.Applied{applied})
			}
			_, err = fmt.Fprintln(e.Out, e.paint(green, "confirmed")+": "+place(applied))
			return err
		},
	}
	c.Flags().Uint64Var(&generation, "if-generation", 0, "only if the tables are at this generation: not an apply that somebody else made meanwhile")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of one result")
	return c
}
