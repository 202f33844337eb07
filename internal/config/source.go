// SPDX-License-Identifier: Apache-2.0

package config

import (
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"

	"lvx/internal/config/yaml"
)

// source is the text of a file, with what was found in it.
type source struct {
	name   string
	text   string
	starts []int32 // of the lines
	found  Diagnostics
	errors int
}

// maxErrors is how many errors are told: nobody reads more, and what writes
// files by the million should not get answers of gigabytes.
const maxErrors = 1000

func newSource(name, text string) *source {
	s := &source{name: name, text: text, starts: make([]int32, 1, 1+strings.Count(text, "\n"))}
	for at := range len(text) {
		if text[at] == '\n' {
			s.starts = append(s.starts, int32(at)+1)
		}
	}
	return s
}

// fail notes an error.
func (s *source) fail(code string, where yaml.Span, message, help string) {
	if s.errors++; s.errors > maxErrors+1 {
		return
	}
	if s.errors > maxErrors {
		code, message, help = codeTooMuch, "too many errors: no more are told", ""
	}
	s.add(Error, code, where, message, help)
}

// warn notes a warning.
func (s *source) warn(code string, where yaml.Span, message, help string) {
	s.add(Warning, code, where, message, help)
}

func (s *source) add(severity Severity, code string, where yaml.Span, message, help string) {
	d := Diagnostic{Severity: severity, Code: code, File: s.name, Message: message, Help: help}
	start, end := min(int(where.Start), len(s.text)), min(int(where.End), len(s.text))
	line := s.line(start)
	from, to := s.bounds(line)
	d.Line, d.Source = line, readable(s.text[from:to])
	start, end = min(start, to), min(max(end, start), to)
	d.Column = 1 + utf8.RuneCountInString(s.text[from:start])
	d.Length = max(utf8.RuneCountInString(s.text[start:end]), 1)
	if from == 0 && strings.HasPrefix(s.text, byteOrderMark) && d.Column > 1 {
		d.Column-- // which nobody sees
	}
	s.found = append(s.found, d)
}

const byteOrderMark = "\uFEFF"

// line returns the line in which the byte is, from 1. What is behind the last
// line's end is in the last line.
func (s *source) line(at int) int {
	line := sort.Search(len(s.starts), func(i int) bool { return int(s.starts[i]) > at })
	if line > 1 && int(s.starts[line-1]) == len(s.text) {
		line--
	}
	return line
}

// bounds returns where the line begins, and where it ends without its line feed.
func (s *source) bounds(line int) (from, to int) {
	from, to = int(s.starts[line-1]), len(s.text)
	if line < len(s.starts) {
		to = int(s.starts[line]) - 1
	}
	if to > from && s.text[to-1] == '\r' {
		to--
	}
	return from, to
}

// maxLine is how long a line can be to be shown, in bytes.
const maxLine = 2000

// readable returns a line that does nothing to a terminal, with as many
// characters as before; nothing of a line that is too long to be read.
func readable(line string) string {
	line = strings.TrimPrefix(line, byteOrderMark)
	if len(line) > maxLine {
		return ""
	}
	return strings.Map(func(c rune) rune {
		if c != '\t' && !unicode.IsPrint(c) {
			return utf8.RuneError
		}
		return c
	}, line)
}
