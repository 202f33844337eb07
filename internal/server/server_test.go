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
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvx/api"
	"lvx/internal/lvs"
)

// fake is a director whose answers the test sets.
type fake struct {
	services    []lvs.ServiceStatus
	connections int   // how many there are
	breakAt     int   // the listing fails before this one, if not 0
	err         error // of everything else

	applied []lvs.Change
	waited  time.Duration
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

func (f *fake) Reasons() ([]lvs.Reason, error) { return nil, f.err }

func (f *fake) Status() (lvs.Status, error) {
	return lvs.Status{Interfaces: []lvs.Interface{{Name: "eth0", Mode: lvs.XDPNative}}}, f.err
}

func (f *fake) Apply(_ context.Context, changes []lvs.Change, wait time.Duration) ([]lvs.Warning, error) {
	f.applied, f.waited = changes, wait
	return nil, f.err
}

func connection(i int) lvs.Connection {
	return lvs.Connection{
		Protocol: lvs.TCP, State: lvs.StateEstablished,
		Client:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1024),
		Virtual:    netip.MustParseAddrPort("192.0.2.1:80"),
		RealServer: netip.MustParseAddrPort("198.51.100.5:80"),
		Expires:    lvs.Duration(900 * time.Second),
	}
}

var web = lvs.ServiceStatus{
	ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
	Scheduler:  lvs.WLC,
	RealServers: []lvs.RealServerStatus{{
		RealServer: lvs.RealServer{Address: netip.MustParseAddrPort("198.51.100.5:80"), Method: lvs.DR, Weight: 1},
		NextHop:    lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:05"},
	}},
}

// start serves the director on a socket of the test's own and returns its path.
func start(t *testing.T, director Director, mayWrite func(Peer) bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "default.sock")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := New(Options{Director: director, Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Instance: "default", MayWrite: mayWrite})
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

func anyone(Peer) bool { return true }

func TestClientReadsWhatTheDirectorSays(t *testing.T) {
	f := &fake{services: []lvs.ServiceStatus{web}, connections: 3*pageLines + 7}
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	ctx := t.Context()

	services, err := client.Services(ctx)
	check(t, err, f.services, services)

	realServers, err := client.RealServers(ctx)
	check(t, err, []api.RealServer{{Service: web.ServiceKey, RealServerStatus: web.RealServers[0]}}, realServers)

	status, err := client.Status(ctx)
	check(t, err, "1.2.3 default eth0", fmt.Sprintf("%s %s %s", status.Version, status.Instance, status.Interfaces[0].Name))

	count := 0
	err = client.Connections(ctx, func(c lvs.Connection) error {
		if c != connection(count) {
			return fmt.Errorf("connection %d is %v", count, c)
		}
		count++
		return nil
	})
	check(t, err, f.connections, count)
}

func TestEmptyListsAreLists(t *testing.T) {
	path := start(t, &fake{}, nil)
	for _, p := range []string{api.PathServices, api.PathRealServers, api.PathReasons} {
		code, body := ask(t, path, http.MethodGet, p, "")
		check(t, nil, "200 []\n", fmt.Sprintf("%d %s", code, body))
	}
	_, body := ask(t, path, http.MethodGet, api.PathStatus, "")
	if strings.Contains(body, "null") {
		t.Errorf("the status has a null: %s", body)
	}
	code, body := ask(t, path, http.MethodGet, api.PathConnections, "")
	check(t, nil, "200 ", fmt.Sprintf("%d %s", code, body))
}

func TestApply(t *testing.T) {
	f := &fake{}
	client := api.NewClient(start(t, f, anyone))
	defer client.Close()
	changes := []lvs.Change{{Operation: lvs.AddService, Service: web.ServiceKey, Scheduler: lvs.RR}}
	_, err := client.Apply(t.Context(), api.Changes{Changes: changes, Wait: lvs.Duration(2 * time.Second)})
	check(t, err, changes, f.applied)
	check(t, nil, 2*time.Second, f.waited)

	f.err = fmt.Errorf("service %s: %w", web.ServiceKey, lvs.ErrServiceExists)
	if _, err = client.Apply(t.Context(), api.Changes{Changes: changes}); !errors.Is(err, lvs.ErrServiceExists) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	f := &fake{}
	path := start(t, f, anyone)
	for _, c := range []struct{ name, method, path, body, want string }{
		{"no such path", "GET", "/v1/servces", "", `404 {"code":"not_found","message":"there is no /v1/servces in this version of the API"}`},
		{"reading by POST", "POST", api.PathStatus, "{}", `405 {"code":"method_not_allowed","message":"/v1/status takes GET, not POST"}`},
		{"changing by GET", "GET", api.PathChanges, "", `405 {"code":"method_not_allowed","message":"/v1/changes takes POST, not GET"}`},
		{"empty", "POST", api.PathChanges, "", `400 {"code":"bad_request","message":"read the request: it is empty"}`},
		{"unknown field", "POST", api.PathChanges, `{"changes":[{"operatoin":"clear"}]}`, `400 {"code":"bad_request","message":"read the request: unknown field \"operatoin\""}`},
		{"a value of another kind", "POST", api.PathChanges, `{"changes":[{"real_server":{"weight":-1}}]}`, `400 {"code":"bad_request","message":"read the request: cannot unmarshal number -1 into Go struct field RealServer.changes.real_server.weight of type uint32"}`},
		{"trailing text", "POST", api.PathChanges, `{"changes":[]} {}`, `400 {"code":"bad_request","message":"read the request: there is more after the first JSON value"}`},
		{"too long a wait", "POST", api.PathChanges, `{"wait_seconds":60}`, `400 {"code":"invalid","message":"wait_seconds is not between 0 and 5: not possible"}`},
		{"too large", "POST", api.PathChanges, strings.Repeat(" ", maxBody+1), `413 {"code":"too_large","message":"the request is above 1048576 bytes; send the changes in parts"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, body := ask(t, path, c.method, c.path, c.body)
			check(t, nil, c.want+"\n", fmt.Sprintf("%d %s", code, body))
		})
	}
	if f.applied != nil {
		t.Errorf("a refused request changed something: %v", f.applied)
	}
}

func TestOnlyWritersChange(t *testing.T) {
	f := &fake{}
	path := start(t, f, func(p Peer) bool { return p.Known && p.PID == 0 })
	code, body := ask(t, path, http.MethodPost, api.PathChanges, `{"changes":[{"operation":"clear"}]}`)
	if code != http.StatusForbidden || !strings.Contains(body, "may read but not change") || f.applied != nil {
		t.Errorf("got %d %s, applied %v", code, body, f.applied)
	}
}

func TestFailureIsAnswered(t *testing.T) {
	path := start(t, &fake{err: errors.New("the map is gone"), connections: 1, breakAt: 1}, nil)
	for _, p := range []string{api.PathServices, api.PathReasons, api.PathStatus, api.PathConnections} {
		code, body := ask(t, path, http.MethodGet, p, "")
		check(t, nil, `500 {"code":"internal","message":"the map is gone"}`+"\n", fmt.Sprintf("%d %s", code, body))
	}
}

// A list that breaks in the middle must not look like a whole one.
func TestBrokenListIsAnError(t *testing.T) {
	client := api.NewClient(start(t, &fake{connections: 3 * pageLines, breakAt: 2 * pageLines}, nil))
	defer client.Close()
	count := 0
	err := client.Connections(t.Context(), func(lvs.Connection) error { count++; return nil })
	if !errors.Is(err, io.ErrUnexpectedEOF) || count != pageLines {
		t.Errorf("got %d connections and %v", count, err)
	}
}

func check(t *testing.T, err error, want, got any) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func ask(t *testing.T, socket, method, path, body string) (int, string) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://lvx"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
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
	return response.StatusCode, string(text)
}

// slow is a director whose Apply takes until the test lets go.
type slow struct {
	fake
	begun, finish chan struct{}
}

func (s *slow) Apply(ctx context.Context, _ []lvs.Change, _ time.Duration) ([]lvs.Warning, error) {
	close(s.begun)
	<-s.finish
	return nil, ctx.Err()
}

// The listener is one that was handed over, as systemd does.
func TestStopFinishesTheChangeUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	director := &slow{begun: make(chan struct{}), finish: make(chan struct{})}
	ctx, stop := context.WithCancel(context.Background())
	served, applied := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- New(Options{Director: director, Log: slog.New(slog.DiscardHandler), MayWrite: anyone}).Serve(ctx, listener)
	}()
	go func() {
		client := api.NewClient(path)
		defer client.Close()
		_, err := client.Apply(context.Background(), api.Changes{Changes: []lvs.Change{{Operation: lvs.Clear}}})
		applied <- err
	}()
	<-director.begun
	stop()
	close(director.finish)
	check(t, <-applied, nil, nil)
	check(t, <-served, nil, nil)
}
