// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strings"
	"testing"
)

// show writes a value in one form, whoever read it, each with its place: texts
// without quotes as they stand, those in quotes by what is in them.
func show(n Node, place func(Span) string) string {
	var parts []string
	switch n.Kind {
	case Null:
		return "null"
	case Text:
		if n.Quoted {
			return fmt.Sprintf("%q%s", n.Text, place(n.Span))
		}
		return n.Text + place(n.Span)
	case Mapping:
		for _, e := range n.Entries {
			parts = append(parts, fmt.Sprintf("%q%s: %s", e.Key, place(e.KeySpan), show(e.Value, place)))
		}
		return "{" + strings.Join(parts, ", ") + "}" + place(n.Span)
	case Sequence:
		for _, item := range n.Items {
			parts = append(parts, show(item, place))
		}
		return "[" + strings.Join(parts, ", ") + "]" + place(n.Span)
	}
	return "broken"
}

func nowhere(Span) string { return "" }

// What is taken, and what of a text with mistakes.
var texts = []struct{ text, want string }{
	{"", "null"},
	{"# x\n", "null"},
	{"---\n...\n# x\n", "null"},
	{"a: b\n", `{"a": b}`},
	{"\uFEFFa: b\n", `{"a": b}`},
	{"---\na: b # c\n...\n", `{"a": b}`},
	{"a:\n  b: c\n  d:\n    e: f\ng: h", `{"a": {"b": c, "d": {"e": f}}, "g": h}`},
	{"a:\n- b\n-   c: d\n    e: f\ng: h\n", `{"a": [b, {"c": d, "e": f}], "g": h}`},
	{"- - a\n  - b\n-\n  c: d\n-\n- e\n", `[[a, b], {"c": d}, null, e]`},
	{"a:\nb: ~\nc: null\nd: Null\n", `{"a": null, "b": null, "c": null, "d": null}`},
	{"a: [b, [c, {d: e}], ]\n", `{"a": [b, [c, {"d": e}]]}`},
	{"a: [\n  b, # c\n\n  d\n]\ne: {}\n", `{"a": [b, d], "e": {}}`},
	{"{\"a\":1,\"b\":[true,null,~],\n\t\"c\": {}}", `{"a": 1, "b": [true, null, null], "c": {}}`},
	{"a: 'it''s'\nb: \"x\\n\\u00e9\\ud83d\\ude00\\\"\\/\"\n'c d': e\n", `{"a": "it's", "b": "x\né😀\"/", "c d": e}`},
	{"a: 1.2.3.4:80\nb: x:y\nc: -1\nd: -x\ne: a#b\nf: http://g/ # h\n", `{"a": 1.2.3.4:80, "b": x:y, "c": -1, "d": -x, "e": a#b, "f": http://g/}`},
	{"a: {b: [x:1, fd00::1], c: 1.2.3.4:80}\n", `{"a": {"b": [x:1, fd00::1], "c": 1.2.3.4:80}}`},
	{"a:\r\n  - b\r\n  - c # x\r\n\r\n", `{"a": [b, c]}`},
	{"a: x\ty\t\nb:\tc\n \t \n", `{"a": x	y, "b": c}`},
	{"a: b\n...\n", `{"a": b}`},

	{"a: &x\n  b: 1\nc: *x\n", `{"a": {"b": 1}, "c": broken}`},
	{"a: !!str 1\n", `{"a": 1}`},
	{"!!map\na: b\n", `{"a": b}`},
	{"&x a: b\nc: d\n", `{"c": d}`},
	{"- &x\n- b\n", `[broken, b]`},
	{"<<: *x\nc: d\n", `{"c": d}`},
	{"a: |\n  b\n\n   c\nd: >-\n  e\nf: g\n", `{"a": broken, "d": broken, "f": g}`},
	{"? a\n: b\nc: d\n", `{"c": d}`},
	{"? a\n: b\n", `{}`},
	{"c: d\n? a\n: b\ne: f\n", `{"c": d, "e": f}`},
	{"%YAML 1.2\n---\na: b\n", `{"a": b}`},
	{"a: b\n---\nc: d\n", `{"a": b}`},
	{"a: b\n...\nc: d\n", `{"a": b}`},
	{"a: b\n\tc: d\ne: f\n", `{"a": b}`},
	{"a:\n  b: 1\n c: 2\n  d: 3\ne: 4\n", `{"a": {"b": 1, "c": 2, "d": 3}, "e": 4}`},
	{"- a: 1\n    b: 2\n  c: 3\n- d: 4\n", `[{"a": 1, "b": 2, "c": 3}, {"d": 4}]`},
	{"a: 1\n b: 2\nc: 3\n", `{"a": 1, "b": 2, "c": 3}`},
	{"a:\n    - b\n  - c\n", `{"a": [b, c]}`},
	{"a:\n  - b\n  c: d\ne: f\n", `{"a": [{"c": d}], "e": f}`},
	{"a:\n  b:c\n  d: e\n  f:g\n", `{"a": {"d": e}}`},
	{"a: {b: 1]\nc: d\n", `{"a": {"b": 1}, "c": d}`},
	{"a: [b, c\nd: e\n", `{"a": [b, c], "d": e}`},
	{"- {a: 1, b: {c: 2\n- {d: 3}\n", `[{"a": 1, "b": {"c": 2}}, {"d": 3}]`},
	{"[{a: 1, b: 2]", `[{"a": 1, "b": 2}]`},
	{"a: {b: 1 c: 2, d: 3}\n", `{"a": {"b": broken, "d": 3}}`},
	{"a: [b c: d, e: f, \"g\" h, i]\n", `{"a": [b c, e, "g", i]}`},
	{"a: [fd00::1]:80\nb: {c: [::1]:80, d: [fd00::1]}\n", `{"a": "[fd00::1]:80", "b": {"c": "[::1]:80", "d": [fd00::1]}}`},
	{"a: b: c\nd: \"e\nf: 'g' h\ni: @j\nk: -\nl: m\n", `{"a": broken, "d": broken, "f": broken, "i": broken, "k": broken, "l": m}`},
	{"a: {b, c:d, \"e\", f: }\n", `{"a": {"f": null}}`},
	{"a: [@b, *c, &d e, - f, ?, :g, ]\n", `{"a": [broken, broken, broken, broken, broken, broken]}`},
	{"a: b\n  c\nd: e\n", `{"a": broken, "d": e}`},
	{"a\n- b\n", `a`},
	{"a\u00a0b: c\nd: e\u00a0f\n", `{"a\u00a0b": c, "d": broken}`},
}

func TestRead(t *testing.T) {
	for _, c := range texts {
		n, problems := Read(c.text)
		if got := show(n, nowhere); got != c.want {
			t.Errorf("%q is\n%s, not\n%s\n%+v", c.text, got, c.want, problems)
		}
		for _, p := range problems {
			if p.Start < 0 || p.End < p.Start || int(p.Start) > len(c.text) || p.Message == "" {
				t.Errorf("%q: %+v", c.text, p)
			}
		}
	}
}

// What is missing may be in what could not be read.
func TestIncomplete(t *testing.T) {
	for text, want := range map[string]bool{
		"a: b\n": false, "a: b\nc\n": true, "a: b\n\tc: d\n": true, "{a: b\n": true, "{a: b, c}": true, "a: b\n&x c: d\n": true,
	} {
		if n, _ := Read(text); n.Kind != Mapping || n.Incomplete != want {
			t.Errorf("%q: %+v", text, n)
		}
	}
}

// Time and memory grow with the length of the text, whatever is in it.
func TestLongTexts(t *testing.T) {
	const size = 1 << 19
	for _, part := range []string{
		"[", "{", "]", "- ", "-\n", "? ", "a: ", "a:\n", "a: b\n", "\ta", "\"", "'", "\"a\",", "[a],", "{a},", ",", "a,", "a\n", " ", "\n", "#\n", "@", "@\n",
		"---\n", "...\n", "&a ", "&a\n", "!a ", "*a\n", "|\n", "- |\n", "x", "\"\t\"\t", "\\", "<<: a\n", " a\n", "a: [\n", "- {\n", "[::1]:", "é", "a:b\n",
	} {
		for _, begin := range []string{"", "a: [", "a: \"", "[", "- "} {
			text := begin + strings.Repeat(part, size/len(part))
			_, problems := Read(text)
			if len(problems) > maxProblems+1 {
				t.Errorf("%q %q: %d problems", begin, part, len(problems))
			}
		}
	}
	// Indented deeper in each line, and back.
	var stairs strings.Builder
	for i := range 2000 {
		stairs.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	for i := range 2000 {
		stairs.WriteString(strings.Repeat(" ", 2000-i) + "b: 1\n")
	}
	if _, problems := Read(stairs.String()); len(problems) != 1 || problems[0].Fault != TooMuch {
		t.Error(problems)
	}
}

func TestBounds(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if _, problems := Read(deep(MaxDepth - 1)); len(problems) > 0 {
		t.Error(problems)
	}
	for name, text := range map[string]string{
		"depth": deep(MaxDepth + 1),
		"bytes": strings.Repeat("#", MaxBytes+1),
	} {
		if _, problems := Read(text); len(problems) != 1 || problems[0].Fault != TooMuch {
			t.Errorf("%s: %+v", name, problems)
		}
	}
}

func TestNumberOfNodes(t *testing.T) {
	for _, text := range []string{"[a,b,c,d]", "- a\n- b\n- c\n- d\n", "a: 1\nb: 2\nc: 3\nd: 4\n", "- [a, b]\n- {c: d}\n"} {
		n, problems := read(text, 3)
		if len(problems) != 1 || problems[0].Fault != TooMuch || !n.Incomplete {
			t.Errorf("%q: %+v %+v", text, n, problems)
		}
	}
}

func TestEncodings(t *testing.T) {
	for _, text := range []string{"a: \xff", "\xff\xfea", "a\rb", "a: \x00", "a: \x1b[0m", "a: \u0085b", "# \u2028a: b", "a: \uFEFF", "a: \x7f"} {
		n, problems := Read(text)
		if n.Kind != Broken || len(problems) != 1 || problems[0].Fault != Encoding {
			t.Errorf("%q: %+v %+v", text, n, problems)
		}
	}
}
