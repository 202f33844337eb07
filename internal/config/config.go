// SPDX-License-Identifier: Apache-2.0

// Package config turns the daemon's file into an lvs.Configuration and back. It
// is strict and guesses nothing: what it does not know, or what could be meant in
// two ways, is an error at its place, and all errors are told at once. What is
// possible but seldom meant is a warning. Every error and warning has a code, and
// every code a page that explains it (topics.md).
//
// keys.go says once which keys there are and what may stand for them: the parser,
// the JSON Schema and the documents are made from it.
//
// It is pure: bytes and values. Reading the file, and asking the host whether an
// interface or an address is there, are for others.
package config

import (
	"fmt"

	"lvx/internal/config/yaml"
	"lvx/internal/lvs"
)

// Parse reads the text of a file; name is for the diagnostics. The configuration
// is nil if and only if there is an error among them; lvs.Configuration.Validate
// takes whatever Parse returns. A text of up to 32 MiB takes seconds at most.
func Parse(name string, text []byte) (*lvs.Configuration, Diagnostics) {
	if len(text) > yaml.MaxBytes {
		s := newSource(name, "")
		s.fail(codeTooMuch, yaml.Span{}, fmt.Sprintf("the file has %d MiB; at most %d MiB are read", len(text)>>20, yaml.MaxBytes>>20), "")
		return nil, s.found
	}
	s := newSource(name, string(text))
	root, problems := yaml.Read(s.text)
	for _, p := range problems {
		s.fail(faultCodes[p.Fault], p.Span, p.Message, p.Help)
	}
	d := decoder{source: s}
	switch {
	case root.Kind == yaml.Null && !root.Incomplete && len(problems) == 0:
		s.fail(codeEmpty, yaml.Span{}, "the file is empty", `a director without services is "services: []"`)
	case root.Kind != yaml.Broken && !(root.Kind == yaml.Text && len(problems) > 0):
		s.check(&root, fileShape, "")
		d.file(&root)
	}
	if s.errors == 0 {
		if err := d.configuration.Validate(); err != nil {
			s.fail(codeRefused, yaml.Span{}, err.Error(), "")
		}
	}
	s.found.sort()
	if s.errors > 0 {
		return nil, s.found
	}
	return &d.configuration, s.found
}

var faultCodes = map[yaml.Fault]string{
	yaml.Malformed: codeMalformed,
	yaml.Foreign:   codeForeign,
	yaml.Tab:       codeTab,
	yaml.Encoding:  codeEncoding,
	yaml.TooMuch:   codeTooMuch,
}
