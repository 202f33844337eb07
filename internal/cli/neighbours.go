// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

// nextHopStates are those that --state knows.
var nextHopStates = []lvs.NextHopState{
	lvs.NextHopReady, lvs.NextHopUnresolved, lvs.NextHopOffLink, lvs.NextHopNoRoute, lvs.NextHopLocal,
}

func (e *Env) neighboursCommand() *cobra.Command {
	var asJSON bool
	var state string
	c := &cobra.Command{
		Use:   "neighbours",
		Short: "The next hops: where the frames for each real server's address go",
		Long: "Lists the addresses of the real servers, each once, with the interface and MAC\naddress by which it is reached.\n\n" +
			"A neighbour is ready; unresolved, if it, or the router before it, does not answer\nARP or neighbour solicitation; off-link, behind a router, where dr cannot reach\nit; no-route; or local, the director itself. MTU is that of an IP packet, in\nbytes.",
		Example: "  lvx neighbours\n  lvx neighbours --state unresolved --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			wanted := lvs.NextHopState(state)
			if state != "" && !slices.Contains(nextHopStates, wanted) {
				return wrongUsage(c, notOneOf("--state", state, nextHopStates))
			}
			return e.neighbours(c.Context(), wanted, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of neighbours")
	c.Flags().StringVar(&state, "state", "", "only those in this state, for instance unresolved")
	e.complete(c, "state", completeWords(nextHopStates...))
	return c
}

func (e *Env) neighbours(ctx context.Context, state lvs.NextHopState, asJSON bool) error {
	client := e.client()
	defer client.Close()
	all, err := client.Neighbours(ctx)
	if err != nil {
		return err
	}
	shown := []lvs.Neighbour{}
	for _, n := range all {
		if state == "" || n.State == state {
			shown = append(shown, n)
		}
	}
	if asJSON {
		return printJSON(e.Out, shown)
	}
	t := e.newTable("ADDRESS", "STATE", "INTERFACE", "MAC", "VLAN", "MTU", "REAL SERVERS")
	for _, n := range shown {
		if err := t.add(
			word(n.Address.String()), coloured(nextHopColour(n.NextHop, lvs.DR), string(n.State)), name(n.Interface), name(n.MAC),
			numberOrNone(n.VLAN), numberOrNone(n.MTU), number(uint64(n.RealServers)),
		); err != nil {
			return err
		}
	}
	return t.flush()
}

// numberOrNone shows 0 as no number.
func numberOrNone(n uint16) cell {
	if n == 0 {
		return cell{text: "-", right: true}
	}
	return number(n)
}
