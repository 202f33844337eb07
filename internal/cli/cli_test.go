// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvx/api"
	"lvx/internal/lvs"
)

// result is what a command did.
type result struct {
	code     int
	out, err string
}

// run runs a command in-process. socket is the daemon's, vars are the
// environment, as pairs.
func run(socket string, args []string, vars ...string) result {
	var out, errs bytes.Buffer
	env := &Env{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(name string) string {
		if name == "LVX_SOCKET" {
			return socket
		}
		for i := 0; i+1 < len(vars); i += 2 {
			if vars[i] == name {
				return vars[i+1]
			}
		}
		return ""
	}, now: func() time.Time { return noon }}
	env.Terminal = len(vars) > 0
	env.ErrTerminal = env.Terminal
	code := Run(env, args)
	return result{code, out.String(), errs.String()}
}

// daemon answers each path that is read with a value, and connections as lines.
func daemon(t *testing.T, connections int) string {
	t.Helper()
	return answering(t, map[string]http.HandlerFunc{
		"GET " + api.PathConnections: func(w http.ResponseWriter, r *http.Request) {
			filter := connectionFilter(t, r)
			limit, _ := strconv.Atoi(r.FormValue("limit"))
			for i := range connections {
				if c := connection(i); filter.Picks(c) {
					_ = json.NewEncoder(w).Encode(c)
					if limit--; limit == 0 {
						return
					}
				}
			}
		},
	})
}

// connectionFilter reads the filters of a request as the daemon does.
func connectionFilter(t *testing.T, r *http.Request) (f lvs.ConnectionFilter) {
	t.Helper()
	var errs [4]error
	f.Client, errs[0] = lvs.ParseAddressFilter(r.FormValue("client"))
	f.RealServer, errs[1] = lvs.ParseAddressFilter(r.FormValue("real_server"))
	f.Service, errs[2] = lvs.ParseServiceFilter(r.FormValue("service"))
	f.State, errs[3] = lvs.ParseState(r.FormValue("state"))
	for _, err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	return f
}

// value answers with JSON.
func value(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
}

// refusal answers with an error of the API.
func refusal(err error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		body, status := api.NewError(err)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
}

// answering is a daemon that answers some requests so, and what is read besides
// with the values of this file. It returns the socket.
func answering(t *testing.T, answers map[string]http.HandlerFunc) string {
	t.Helper()
	all := map[string]http.HandlerFunc{
		"GET " + api.PathServices: value(services()), "GET " + api.PathRealServers: value(realServers()),
		"GET " + api.PathStatus: value(status()), "GET " + api.PathReasons: value(reasons()),
		"GET " + api.PathNeighbours: value(neighbours()), "GET " + api.PathEvents: value(events()),
		"GET " + api.PathHistory: value(history()), "GET " + api.PathRevisions: value(revisions()),
	}
	maps.Copy(all, answers)
	mux := http.NewServeMux()
	for pattern, handle := range all {
		mux.HandleFunc(pattern, handle)
	}
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(mux)
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(server.Close)
	return path
}

func realServers() (list []api.RealServer) {
	for _, s := range services() {
		for _, r := range s.RealServers {
			list = append(list, api.RealServer{Service: s.ServiceKey, RealServerStatus: r})
		}
	}
	return list
}

func neighbours() []lvs.Neighbour {
	return []lvs.Neighbour{{
		Address: netip.MustParseAddr("198.51.100.5"), MTU: 1500, RealServers: 2,
		NextHop: lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:05", VLAN: 7},
	}, {
		Address: netip.MustParseAddr("2001:db8::6"), RealServers: 1, NextHop: lvs.NextHop{State: lvs.NextHopNoRoute},
	}}
}

// noon is the time in these tests, where the reader is.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.Local)

func history() []lvs.HistoryEntry {
	return []lvs.HistoryEntry{
		{Time: noon.Add(-2 * time.Hour), Generation: 4, Who: "root (uid 0, pid 11)", What: "apply /etc/lvx/lvx.yaml", Result: lvs.Done, Revision: 1},
		{Time: noon.Add(-time.Hour), Generation: 5, Who: "ann (uid 1000, pid 12)", What: "add-service tcp 192.0.2.1:81", Result: lvs.Done},
		{Time: noon, Generation: 5, Who: "ann (uid 1000, pid 13)", What: "apply /tmp/\x1b[2J.yaml", Result: "the tables were changed meanwhile"},
	}
}

func revisions() []lvs.Revision {
	return []lvs.Revision{{
		Number: 1, Generation: 4, Time: noon.Add(-2 * time.Hour), Who: "root (uid 0, pid 11)", What: "apply /etc/lvx/lvx.yaml",
		Configuration: configuration(),
	}}
}

// configuration is what testdata/web.yaml says.
func configuration() lvs.Configuration {
	at := netip.MustParseAddrPort
	return lvs.Configuration{Services: []lvs.Service{{
		ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: at("192.168.20.100:80")}, Name: "web", Scheduler: lvs.WLC,
		RealServers: []lvs.RealServer{
			{Address: at("192.168.20.11:80"), Method: lvs.DR, Weight: 1},
			{Address: at("192.168.20.12:80"), Method: lvs.DR, Weight: 2},
		},
	}}}
}

func events() []lvs.Event {
	return []lvs.Event{
		{ID: 1, Time: noon, Type: lvs.EventStarted, Object: "director", Text: "the daemon answers"},
		{ID: 2, Time: noon.Add(time.Second), Type: lvs.EventChanged, Object: "service tcp 192.0.2.1:80", Text: "added by root"},
		{ID: 3, Time: noon.Add(time.Minute), Type: lvs.EventDrift, Object: "map services", Text: "an entry was deleted, and is there again"},
	}
}

func services() []lvs.ServiceStatus {
	at := netip.MustParseAddrPort
	return []lvs.ServiceStatus{{
		ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: at("192.0.2.1:80")}, Name: "web", Scheduler: lvs.MH, Flags: "mh-port",
		Rates: lvs.Rates{Connections: 1.25, InPackets: 40, InBytes: 4096.5},
		Stats: lvs.Stats{Connections: 30, InPackets: 300, InBytes: 30000},
		RealServers: []lvs.RealServerStatus{{
			RealServer: lvs.RealServer{Address: at("198.51.100.5:80"), Method: lvs.DR, Weight: 1},
			Counts:     lvs.Counts{Active: 3, Inactive: 7}, Stats: lvs.Stats{Connections: 10, InPackets: 100, InBytes: 10000},
			NextHop: lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:05", VLAN: 7},
		}, {
			RealServer: lvs.RealServer{
				Address: at("198.51.100.6:80"), Method: lvs.Tun, Weight: 2, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6080, Checksum: lvs.HeaderChecksum},
			},
			Counts: lvs.Counts{Active: 6, Inactive: 14}, Stats: lvs.Stats{Connections: 20, InPackets: 200, InBytes: 20000},
			NextHop: lvs.NextHop{State: lvs.NextHopUnresolved, Interface: "eth0"},
		}},
	}, {
		ServiceKey: lvs.ServiceKey{Protocol: lvs.UDP, Address: at("[2001:db8::1]:53")}, Scheduler: lvs.RR,
		RealServers: []lvs.RealServerStatus{},
	}}
}

func connection(i int) lvs.Connection {
	c := lvs.Connection{
		Protocol: lvs.TCP, State: lvs.StateEstablished, Expires: lvs.Duration(15 * time.Minute),
		Client:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}), 1024),
		Virtual:    netip.MustParseAddrPort("192.0.2.1:80"),
		RealServer: netip.MustParseAddrPort("198.51.100.5:80"),
	}
	if i%2 == 1 {
		c.State, c.RealServer = lvs.StateFinWait, netip.MustParseAddrPort("198.51.100.6:80")
	}
	return c
}

func reasons() []lvs.Reason {
	return []lvs.Reason{
		{Name: "FORWARDED", Verdict: lvs.Forwarded, Packets: 12, Help: "sent to a real server"},
		{Name: "NOT_OURS", Verdict: lvs.Passed, Packets: 5, Help: "left to the kernel"},
		{Name: "NO_NEIGHBOUR", Verdict: lvs.Dropped, Help: "the real server's MAC address is not known"},
	}
}

func status() api.Status {
	return api.Status{
		Version: "1.2.3", Instance: "default", Started: noon.Add(-90 * time.Minute), Generation: 5, Revision: 1, Changed: true,
		Interfaces: []api.Interface{
			{Name: "eth0", Mode: lvs.XDPNative, OffloadsOff: []string{"rxvlan", "lro"}},
			{Name: "eth1", Mode: lvs.XDPGeneric, Why: "the driver e1000 has no XDP", OffloadsOff: []string{}, LostAfterVerdict: 4},
		},
		Services: api.Usage{Used: 2, Capacity: 1024}, RealServers: api.Usage{Used: 3, Capacity: 4096}, Connections: api.Usage{Used: 30, Capacity: 1000000},
		Timeouts: lvs.DefaultTimeouts(), Packets: api.Packets{Forwarded: 12, Passed: 5},
		Warnings: []api.Warning{{Object: "service tcp 192.0.2.1:80", Text: "the VIP is on no interface", Fix: "ip addr add 192.0.2.1/32 dev eth0"}},
	}
}

func want(t *testing.T, got, want result) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
