// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"lvx/api"
	"lvx/internal/lvs"
)

// contract holds requests and answers against openapi.yaml.
type contract struct {
	t        *testing.T
	next     http.Handler
	schemas  *jsonschema.Compiler
	document map[string]any

	mu   sync.Mutex
	seen map[string]bool // "METHOD PATH STATUS"
}

func newContract(t *testing.T, next http.Handler) *contract {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(api.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{t: t, next: next, schemas: jsonschema.NewCompiler(), document: document.(map[string]any), seen: map[string]bool{}}
	c.schemas.AssertFormat()
	if err := c.schemas.AddResource("openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return c
}

// ServeHTTP lets the server answer and checks what went by.
func (c *contract) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if accepts(r, api.TypeEvents) { // which may not end
		c.next.ServeHTTP(w, r)
		return
	}
	request, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(request))
	answer := httptest.NewRecorder()
	c.next.ServeHTTP(answer, r)
	c.check(r, request, answer)
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (c *contract) check(r *http.Request, request []byte, answer *httptest.ResponseRecorder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := r.URL.Path
	if number := strings.TrimPrefix(path, api.PathRevisions+"/"); number != path {
		path = api.PathRevisions + "/{revision}"
	}
	what := fmt.Sprintf("%s %s %d", r.Method, path, answer.Code)
	c.seen[what] = true
	at := []string{"paths", path, strings.ToLower(r.Method)}
	operation, described := dig(c.document, at...).(map[string]any)
	if !described {
		c.t.Errorf("%s is not in the description", what)
		return
	}
	for name := range r.URL.Query() {
		if !hasParameter(operation, name) {
			c.t.Errorf("%s: the description has no parameter %s", what, name)
		}
	}
	good := answer.Code/100 == 2
	if len(request) > 0 && good {
		c.validate(what+" request", request, append(at, "requestBody", "content", "application/json")...)
	}
	media, _, _ := strings.Cut(answer.Header().Get("Content-Type"), ";")
	at = append(at, "responses", strconv.Itoa(answer.Code), "content", media)
	switch media {
	case api.TypeJSON:
		c.validate(what, answer.Body.Bytes(), at...)
	case api.TypeLines:
		for line := range bytes.Lines(answer.Body.Bytes()) {
			c.validate(what, line, at...)
		}
	default:
		if dig(c.document, at...) == nil {
			c.t.Errorf("%s: the description does not know %s", what, media)
		}
	}
}

// validate checks a text against the schema of a media type.
func (c *contract) validate(what string, text []byte, at ...string) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		c.t.Errorf("%s: %v in %s", what, err, text)
		return
	}
	pointer := ""
	for _, step := range append(at, "schema") {
		pointer += "/" + strings.ReplaceAll(strings.ReplaceAll(step, "~", "~0"), "/", "~1")
	}
	schema, err := c.schemas.Compile("openapi.json#" + pointer)
	if err == nil {
		err = schema.Validate(value)
	}
	if err != nil {
		c.t.Errorf("%s: %v\n%s", what, err, text)
	}
}

func dig(value any, steps ...string) any {
	for _, step := range steps {
		object, is := value.(map[string]any)
		if !is {
			return nil
		}
		value = object[step]
	}
	return value
}

func hasParameter(operation map[string]any, name string) bool {
	all, _ := operation["parameters"].([]any)
	for _, one := range all {
		if dig(one, "name") == name {
			return true
		}
	}
	return false
}

// full is a director that has something of everything.
func full() *fake {
	warning := lvs.Warning{Object: "real server", Text: "it does not answer", Fix: "look"}
	difference := lvs.Difference{
		Action: lvs.Modify, Object: "service tcp 192.0.2.1:80", Service: webKey, RealServer: "198.51.100.5:80",
		Fields: []lvs.Field{{Name: "weight", Old: "1", New: "2"}}, Counts: lvs.Counts{Active: 1}, Effect: "they stay",
	}
	unconfirmed := &lvs.Unconfirmed{Deadline: morning, Revision: 5, Back: 4}
	plan := lvs.Plan{Generation: 42, Changes: []lvs.Difference{difference, {Action: lvs.Add, Object: "timeouts"}}, Warnings: []lvs.Warning{warning}, Emptied: []lvs.ServiceKey{webKey}}
	f := &fake{
		services: []lvs.ServiceStatus{web}, connections: 3, now: small, planned: plan,
		history:   []lvs.HistoryEntry{{Time: morning, Generation: 41, Who: "a", What: "b", Result: lvs.Done, Revision: 3}},
		revisions: []lvs.Revision{{Number: 7, Generation: 42, Time: morning, Who: "a", What: "b", Configuration: small}},
		done: lvs.Applied{
			Generation: 43, Changed: true, Plan: &plan, Revision: 5, Warnings: []lvs.Warning{warning},
			Refused: []lvs.Refused{{Index: 1, Err: lvs.ErrNoService}}, Unconfirmed: unconfirmed,
		},
		during: func(r lvs.Request) {
			if r.Progress != nil {
				r.Progress(lvs.Progress{Done: 1, Total: 1, Step: "add service"})
			}
		},
	}
	f.status = lvs.Status{
		Started: morning, Generation: 42, Unconfirmed: unconfirmed, Timeouts: small.Timeouts, Warnings: []lvs.Warning{warning},
		Interfaces: []lvs.Interface{{Name: "eth0", Mode: lvs.XDPGeneric, Why: "veth", OffloadsOff: []string{"rx-gro-hw"}}},
	}
	f.reasons = []lvs.Reason{{Name: "NO_NEIGHBOUR", Verdict: lvs.Dropped, Packets: 1 << 63, Help: "look"}}
	f.neighbours = []lvs.Neighbour{{Address: netip.MustParseAddr("2001:db8::5"), NextHop: web.RealServers[0].NextHop, MTU: 1500, RealServers: 2}}
	f.happen(lvs.EventRolledBack, "x")
	return f
}

// What the client sends and what the server answers is what openapi.yaml says.
func TestContract(t *testing.T) {
	f := full()
	held := newContract(t, New(Options{Director: f, Log: quiet(), MayWrite: anyone}).Handler())
	path := filepath.Join(t.TempDir(), "s")
	serveHandler(t, path, held)
	askEverything(t, path)
	for _, err := range []error{
		lvs.ErrServiceExists, lvs.ErrNoService, lvs.ErrServerExists, lvs.ErrNoServer, lvs.ErrNoScheduler, lvs.ErrInvalid, lvs.ErrUnsupported,
		lvs.ErrFull, lvs.ErrGeneration, lvs.ErrUnconfirmed, errors.New("the map is gone"),
	} {
		f.err = err
		_ = asked(t, path, question{method: "POST", path: api.PathChanges, body: `{"changes":[]}`})
	}
	for _, err := range []error{lvs.ErrEmptied, lvs.ErrFull, lvs.ErrUnconfirmed} {
		f.err = err
		_ = asked(t, path, question{method: "PUT", path: api.PathConfiguration, body: `{"services":[]}`})
		_ = asked(t, path, question{method: "PUT", path: api.PathConfiguration, body: `{"services":[]}`, header: map[string]string{"Accept": api.TypeLines}})
	}
	f.err = nil
	_ = asked(t, path, question{method: "GET", path: api.PathServices + "?service=web"})
	_ = asked(t, path, question{method: "GET", path: api.PathRevisions + "/8"})
	_ = asked(t, path, question{method: "POST", path: api.PathPlan, body: `{}{}`})
	_ = asked(t, path, question{method: "POST", path: api.PathPlan, body: `{}`, header: map[string]string{"Content-Type": "text/plain"}})
	// Everything that is described was asked for.
	for path, methods := range held.document["paths"].(map[string]any) {
		for method := range methods.(map[string]any) {
			if what := strings.ToUpper(method) + " " + path + " 200"; !held.seen[what] {
				t.Errorf("%s was not seen", what)
			}
		}
	}
}

// askEverything calls everything that the client has, with all that can be said.
func askEverything(t *testing.T, path string) {
	t.Helper()
	client := api.NewClient(path)
	defer client.Close()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(client.Services(ctx))
	must(client.RealServers(ctx))
	must(client.Neighbours(ctx))
	must(client.Reasons(ctx))
	must(client.Status(ctx))
	must(client.History(ctx, 5))
	must(client.Revisions(ctx))
	must(nil, client.Connections(ctx, api.ConnectionQuery{}, func(lvs.Connection) error { return nil }))
	query := api.ConnectionQuery{Client: "10.0.0.0/8", RealServer: "198.51.100.5", Service: "tcp/192.0.2.1:80", State: "ESTABLISHED", Limit: 2}
	must(nil, client.Connections(ctx, query, func(lvs.Connection) error { return nil }))
	must(nil, client.Events(ctx, 0, func(lvs.Event) error { return nil }))
	now, generation, err := client.Configuration(ctx)
	must(nil, err)
	must(client.Plan(ctx, now))
	must(client.Plan(ctx, lvs.Configuration{}))
	all := api.ConfigureQuery{What: "test", Generation: generation, AllowEmpty: true, Confirm: time.Minute, Wait: time.Second}
	must(client.Configure(ctx, now, all, nil))
	must(client.Configure(ctx, now, all, func(lvs.Progress) {}))
	must(client.Confirm(ctx, 0))
	must(client.Rollback(ctx, 0, 0))
	must(client.Rollback(ctx, 7, generation))
	must(client.Apply(ctx, api.Changes{}))
	server := small.Services[0].RealServers[0]
	must(client.Apply(ctx, api.Changes{Generation: generation, Wait: lvs.Duration(time.Second), KeepGoing: true, DryRun: true, Changes: []lvs.Change{
		{Operation: lvs.AddService, Service: webKey, Scheduler: lvs.MH, Flags: "mh-fallback,mh-port"},
		{Operation: lvs.AddServer, Service: webKey, RealServer: server},
		{Operation: lvs.SetTimeouts, Timeouts: small.Timeouts},
		{Operation: lvs.Zero},
	}}))
	for _, p := range []string{"/openapi.yaml", "/openapi.json", api.PathMetrics, api.PathRevisions + "/7"} {
		if text := asked(t, path, question{method: "GET", path: p}); !strings.HasPrefix(text, "200 ") {
			t.Errorf("%s: %s", p, text)
		}
	}
}
