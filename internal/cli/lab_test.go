// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"lvx/internal/lab"
)

func TestLabUsage(t *testing.T) {
	for line, want := range map[string]string{
		"lab demo --method fullnat":                    "method fullnat: not in this version",
		"lab demo --topology x":                        `there is no topology "x"; lvx lab list lists them`,
		"lab demo --method tun --topology nat-one-arm": "topology nat-one-arm is for method nat, not tun",
		"lab demo --topology nat-one-arm --family 5":   "family 5 is not 4 or 6",
		"lab demo --method x":                          `method "x" is not one of dr, nat, tun, fullnat`,
		"lab demo --family 5":                          "family 5 is not 4 or 6",
		"lab demo --requests 0":                        "0 requests are not between 1 and 20000",
		"lab up":                                       "name a topology",
		"lab up nat":                                   `there is no topology "nat"; lvx lab list lists them`,
		"lab up dr --family 5":                         "family 5 is not 4 or 6",
		"lab exec":                                     "lab exec HOST -- COMMAND",
		"lab exec director":                            "lab exec HOST -- COMMAND",
		"lab exec director --":                         "lab exec HOST -- COMMAND",
	} {
		r := run("", strings.Fields(line))
		if r.code != ExitUsage || r.out != "" || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: exit %d, %q", line, r.code, r.err)
		}
	}
}

func TestLabList(t *testing.T) {
	r := run("", []string{"lab", "list"})
	if r.code != ExitDone || !strings.HasPrefix(r.out, "dr ") {
		t.Errorf("exit %d, %q", r.code, r.out)
	}
	for _, name := range []string{"nat-one-arm", "nat-two-arm", "tun-routed"} {
		if !strings.Contains(r.out, "\n"+name+" ") {
			t.Errorf("%s is not listed:\n%s", name, r.out)
		}
	}
	r = run("", []string{"lab", "list", "--json"})
	var list []lab.Topology
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list) == 0 || list[0].Name != "dr" || list[0].Method != "dr" {
		t.Errorf("%q: %v", r.out, err)
	}
}

// TestLabHolderIsNotForPeople: as a command it would change the mounts of the
// machine.
func TestLabHolderIsNotForPeople(t *testing.T) {
	if r := run("", []string{"lab-host", "x", "y"}); r.code != ExitFailed || !strings.Contains(r.err, "started by lvx lab alone") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}

func TestExitOf(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137} {
		var exit *ExitError
		if err := exitOf(exec.Command("sh", "-c", script).Run()); !errors.As(err, &exit) || exit.Code != want || exit.Message != "" {
			t.Errorf("%s: %v", script, err)
		}
	}
	if err := exitOf(nil); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := labInterrupted(ctx, lab.ErrNoLab); err == nil || errors.Is(err, lab.ErrNoLab) {
		t.Errorf("interrupted: %v", err)
	}
}
