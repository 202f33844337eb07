// SPDX-License-Identifier: Apache-2.0

package director

import (
	"slices"
	"sync"

	"lvx/internal/lvs"
)

// What notes are about.
const (
	noteFile    = "the file"
	noteKilled  = "the last change"
	noteUnnoted = "the state directory"
	noteGoBack  = "the apply that was not confirmed"
)

// notes are warnings about the director itself, one for each object. Safe for
// concurrent use.
type notes struct {
	mu   sync.Mutex
	list []lvs.Warning
}

func (n *notes) all() []lvs.Warning {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.list)
}

// set notes a warning and tells whether it is another than the one before.
func (n *notes) set(w lvs.Warning) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := slices.IndexFunc(n.list, func(o lvs.Warning) bool { return o.Object == w.Object })
	if at < 0 {
		n.list = append(n.list, w)
		return true
	}
	changed := n.list[at] != w
	n.list[at] = w
	return changed
}

// clear takes notes away and returns those that were there.
func (n *notes) clear(objects ...string) (gone []lvs.Warning) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = slices.DeleteFunc(n.list, func(w lvs.Warning) bool {
		over := slices.Contains(objects, w.Object)
		if over {
			gone = append(gone, w)
		}
		return over
	})
	return gone
}

// Note adds a warning to the status, in place of an older one about the same object,
// and tells of it as an event.
func (d *Director) Note(w lvs.Warning) {
	if d.notes.set(w) {
		d.Log.Warn("note", "object", w.Object, "text", w.Text)
		d.events.add(lvs.EventWarning, w.Object, w.Text)
	}
}

// NoteFile notes that the file was not applied.
func (d *Director) NoteFile(name string, err error) {
	d.Note(lvs.Warning{
		Object: noteFile, Text: name + " was not applied: " + err.Error(),
		Fix: "lvx check " + name + ", and then lvx apply " + name,
	})
}

// over takes notes away that are no longer true, and tells of it.
func (d *Director) over(objects ...string) {
	for _, w := range d.notes.clear(objects...) {
		d.events.add(lvs.EventCleared, w.Object, "no longer: "+w.Text)
	}
}
