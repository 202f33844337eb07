// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

const web = "testdata/web.yaml"

// plan has one of everything that a plan can have.
func plan() lvs.Plan {
	key := func(port uint16) lvs.ServiceKey {
		return lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.AddrPortFrom(netip.MustParseAddr("192.168.20.100"), port)}
	}
	return lvs.Plan{
		Generation: 17,
		Touched:    lvs.Counts{Active: 1001, Inactive: 234},
		Changes: []lvs.Difference{
			{Action: lvs.Add, Object: "service tcp 192.168.20.100:80", Service: key(80), Fields: []lvs.Field{{Name: "scheduler", New: "wlc"}, {Name: "scheduler_flags"}}},
			{Action: lvs.Add, Object: "real server 192.168.20.11:80 of tcp 192.168.20.100:80", Service: key(80), RealServer: "192.168.20.11:80", Fields: []lvs.Field{{Name: "weight", New: "1"}}},
			{Action: lvs.Modify, Object: "service tcp 192.168.20.100:443", Service: key(443), Counts: lvs.Counts{Active: 1000, Inactive: 234}, Effect: "its connections stay where they are",
				Fields: []lvs.Field{{Name: "scheduler", Old: "rr", New: "mh"}, {Name: "scheduler_flags", New: "mh-port"}}},
			{Action: lvs.Remove, Object: "real server 192.168.20.13:443 of tcp 192.168.20.100:443", Service: key(443), RealServer: "192.168.20.13:443", Counts: lvs.Counts{Active: 1}, Effect: "packets of its connections are dropped until it is added again"},
			{Action: lvs.Remove, Object: "service udp 192.168.20.100:53", Service: key(53), Fields: []lvs.Field{{Name: "scheduler", Old: "rr"}}},
			{Action: lvs.Modify, Object: "timeouts", Fields: []lvs.Field{{Name: "tcp", Old: "15m0s", New: "10m0s"}}, Effect: "a connection gets the new one with its next packet"},
		},
		Warnings: []lvs.Warning{{Object: "settings", Text: "interfaces wait for the next start", Fix: "systemctl restart lvx"}},
		Emptied:  []lvs.ServiceKey{key(443), key(53)},
	}
}

const printedPlan = `
+ service tcp 192.168.20.100:80: scheduler wlc, scheduler_flags none
+ real server 192.168.20.11:80 of tcp 192.168.20.100:80: weight 1
~ service tcp 192.168.20.100:443: scheduler rr → mh, scheduler_flags none → mh-port
    its connections stay where they are (1,234 live)
- real server 192.168.20.13:443 of tcp 192.168.20.100:443
    packets of its connections are dropped until it is added again (1 live)
- service udp 192.168.20.100:53: scheduler rr
~ timeouts: tcp 15m0s → 10m0s
    a connection gets the new one with its next packet
warning: service tcp 192.168.20.100:443: it would have no real server left, which takes --allow-empty
warning: service tcp 192.168.20.100:53: it would be gone, with all others, which takes --allow-empty
warning: settings: interfaces wait for the next start
  to mend it: systemctl restart lvx
2 to add, 2 to change, 2 to remove; touches 1,235 live connections
`

// planning is a daemon that has this plan for the file testdata/web.yaml.
func planning(t *testing.T, p lvs.Plan, answers map[string]http.HandlerFunc) string {
	t.Helper()
	if answers == nil {
		answers = map[string]http.HandlerFunc{}
	}
	answers["POST "+api.PathPlan] = func(w http.ResponseWriter, r *http.Request) {
		wantConfiguration(t, r)
		value(p)(w, r)
	}
	return answering(t, answers)
}

// wantConfiguration looks at what is asked for: it has to be testdata/web.yaml.
func wantConfiguration(t *testing.T, r *http.Request) {
	t.Helper()
	var asked lvs.Configuration
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		t.Error(err)
	}
	if len(asked.Services) != 1 || !asked.Services[0].Equal(configuration().Services[0]) || asked.Services[0].Name != "web" {
		t.Errorf("asked for %+v", asked)
	}
}

func TestPlanTellsBothWays(t *testing.T) {
	socket := planning(t, plan(), nil)
	text := strings.TrimPrefix(printedPlan, "\n") + "apply exactly this: lvx apply testdata/web.yaml --if-generation 17\n"
	want(t, run(socket, []string{"plan", web}), result{exitChanges, text, ""})
	got := run(socket, []string{"plan", web, "--json"})
	var plans []lvs.Plan
	if err := json.Unmarshal([]byte(got.out), &plans); err != nil || len(plans) != 1 || len(plans[0].Changes) != 6 || got.code != exitChanges {
		t.Errorf("%v: %+v", err, got)
	}
	if got := run(socket, []string{"plan", web}, "TERM", "xterm"); !strings.Contains(got.out, "\x1b[32m+ service tcp 192.168.20.100:80") {
		t.Errorf("no colour: %q", got.out)
	}
}

func TestManyWarningsAreCutOff(t *testing.T) {
	p := lvs.Plan{Warnings: make([]lvs.Warning, 1021)}
	got := run(planning(t, p, nil), []string{"plan", web})
	if lines := strings.Count(got.out, "\n"); lines != maxWarnings+2 || !strings.Contains(got.out, "warning: 1,001 more like these; --json has all\n") {
		t.Errorf("%d lines: %s", lines, got.out)
	}
}

func TestPlanOfNothingIsExit0(t *testing.T) {
	socket := planning(t, lvs.Plan{Generation: 17, Warnings: plan().Warnings}, nil)
	text := "warning: settings: interfaces wait for the next start\n  to mend it: systemctl restart lvx\nnothing to do\n"
	want(t, run(socket, []string{"plan", web}), result{ExitDone, text, ""})
	if got := run(socket, []string{"plan", web, "--json"}); got.code != ExitDone {
		t.Errorf("%+v", got)
	}
}

// Exit 2 means changes, so wrong usage is a failure here.
func TestPlanFailsWith1(t *testing.T) {
	for args, text := range map[string]string{
		"plan":                       "lvx: plan: name a file, or - for standard input; see: lvx plan --help\n",
		"plan a b":                   "lvx: plan: unexpected argument \"b\"; see: lvx plan --help\n",
		"plan --frobnicate":          "lvx: plan: unknown flag: --frobnicate; see: lvx plan --help\n",
		"plan --instance ../x a":     "lvx: plan: instance \"../x\" is not 1 to 32 letters, digits or _ -; see: lvx plan --help\n",
		"plan /nonexistent/a.yaml":   "lvx: open /nonexistent/a.yaml: no such file or directory; write what the director has now with: lvx export -o /nonexistent/a.yaml\n",
		"plan --socket /no/s " + web: "lvx: no lvx director is running (socket /no/s: connect: no such file or directory); start one with: lvx director\n",
	} {
		want(t, run("/no/s", strings.Fields(args)), result{ExitFailed, "", text})
	}
}
