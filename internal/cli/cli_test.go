// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
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
	}}
	env.Terminal = len(vars) > 0
	code := Run(env, args)
	return result{code, out.String(), errs.String()}
}

// daemon answers each path with a value, and connections as lines.
func daemon(t *testing.T, connections int) string {
	t.Helper()
	mux := http.NewServeMux()
	for path, value := range map[string]any{
		api.PathServices: services(), api.PathStatus: status(), api.PathReasons: reasons(),
	} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(value) })
	}
	mux.HandleFunc("GET "+api.PathConnections, func(w http.ResponseWriter, _ *http.Request) {
		for i := range connections {
			_ = json.NewEncoder(w).Encode(connection(i))
		}
	})
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

func services() []lvs.ServiceStatus {
	at := netip.MustParseAddrPort
	return []lvs.ServiceStatus{{
		ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: at("192.0.2.1:80")}, Scheduler: lvs.WLC,
		Stats: lvs.Stats{Connections: 30, InPackets: 300, InBytes: 30000},
		RealServers: []lvs.RealServerStatus{{
			RealServer: lvs.RealServer{Address: at("198.51.100.5:80"), Method: lvs.DR, Weight: 1},
			Counts:     lvs.Counts{Active: 3, Inactive: 7}, Stats: lvs.Stats{Connections: 10, InPackets: 100, InBytes: 10000},
			NextHop: lvs.NextHop{State: lvs.NextHopReady, Interface: "eth0", MAC: "02:00:00:00:00:05", VLAN: 7},
		}, {
			RealServer: lvs.RealServer{Address: at("198.51.100.6:80"), Method: lvs.DR, Weight: 2},
			Counts:     lvs.Counts{Active: 6, Inactive: 14}, Stats: lvs.Stats{Connections: 20, InPackets: 200, InBytes: 20000},
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
		Version: "1.2.3", Instance: "default",
		Interfaces: []api.Interface{
			{Name: "eth0", Mode: lvs.XDPNative, OffloadsOff: []string{"rxvlan", "lro"}},
			{Name: "eth1", Mode: lvs.XDPGeneric, Why: "the driver e1000 has no XDP", OffloadsOff: []string{}, LostAfterVerdict: 4},
		},
		Services: api.Usage{Used: 2, Capacity: 1024}, RealServers: api.Usage{Used: 2, Capacity: 4096}, Connections: api.Usage{Used: 30, Capacity: 1000000},
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
