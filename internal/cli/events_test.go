// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestEventsAreListed(t *testing.T) {
	socket := daemon(t, 0)
	want(t, run(socket, []string{"events"}), result{ExitDone, strings.TrimPrefix(`
ID  TIME                 TYPE     OBJECT                    WHAT HAPPENED
 1  2026-11-21 12:00:00  started  director                  the daemon answers
 2  2026-11-21 12:00:01  changed  service tcp 192.0.2.1:80  added by root
 3  2026-11-21 12:01:00  drift    map services              an entry was deleted, and is there again
`, "\n"), ""})
	want(t, run(socket, []string{"events", "--type", "drift,started"}), result{ExitDone, strings.TrimPrefix(`
ID  TIME                 TYPE     OBJECT        WHAT HAPPENED
 1  2026-11-21 12:00:00  started  director      the daemon answers
 3  2026-11-21 12:01:00  drift    map services  an entry was deleted, and is there again
`, "\n"), ""})
}

// restarting is a daemon that stops after two events, is away once, and is another
// one then, whose IDs begin anew. It ends the test after that.
func restarting(t *testing.T, enough func()) string {
	asked := 0
	started := []time.Time{noon, {}, noon.Add(time.Hour)}
	return answering(t, map[string]http.HandlerFunc{
		"GET " + api.PathStatus: func(w http.ResponseWriter, r *http.Request) {
			if asked++; asked == 2 {
				panic(http.ErrAbortHandler)
			}
			value(api.Status{Started: started[asked-1]})(w, r)
		},
		"GET " + api.PathEvents: func(w http.ResponseWriter, r *http.Request) {
			if after := r.FormValue("after"); after != map[int]string{1: "7"}[asked] {
				t.Errorf("daemon %d is asked for those after %q", asked, after)
			}
			for id := uint64(8); id < 10; id++ {
				text, _ := json.Marshal(lvs.Event{ID: id, Time: noon, Type: lvs.EventChanged, Object: fmt.Sprintf("daemon %d", asked), Text: "x"})
				fmt.Fprintf(w, "id: %d\nevent: changed\ndata: %s\n\n", id, text)
			}
			if asked == 3 {
				w.(http.Flusher).Flush()
				enough()
				<-r.Context().Done()
			}
		},
	})
}

func TestFollowGoesOnWithTheNextDaemon(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs strings.Builder
	seen, both := 0, make(chan struct{})
	env := &Env{Out: &out, Err: &errs, Getenv: func(string) string { return "" }}
	env.socket = restarting(t, func() { <-both; cancel() })
	sink := env.eventSink(eventQuery{follow: true})
	add := func(v lvs.Event) error {
		if seen++; seen == 4 {
			defer close(both)
		}
		return sink.add(v)
	}
	f := follower{env: env, client: env.client(), after: 7, add: add, pause: func(context.Context) {}}
	if err := f.run(ctx); err != nil {
		t.Fatal(err)
	}
	wanted := strings.TrimPrefix(`
           ID  TIME                 TYPE         OBJECT                        WHAT HAPPENED
            8  2026-11-21 12:00:00  changed      daemon 1                      x
            9  2026-11-21 12:00:00  changed      daemon 1                      x
            8  2026-11-21 12:00:00  changed      daemon 3                      x
            9  2026-11-21 12:00:00  changed      daemon 3                      x
`, "\n")
	want(t, result{0, out.String(), errs.String()}, result{0, wanted, "lvx: the daemon is away; waiting for it\nlvx: the daemon is back\n"})
}

func TestFollowEndsWhenItCannotGoOn(t *testing.T) {
	many := answering(t, map[string]http.HandlerFunc{"GET " + api.PathEvents: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(api.Error{Code: "too_many", Message: "there are 32 streams already"})
	}})
	want(t, run(many, []string{"events", "-f"}), result{ExitFailed, "", "lvx: there are 32 streams already\n"})

	broken := &Env{Out: failingWriter{}, Err: failingWriter{}, Getenv: func(string) string { return "" }}
	broken.socket = answering(t, map[string]http.HandlerFunc{"GET " + api.PathEvents: func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "data: {\"id\":1}\n\n")
	}})
	if err := broken.events(t.Context(), eventQuery{follow: true, asJSON: true}); err == nil || err.Error() != "nobody reads" {
		t.Errorf("%v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("nobody reads") }
