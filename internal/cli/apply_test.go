// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// small is a plan with one change.
func small() lvs.Plan {
	p := plan()
	return lvs.Plan{Generation: 17, Changes: p.Changes[:1], Warnings: p.Warnings}
}

const printedSmall = `+ service tcp 192.168.20.100:80: scheduler wlc, scheduler_flags none
warning: settings: interfaces wait for the next start
  to mend it: systemctl restart lvx
1 to add; touches 0 live connections
`

// configuring answers an apply, and checks that it is the one of testdata/web.yaml
// with this query.
func configuring(t *testing.T, query string, a api.Applied) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{"PUT " + api.PathConfiguration: func(w http.ResponseWriter, r *http.Request) {
		wantConfiguration(t, r)
		path, err := filepath.Abs(web)
		if err != nil {
			t.Error(err)
		}
		asked := r.URL.Query()
		if what := asked.Get("what"); what != "apply "+path {
			t.Errorf("called %q in the audit log", what)
		}
		asked.Del("what")
		if got := r.Header.Get("If-Match") + "?" + asked.Encode(); got != query {
			t.Errorf("asked with %s, want %s", got, query)
		}
		value(a)(w, r)
	}}
}

func TestApplyShowsThePlanAndMakesIt(t *testing.T) {
	done := api.Applied{Generation: 18, Changed: true, Revision: 5, Warnings: []lvs.Warning{
		small().Warnings[0], // the plan told it
		{Object: "real server 192.168.20.11:80 of tcp 192.168.20.100:80", Text: "it does not answer ARP", Fix: "look whether it runs"},
	}}
	const told = "warning: real server 192.168.20.11:80 of tcp 192.168.20.100:80: it does not answer ARP\n  to mend it: look whether it runs\n" +
		"done: generation 18, revision 5\n"
	socket := planning(t, small(), configuring(t, `"17"?wait_seconds=0.3`, done))
	want(t, run(socket, []string{"apply", web}), result{ExitDone, printedSmall + told + "undo it with: lvx rollback\n", ""})

	waiting := done
	waiting.Unconfirmed = &lvs.Unconfirmed{Deadline: noon.Add(time.Minute), Revision: 5, Back: 4}
	socket = planning(t, small(), configuring(t, `"17"?allow_empty=true&confirm_seconds=60&wait_seconds=0.3`, waiting))
	want(t, run(socket, strings.Fields("apply --confirm 60s --allow-empty --if-generation 17 "+web)), result{ExitDone, printedSmall + told +
		"revision 5 is unconfirmed: at 2026-11-21 12:01:00, in 1m0s, the director goes back to revision 4\n" +
		"keep it with: lvx confirm, or take it back now with: lvx rollback\n", ""})

	got := run(socket, strings.Fields("apply --confirm 60s --allow-empty --json "+web))
	var applied []api.Applied
	if err := json.Unmarshal([]byte(got.out), &applied); err != nil || len(applied) != 1 || applied[0].Revision != 5 || len(applied[0].Warnings) != 2 || got.err != "" {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestApplyOfWhatIsThere(t *testing.T) {
	socket := planning(t, lvs.Plan{Generation: 17}, configuring(t, `"17"?wait_seconds=0.3`, api.Applied{Generation: 17, Revision: 4}))
	want(t, run(socket, []string{"apply", web}), result{ExitDone, "nothing to do\nnothing was different: generation 17, revision 4\n", ""})
}

func TestApplyDryRunChangesNothing(t *testing.T) {
	socket := planning(t, small(), nil) // it would answer 405 to a PUT
	want(t, run(socket, []string{"apply", "--dry-run", web}), result{ExitDone, printedSmall, ""})
	if got := run(socket, []string{"apply", "--dry-run", "--json", web}); got.code != ExitDone || !strings.Contains(got.out, `"generation":17`) {
		t.Errorf("%+v", got)
	}
}

func TestRefusedApplyNamesTheNextStep(t *testing.T) {
	const meanwhile = ", by ann (uid 1000, pid 12) at 2026-11-21 11:00:00 with add-service tcp 192.0.2.1:81; look again with: lvx plan testdata/web.yaml"
	for _, c := range []struct {
		err  error
		text string
	}{
		{fmt.Errorf("generation 18: %w", lvs.ErrGeneration), "generation 18: the tables were changed meanwhile" + meanwhile},
		{fmt.Errorf("service tcp 192.0.2.1:80: %w", lvs.ErrEmptied), "service tcp 192.0.2.1:80: that has to be allowed; if that is meant: lvx apply testdata/web.yaml --allow-empty"},
		{lvs.ErrUnconfirmed, "an apply waits to be confirmed; keep it with: lvx confirm, or take it back with: lvx rollback"},
		{lvs.ErrFull, "the tables are full; how full they are is in: lvx status"},
		{fmt.Errorf("user 7 may read but not change: %w", api.ErrDenied), "user 7 may read but not change: permission denied; run it as root, or join the group lvx-admin"},
	} {
		socket := planning(t, small(), map[string]http.HandlerFunc{"PUT " + api.PathConfiguration: refusal(c.err)})
		want(t, run(socket, []string{"apply", web}), result{ExitFailed, printedSmall, "lvx: " + c.text + "\n"})
	}
	socket := planning(t, small(), nil)
	want(t, run(socket, []string{"apply", "--if-generation", "16", web}), result{ExitFailed, printedSmall,
		"lvx: generation 16 is wanted and 17 is there: the tables were changed meanwhile" + meanwhile + "\n"})
}

// Few steps have a line each, of many one line moves, a percent at a time.
func TestProgress(t *testing.T) {
	shown := func(total int) string {
		var out bytes.Buffer
		bar := progressBar{env: &Env{Err: &out}}
		for i := range total {
			bar.show(lvs.Progress{Done: i + 1, Total: total, Step: fmt.Sprintf("step %d", i+1)})
		}
		bar.end()
		return out.String()
	}
	if got := shown(2); got != "Ctrl-C is safe: it ends the waiting, not the apply\n… 1 of 2: step 1\n… 2 of 2: step 2\n" {
		t.Errorf("%q", got)
	}
	if got := shown(1000); strings.Count(got, "\r") != 101 || !strings.HasSuffix(got, "\r… 1,000 of 1,000 steps, 100 %\n") {
		t.Errorf("%q", got)
	}
}

func TestApplyOnATerminalShowsSteps(t *testing.T) {
	lines := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != api.TypeLines {
			t.Error("asked for no progress")
		}
		for _, line := range []api.ConfigureLine{
			{Progress: &lvs.Progress{Done: 1, Total: 1, Step: "add service tcp 192.168.20.100:80"}},
			{Applied: &api.Applied{Generation: 18, Changed: true, Revision: 5}},
		} {
			_ = json.NewEncoder(w).Encode(line)
		}
	}
	socket := planning(t, small(), map[string]http.HandlerFunc{"PUT " + api.PathConfiguration: lines})
	got := run(socket, []string{"apply", web}, "NO_COLOR", "1")
	want(t, got, result{ExitDone, printedSmall + "done: generation 18, revision 5\nundo it with: lvx rollback\n",
		"Ctrl-C is safe: it ends the waiting, not the apply\n… 1 of 1: add service tcp 192.168.20.100:80\n"})
}

// Ctrl-C ends the command, which says that the apply goes on.
func TestApplyIsInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	socket := planning(t, small(), map[string]http.HandlerFunc{"PUT " + api.PathConfiguration: func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else its end is not seen
		interrupt()
		<-r.Context().Done()
	}})
	env := &Env{Out: io.Discard, Err: io.Discard, ErrTerminal: true, Getenv: func(string) string { return "" }, socket: socket}
	err := env.apply(ctx, applyOptions{source: source{path: web}})
	if want := "interrupted: the director ends by itself what it has begun; what came of it is in: lvx history"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestConfirmAndRollback(t *testing.T) {
	back := func(w http.ResponseWriter, r *http.Request) {
		var asked api.Rollback
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		value(api.Applied{Generation: 19, Changed: true, Revision: 6 + asked.Revision})(w, r)
	}
	socket := answering(t, map[string]http.HandlerFunc{
		"POST " + api.PathConfirm:  value(api.Applied{Generation: 18, Revision: 5}),
		"POST " + api.PathRollback: back,
	})
	want(t, run(socket, []string{"confirm"}), result{ExitDone, "confirmed: generation 18, revision 5\n", ""})
	want(t, run(socket, []string{"rollback"}), result{ExitDone, "done: generation 19, revision 6\nwhat was before is in: lvx history --revisions\n", ""})
	want(t, run(socket, []string{"rollback", "4"}), result{ExitDone, "done: generation 19, revision 10\nwhat was before is in: lvx history --revisions\n", ""})
	for _, args := range []string{"confirm --json", "rollback --json"} {
		var applied []api.Applied
		if got := run(socket, strings.Fields(args)); json.Unmarshal([]byte(got.out), &applied) != nil || len(applied) != 1 {
			t.Errorf("%s: %+v", args, got)
		}
	}
	socket = answering(t, map[string]http.HandlerFunc{
		"POST " + api.PathConfirm: refusal(lvs.ErrNothingWaits), "POST " + api.PathRollback: refusal(fmt.Errorf("revision 9: %w", lvs.ErrNoRevision)),
	})
	want(t, run(socket, []string{"confirm"}), result{ExitFailed, "", "lvx: no apply waits to be confirmed; what was applied is in: lvx history\n"})
	want(t, run(socket, []string{"rollback", "9"}), result{ExitFailed, "", "lvx: revision 9: there is no such revision; list them with: lvx history --revisions\n"})
}
