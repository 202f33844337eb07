// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvx/internal/lvs"
)

// fake is a director whose answers the test sets.
type fake struct {
	services    []lvs.ServiceStatus
	connections int   // how many there are
	breakAt     int   // the listing fails before this one, if not 0
	err         error // of everything
	status      lvs.Status
	reasons     []lvs.Reason
	neighbours  []lvs.Neighbour
	now         lvs.Configuration
	history     []lvs.HistoryEntry
	revisions   []lvs.Revision
	planned     lvs.Plan
	done        lvs.Applied       // what a change did
	during      func(lvs.Request) // called while a change is made, if set

	mu     sync.Mutex
	events []lvs.Event
	more   chan struct{}

	// What was asked for last.
	changes  []lvs.Change
	wanted   lvs.Configuration
	request  lvs.Request
	revision uint64
}

func (f *fake) Services() ([]lvs.ServiceStatus, error) { return f.services, f.err }

func (f *fake) Connections(each func(lvs.Connection) error) error {
	for i := range f.connections {
		if f.breakAt != 0 && i == f.breakAt-1 {
			return errors.New("the map is gone")
		}
		if err := each(connection(i)); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Reasons() ([]lvs.Reason, error)           { return f.reasons, f.err }
func (f *fake) Neighbours() ([]lvs.Neighbour, error)     { return f.neighbours, f.err }
func (f *fake) Revisions() ([]lvs.Revision, error)       { return f.revisions, f.err }
func (f *fake) Plan(lvs.Configuration) (lvs.Plan, error) { return f.planned, f.err }

func (f *fake) Status() (lvs.Status, error) { return f.status, f.err }

func (f *fake) Configuration() (lvs.Configuration, uint64) { return f.now, 42 }

func (f *fake) History(limit int) ([]lvs.HistoryEntry, error) {
	if limit == 0 || limit > len(f.history) {
		limit = len(f.history)
	}
	return f.history[len(f.history)-limit:], f.err
}

func (f *fake) Events(after uint64) (kept []lvs.Event, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.more == nil {
		f.more = make(chan struct{})
	}
	for _, e := range f.events {
		if e.ID > after {
			kept = append(kept, e)
		}
	}
	return kept, f.more
}

// happen adds an event.
func (f *fake) happen(kind lvs.EventType, object string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := uint64(len(f.events) + 1)
	f.events = append(f.events, lvs.Event{ID: id, Time: morning, Type: kind, Object: object, Text: "it happened"})
	if f.more != nil {
		close(f.more)
	}
	f.more = make(chan struct{})
}

func (f *fake) Apply(ctx context.Context, changes []lvs.Change, r lvs.Request) (lvs.Applied, error) {
	f.changes = changes
	return f.change(ctx, r)
}

func (f *fake) Configure(ctx context.Context, wanted lvs.Configuration, r lvs.Request) (lvs.Applied, error) {
	f.wanted = wanted
	return f.change(ctx, r)
}

func (f *fake) Confirm(r lvs.Request) (lvs.Applied, error) { return f.change(context.Background(), r) }

func (f *fake) Rollback(ctx context.Context, revision uint64, r lvs.Request) (lvs.Applied, error) {
	f.revision = revision
	return f.change(ctx, r)
}

func (f *fake) change(ctx context.Context, r lvs.Request) (lvs.Applied, error) {
	f.request = r
	if f.during != nil {
		f.during(r)
	}
	if err := ctx.Err(); err != nil {
		return lvs.Applied{}, err
	}
	return f.done, f.err
}

var morning = time.Date(2026, 11, 21, 6, 30, 0, 0, time.UTC)

func connection(i int) lvs.Connection {
	return lvs.Connection{
		Protocol: lvs.TCP, State: lvs.StateEstablished,
		Client:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1024),
		Virtual:    netip.MustParseAddrPort("192.0.2.1:80"),
		RealServer: netip.MustParseAddrPort("198.51.100.5:80"),
		Expires:    lvs.Duration(900 * time.Second),
	}
}

var (
	webKey  = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}
	mailKey = lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.0.2.1:25")}
)

// web is a service with one real server.
var web = lvs.ServiceStatus{
	ServiceKey: webKey, Name: "web", Scheduler: lvs.WLC,
	RealServers: []lvs.RealServerStatus{{
		RealServer: lvs.RealServer{Address: netip.MustParseAddrPort("198.51.100.5:80"), Method: lvs.DR, Weight: 1},
		NextHop:    lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:05"},
	}},
}

func anyone(Peer) bool { return true }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start serves the director on a socket of the test's own and returns its path.
func start(t testing.TB, director Director, mayWrite func(Peer) bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "default.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := New(Options{Director: director, Log: quiet(), Version: "1.2.3", Instance: "default", MayWrite: mayWrite})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return path
}

// same fails the test if there was an error, or if what there is differs from what
// there should be.
func same(t *testing.T, err error, want, got any) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// question is a request to a socket.
type question struct {
	method, path, body string
	header             map[string]string
}

// ask asks and returns the answer, with its body read to the end.
func ask(t *testing.T, socket string, q question) (*http.Response, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), q.method, "http://lvx"+q.path, strings.NewReader(q.body))
	if err != nil {
		t.Fatal(err)
	}
	if q.body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for name, value := range q.header {
		request.Header.Set(name, value)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(text)
}

// asked is ask in one text: the status and the body.
func asked(t *testing.T, socket string, q question) string {
	t.Helper()
	response, body := ask(t, socket, q)
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}
