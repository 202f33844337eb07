// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestApply(t *testing.T) {
	f := &fake{done: lvs.Applied{Generation: 43, Changed: true}}
	client := api.NewClient(start(t, f, anyone))
	defer client.Close()
	changes := []lvs.Change{{Operation: lvs.AddService, Service: webKey, Scheduler: lvs.MH, Flags: "mh-fallback,mh-port"}}
	applied, err := client.Apply(t.Context(), api.Changes{Changes: changes, Wait: lvs.Duration(2 * time.Second), KeepGoing: true, DryRun: true, Generation: 42})
	same(t, err, api.Applied{Generation: 43, Changed: true, Warnings: []api.Warning{}}, applied)
	same(t, nil, changes, f.changes)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	who := fmt.Sprintf("%s (uid %d, pid %d)", me.Username, os.Getuid(), os.Getpid())
	same(t, nil, lvs.Request{Who: who, Generation: 42, Wait: 2 * time.Second, KeepGoing: true, DryRun: true}, f.request)

	f.err = fmt.Errorf("service %s: %w", webKey, lvs.ErrServiceExists)
	if _, err = client.Apply(t.Context(), api.Changes{Changes: changes}); !errors.Is(err, lvs.ErrServiceExists) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}

// Of changes that keep going each refusal says which change it is, and why.
func TestRefusedChangesKeepTheirReason(t *testing.T) {
	f := &fake{done: lvs.Applied{Generation: 43, Refused: []lvs.Refused{
		{Index: 1, Err: fmt.Errorf("service %s: %w", webKey, lvs.ErrServiceExists)},
		{Index: 4, Err: errors.New("the map is gone")},
	}}}
	client := api.NewClient(start(t, f, anyone))
	defer client.Close()
	applied, err := client.Apply(t.Context(), api.Changes{Changes: []lvs.Change{}})
	same(t, err, []api.Refused{
		{Index: 1, Code: "service_exists", Message: "service tcp 192.0.2.1:80: the service exists already"},
		{Index: 4, Code: "internal", Message: "the map is gone"},
	}, applied.Refused)
	if !errors.Is(&applied.Refused[0], lvs.ErrServiceExists) || errors.Is(&applied.Refused[1], lvs.ErrServiceExists) {
		t.Error("a refusal lost its identity")
	}
}

func TestConfirmAndRollback(t *testing.T) {
	f := &fake{done: lvs.Applied{Generation: 44, Changed: true, Revision: 9}}
	path := start(t, f, anyone)
	client := api.NewClient(path)
	defer client.Close()
	applied, err := client.Confirm(t.Context(), 0)
	same(t, err, uint64(9), applied.Revision)
	applied, err = client.Rollback(t.Context(), 7, 42)
	same(t, err, uint64(44), applied.Generation)
	same(t, nil, "7 42", fmt.Sprint(f.revision, f.request.Generation))

	// Neither needs a body.
	for _, p := range []string{api.PathConfirm, api.PathRollback} {
		if text := asked(t, path, question{method: "POST", path: p}); !strings.HasPrefix(text, "200 ") {
			t.Errorf("%s: %s", p, text)
		}
	}
	same(t, nil, uint64(0), f.revision)

	f.err = lvs.ErrNothingWaits
	if _, err := client.Confirm(t.Context(), 0); !errors.Is(err, lvs.ErrNothingWaits) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}

func TestEveryErrorOfAChangeCrossesTheSocket(t *testing.T) {
	f := &fake{}
	path := start(t, f, anyone)
	client := api.NewClient(path)
	defer client.Close()
	for err, status := range map[error]int{
		lvs.ErrGeneration: 412, lvs.ErrUnconfirmed: 409, lvs.ErrNothingWaits: 409, lvs.ErrEmptied: 409, lvs.ErrNoRevision: 404,
		lvs.ErrServiceExists: 409, lvs.ErrNoService: 404, lvs.ErrServerExists: 409, lvs.ErrNoServer: 404, lvs.ErrNoScheduler: 400,
		lvs.ErrInvalid: 400, lvs.ErrUnsupported: 501, lvs.ErrFull: 507,
	} {
		f.err = fmt.Errorf("this: %w", err)
		if _, got := client.Rollback(t.Context(), 1, 0); !errors.Is(got, err) || got.Error() != f.err.Error() {
			t.Errorf("%v came as %v", err, got)
		}
		if response, _ := ask(t, path, question{method: "POST", path: api.PathRollback}); response.StatusCode != status {
			t.Errorf("%v has status %d", err, response.StatusCode)
		}
	}
}

func TestOnlyWritersChange(t *testing.T) {
	f := &fake{}
	path := start(t, f, func(p Peer) bool { return p.Known && p.PID == 0 })
	client := api.NewClient(path)
	defer client.Close()
	_, apply := client.Apply(t.Context(), api.Changes{Changes: []lvs.Change{{Operation: lvs.Clear}}})
	_, configure := client.Configure(t.Context(), lvs.Configuration{}, api.ConfigureQuery{}, nil)
	_, byLines := client.Configure(t.Context(), lvs.Configuration{}, api.ConfigureQuery{}, func(lvs.Progress) {})
	_, confirm := client.Confirm(t.Context(), 0)
	_, rollback := client.Rollback(t.Context(), 0, 0)
	for i, err := range []error{apply, configure, byLines, confirm, rollback} {
		if !errors.Is(err, api.ErrDenied) || !strings.Contains(err.Error(), "may read but not change; root and members of group lvx-admin may") {
			t.Errorf("%d: got %v", i, err)
		}
	}
	same(t, nil, lvs.Request{}, f.request)
	_, err := client.Plan(t.Context(), lvs.Configuration{}) // changes nothing
	same(t, err, nil, nil)
}
