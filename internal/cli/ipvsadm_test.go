// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

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
	blind       bool       // it takes changes and makes none
	sizes       []int64    // of the requests, in bytes
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
	get(api.PathReasons, func() any { return []lvs.Reason{} })
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
	m.asked, m.sizes = append(m.asked, wanted), append(m.sizes, r.ContentLength)
	if m.refuse != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(m.refuse)
		return
	}
	applied, err := m.applyAll(wanted)
	if err != nil {
		body, status := api.NewError(err)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
		return
	}
	_ = json.NewEncoder(w).Encode(api.NewApplied(applied))
}

// applyAll does what the director does with a list of changes.
func (m *memory) applyAll(wanted api.Changes) (lvs.Applied, error) {
	if m.blind {
		return lvs.Applied{}, nil
	}
	before, timeouts := slices.Clone(m.services), m.timeouts
	for i := range before {
		before[i].RealServers = slices.Clone(before[i].RealServers)
	}
	applied := lvs.Applied{Warnings: m.warnings}
	plan := &lvs.Plan{}
	for i, c := range wanted.Changes {
		switch err := m.apply(c); {
		case err == nil:
			plan.Changes = append(plan.Changes, lvs.Difference{Action: lvs.Modify, Object: c.String()})
		case wanted.KeepGoing:
			applied.Refused = append(applied.Refused, lvs.Refused{Index: i, Err: err})
		default:
			m.services, m.timeouts = before, timeouts
			return lvs.Applied{}, fmt.Errorf("change %d: %w", i+1, err)
		}
	}
	if wanted.DryRun {
		m.services, m.timeouts = before, timeouts
		applied.Plan = plan
	}
	return applied, nil
}

func (m *memory) apply(c lvs.Change) error {
	i := slices.IndexFunc(m.services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == c.Service })
	valid := lvs.Service{ServiceKey: c.Service, Scheduler: c.Scheduler, Flags: c.Flags}
	switch {
	case c.Operation == lvs.Clear:
		m.services = nil
	case c.Operation == lvs.SetTimeouts:
		m.timeouts = c.Timeouts.Merge(m.timeouts)
	case c.Operation == lvs.AddService && i >= 0:
		return fmt.Errorf("service %s: %w", c.Service, lvs.ErrServiceExists)
	case c.Operation == lvs.AddService:
		if err := valid.Validate(); err != nil {
			return err
		}
		m.services = append(m.services, lvs.ServiceStatus{ServiceKey: c.Service, Scheduler: c.Scheduler, Flags: c.Flags})
	case i < 0:
		return fmt.Errorf("service %s: %w", c.Service, lvs.ErrNoService)
	case c.Operation == lvs.EditService:
		m.services[i].Scheduler, m.services[i].Flags = c.Scheduler, c.Flags
	case c.Operation == lvs.DeleteService:
		m.services = slices.Delete(m.services, i, i+1)
	default:
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

// TestIPVSAdmSession gives the commands of recorded sessions of the real ipvsadm,
// without what is not in this version, and compares what is printed. Lines that
// begin with < are what the command read.
func TestIPVSAdmSession(t *testing.T) {
	for _, file := range []string{"ipvsadm.txt", "flags.txt", "restore.txt"} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		socket := (&memory{}).serve(t)
		for _, block := range strings.Split("\n"+string(text), "\n$ ipvsadm ")[1:] {
			args, want, _ := strings.Cut(block, "\n")
			in := ""
			for strings.HasPrefix(want, "< ") {
				line, rest, _ := strings.Cut(want, "\n")
				in, want = in+line[2:]+"\n", rest
			}
			if got := together(socket, in, args); strings.TrimSuffix(got, "\n") != strings.TrimSuffix(want, "\n") {
				t.Errorf("%s: ipvsadm %s\ngot:\n%s\nwant:\n%s", file, args, got, want)
			}
		}
	}
}

// together runs ipvsadm and returns all it prints as a terminal shows it.
func together(socket, in, args string) string {
	var out bytes.Buffer
	env := &Env{In: strings.NewReader(in), Out: &out, Err: &out, Getenv: func(string) string { return "" }, socket: socket}
	if code := RunIPVSAdm(env, strings.Fields(args)); code != ExitDone {
		fmt.Fprintf(&out, "[exit %d]\n", code)
	}
	return out.String()
}

func TestIPVSAdmWithoutDaemon(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	absent := result{code: 2, err: "Can't initialize ipvs: no lvx director is running\nStart one with: lvx director\n"}
	for _, args := range []string{"", "-Ln", "-lcn", "-Sn", "-C", "-L --timeout", "-A -t 192.0.2.1:80", "-L --daemon", "-L --json", "-C --dry-run"} {
		want(t, ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields(args)...), absent)
	}
	for _, args := range [][]string{{"-R"}, {"-R", "--atomic"}, {"-R", "--dry-run"}, {"-R", "--atomic", "--dry-run"}} {
		want(t, ipvsadmAs(RunIPVSAdm, socket, rules, args...), absent)
		want(t, ipvsadmAs(RunIPVSAdm, socket, "", args...), absent) // as the real one needs a kernel, even for nothing
		want(t, ipvsadmAs(RunIPVSAdm, socket, "-x\n", args...), absent)
		want(t, ipvsadmAs(RunIPVSAdmRestore, socket, rules, args[1:]...), absent)
	}
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

func TestIPVSAdmJSON(t *testing.T) {
	m := &memory{connections: 3}
	socket := m.serve(t)
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-L", "--json"), result{out: "[]\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-L", "--daemon", "--json"), result{out: "[]\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-L", "--timeout", "--json"), result{out: "[\n" +
		`{"tcp_seconds":900,"tcp_fin_seconds":120,"udp_seconds":300}` + "\n]\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-A -u 192.0.2.2:53 -s sh -b sh-port\n"+rules, "-R"), result{})
	for args, order := range map[string][]string{
		"-Ln --json":                         {"192.0.2.1:80", "192.0.2.2:53", "[2001:db8::1]:53"},
		"-l --json --stats":                  {"192.0.2.1:80", "192.0.2.2:53", "[2001:db8::1]:53"},
		"-L --json --nosort":                 {"192.0.2.2:53", "192.0.2.1:80", "[2001:db8::1]:53"},
		"-L --json -u 192.0.2.2:53":          {"192.0.2.2:53"},
		"--list --json -u [2001:db8::1]:53 ": {"[2001:db8::1]:53"},
	} {
		r := ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields(args)...)
		var services []lvs.ServiceStatus
		if err := json.Unmarshal([]byte(r.out), &services); err != nil || r.code != ExitDone || r.err != "" {
			t.Errorf("%s: %v, %+v", args, err, r)
		}
		var got []string
		for _, s := range services {
			got = append(got, s.Address.String())
		}
		if !slices.Equal(got, order) {
			t.Errorf("%s: %s, want %s", args, got, order)
		}
	}
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", "-L", "--json", "-t", "192.0.2.9:80"), result{code: 1, err: "No such service\n"})
	var connections []lvs.Connection
	r := ipvsadmAs(RunIPVSAdm, socket, "", "-Lc", "--json")
	if err := json.Unmarshal([]byte(r.out), &connections); err != nil || len(connections) != 3 || connections[2] != connection(2) {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestIPVSAdmDryRun(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	r := ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields("-A -t 192.0.2.1:80 -s rr --dry-run")...)
	if r.code != ExitDone || r.err != "" || !strings.Contains(r.out, "add-service tcp 192.0.2.1:80") {
		t.Errorf("%+v", r)
	}
	want(t, ipvsadmAs(RunIPVSAdm, socket, "", strings.Fields("-D -t 192.0.2.1:80 --dry-run")...), result{code: 255, err: "No such service\n"})
	if len(m.services) != 0 || len(m.asked) != 2 || !m.asked[0].DryRun || m.asked[0].Wait != 0 {
		t.Errorf("%+v, asked %+v", m.services, m.asked)
	}
	m.blind = true // a daemon that knows no dry runs
	r = ipvsadmAs(RunIPVSAdm, socket, "", "-C", "--dry-run")
	want(t, r, result{code: 255, err: "lvx: the daemon made no plan: perhaps it made the changes; look with: ipvsadm -Ln\n"})
}

func TestIPVSAdmUnderLVX(t *testing.T) {
	want(t, run((&memory{}).serve(t), []string{"ipvsadm", "-L", "--bogus"}), result{code: 255, err: "--bogus: unknown option\n"})
}
