// SPDX-License-Identifier: Apache-2.0

package lvs

import "time"

// HistoryEntry is one line of the audit log: a change that was asked for.
type HistoryEntry struct {
	Time time.Time `json:"time"`
	// Generation of the tables afterwards. A change that was refused leaves it.
	Generation uint64 `json:"generation"`
	Who        string `json:"who"`                // for instance "root (uid 0, pid 4711)"
	What       string `json:"what"`               // for instance "apply /etc/lvx/lvx.yaml" or "add-service tcp 192.0.2.1:80"
	Result     string `json:"result"`             // "done", or why not
	Revision   uint64 `json:"revision,omitempty"` // that can be gone back to
}

// Done is the result of a change that was made.
const Done = "done"

// EventType is the kind of thing that happened.
type EventType string

// The types of events.
const (
	EventStarted     EventType = "started"     // the daemon answers
	EventChanged     EventType = "changed"     // somebody changed the tables
	EventRefused     EventType = "refused"     // somebody's change was refused
	EventUnconfirmed EventType = "unconfirmed" // an apply waits to be confirmed
	EventConfirmed   EventType = "confirmed"
	EventRolledBack  EventType = "rolled-back"
	EventDrift       EventType = "drift"   // something was changed behind lvx's back, and repaired
	EventWarning     EventType = "warning" // something began to work less well
	EventCleared     EventType = "cleared" // a warning is over
)

// Event is something that happened to the director.
type Event struct {
	// ID counts up, also across restarts of the daemon: it begins with the Unix time
	// in milliseconds.
	ID     uint64    `json:"id"`
	Time   time.Time `json:"time"`
	Type   EventType `json:"type"`
	Object string    `json:"object"` // what it happened to
	Text   string    `json:"text"`   // one sentence
}
