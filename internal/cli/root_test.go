// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestWrongUsageIsExit2(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"servces", `lvx: unknown command "servces", did you mean services?; see: lvx --help`},
		{"xyzzy", `lvx: unknown command "xyzzy"; see: lvx --help`},
		{"help xyzzy", `lvx: help: unknown command "xyzzy"; see: lvx help`},
		{"completion xyzzy", `lvx: completion: unknown command "xyzzy"; see: lvx completion --help`},
		{"lab dmeo", `lvx: lab: unknown command "dmeo", did you mean demo?; see: lvx lab --help`},
		{"realserver jion", `lvx: realserver: unknown command "jion", did you mean join?; see: lvx realserver --help`},
		{"realserver join", `lvx: realserver join: required flag(s) "vip" not set; see: lvx realserver join --help`},
		{"--frobnicate", "lvx: unknown flag: --frobnicate; see: lvx --help"},
		{"status --frobnicate", "lvx: status: unknown flag: --frobnicate; see: lvx status --help"},
		{"status extra", `lvx: status: unexpected argument "extra"; see: lvx status --help`},
		{"status --instance ../x", `lvx: status: instance "../x" is not 1 to 32 letters, digits or _ -; see: lvx status --help`},
		{"connections --limit -1", "lvx: connections: --limit -1 is below 0; see: lvx connections --help"},
		{"connections --limit many", `lvx: connections: --limit "many" is not a number; see: lvx connections --help`},
		{"connections --limit 99999999999999999999", `lvx: connections: --limit "99999999999999999999" is out of range; see: lvx connections --help`},
		{"lab demo --requests abc", `lvx: lab demo: --requests "abc" is not a number; see: lvx lab demo --help`},
		{"lab demo --keep=perhaps", `lvx: lab demo: --keep "perhaps" is not true or false; see: lvx lab demo --help`},
		{"lab demo x", `lvx: lab demo: unexpected argument "x"; see: lvx lab demo --help`},
		{"lab up dr nat", `lvx: lab up: unexpected argument "nat"; see: lvx lab up --help`},
		{"services tcp 192.0.2.1 80", `lvx: services: unexpected argument "80"; see: lvx services --help`},
		{"plna", `lvx: unknown command "plna", did you mean plan?; see: lvx --help`},
		{"check", "lvx: check: name a file, or - for standard input; see: lvx check --help"},
		{"check a b", `lvx: check: unexpected argument "b"; see: lvx check --help`},
		{"check --silence LVX0 a", `lvx: check: --silence: there is no code "LVX0"; see: lvx check --help`},
		{"apply", "lvx: apply: name a file, or - for standard input; see: lvx apply --help"},
		{"apply a --confirm 0s", "lvx: apply: --confirm 0s is not above 0 and at most 1h0m0s; see: lvx apply --help"},
		{"apply a --confirm 2h", "lvx: apply: --confirm 2h0m0s is not above 0 and at most 1h0m0s; see: lvx apply --help"},
		{"apply a --confirm soon", `lvx: apply: --confirm "soon" is not a duration such as 30s; see: lvx apply --help`},
		{"apply a --if-generation x", `lvx: apply: --if-generation "x" is not a number; see: lvx apply --help`},
		{"confirm x", `lvx: confirm: unexpected argument "x"; see: lvx confirm --help`},
		{"rollback x", `lvx: rollback: revision "x" is not a number above 0; see: lvx rollback --help`},
		{"rollback 0", `lvx: rollback: revision "0" is not a number above 0; see: lvx rollback --help`},
		{"rollback 1 2", `lvx: rollback: unexpected argument "2"; see: lvx rollback --help`},
		{"export x", `lvx: export: unexpected argument "x"; see: lvx export --help`},
		{"history --limit -1", "lvx: history: --limit -1 is below 0; see: lvx history --help"},
		{"history --limit 3 --revisions", "lvx: history: if any flags in the group [limit revisions] are set none of the others can be; [limit revisions] were all set; see: lvx history --help"},
		{"events --type strange", `lvx: events: --type "strange" is not one of started, changed, refused, unconfirmed, confirmed, rolled-back, drift, warning, cleared; see: lvx events --help`},
		{"neighbours --state up", `lvx: neighbours: --state "up" is not one of ready, unresolved, off-link, no-route, local; see: lvx neighbours --help`},
		{"reasons --verdict lost", `lvx: reasons: --verdict "lost" is not one of forwarded, passed, dropped; see: lvx reasons --help`},
		{"help LVX0", `lvx: help: there is no code "LVX0"; list them with: lvx help codes`},
		{"lba", `lvx: unknown command "lba", did you mean lab?; see: lvx --help`},
		{"connections --client host", `lvx: connections: --client "host" is not ADDRESS, ADDRESS:PORT or ADDRESS/BITS; see: lvx connections --help`},
		{"connections --state OPEN", `lvx: connections: --state "OPEN" is not one of NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK UDP; see: lvx connections --help`},
		{"services 192.0.2.1:x", `lvx: service "192.0.2.1:x" is not [tcp/|udp/]VIP[:PORT]`},
		{"real-servers --real-server x", `lvx: real-servers: --real-server "x" is not ADDRESS, ADDRESS:PORT or ADDRESS/BITS`},
	} {
		t.Run(c.args, func(t *testing.T) {
			want(t, run("/nonexistent", strings.Fields(c.args)), result{ExitUsage, "", c.want + "\n"})
		})
	}
}

func TestSuggestions(t *testing.T) {
	root := &cobra.Command{Use: "lvx"}
	for _, name := range []string{"services", "status", "lab", "join", "real-servers", "realserver"} {
		root.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	root.AddCommand(&cobra.Command{Use: "lab-host", Hidden: true, Run: func(*cobra.Command, []string) {}})
	for word, want := range map[string]string{
		"plan": "", "join2": "join", "jion": "join", "JOIN": "join", "slabs": "", "": "", "xyzzy": "", "lab-hos": "",
		"stat": "status", "s": "services status", "servce": "services", "serivecs": "services", "srvce": "",
		"realservers": "real-servers realserver", "stauts": "status", "sattus": "status",
	} {
		if got := strings.Join(suggestions(root, word), " "); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestNoDaemonIsOneClearLine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "default.sock")
	line := "lvx: no lvx director is running (socket " + socket + ": connect: no such file or directory); start one with: lvx director\n"
	for _, command := range []string{"services", "real-servers", "connections", "connections --json", "neighbours", "reasons", "status", "events", "events -f", "history",
		"history --revisions", "confirm", "rollback", "rollback 3", "export"} {
		want(t, run(socket, strings.Fields(command)), result{ExitFailed, "", line})
	}
}

func TestHelpNamesEveryCommand(t *testing.T) {
	got := run("", nil)
	if got.code != ExitDone || got.err != "" {
		t.Fatalf("%+v", got)
	}
	for _, name := range []string{"services", "real-servers", "connections", "neighbours", "reasons", "status", "events", "history", "check", "plan", "apply", "confirm", "rollback", "export", "ipvsadm", "realserver", "lab", "version", "completion", "help"} {
		if !strings.Contains(got.out, "\n  "+name+" ") {
			t.Errorf("the help does not name %s:\n%s", name, got.out)
		}
	}
	want(t, run("", []string{"help"}), got)
	if got := run("", []string{"help", "services"}); !strings.Contains(got.out, "lvx services [SERVICE]") {
		t.Errorf("%+v", got)
	}
}

func TestVersionFlagAndCommand(t *testing.T) {
	want(t, run("", []string{"--version"}), result{ExitDone, "lvx " + Version() + "\n", ""})
	if got := run("", []string{"version"}); got.code != ExitDone || !strings.HasPrefix(got.out, "lvx "+Version()+" (go") {
		t.Errorf("%+v", got)
	}
}

func TestCompletionIsPrinted(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := run("", []string{"completion", shell}); got.code != ExitDone || !strings.Contains(got.out, "lvx") {
			t.Errorf("%s: %d, %d bytes, %s", shell, got.code, len(got.out), got.err)
		}
	}
}

func TestExtraCommandsAreCommands(t *testing.T) {
	ran := false
	extra := &cobra.Command{Use: "director", RunE: func(*cobra.Command, []string) error { ran = true; return nil }}
	if code := Run(&Env{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}, []string{"director"}, extra); code != ExitDone || !ran {
		t.Errorf("exit %d, ran %v", code, ran)
	}
}

func TestOwnFlagsBeforeIPVSAdmArguments(t *testing.T) {
	for _, c := range []struct {
		args, rest       []string
		socket, instance string
	}{
		{[]string{"-Ln"}, []string{"-Ln"}, "", ""},
		{[]string{"--socket", "/s", "-Ln", "--socket"}, []string{"-Ln", "--socket"}, "/s", ""},
		{[]string{"--instance=b", "--socket=/s"}, []string{}, "/s", "b"},
		{[]string{"--socket"}, []string{"--socket"}, "", ""},
	} {
		e := &Env{}
		rest := e.takeOwnFlags(c.args)
		if strings.Join(rest, " ") != strings.Join(c.rest, " ") || e.socket != c.socket || e.instance != c.instance {
			t.Errorf("%q: %q, socket %q, instance %q", c.args, rest, e.socket, e.instance)
		}
	}
}

func TestSocketPath(t *testing.T) {
	none := func(string) string { return "" }
	for _, c := range []struct {
		env  Env
		want string
	}{
		{Env{Getenv: none}, "/run/lvx/default.sock"},
		{Env{Getenv: none, instance: "edge"}, "/run/lvx/edge.sock"},
		{Env{Getenv: func(string) string { return "/var/x.sock" }}, "/var/x.sock"},
		{Env{Getenv: func(string) string { return "/var/x.sock" }, socket: "/s"}, "/s"},
	} {
		if got := c.env.SocketPath(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
