// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// Severity tells whether a file can be taken in spite of a diagnostic.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // it cannot
	Warning Severity = "warning" // it can, but it may not do what was meant
)

// Diagnostic is something about a file that its writer should know, at its place.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // for instance "LVX1003"; FindTopic explains it
	File     string   `json:"file"`
	Line     int      `json:"line"`   // from 1
	Column   int      `json:"column"` // in characters, from 1
	Length   int      `json:"length"` // in characters, at least 1
	Message  string   `json:"message"`
	Help     string   `json:"help"`   // what to do; may be ""
	Source   string   `json:"source"` // the text of the line; "" if it is very long
}

// place is how compilers write it, for instance "lvx.yaml:6:9".
func (d Diagnostic) place() string {
	return fmt.Sprintf("%s:%d:%d", d.File, d.Line, d.Column)
}

// Diagnostics are in the order of their places.
type Diagnostics []Diagnostic

// Errors returns those for which the file cannot be taken.
func (d Diagnostics) Errors() Diagnostics { return d.only(Error) }

// Warnings returns those in spite of which the file can be taken.
func (d Diagnostics) Warnings() Diagnostics { return d.only(Warning) }

func (d Diagnostics) only(s Severity) (picked Diagnostics) {
	for _, one := range d {
		if one.Severity == s {
			picked = append(picked, one)
		}
	}
	return picked
}

// Without returns the diagnostics without the warnings of these codes. Errors stay.
func (d Diagnostics) Without(codes ...string) (rest Diagnostics) {
	for _, one := range d {
		if one.Severity != Warning || !slices.Contains(codes, one.Code) {
			rest = append(rest, one)
		}
	}
	return rest
}

// Write prints each as a compiler does: place, message and code, the line, a mark
// below what is meant, and what to do. paint colours a part of the text; nil colours nothing.
func (d Diagnostics) Write(w io.Writer, paint func(Severity, string) string) error {
	if paint == nil {
		paint = func(_ Severity, text string) string { return text }
	}
	var b strings.Builder
	for _, one := range d {
		fmt.Fprintf(&b, "%s: %s %s [%s]\n", one.place(), paint(one.Severity, string(one.Severity)+":"), one.Message, one.Code)
		if one.Source != "" {
			before, mark := one.mark()
			fmt.Fprintf(&b, "%5d | %s\n      | %s%s\n", one.Line, one.Source, before, paint(one.Severity, mark))
		}
		if one.Help != "" {
			fmt.Fprintf(&b, "  = help: %s\n", one.Help)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// mark returns what stands below the line: as wide as what is before the column,
// and as what is meant.
func (d Diagnostic) mark() (before, mark string) {
	line := []rune(d.Source)
	start := min(d.Column-1, len(line))
	end := min(start+d.Length, len(line))
	var b strings.Builder
	for _, c := range line[:start] {
		if c == '\t' {
			b.WriteRune(c)
		} else {
			b.WriteString(strings.Repeat(" ", width(c)))
		}
	}
	n := 0
	for _, c := range line[start:end] {
		n += width(c)
	}
	return b.String(), "^" + strings.Repeat("~", max(n, 1)-1)
}

// width is how many columns a terminal takes for a character: two for those of
// Chinese, Japanese and Korean and for pictures (Unicode's East Asian Width).
func width(c rune) int {
	if unicode.In(c, unicode.Han, unicode.Hangul, unicode.Hiragana, unicode.Katakana) || c >= 0x3000 && c <= 0x303e ||
		c >= 0xff01 && c <= 0xff60 || c >= 0x1f300 && c <= 0x1faff {
		return 2
	}
	return 1
}

// Err returns nil if there is no error, or the first, and how many more there are.
func (d Diagnostics) Err() error {
	all := d.Errors()
	switch len(all) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%s: %s", all[0].place(), all[0].Message)
	}
	return fmt.Errorf("%s: %s (and %d more)", all[0].place(), all[0].Message, len(all)-1)
}

func (d Diagnostics) sort() {
	slices.SortStableFunc(d, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
