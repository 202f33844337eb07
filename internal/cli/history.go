// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

func (e *Env) historyCommand() *cobra.Command {
	var asJSON, revisions bool
	var limit int
	c := &cobra.Command{
		Use:   "history",
		Short: "Who changed what, and what can be gone back to",
		Long: "Lists the changes that were asked for, the latest last: those of files, of\nipvsadm and of the API alike, also those that were refused.\n\n" +
			"GENERATION is that of the tables afterwards. A change with a REVISION can be\ngone back to as long as it is kept: the last ten are, and --revisions lists\nthem.",
		Example: "  lvx history --limit 10\n  lvx history --revisions\n  lvx export --revision 4 | lvx plan -    # what going back to 4 would do\n  lvx rollback 4",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 0 {
				return wrongUsage(c, fmt.Errorf("--limit %d is below 0", limit))
			}
			if revisions {
				return e.revisions(c.Context(), asJSON)
			}
			return e.history(c.Context(), limit, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of changes, or of revisions")
	c.Flags().IntVar(&limit, "limit", 100, "only the last so many (0: all)")
	c.Flags().BoolVar(&revisions, "revisions", false, "list the revisions that can be gone back to instead")
	c.MarkFlagsMutuallyExclusive("limit", "revisions")
	return c
}

func (e *Env) history(ctx context.Context, limit int, asJSON bool) error {
	client := e.client()
	defer client.Close()
	entries, err := client.History(ctx, limit)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, entries)
	}
	t := e.newTable("TIME", "GENERATION", "REVISION", "WHO", "WHAT", "RESULT")
	for _, h := range entries {
		result := coloured(green, h.Result)
		if !made(h) {
			result = coloured(red, h.Result)
		}
		if err := t.add(word(moment(h.Time)), number(h.Generation), revisionCell(h.Revision), word(h.Who), word(h.What), result); err != nil {
			return err
		}
	}
	return t.flush()
}

// made tells whether a change was not refused; it may say more than lvs.Done.
func made(h lvs.HistoryEntry) bool { return strings.HasPrefix(h.Result, lvs.Done) }

// revisionCell shows no number for what was not kept.
func revisionCell(n uint64) cell {
	if n == 0 {
		return cell{text: "-", right: true}
	}
	return number(n)
}

func (e *Env) revisions(ctx context.Context, asJSON bool) error {
	client := e.client()
	defer client.Close()
	list, err := client.Revisions(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(e.Out, list)
	}
	t := e.newTable("REVISION", "GENERATION", "TIME", "WHO", "HOLDS", "WHAT")
	for _, r := range list {
		if err := t.add(number(r.Number), number(r.Generation), word(moment(r.Time)), word(r.Who), word(size(r.Configuration)), word(r.What)); err != nil {
			return err
		}
	}
	return t.flush()
}
