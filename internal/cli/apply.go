// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"lvx/api"
	"lvx/internal/lvs"
)

// applyOptions are the flags of lvx apply.
type applyOptions struct {
	source
	asJSON, dryRun, allowEmpty bool
	generation                 uint64
	confirm                    time.Duration
}

func (e *Env) applyCommand() *cobra.Command {
	var o applyOptions
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "Make the director be as a file says",
		Long: "Shows the plan and carries it out, all of it or nothing: with an error the\ntables are as they were. FILE may be -, standard input. Connections stay on\ntheir real servers.\n\n" +
			"What is applied is the plan that is shown: if somebody else changes something\nin between, the apply is refused. No question is asked; lvx plan shows the same\nand changes nothing.\n\n" +
			"With --confirm the director goes back by itself at the deadline, unless lvx\nconfirm is called before: for changes that may cut off who makes them. It does\nso too if the daemon was restarted meanwhile.\n\n" +
			"A file that takes the last real server of a service, or the last service, is\nrefused without --allow-empty.",
		Example: "  lvx apply /etc/lvx/lvx.yaml\n  lvx apply /etc/lvx/lvx.yaml --confirm 60s && lvx confirm\n  lvx export --revision 4 | lvx apply -",
		RunE: func(c *cobra.Command, args []string) error {
			o.path = args[0]
			if c.Flags().Changed("confirm") && (o.confirm <= 0 || o.confirm > api.MaxConfirm) {
				return wrongUsage(c, fmt.Errorf("--confirm %s is not above 0 and at most %s", o.confirm, api.MaxConfirm))
			}
			return e.apply(c.Context(), o)
		},
	}
	o.command(e, c)
	c.Flags().BoolVar(&o.asJSON, "json", false, "print JSON: an array of one result, with --dry-run of one plan")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show the plan and change nothing")
	c.Flags().BoolVar(&o.allowEmpty, "allow-empty", false, "let services lose their last real server, or the director its last service")
	c.Flags().Uint64Var(&o.generation, "if-generation", 0, "refuse unless the tables are of this generation, as plan and status show it")
	c.Flags().DurationVar(&o.confirm, "confirm", 0, "go back after this time unless lvx confirm is called")
	return c
}

func (e *Env) apply(ctx context.Context, o applyOptions) error {
	wanted, err := o.wanted(e)
	if err != nil {
		return err
	}
	client := e.client()
	defer client.Close()
	plan, err := client.Plan(ctx, wanted)
	if err != nil {
		return err
	}
	if !o.asJSON || o.dryRun {
		if err := e.showPlan(plan, o.asJSON); err != nil {
			return err
		}
	}
	if o.generation != 0 && o.generation != plan.Generation {
		err := fmt.Errorf("generation %d is wanted and %d is there: %w", o.generation, plan.Generation, lvs.ErrGeneration)
		return e.refusedApply(ctx, client, o, err)
	}
	if o.dryRun {
		return nil
	}
	applied, err := e.configure(ctx, client, wanted, api.ConfigureQuery{
		What: o.what(), Generation: plan.Generation, AllowEmpty: o.allowEmpty, Confirm: o.confirm, Wait: resolveWait,
	})
	if err != nil {
		return e.refusedApply(ctx, client, o, err)
	}
	if o.asJSON {
		return e.showApplied(applied, true)
	}
	applied.Warnings = slices.DeleteFunc(applied.Warnings, func(w lvs.Warning) bool { return slices.Contains(plan.Warnings, w) })
	if err := e.showApplied(applied, false); err != nil || !applied.Changed || applied.Unconfirmed != nil {
		return err
	}
	_, err = fmt.Fprintln(e.Out, "undo it with: lvx rollback")
	return err
}

// configure applies and shows how far it has come.
func (e *Env) configure(ctx context.Context, client *api.Client, wanted lvs.Configuration, q api.ConfigureQuery) (api.Applied, error) {
	if !e.ErrTerminal {
		return client.Configure(ctx, wanted, q, nil)
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT)
	defer stop()
	bar := progressBar{env: e}
	applied, err := client.Configure(ctx, wanted, q, bar.show)
	bar.end()
	if err != nil && ctx.Err() != nil {
		return applied, errors.New("interrupted: the director ends by itself what it has begun; what came of it is in: lvx history")
	}
	return applied, err
}

// progressBar shows on a terminal how far an apply has come: a line for each step,
// or of many steps one line that moves.
type progressBar struct {
	env     *Env
	percent int
	began   bool
	moving  bool // the cursor stands in the line
}

// manySteps are too many for a line each.
const manySteps = 100

func (b *progressBar) show(p lvs.Progress) {
	if !b.began {
		b.began = true
		fmt.Fprintln(b.env.Err, "Ctrl-C is safe: it ends the waiting, not the apply")
	}
	if p.Total <= manySteps {
		fmt.Fprintf(b.env.Err, "… %d of %d: %s\n", p.Done, p.Total, printable(p.Step))
		return
	}
	if percent := 100 * p.Done / p.Total; percent != b.percent || !b.moving {
		b.percent, b.moving = percent, true
		fmt.Fprintf(b.env.Err, "\r… %s of %s steps, %d %%", grouped(uint64(p.Done)), grouped(uint64(p.Total)), percent)
	}
}

func (b *progressBar) end() {
	if b.moving {
		fmt.Fprintln(b.env.Err)
	}
}

// refusedApply adds to an error what the one who applies can do about it.
func (e *Env) refusedApply(ctx context.Context, client *api.Client, o applyOptions, err error) error {
	switch {
	case errors.Is(err, lvs.ErrGeneration):
		text := err.Error()
		if last := lastChange(ctx, client); last != "" {
			text += ", by " + last
		}
		return &ExitError{Code: ExitFailed, Message: text + "; look again with: lvx plan " + o.path}
	case errors.Is(err, lvs.ErrEmptied):
		return fmt.Errorf("%w; if that is meant: lvx apply %s --allow-empty", err, o.path)
	}
	return err
}

// lastChange tells who changed the tables last, and what, or "" if that is not known.
func lastChange(ctx context.Context, client *api.Client) string {
	const enough = 20 // refused attempts are in the history too
	entries, err := client.History(ctx, enough)
	if err != nil {
		return ""
	}
	for _, h := range slices.Backward(entries) {
		if h.Result == lvs.Done {
			return printable(h.Who + " at " + moment(h.Time) + " with " + h.What)
		}
	}
	return ""
}

// showApplied tells what was done, and how to keep it or to take it back.
func (e *Env) showApplied(a api.Applied, asJSON bool) error {
	if asJSON {
		return printJSON(e.Out, []api.Applied{a})
	}
	var page strings.Builder
	e.tellWarnings(&page, "", "warning: ", a.Warnings)
	done := e.paint(green, "done")
	if !a.Changed {
		done = "nothing was different"
	}
	fmt.Fprintln(&page, done+": "+place(a))
	if u := a.Unconfirmed; u != nil {
		fmt.Fprintln(&page, e.paint(yellow, e.waits(*u)))
	}
	_, err := fmt.Fprint(e.Out, page.String())
	return err
}

// place returns for instance "generation 18, revision 5".
func place(a api.Applied) string {
	text := fmt.Sprintf("generation %d", a.Generation)
	if a.Revision != 0 {
		text += fmt.Sprintf(", revision %d", a.Revision)
	}
	return text
}

// waits says until when an apply has to be confirmed.
func (e *Env) waits(u lvs.Unconfirmed) string {
	left := max(u.Deadline.Sub(e.clock()), 0).Round(time.Second)
	return fmt.Sprintf("revision %d is unconfirmed: at %s, in %s, the director goes back to revision %d\n"+
		"keep it with: lvx confirm, or take it back now with: lvx rollback", u.Revision, moment(u.Deadline), left, u.Back)
}
