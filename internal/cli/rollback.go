// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func (e *Env) rollbackCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "rollback [REVISION]",
		Short: "Go back to a revision, or take back the last apply",
		Long: "Makes the director be as it was: as in the revision that is named, or as before\nthe last apply. An apply that waits to be confirmed is taken back. Connections\nstay on their real servers.\n\n" +
			"lvx history --revisions lists what can be gone back to; lvx export --revision\nshows one, and piped to lvx plan - what going back to it would change. What\nsomebody changed since is kept as a revision first, so nothing is lost.",
		Example: "  lvx rollback\n  lvx rollback 4",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			revision := uint64(0)
			if len(args) == 1 {
				var err error
				if revision, err = strconv.ParseUint(args[0], 10, 64); err != nil || revision == 0 {
					return wrongUsage(c, fmt.Errorf("revision %q is not a number above 0", args[0]))
				}
			}
			client := e.client()
			defer client.Close()
			applied, err := client.Rollback(c.Context(), revision, 0)
			if err != nil {
				return err
			}
			if err := e.showApplied(applied, asJSON); err != nil || asJSON {
				return err
			}
			_, err = fmt.Fprintln(e.Out, "what was before is in: lvx history --revisions")
			return err
		},
		ValidArgsFunction: e.completeFirst(e.completeRevision),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of one result")
	return c
}

// completeRevision completes with the revisions that are kept.
func (e *Env) completeRevision(ctx context.Context) (list []string) {
	ctx, cancel := context.WithTimeout(ctx, completionWait)
	defer cancel()
	client := e.client()
	defer client.Close()
	revisions, err := client.Revisions(ctx)
	if err != nil {
		return nil
	}
	for _, r := range revisions {
		list = append(list, fmt.Sprintf("%d\t%s, %s", r.Number, moment(r.Time), r.What))
	}
	return list
}
