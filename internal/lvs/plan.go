// SPDX-License-Identifier: Apache-2.0

package lvs

// Plan is what an apply would do, seen from the tables as they are now.
type Plan struct {
	// Generation of the tables that the plan was made for.
	Generation uint64       `json:"generation"`
	Changes    []Difference `json:"changes"` // none: nothing to do
	// Touched sums up the live connections of the real servers that it touches.
	Touched Counts `json:"touched"`
	// Warnings say what the operator should know: settings that wait for the next
	// start, connections that will be dropped, real servers that cannot be reached.
	Warnings []Warning `json:"warnings"`
	// Emptied are services that would have no real server left, or be gone with
	// all others: it takes AllowEmpty to apply.
	Emptied []ServiceKey `json:"emptied,omitempty"`
}

// Action is what happens to an object.
type Action string

// The actions.
const (
	Add    Action = "add"
	Modify Action = "change"
	Remove Action = "remove"
)

// Difference is one object that a plan touches.
type Difference struct {
	Action Action `json:"action"`
	// Object is for instance "service tcp 192.0.2.1:80" or "timeouts".
	Object string `json:"object"`
	// Service is the service that the object is or belongs to; zero for others.
	Service ServiceKey `json:"service,omitzero"`
	// RealServer is set if the object is one.
	RealServer string  `json:"real_server,omitempty"`
	Fields     []Field `json:"fields,omitempty"` // what of it changes
	Counts     Counts  `json:"connections"`      // live connections that it touches
	Effect     string  `json:"effect,omitempty"` // what will happen to them
}

// Field is a property that changes.
type Field struct {
	Name string `json:"name"` // as in the file
	Old  string `json:"old"`
	New  string `json:"new"`
}

// Progress tells how far an apply has come.
type Progress struct {
	Done  int    `json:"done"`
	Total int    `json:"total"`
	Step  string `json:"step"` // the one just taken, for instance "add service tcp 192.0.2.1:80"
}

// Applied tells what an apply, a rollback or a change did.
type Applied struct {
	Generation uint64 `json:"generation"` // of the tables as they are now
	// Changed tells whether anything was different.
	Changed bool `json:"changed"`
	// Plan is what a dry run would have done.
	Plan     *Plan     `json:"plan,omitempty"`
	Revision uint64    `json:"revision,omitempty"` // that was kept; 0 for imperative changes
	Warnings []Warning `json:"warnings"`
	// Refused are the changes that were not made, if the others were to be made.
	Refused []Refused `json:"refused,omitempty"`
	// Unconfirmed is set if the apply goes back by itself unless it is confirmed.
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`
}

// Refused is a change that was not made, with the reason.
type Refused struct {
	Index int   `json:"index"` // in the list of changes, from 0
	Err   error `json:"-"`
}
