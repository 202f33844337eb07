// SPDX-License-Identifier: Apache-2.0

package director

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"lvx/internal/lvs"
)

// record notes what was asked for, by whom, and what became of it: in the audit
// log, in the daemon's log and as an event, of this kind if it was done.
func (d *Director) record(kind lvs.EventType, r lvs.Request, applied lvs.Applied, err error) {
	entry := lvs.HistoryEntry{
		Time: time.Now(), Generation: applied.Generation, Who: r.Who, What: r.What, Result: lvs.Done,
	}
	switch {
	case err != nil:
		entry.Result = err.Error()
		d.Log.Warn("change refused", "who", r.Who, "what", r.What, "err", err)
		d.events.add(lvs.EventRefused, r.What, err.Error())
	case kind == lvs.EventChanged && !applied.Changed:
		entry.Revision = applied.Revision
		entry.Result = "done, nothing was different"
	default:
		entry.Revision = applied.Revision
		d.Log.Info("done", "kind", kind, "who", r.Who, "what", r.What, "generation", applied.Generation)
		d.events.add(kind, r.What, "by "+r.Who)
	}
	if n := len(applied.Refused); n > 0 {
		entry.Result = fmt.Sprintf("done but for %d changes, the first: %s", n, applied.Refused[0].Err)
	}
	if err := d.Store.Record(entry); err != nil {
		d.Log.Error("write the audit log", "err", err)
	}
}

// Refuse notes that a change came no further than the caller, for instance because
// its file cannot be read.
func (d *Director) Refuse(r lvs.Request, err error) {
	d.record(lvs.EventChanged, r, lvs.Applied{Generation: d.view.Load().generation}, err)
}

// History returns the last lines of the audit log, the oldest first; all for 0.
func (d *Director) History(limit int) ([]lvs.HistoryEntry, error) { return d.Store.History(limit) }

// Revisions returns the configurations that can be gone back to, the oldest first.
func (d *Director) Revisions() ([]lvs.Revision, error) { return d.Store.Revisions() }

// Events returns the events after an ID that are still kept, and a channel that is
// closed when there is another.
func (d *Director) Events(after uint64) ([]lvs.Event, <-chan struct{}) { return d.events.after(after) }

// keptEvents bounds the event log.
const keptEvents = 1000

// eventLog keeps the last events. Safe for concurrent use.
type eventLog struct {
	mu   sync.Mutex
	list []lvs.Event
	next uint64        // ID
	more chan struct{} // closed with the next event; nil if nobody waits
}

func (l *eventLog) add(kind lvs.EventType, object, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, lvs.Event{ID: l.next, Time: time.Now(), Type: kind, Object: object, Text: text})
	l.next++
	if len(l.list) >= 2*keptEvents {
		l.list = slices.Clone(l.list[keptEvents:])
	}
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

func (l *eventLog) after(id uint64) ([]lvs.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	first := max(0, len(l.list)-keptEvents)
	for first < len(l.list) && l.list[first].ID <= id {
		first++
	}
	return slices.Clone(l.list[first:]), l.more
}
