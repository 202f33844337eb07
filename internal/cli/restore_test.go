// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvx/api"
	"lvx/internal/lvs"
)

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
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, rules+"-A -t 192.0.2.3:80 -s dh\n-A -t 192.0.2.4:80 -p\n"), result{code: 255,
		err: "lvx: line 6: the scheduler dh is not in this version\nlvx: line 7: persistence (-p) is not in this version\nlvx: nothing was changed\n"})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-x"), result{code: 1, err: "ipvsadm-save: Script to save the IPVS table to stdout.\n   With the -n option, prints out the table in numeric format.\n"})
}

// TestIPVSAdmWaits: -a waits for the neighbour, -R once at its end, the others
// not at all.
func TestIPVSAdmWaits(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	ipvsadmAs(RunIPVSAdm, socket, rules, "-R")
	if len(m.asked) != 2 || len(m.asked[0].Changes) != 5 || !m.asked[0].KeepGoing {
		t.Errorf("asked %+v", m.asked)
	}
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

// TestRestoreTellsInOrder: what lvx finds, what popt finds and what the daemon
// refuses come in the order of the lines.
func TestRestoreTellsInOrder(t *testing.T) {
	socket := (&memory{}).serve(t)
	script := "-d -t 192.0.2.1:80 -r 198.51.100.5\n-A -t 192.0.2.1:80 -p\n-A --bogus\n-A -t 192.0.2.1:80\n" +
		"-A -t 192.0.2.1:80\n-A -t 224.0.0.1:80\n\n-L -t 192.0.2.1:80 -n\n-A -f 7\n-D -t 192.0.2.9:1\n-A -t 192.0.2.2:80\n"
	want(t, ipvsadmAs(RunIPVSAdm, socket, script, "-R"), result{
		code: 255, // for lines 2 and 9: the last one itself is all right
		out:  "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\nTCP  192.0.2.1:80 wlc\n",
		err: "Service not defined\nlvx: line 2: persistence (-p) is not in this version\n--bogus: unknown option\nService already exists\n" +
			"Invalid operation.  Possibly wrong module version, address not unicast, ...\nlvx: service tcp 224.0.0.1:80: the VIP has to be a unicast address that is not loopback: not possible\n" +
			"lvx: line 9: the firewall mark (-f) is not in this version\nNo such service\n",
	})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-D -t 192.0.2.1:80\n-D -t 192.0.2.1:80\n-C foo\n-C\n", "-R"),
		result{code: 2, err: "No such service\nunexpected argument foo\n"})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: "-A -t 192.0.2.2:80 -s wlc\n"})
	long := "-C\n-A -t 192.0.2.3:80 " + strings.Repeat("x", 2<<20)
	want(t, ipvsadmAs(RunIPVSAdm, socket, long, "-R"), result{code: 255, err: "lvx: read rules: bufio.Scanner: token too long\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, long, "-R", "--atomic"),
		result{code: 255, err: "lvx: line 2: read rules: bufio.Scanner: token too long\nlvx: nothing was changed\n"})
}

// restoreWith runs -R with requests of so many changes at most.
func restoreWith(socket, in string, part int) string {
	var out bytes.Buffer
	a := newIPVSAdm(&Env{In: strings.NewReader(in), Out: &out, Err: &out, Getenv: func(string) string { return "" }, socket: socket})
	defer a.client.Close()
	r := a.newRestore(a.env.In)
	r.part = part
	fmt.Fprintf(&out, "[exit %d]\n", r.run(false, false))
	return out.String()
}

// TestRestoreAsIfLineByLine: nobody can see that the changes go together.
func TestRestoreAsIfLineByLine(t *testing.T) {
	vocabulary := strings.Split(strings.TrimSpace(`
-A -t 192.0.2.1:80 -s sh -b sh-port
-A -t 192.0.2.2:80
-E -t 192.0.2.1:80 -s mh
-D -t 192.0.2.1:80
-D -t 192.0.2.2:80
-a -t 192.0.2.1:80 -r 198.51.100.5
-a -t 192.0.2.2:80 -r 198.51.100.5
-e -t 192.0.2.1:80 -r 198.51.100.5 -w 7
-d -t 192.0.2.1:80 -r 198.51.100.5
-C
--set 1 2 3
-Sn
-Ln
-L --timeout
-Ln -t 192.0.2.1:80
-A -t 224.0.0.1:80
-A -t 192.0.2.3:80 -s nosuch
-A -t 192.0.2.3:80 -p
-A --bogus

-A -t 192.0.2.300:80
-v
# x`), "\n")
	var one, many memory
	oneSocket, manySocket := one.serve(t), many.serve(t)
	rapid.Check(t, func(t *rapid.T) {
		one.services, many.services = nil, nil
		one.timeouts, many.timeouts = lvs.DefaultTimeouts(), lvs.DefaultTimeouts()
		var script strings.Builder
		for range rapid.IntRange(0, 20).Draw(t, "lines") {
			// The last three end a restore: not too often.
			last := len(vocabulary) - 1 - rapid.SampledFrom([]int{0, 3, 3, 3, 3, 3, 3}).Draw(t, "without")
			fmt.Fprintln(&script, vocabulary[rapid.IntRange(0, last).Draw(t, "line")])
		}
		part := rapid.IntRange(2, 10).Draw(t, "part")
		if diff := cmp.Diff(restoreWith(oneSocket, script.String(), 1), restoreWith(manySocket, script.String(), part)); diff != "" {
			t.Fatalf("%sby %d, -one by one +together\n%s", script.String(), part, diff)
		}
		if diff := cmp.Diff(fmt.Sprint(one.services, one.timeouts), fmt.Sprint(many.services, many.timeouts)); diff != "" {
			t.Fatalf("%sby %d, -one by one +together\n%s", script.String(), part, diff)
		}
	})
}

// manyRules is a table of ten thousand services with ten real servers each, all
// addresses as long as they get.
func manyRules() string {
	var rules strings.Builder
	for i := range 10_000 {
		service := fmt.Sprintf("[2001:db8:1111:2222:3333:4444:%x:6666]:65535", i+4096)
		fmt.Fprintf(&rules, "-A -u %s -s wlc -b flag-1,flag-2,flag-3\n", service)
		for j := range 10 {
			fmt.Fprintf(&rules, "-a -u %s -r [2001:db8:1111:2222:3333:4444:5555:%x]:65535 -g -w 2147483647\n", service, j+4096)
		}
	}
	return rules.String()
}

func TestRestoreOfManyRules(t *testing.T) {
	const maxBody = 32 << 20 // what the daemon reads
	rules := manyRules()
	for name, c := range map[string]struct {
		run   func(socket string) result
		parts []int
	}{
		"-R":              {func(s string) result { return ipvsadmAs(RunIPVSAdm, s, rules, "-R") }, []int{50_000, 50_000, 10_000, 0}},
		"-R --atomic":     {func(s string) result { return ipvsadmAs(RunIPVSAdm, s, rules, "-R", "--atomic") }, []int{110_000}},
		"ipvsadm-restore": {func(s string) result { return ipvsadmAs(RunIPVSAdmRestore, s, rules) }, []int{110_001, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{blind: true}
			want(t, c.run(m.serve(t)), result{})
			var parts []int
			for _, changes := range m.asked {
				parts = append(parts, len(changes.Changes))
			}
			if !slices.Equal(parts, c.parts) || slices.Max(m.sizes) > maxBody {
				t.Errorf("parts of %d changes, %d bytes", parts, m.sizes)
			}
			t.Logf("%d bytes", m.sizes)
		})
	}
}

// TestRestoreProgramIsOneChange: the table is cleared in the change that fills it.
func TestRestoreProgramIsOneChange(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-A -t 192.0.2.9:80\n", "-R"), result{})
	m.asked = nil
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "# a comment\n"+rules+"-A -t 192.0.2.1:80\n"), result{code: 255, err: "Service already exists\n"})
	if len(m.asked) != 2 || len(m.asked[0].Changes) != 7 || m.asked[0].Changes[0].Operation != lvs.Clear || !m.asked[0].KeepGoing {
		t.Errorf("asked %+v", m.asked)
	}
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "# a\n#b\n-A -t 192.0.2.1:80 -p\n"),
		result{code: 255, err: "lvx: line 3: persistence (-p) is not in this version\nlvx: nothing was changed\n"})
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "", "--atomc"), result{code: 2, err: "lvx: ipvsadm-restore has no option --atomc, only --atomic and --dry-run\n"})
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "-A -t 192.0.2.1:80\n-A -t 192.0.2.1:80\n", "--atomic"),
		result{code: 255, err: "lvx: line 2: Service already exists\nlvx: nothing was changed\n"})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
	want(t, ipvsadmAs(RunIPVSAdmRestore, socket, "", "--atomic"), result{})
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{})
}

func TestRestoreOfWhatNobodyTakes(t *testing.T) {
	m := &memory{refuse: &api.Error{Code: "forbidden", Message: "user 1000 may not"}}
	socket := m.serve(t)
	const denied = "Permission denied (you must be root)\n"
	want(t, ipvsadmAs(RunIPVSAdm, socket, "\n"+rules+"-A -t 192.0.2.1:80 -p\n-C foo", "-R"),
		result{code: 255, err: "lvx: line 7: persistence (-p) is not in this version\n" + denied + "lvx: none of the lines 2 to 7 was made\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, "-C", "-R"), result{code: 255, err: denied})
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R", "--atomic"), result{code: 255, err: denied + "lvx: nothing was changed\n"})
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R", "--dry-run"), result{code: 255, err: denied})
}

func TestRestoreAtomic(t *testing.T) {
	m := &memory{warnings: []api.Warning{{Object: "real server 198.51.100.5:80", Text: "it does not answer ARP", Fix: "ping it"}}}
	socket := m.serve(t)
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R", "--atomic"),
		result{err: "lvx: warning: real server 198.51.100.5:80: it does not answer ARP; ping it\n"})
	if len(m.asked) != 1 || m.asked[0].KeepGoing || m.asked[0].Wait != lvs.Duration(resolveWait) {
		t.Errorf("asked %+v", m.asked)
	}
	for script, c := range map[string]struct {
		code int
		told string
	}{
		"": {0, ""},
		"-A -t 192.0.2.3:80\n" + rules + "-A -t 224.0.0.1:80": {255, "lvx: line 2: Service already exists\n" +
			"lvx: line 3: Destination already exists\nlvx: line 4: Destination already exists\n" +
			"lvx: line 5: Service already exists\nlvx: line 6: Destination already exists\n" +
			"lvx: line 7: Invalid operation.  Possibly wrong module version, address not unicast, ...\n" +
			"lvx: service tcp 224.0.0.1:80: the VIP has to be a unicast address that is not loopback: not possible\n"},
		"-C\n\n-A -t 192.0.2.300:80\n-A --bogus\n-A -t 192.0.2.3:80 -p\n-Ln\n# x\n-R\n-D -t 192.0.2.1:80\n-A -t 192.0.2.1:80\n": {2,
			"lvx: line 3: illegal virtual server address[:port] specified\nlvx: line 4: --bogus: unknown option\n" +
				"lvx: line 5: persistence (-p) is not in this version\nlvx: line 6: with --atomic or --dry-run a line can only be a change\n" +
				"lvx: line 7: Try `ipvsadm -h' or 'ipvsadm --help' for more information.\nlvx: line 8: Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n" +
				"lvx: line 9: No such service\n"},
		"-A -t 192.0.2.3:80 -p\n-A -t 192.0.2.4:80\n": {255, "lvx: line 1: persistence (-p) is not in this version\n"},
	} {
		for _, args := range [][]string{{"-R", "--atomic"}, {"-R", "--atomic", "--dry-run"}} {
			told := c.told
			if told != "" {
				told += "lvx: nothing was changed\n"
			}
			r := ipvsadmAs(RunIPVSAdm, socket, script, args...)
			if script == "" && len(args) > 2 {
				r.out = strings.TrimSuffix(r.out, "nothing to do\n")
			}
			want(t, r, result{code: c.code, err: told})
			want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
		}
	}
}

func TestRestoreDryRun(t *testing.T) {
	m := &memory{}
	socket := m.serve(t)
	want(t, ipvsadmAs(RunIPVSAdm, socket, rules, "-R"), result{})
	m.asked = nil
	script := "-D -t 192.0.2.1:80\n-D -t 192.0.2.1:80\n-Ln\n-A -t 192.0.2.3:80 -p\n--set 1 2 3\n-C foo\n-C\n"
	for _, c := range []struct {
		program func(*Env, []string) int
		args    []string
		in      string
		code    int
		out     []string
		err     string
	}{
		{RunIPVSAdm, []string{"-R", "--dry-run"}, script, 255, []string{"delete-service tcp 192.0.2.1:80", "set"}, "No such service\n" +
			"lvx: with --atomic or --dry-run a line can only be a change\nlvx: line 4: persistence (-p) is not in this version\nunexpected argument foo\n"},
		{RunIPVSAdm, []string{"-R", "--dry-run", "--atomic"}, "-C\n", 0, []string{"clear"}, ""},
		{RunIPVSAdm, []string{"-R", "--dry-run"}, "\n", 0, []string{"nothing to do"}, ""},
		{RunIPVSAdmRestore, []string{"--dry-run"}, "-A -t 192.0.2.1:80\n-C foo\n", 2, []string{"clear", "add-service tcp 192.0.2.1:80"}, "unexpected argument foo\n"},
		{RunIPVSAdmRestore, []string{"--dry-run", "--atomic"}, "", 0, []string{"clear"}, ""},
	} {
		r := ipvsadmAs(c.program, socket, c.in, c.args...)
		for _, line := range c.out {
			if !strings.Contains(r.out, line+"\n") {
				t.Errorf("%s: %q is not in:\n%s", c.args, line, r.out)
			}
		}
		want(t, r, result{code: c.code, out: r.out, err: c.err})
	}
	for _, asked := range m.asked {
		if !asked.DryRun || !asked.KeepGoing || asked.Wait != 0 {
			t.Errorf("asked %+v", asked)
		}
	}
	want(t, ipvsadmAs(RunIPVSAdmSave, socket, "", "-n"), result{out: rules})
}
