// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

// Every enum reason has a name (C's own), a verdict and a help text.
func TestEveryReasonIsExplained(t *testing.T) {
	source, err := os.ReadFile("../../bpf/types.h")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`REASON_(\w+) = (\d+)`).FindAllStringSubmatch(string(source), -1) {
		var number int
		if _, err := fmt.Sscan(m[2], &number); err != nil || m[1] == "MAX" {
			continue
		}
		found++
		switch r := reasons[number]; {
		case r.Name != m[1]:
			t.Errorf("reason %d is %s in C, %q here", number, m[1], r.Name)
		case r.Help == "" || r.Verdict == "":
			t.Errorf("reason %s lacks a help text or a verdict", m[1])
		}
	}
	if found != len(reasons) {
		t.Errorf("%d reasons in C, %d here", found, len(reasons))
	}
}

// docs/reasons.md is made from the table: LVX_UPDATE=1 writes it anew.
func TestReasonsDocument(t *testing.T) {
	const path = "../../docs/reasons.md"
	want := reasonsDocument()
	if os.Getenv("LVX_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: run LVX_UPDATE=1 go test ./internal/dataplane -run TestReasonsDocument", path)
	}
}

func reasonsDocument() string {
	var b strings.Builder
	b.WriteString("# Reasons\n\nWhy a packet left the data plane as it did. `lvx reasons` counts them.\n")
	for _, verdict := range []lvs.Verdict{lvs.Forwarded, lvs.Passed, lvs.Dropped} {
		fmt.Fprintf(&b, "\n## %s\n\n| reason | what it means |\n|---|---|\n", strings.ToUpper(string(verdict[:1]))+string(verdict[1:]))
		for _, r := range reasons[1:] {
			if r.Verdict == verdict {
				fmt.Fprintf(&b, "| `%s` | %s |\n", r.Name, r.Help)
			}
		}
	}
	return b.String()
}
