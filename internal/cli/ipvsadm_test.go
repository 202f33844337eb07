// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// memory is a director that keeps its table in memory, and what it was asked.
type memory struct {
	mu          sync.Mutex
	services    []lvs.ServiceStatus
	timeouts    lvs.Timeouts
	asked       []api.Changes
	connections int
	warnings    []api.Warning
	refuse      *api.Error // every change, if set
}

// serve returns the socket on which m answers.
func (m *memory) serve(t *testing.T) string {
	t.Helper()
	m.timeouts = lvs.DefaultTimeouts()
	mux := http.NewServeMux()
	get := func(path string, value func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			m.mu.Lock()
			defer m.mu.Unlock()
			_ = json.NewEncoder(w).Encode(value())
		})
	}
	get(api.PathServices, func() any { return m.services })
	get(api.PathStatus, func() any { return api.Status{Timeouts: m.timeouts} })
	mux.HandleFunc("POST "+api.PathChanges, m.change)
	mux.HandleFunc("GET "+api.PathConnections, func(w http.ResponseWriter, _ *http.Request) {
		for i := range m.connections {
			_ = json.NewEncoder(w).Encode(connection(i))
		}
	})
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

func (m *memory) change(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var wanted api.Changes
	if err := json.NewDecoder(r.Body).Decode(&wanted); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.asked = append(m.asked, wanted)
	if m.refuse != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(m.refuse)
		return
	}
	for _, c := range wanted.Changes {
		if err := m.apply(c); err != nil {
			body, status := api.NewError(err)
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(body)
			return
		}
	}
	_ = json.NewEncoder(w).Encode(api.Applied{Warnings: m.warnings})
}

func (m *memory) apply(c lvs.Change) error {
	i := slices.IndexFunc(m.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == c.Service })
	valid := lvs.Service{ServiceKey: c.Service, Scheduler: c.Scheduler}
	switch c.Operation {
	case lvs.Clear:
		m.services = nil
	case lvs.SetTimeouts:
		m.timeouts = c.Timeouts.Merge(m.timeouts)
	case lvs.AddService:
		if i >= 0 {
			return fmt.Errorf("service %s: %w", c.Service, lvs.ErrServiceExists)
		}
		if err := valid.Validate(); err != nil {
			return err
		}
		m.services = append(m.services, lvs.ServiceStatus{ServiceKey: c.Service, Scheduler: c.Scheduler})
	default:
		if i < 0 {
			return fmt.Errorf("service %s: %w", c.Service, lvs.ErrNoService)
		}
		return m.applyTo(&m.services[i], c)
	}
	return nil
}

func (m *memory) applyTo(s *lvs.ServiceStatus, c lvs.Change) error {
	i := slices.IndexFunc(s.RealServers, func(r lvs.RealServerStatus) bool { return r.Address == c.RealServer.Address })
	switch {
	case c.Operation == lvs.AddServer && i >= 0:
		return lvs.ErrServerExists
	case c.Operation == lvs.AddServer:
		s.RealServers = slices.Insert(s.RealServers, 0, lvs.RealServerStatus{RealServer: c.RealServer})
	case i < 0:
		return lvs.ErrNoServer
	case c.Operation == lvs.EditServer:
		s.RealServers[i].RealServer = c.RealServer
	case c.Operation == lvs.DeleteServer:
		s.RealServers = slices.Delete(s.RealServers, i, i+1)
	}
	return nil
}

// ipvsadmAs runs one of the three programs in-process.
func ipvsadmAs(program func(*Env, []string) int, socket, in string, args ...string) result {
	var out, errs bytes.Buffer
	env := &Env{In: strings.NewReader(in), Out: &out, Err: &errs, Getenv: func(string) string { return "" }, socket: socket}
	code := program(env, args)
	return result{code, out.String(), errs.String()}
}

// TestIPVSAdmSession gives the commands of a recorded session of the real
// ipvsadm, without what is not in this version, and compares what is printed.
func TestIPVSAdmSession(t *testing.T) {
	text, err := os.ReadFile("testdata/ipvsadm.txt")
	if err != nil {
		t.Fatal(err)
	}
	socket := (&memory{}).serve(t)
	for _, block := range strings.Split("\n"+string(text), "\n$ ipvsadm ")[1:] {
		args, want, _ := strings.Cut(block, "\n")
		r := ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields(args)...)
		got := r.out + r.err
		if r.code != 0 {
			got += fmt.Sprintf("[exit %d]\n", r.code)
		}
		if strings.TrimSuffix(got, "\n") != strings.TrimSuffix(want, "\n") {
			t.Errorf("ipvsadm %s\ngot:\n%s\nwant:\n%s", args, got, want)
		}
	}
}

const rules = `-A -t 192.0.2.1:80 -s wlc
-a -t 192.0.2.1:80 -r 198.51.100.5:80 -g -w 1
-a -t 192.0.2.1:80 -r 198.51.100.6:80 -g -w 2
-A -u [2001:db8::1]:53 -s rr
-a -u [2001:db8::1]:53 -r [2001:db8::5]:53 -g -w 1
`

func TestIPVSAdmSaveAndRestore(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	old := "-A -t 192.0.2.9:80\n"
	want(t, ipvsadmAs(RunIPVSAdm, socket, old, "-R"), result{})
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "# saved by hand\n"+rules+"#\n"), result{})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R"), result{code: 255, err: "Service already exists\nDestination already exists\nDestination already exists\n" +
		"Service already exists\nDestination already exists\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-R\n-C\n", "-R"), result{code: 255, err: "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-L -t 192.0.2.77:1 -n\n-C\n", "-R"), result{code: 1, err: "No such service\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-C -p\n-C\n", "-R"), result{code: 2, err: "Illegal 'persistent' option with the 'flush' command\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-v\n-C\n", "-R"), result{out: "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-A -t 192.0.2.3:80 -p\n-Sn\n", "-R"), result{code: 255, out: rules, err: "lvx: line 1: persistence (-p) is not in this version\n"})
	// What would lose services is refused before the old table is gone.
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, rules+"-A -t 192.0.2.3:80 -s sh\n-A -t 192.0.2.4:80 -p\n"), result{code: 255,
		err: "lvx: line 6: the scheduler sh is not in this version\nlvx: line 7: persistence (-p) is not in this version\nlvx: nothing was changed\n"})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-x"), result{code: 1, err: "ipvsadm-save: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.\n"})
}

// TestIPVSAdmWaits: -a waits for the neighbour, -R once at its end, the others
// not at all.
func TestIPVSAdmWaits(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	ipvsadmAs(RunIPVSAdm, socket, rules, "-R")
	for i, c := range m.asked {
		end := i == len(m.asked)-1
		if end != (c.Wait == lvs.Duration(resolveWait)) || end != (len(c.Changes) == 0) {
			t.Errorf("request %d of %d: %+v", i, len(m.asked), c)
		}
	}
	for args, wait := range map[string]time.Duration{
		"-a -t 192.0.2.1:80 -r 198.51.100.7":      resolveWait,
		"-e -t 192.0.2.1:80 -r 198.51.100.7 -w 9": 0,
		"-C": 0,
	} {
		m.asked = nil
		ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields(args)...)
		if len(m.asked) != 1 || m.asked[0].Wait != lvs.Duration(wait) {
			t.Errorf("%s: %+v", args, m.asked)
		}
	}
}

func TestIPVSAdmTellsWarningsOnce(t *testing.T) {
	m := &memory{warnings: []api.Warning{{Object: "real server 198.51.100.5:80", Text: "it does not answer ARP", Fix: "ping it"}}}
	want(t, ipvsadmAs(RunIPVSAdm, m.serve(t), rules, "-R"),
		result{err: "lvx: warning: real server 198.51.100.5:80: it does not answer ARP; ping it\n"})
}

// A restore of nothing needs a daemon as well, as the real one needs a kernel.
func TestIPVSAdmRestoreWithoutDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-R"), result{code: 2, err: "Can't initialize ipvs: no lvx director is running\nStart one with: lvx director\n"})
}

func TestIPVSAdmWithoutDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	absent := result{code: 2, err: "Can't initialize ipvs: no lvx director is running\nStart one with: lvx director\n"}
	for _, args := range []string{"", "-Ln", "-lcn", "-Sn", "-C", "-L --timeout", "-A -t 192.0.2.1:80"} {
		want(t, ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields(args)...), absent)
	}
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R"), absent)
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, rules), absent)
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-A"), result{code: 2, err: "You need to supply the 'service-address' option for the 'add-service' command\n"})
	message, code := explain("", fmt.Errorf("open: %w", api.ErrDenied))
	want(t, result{code, "", message}, result{code: 2, err: "Can't initialize ipvs: Permission denied (you must be root)"})
}

func TestIPVSAdmForbidden(t *testing.T) {
	m := &memory{refuse: &api.Error{Code: "forbidden", Message: "user 1000 may not"}}
	want(t, ipvsadmAs(RunIPVSAdm, m.serve(t), "", "-C"), result{code: 255, err: "Permission denied (you must be root)\n"})
}

func TestIPVSAdmListsManyConnections(t *testing.T) {
	m := &memory{connections: 50_000}
	r := ipvsadmAs(RunIPVSAdm, m.serve(t), "", "-lcn")
	lines := strings.Split(strings.TrimSuffix(r.out, "\n"), "\n")
	if r.code != 0 || len(lines) != m.connections+2 || lines[2] != "TCP 15:00  ESTABLISHED 203.0.0.0:1024     192.0.2.1:80       198.51.100.5:80" {
		t.Errorf("exit %d, %d lines, %q, %s", r.code, len(lines), lines[min(2, len(lines)-1)], r.err)
	}
}

func TestIPVSAdmUnderLVX(t *testing.T) {
	want(t, run((&memory{}).serve(t), []string{"ipvsadm", "-L", "--bogus"}), result{code: 255, err: "--bogus: unknown option\n"})
}

func TestNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("# names\nhttp 80/tcp www # web\ndomain 53/udp\nhttp-too 80/tcp\nodd\nbad x/tcp\nother 9/ddp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNames()
	n.file = file
	for name, port := range map[string]uint16{"http": 80, "www": 80, "http-too": 80, "HTTP": 0, "domain": 0, "other": 0, "": 0} {
		if got, ok := n.port(lvs.TCP, name); got != port || ok != (port != 0) {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
	if name, ok := n.portName(lvs.TCP, 80); name != "http" || !ok {
		t.Errorf("got %q, %v", name, ok)
	}
	if name, ok := n.portName(lvs.UDP, 80); ok {
		t.Errorf("got %q", name)
	}
}

func TestNamesHaveABudget(t *testing.T) {
	calls := 0
	n := newNames()
	n.left = 20 * time.Millisecond
	n.lookupAddr = func(ctx context.Context, address string) ([]string, error) {
		calls++
		if address == "192.0.2.1" {
			return []string{"www.example.net."}, nil
		}
		<-ctx.Done() // a name server that does not answer
		return nil, ctx.Err()
	}
	for range 2 {
		if name, ok := n.hostName(netip.MustParseAddr("192.0.2.1")); name != "www.example.net" || !ok {
			t.Errorf("got %q, %v", name, ok)
		}
	}
	for i := range 10 {
		if name, ok := n.hostName(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})); ok {
			t.Errorf("got %q", name)
		}
	}
	if calls != 2 {
		t.Errorf("%d look-ups, want one for each until the time was used up", calls)
	}
}
