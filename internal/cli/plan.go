// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

// exitChanges is the exit code of a plan that has something to do.
const exitChanges = 2

func (e *Env) planCommand() *cobra.Command {
	var s source
	var asJSON bool
	c := &cobra.Command{
		Use:   "plan FILE",
		Short: "Show what applying a file would do, and to which connections",
		Long: "Compares a file with the tables as they are, not with the file before: what\nsomebody changed with ipvsadm since is shown as well. FILE may be -, standard\ninput.\n\n" +
			"Each object has a line: + is added, ~ changes, - is removed. Below it is how\nmany live connections it has, and what will become of them. Nothing is changed.\n\n" +
			"Exit: 0 if there is nothing to do, 2 if there are changes, 1 if something is\nwrong, wrong usage included.",
		Example:     "  lvx plan /etc/lvx/lvx.yaml\n  lvx export --revision 4 | lvx plan -\n  lvx plan lvx.yaml --json",
		Annotations: map[string]string{usageFails: ""},
		RunE: func(c *cobra.Command, args []string) error {
			s.path = args[0]
			p, err := e.planFile(c.Context(), s)
			if err != nil {
				return err
			}
			if err := e.showPlan(p, asJSON); err != nil {
				return err
			}
			if len(p.Changes) == 0 {
				return nil
			}
			if !asJSON && s.path != "-" {
				fmt.Fprintf(e.Out, "apply exactly this: lvx apply %s --if-generation %d\n", s.path, p.Generation)
			}
			return &ExitError{Code: exitChanges}
		},
	}
	s.command(e, c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of one plan")
	return c
}

// planFile returns what applying the file would do.
func (e *Env) planFile(ctx context.Context, s source) (lvs.Plan, error) {
	wanted, err := s.wanted(e)
	if err != nil {
		return lvs.Plan{}, err
	}
	client := e.client()
	defer client.Close()
	return client.Plan(ctx, wanted)
}

// showPlan prints a plan for people, or as an array of one.
func (e *Env) showPlan(p lvs.Plan, asJSON bool) error {
	if asJSON {
		return printJSON(e.Out, []lvs.Plan{p})
	}
	return e.printPlan(p)
}

// signs say what happens to an object.
var signs = map[lvs.Action]struct {
	sign   string
	colour colour
}{
	lvs.Add:    {"+", green},
	lvs.Modify: {"~", yellow},
	lvs.Remove: {"-", red},
}

// printPlan prints a plan for people: a line for each object, what it means for
// connections, what to know, and the sum.
func (e *Env) printPlan(p lvs.Plan) error {
	page := bufio.NewWriter(e.Out)
	for _, d := range p.Changes {
		s := signs[d.Action]
		fmt.Fprintln(page, e.paint(s.colour, printable(s.sign+" "+d.Object+fields(d))))
		if meaning := effect(d); meaning != "" {
			fmt.Fprintf(page, "    %s\n", printable(meaning))
		}
	}
	e.tellWarnings(page, "", "warning: ", append(emptied(p), p.Warnings...))
	fmt.Fprintln(page, e.paint(bold, summary(p)))
	return page.Flush()
}

// fields returns what is new, or what changes, of an object: ": scheduler rr → wlc".
func fields(d lvs.Difference) string {
	var parts []string
	for _, f := range d.Fields {
		switch d.Action {
		case lvs.Modify:
			parts = append(parts, fmt.Sprintf("%s %s → %s", f.Name, orNone(f.Old), orNone(f.New)))
		case lvs.Add:
			parts = append(parts, f.Name+" "+orNone(f.New))
		default:
			parts = append(parts, f.Name+" "+orNone(f.Old))
		}
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func total(c lvs.Counts) uint64 { return uint64(c.Active) + uint64(c.Inactive) }

// effect says what a change means for live connections. Of a real server that has
// none there is nothing to say.
func effect(d lvs.Difference) string {
	live := total(d.Counts)
	switch {
	case live == 0 && d.RealServer != "":
		return ""
	case live == 0:
		return d.Effect
	case d.Effect == "":
		return liveConnections(live)
	}
	return d.Effect + " (" + grouped(live) + " live)"
}

func liveConnections(n uint64) string { return counted(n, "live connection", "live connections") }

// emptied warns of what takes --allow-empty.
func emptied(p lvs.Plan) (list []lvs.Warning) {
	gone := map[lvs.ServiceKey]bool{}
	for _, d := range p.Changes {
		gone[d.Service] = gone[d.Service] || d.Action == lvs.Remove && d.RealServer == ""
	}
	for _, key := range p.Emptied {
		text := "it would have no real server left"
		if gone[key] {
			text = "it would be gone, with all others"
		}
		list = append(list, lvs.Warning{Object: "service " + key.String(), Text: text + ", which takes --allow-empty"})
	}
	return list
}

// summary returns for instance "1 to add, 2 to change; touches 1,234 live
// connections".
func summary(p lvs.Plan) string {
	if len(p.Changes) == 0 {
		return "nothing to do"
	}
	counts := map[lvs.Action]uint64{}
	for _, d := range p.Changes {
		counts[d.Action]++
	}
	var parts []string
	for _, action := range []lvs.Action{lvs.Add, lvs.Modify, lvs.Remove} {
		if n := counts[action]; n > 0 {
			parts = append(parts, grouped(n)+" to "+string(action))
		}
	}
	return strings.Join(parts, ", ") + "; touches " + liveConnections(total(p.Touched))
}
