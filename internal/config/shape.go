// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"lvx/internal/config/yaml"
)

// kind is what may stand for a key.
type kind uint8

const (
	textKind     kind = iota
	wordKind          // one of a few
	integerKind       // from min to max
	booleanKind       // true or false
	durationKind      // with units
	listKind          // of items
	objectKind        // of fields
)

// shape describes a value. The parser checks a file against it, and the schema is
// made from it. What depends on more than the value itself is not here.
type shape struct {
	kind     kind
	what     string   // of an object, for people: "a real server"
	min, max uint64   // of an integer
	words    []string // of a word
	later    []string // words of a later version
	help     string   // of a text: what it looks like
	// Of a text: pattern is the form it has to have, if it is not nil, in the syntax
	// that Go and JSON Schema share; code and message are for one that has not.
	pattern       *regexp.Regexp
	code, message string
	item          *shape // of a list
	fields        []field
}

// field is a key of an object.
type field struct {
	name    string
	about   string // for the schema
	example string
	// fallback is what holds without the key; nil if the key is required, or if
	// that cannot be said as a value.
	fallback any
	required bool
	later    bool   // the key of a later version; about says what to do instead
	shape    *shape // nil if later
}

func (s *shape) find(name string) *field {
	for i := range s.fields {
		if s.fields[i].name == name {
			return &s.fields[i]
		}
	}
	return nil
}

// check notes what of the value is not as the shape has it. It makes such values
// Broken, so that nobody looks at them again. name is the key's.
func (s *source) check(n *yaml.Node, want *shape, name string) {
	problem, code, help := "", codeType, ""
	switch {
	case n.Kind == yaml.Broken:
		return
	case n.Kind == yaml.Null:
		problem, code, help = fmt.Sprintf("%s has no value", name), codeNoValue, noValueHelp(want)
	case want.kind == objectKind && n.Kind == yaml.Mapping:
		s.checkObject(n, want)
		return
	case want.kind == listKind && n.Kind == yaml.Sequence:
		s.checkList(n, want, name)
		return
	case want.kind == objectKind, want.kind == listKind, n.Kind != yaml.Text:
		problem, help = wrongType(n, want, name), s.structureHelp(n, want)
	default:
		problem, code, help = checkText(n, want, name)
	}
	if problem != "" {
		s.fail(code, n.Span, problem, help)
		n.Kind = yaml.Broken
	}
}

func (s *source) checkObject(n *yaml.Node, want *shape) {
	var seen [64]*yaml.Entry // by field
	for i := range n.Entries {
		e := &n.Entries[i]
		f := want.find(e.Key)
		if f == nil {
			if f = s.unknownKey(e, want); f != nil && seen[fieldIndex(want, f)] == nil {
				seen[fieldIndex(want, f)] = &misspelt
			}
			continue
		}
		at := fieldIndex(want, f)
		switch first := seen[at]; {
		case first != nil && first != &misspelt:
			s.fail(codeTwice, e.KeySpan, fmt.Sprintf("%q is there twice in %s; first in line %d", e.Key, want.what, s.line(int(first.KeySpan.Start))), "take one out")
			e.Value.Kind = yaml.Broken
		case f.later:
			s.fail(codeLaterKey, e.KeySpan, e.Key+" is not in this version of lvx", "take it out; "+f.about)
		default:
			s.check(&e.Value, f.shape, e.Key)
		}
		if seen[at] == nil || seen[at] == &misspelt {
			seen[at] = e
		}
	}
	for i := range want.fields {
		f := &want.fields[i]
		if f.required && seen[i] == nil && !n.Incomplete && !(f.name == "address" && has(n, "mark")) {
			s.fail(codeMissing, n.Span, fmt.Sprintf("%s has no %s", want.what, f.name), "add "+f.example)
		}
	}
}

// misspelt stands for a key that was probably meant by one that is not known.
var misspelt yaml.Entry

func fieldIndex(s *shape, f *field) int {
	for i := range s.fields {
		if &s.fields[i] == f {
			return i
		}
	}
	return -1
}

// unknownKey returns the field that was probably meant, or nil.
func (s *source) unknownKey(e *yaml.Entry, want *shape) *field {
	var names []string
	for _, f := range want.fields {
		if !f.later {
			names = append(names, f.name)
		}
	}
	key := e.Key
	if len(key) > 40 {
		key = strings.ToValidUTF8(key[:40], "") + "…"
	}
	meant := nearest(e.Key, names)
	help := "known are " + strings.Join(names, ", ")
	if home := homeOf(e.Key, fileShape); meant == "" && home != "" {
		help = fmt.Sprintf("%q is a key of %s", e.Key, home)
	}
	s.fail(codeUnknownKey, e.KeySpan, fmt.Sprintf("unknown key %q in %s%s", key, want.what, didYouMean(meant)), help)
	return want.find(meant)
}

// homeOf returns which object has this key.
func homeOf(key string, within *shape) string {
	if within == nil {
		return ""
	}
	if within.find(key) != nil {
		return within.what
	}
	for _, f := range within.fields {
		if home := homeOf(key, f.shape); home != "" {
			return home
		}
	}
	return homeOf(key, within.item)
}

func (s *source) checkList(n *yaml.Node, want *shape, name string) {
	item := "an item of " + name
	seen := map[string]int32{}
	for i := range n.Items {
		it := &n.Items[i]
		s.check(it, want.item, item)
		if it.Kind != yaml.Text {
			continue
		}
		if first, twice := seen[it.Text]; twice {
			s.fail(codeItem, it.Span, fmt.Sprintf("%q is there twice in %s; first in line %d", it.Text, name, s.line(int(first))), "take one out")
			it.Kind = yaml.Broken
			continue
		}
		seen[it.Text] = it.Start
	}
}

// get returns the value of a key that was found right, or nil.
func get(n *yaml.Node, key string) *yaml.Node {
	if n == nil {
		return nil
	}
	for i := range n.Entries {
		if e := &n.Entries[i]; e.Key == key {
			if e.Value.Kind == yaml.Broken {
				return nil
			}
			return &e.Value
		}
	}
	return nil
}

// isBroken tells whether the key has a value that was found wrong, or may have one
// in what could not be read.
func isBroken(n *yaml.Node, key string) bool {
	return n != nil && (get(n, key) == nil && has(n, key) || n.Incomplete)
}

// has tells whether the key is there, whatever its value.
func has(n *yaml.Node, key string) bool {
	for i := range n.Entries {
		if n.Entries[i].Key == key {
			return true
		}
	}
	return false
}

// hasUnknown tells whether there is a key that the shape has not: another, misspelt.
func hasUnknown(n *yaml.Node, want *shape) bool {
	return slices.ContainsFunc(n.Entries, func(e yaml.Entry) bool { return want.find(e.Key) == nil })
}

func noValueHelp(want *shape) string {
	switch want.kind {
	case listKind:
		return "write [] for none"
	case objectKind:
		return "indent what belongs to it deeper, or take the key out"
	}
	return "write a value, or take the key out"
}

// structureHelp is for a value where a list or keys should be, or the reverse.
func (s *source) structureHelp(n *yaml.Node, want *shape) string {
	switch key, value, colon := strings.Cut(n.Text, ":"); {
	case want.kind == listKind && n.Kind == yaml.Text && want.item.kind != objectKind:
		return fmt.Sprintf("write [%s]", n.Text)
	case want.kind == listKind && want.item.kind == objectKind:
		return `begin each with "- "`
	case want.kind == objectKind && n.Kind == yaml.Text && !n.Quoted && colon && value != "" && value[0] != ' ':
		return fmt.Sprintf(`write "%s: %s", with a space behind the colon`, key, value)
	case want.kind == objectKind && n.Kind == yaml.Sequence && s.text[n.Start] == '-':
		return `take the "-" out`
	}
	return ""
}

var kindNames = map[kind]string{
	textKind: "a text", wordKind: "a text", integerKind: "a whole number", booleanKind: "true or false", durationKind: "a duration, such as 15m", listKind: "a list",
}

func (s *shape) name() string {
	if s.kind == objectKind {
		return "keys with values"
	}
	return kindNames[s.kind]
}

func wrongType(n *yaml.Node, want *shape, name string) string {
	if name == "" {
		name = want.what
	}
	return fmt.Sprintf("%s has to be %s, not %s", name, want.name(), nameOf(n))
}

// nameOf says what a value is, as every YAML reader sees it.
func nameOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.Mapping:
		return "keys with values"
	case yaml.Sequence:
		return "a list"
	}
	if n.Quoted {
		return "a text"
	}
	return plainType(n.Text)
}
