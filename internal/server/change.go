// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// Condition is a parameter of changes. It is exported for huma to see it where it is
// embedded.
type Condition struct {
	IfMatch string `header:"If-Match" doc:"The ETag of the configuration that the change is for: with another one nothing is changed. None, or *, is any." example:"\"42\""`
}

// generation returns the generation meant; 0 is any.
func (c Condition) generation() (uint64, error) {
	if c.IfMatch == "" || c.IfMatch == "*" {
		return 0, nil
	}
	text, quoted := strings.CutPrefix(c.IfMatch, `"`)
	text, closed := strings.CutSuffix(text, `"`)
	number, err := strconv.ParseUint(text, 10, 64)
	switch {
	case !quoted || !closed || err != nil:
		return 0, refuse("bad_request", `header If-Match %q: it is not a generation in quotes, as in "42"`, c.IfMatch)
	case number == 0:
		return 0, fmt.Errorf("the change is for generation 0, and they begin with 1: %w", lvs.ErrGeneration)
	}
	return number, nil
}

type changesIn struct {
	Condition
	Body api.Changes
}

type rollbackIn struct {
	Condition
	Body *api.Rollback
}

// Codes that changes may be refused with.
var (
	changeCodes    = []string{"invalid", "no_scheduler", "no_service", "no_server", "service_exists", "server_exists", "unconfirmed", "generation", "unsupported", "full"}
	configureCodes = []string{"invalid", "no_scheduler", "service_exists", "server_exists", "unconfirmed", "emptied", "generation", "unsupported", "full"}
)

// changing adds what changes something, but for whole configurations.
func (b *book) changing() {
	add(b, route{
		id: "change", method: http.MethodPost, path: api.PathChanges, changes: true, body: maxBody, codes: changeCodes,
		summary: "Make changes, all of them or none",
		text: `One after the other. With keep_going those that can be made are made, and the others listed as refused. A dry run changes
nothing and answers with the plan.`,
	}, b.change)
	add(b, route{
		id: "confirm", method: http.MethodPost, path: api.PathConfirm, changes: true, codes: []string{"nothing_waits", "generation"},
		summary: "Confirm the apply that waits for it", text: "Else it goes back by itself at its deadline.",
	}, func(ctx context.Context, in *struct{ Condition }) (*body[api.Applied], error) {
		generation, err := in.generation()
		if err != nil {
			return nil, err
		}
		return b.changed(ctx, lvs.Request{Generation: generation}, func(_ context.Context, r lvs.Request) (lvs.Applied, error) { return b.Director.Confirm(r) })
	})
	add(b, route{
		id: "rollback", method: http.MethodPost, path: api.PathRollback, changes: true, body: maxSmall,
		codes:   append([]string{"no_revision"}, configureCodes...),
		summary: "Go back to a revision", text: "Without one, to that before the present.",
	}, b.rollback)
}

func (s *Server) change(ctx context.Context, in *changesIn) (*body[api.Applied], error) {
	generation, err := in.generation()
	if err != nil {
		return nil, err
	}
	wait := time.Duration(in.Body.Wait)
	if err := within("wait_seconds", wait, api.MaxWait); err != nil {
		return nil, err
	}
	request := lvs.Request{Generation: generation, Wait: wait, KeepGoing: in.Body.KeepGoing, DryRun: in.Body.DryRun}
	return s.changed(ctx, request, func(ctx context.Context, r lvs.Request) (lvs.Applied, error) {
		return s.Director.Apply(ctx, in.Body.Changes, r)
	})
}

func (s *Server) rollback(ctx context.Context, in *rollbackIn) (*body[api.Applied], error) {
	generation, err := in.generation()
	if err != nil {
		return nil, err
	}
	var revision uint64
	if in.Body != nil {
		revision = in.Body.Revision
	}
	return s.changed(ctx, lvs.Request{Generation: generation}, func(ctx context.Context, r lvs.Request) (lvs.Applied, error) {
		return s.Director.Rollback(ctx, revision, r)
	})
}

// changed lets the director work for as long as it takes, even if the client goes
// away: a change is finished, not cut in the middle.
func (s *Server) changed(ctx context.Context, request lvs.Request, change func(context.Context, lvs.Request) (lvs.Applied, error)) (*body[api.Applied], error) {
	v := visitOf(ctx)
	request.Who = v.peer.String()
	v.waitLong()
	applied, err := change(context.WithoutCancel(ctx), request)
	v.answerSoon()
	return &body[api.Applied]{wholeApplied(applied)}, err
}

// wholeApplied is api.NewApplied with lists in a plan, too.
func wholeApplied(a lvs.Applied) api.Applied {
	answer := api.NewApplied(a)
	if a.Plan != nil {
		plan := wholePlan(*a.Plan)
		answer.Plan = &plan
	}
	return answer
}

func wholePlan(p lvs.Plan) lvs.Plan {
	p.Changes, p.Warnings = list(p.Changes), list(p.Warnings)
	return p
}

// within refuses a time that is not between 0 and most.
func within(name string, d, most time.Duration) error {
	if d < 0 || d > most {
		return fmt.Errorf("%s is not between 0 and %g: %w", name, most.Seconds(), lvs.ErrInvalid)
	}
	return nil
}
