// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"lvx/internal/lvs"
)

// Changes asks for changes that are made together or not at all.
type Changes struct {
	Changes []lvs.Change `json:"changes"`
	// Wait is how long to wait, after the changes, for the next hops of the
	// real servers to be found, so that the first connection does not fail.
	// 0 does not wait. At most 5 seconds (MaxWait).
	Wait lvs.Duration `json:"wait_seconds,omitzero"`
	// KeepGoing makes every change that can be made; the others are in
	// the answer, as refused. Without it one that cannot be made refuses all.
	KeepGoing bool `json:"keep_going,omitempty"`
	// DryRun changes nothing: the answer's plan says what would be done.
	DryRun bool `json:"dry_run,omitempty"`
	// Generation of the tables that the changes are for; 0 is any. It goes into
	// the header If-Match.
	Generation uint64 `json:"-"`
}

// Limits of what may be asked for.
const (
	MaxWait    = 5 * time.Second // of Changes.Wait and ConfigureQuery.Wait
	MaxConfirm = time.Hour       // of ConfigureQuery.Confirm
)

// Applied tells what an apply, a rollback or a change did: lvs.Applied, with the
// refusals in a form that JSON carries.
type Applied struct {
	Generation uint64 `json:"generation"` // of the tables as they are now
	// Changed tells whether anything was different.
	Changed bool `json:"changed"`
	// Plan is what a dry run would have done.
	Plan     *lvs.Plan `json:"plan,omitempty"`
	Revision uint64    `json:"revision,omitempty"` // that was kept; 0 for imperative changes
	// Warnings name what is legal but will not work as it stands.
	Warnings []Warning `json:"warnings"`
	// Refused are the changes that were not made, if the others were to be made.
	Refused []Refused `json:"refused,omitempty"`
	// Unconfirmed is set if the apply goes back by itself unless it is confirmed.
	Unconfirmed *lvs.Unconfirmed `json:"unconfirmed,omitempty"`
}

// NewApplied returns the answer for what was done. Its lists are never nil.
func NewApplied(a lvs.Applied) Applied {
	answer := Applied{
		Generation: a.Generation, Changed: a.Changed, Plan: a.Plan, Revision: a.Revision,
		Warnings: append([]Warning{}, a.Warnings...), Unconfirmed: a.Unconfirmed,
	}
	for _, r := range a.Refused {
		body, _ := NewError(r.Err)
		answer.Refused = append(answer.Refused, Refused{Index: r.Index, Code: body.Code, Message: body.Message})
	}
	return answer
}

// Rollback asks to go back to a revision.
type Rollback struct {
	Revision uint64 `json:"revision,omitempty"` // 0 is the one before the present
}

// Apply makes all changes or, with an error, none; with KeepGoing those that can
// be made.
func (c *Client) Apply(ctx context.Context, changes Changes) (Applied, error) {
	changes.Changes = append([]lvs.Change{}, changes.Changes...) // JSON would write none as null
	r := request{method: http.MethodPost, path: PathChanges, body: changes, generation: changes.Generation}
	return ask[Applied](ctx, c, r)
}

// Confirm makes the apply that waits to be confirmed last, if the tables are those of
// the generation; 0 is any.
//
// Returns lvs.ErrNothingWaits if there is none.
func (c *Client) Confirm(ctx context.Context, generation uint64) (Applied, error) {
	return ask[Applied](ctx, c, request{method: http.MethodPost, path: PathConfirm, generation: generation})
}

// Rollback goes back to a revision, or with 0 to the one before the present, if
// the tables are those of the generation; 0 is any.
func (c *Client) Rollback(ctx context.Context, revision, generation uint64) (Applied, error) {
	r := request{method: http.MethodPost, path: PathRollback, body: Rollback{Revision: revision}, generation: generation}
	return ask[Applied](ctx, c, r)
}
