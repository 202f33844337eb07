// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// Whatever the text: no panic, a configuration or an error and never both, every
// diagnostic inside the text, and lvs takes what Parse takes.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(whole))
	f.Add(large(3))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, found := Parse("lvx.yaml", text)
		if (c == nil) != (len(found.Errors()) > 0) {
			t.Fatalf("configuration %v, and %v", c, found)
		}
		lines := strings.Split(string(text), "\n")
		for _, d := range found {
			checkPlace(t, d, lines)
		}
		if c == nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		written, err := Marshal(*c)
		if err != nil {
			t.Fatal(err)
		}
		if back, found := Parse("lvx.yaml", written); back == nil || !equal(*c, *back) {
			t.Fatalf("%v\n%s", found, written)
		}
	})
}

func checkPlace(t *testing.T, d Diagnostic, lines []string) {
	if d.Line < 1 || d.Line > len(lines) {
		t.Fatalf("%d lines: %+v", len(lines), d)
	}
	line := strings.TrimPrefix(strings.TrimSuffix(lines[d.Line-1], "\r"), byteOrderMark)
	width := utf8.RuneCountInString(line)
	switch {
	case d.Column < 1 || d.Column > width+1 || d.Length < 1 || d.Column-1+d.Length > max(width, d.Column):
		t.Fatalf("line of %d characters: %+v", width, d)
	case !utf8.ValidString(d.Source) || d.Source != "" && utf8.RuneCountInString(d.Source) != width:
		t.Fatalf("%q: %+v", line, d)
	case d.Code == codeRefused:
		t.Fatalf("lvs refuses what the parser found right: %+v", d)
	case d.Code == "" || d.Message == "" || strings.ContainsAny(d.Message+d.Help, "\n\x1b\x00"):
		t.Fatalf("%+v", d)
	}
	if _, known := FindTopic(d.Code); !known {
		t.Fatalf("%+v has no page", d)
	}
}
