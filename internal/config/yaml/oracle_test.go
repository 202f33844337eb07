// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	v3 "go.yaml.in/yaml/v3"
)

// Another reader of YAML, after libyaml, judges ours: what ours takes means the
// same to it, and stands in the same places.
func FuzzRead(f *testing.F) {
	for _, c := range texts {
		f.Add(c.text)
	}
	files, err := filepath.Glob("../testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, problems := Read(text)
		if len(problems) > 0 || n.Kind == Null || lacking.MatchString(text) {
			return
		}
		lines := newLines(text)
		ours := show(n, lines.place)
		var document v3.Node
		if err := v3.Unmarshal([]byte(tabbed.ReplaceAllString(text, "")), &document); err != nil {
			t.Fatalf("%q\nours   %s\ntheirs %v", text, ours, err)
		}
		if theirs := showTheirs(&document); theirs != ours {
			t.Fatalf("%q\nours   %s\ntheirs %s", text, ours, theirs)
		}
	})
}

// lacking is what libyaml, being of YAML 1.1, does not read as YAML 1.2 has it:
// the escape of a slash, surrogates, a question mark inside a text in brackets. Of
// a byte order mark it has another opinion about columns.
var lacking = regexp.MustCompile(`\\/|\\u[dD]|\?|^\x{FEFF}`)

// tabbed is a blank line, or one of a comment, with a tab, which libyaml refuses
// and YAML 1.2 (6.6) takes.
var tabbed = regexp.MustCompile(`(?m)^ *\t[ \t]*(#.*)?\r?$`)

type lines struct {
	text   string
	starts []int
}

func newLines(text string) lines {
	l := lines{text: text, starts: []int{0}}
	for i := range len(text) {
		if text[i] == '\n' {
			l.starts = append(l.starts, i+1)
		}
	}
	return l
}

func (l lines) place(s Span) string {
	line := len(l.starts) - 1
	for l.starts[line] > int(s.Start) {
		line--
	}
	return at(line+1, 1+utf8.RuneCountInString(l.text[l.starts[line]:s.Start]))
}

func at(line, column int) string { return fmt.Sprintf("@%d:%d", line, column) }

func showTheirs(n *v3.Node) string {
	var parts []string
	switch n.Kind {
	case v3.DocumentNode:
		return showTheirs(n.Content[0])
	case v3.ScalarNode:
		switch {
		case n.Style&(v3.SingleQuotedStyle|v3.DoubleQuotedStyle) != 0:
			return fmt.Sprintf("%q", n.Value) + at(n.Line, n.Column)
		case n.Tag == "!!null":
			return "null"
		}
		return n.Value + at(n.Line, n.Column)
	case v3.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			parts = append(parts, fmt.Sprintf("%q%s: %s", key.Value, at(key.Line, key.Column), showTheirs(n.Content[i+1])))
		}
		return "{" + strings.Join(parts, ", ") + "}" + at(n.Line, n.Column)
	case v3.SequenceNode:
		for _, item := range n.Content {
			parts = append(parts, showTheirs(item))
		}
		return "[" + strings.Join(parts, ", ") + "]" + at(n.Line, n.Column)
	}
	return "an alias"
}
