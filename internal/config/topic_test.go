// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every code has a page, and every page a code.
func TestEveryCodeHasAPage(t *testing.T) {
	source, err := os.ReadFile("code.go")
	if err != nil {
		t.Fatal(err)
	}
	var codes, pages []string
	for _, m := range regexp.MustCompile(`= "(LVX\d{4})"`).FindAllStringSubmatch(string(source), -1) {
		codes = append(codes, m[1])
	}
	for _, topic := range Topics() {
		pages = append(pages, topic.Code)
		if topic.Title == "" || strings.HasSuffix(topic.Title, ".") || len(topic.Page) < 80 {
			t.Errorf("%s: %q %q", topic.Code, topic.Title, topic.Page)
		}
		if found, ok := FindTopic(topic.Code); !ok || found != topic {
			t.Errorf("%s is not found", topic.Code)
		}
	}
	if !slices.Equal(codes, pages) {
		t.Errorf("codes %v\npages %v", codes, pages)
	}
	if _, ok := FindTopic("LVX9999"); ok {
		t.Error("a page for no code")
	}
	if topic, _ := FindTopic(codeVIPIsServer); topic.Severity != Warning {
		t.Error(topic.Severity)
	}
}

// The first example of a page causes what the page is about, and the last, if it
// shows what to do, does not.
func TestExamplesOfPages(t *testing.T) {
	for _, topic := range Topics() {
		examples := examplesOf(topic.Page)
		if topic.Code == codeRefused { // no file is known that causes it
			continue
		}
		if len(examples) == 0 {
			t.Errorf("%s has no example", topic.Code)
			continue
		}
		_, found := Parse(topic.Code, []byte(examples[0]))
		if !hasCode(found, topic.Code) {
			t.Errorf("%s: its example causes %v\n%s", topic.Code, found, examples[0])
		}
		if topic.Code == codeMalformed || len(examples) < 2 {
			continue
		}
		c, found := Parse(topic.Code, []byte(examples[len(examples)-1]))
		if c == nil || hasCode(found, topic.Code) {
			t.Errorf("%s: what to do causes\n%s", topic.Code, write(found))
		}
	}
}

func hasCode(found Diagnostics, code string) bool {
	return slices.ContainsFunc(found, func(d Diagnostic) bool { return d.Code == code })
}

// examplesOf returns the indented parts of a page.
func examplesOf(page string) (all []string) {
	const indent = "    "
	inside := false
	for line := range strings.Lines(page) {
		code, isCode := strings.CutPrefix(line, indent)
		switch {
		case isCode && !inside:
			all = append(all, code)
			inside = true
		case isCode:
			all[len(all)-1] += code
		case strings.TrimSpace(line) != "":
			inside = false
		}
	}
	return all
}

// docs/warnings.md is made of the pages: LVX_UPDATE=1 writes it anew.
func TestWarningsDocument(t *testing.T) {
	const head = "# Errors and warnings of the file\n\nWhat `lvx check`, `plan` and `apply` say of a file, by code. `lvx help LVX1203` prints a page.\n" +
		"With an error (LVX10 and LVX11) the file is not taken. A warning (LVX12) can be silenced: `--silence LVX1202`.\n"
	golden(t, "../../docs/warnings.md", head+"\n"+topicsText)
}
