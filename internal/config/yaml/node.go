// SPDX-License-Identifier: Apache-2.0

// Package yaml reads the part of YAML 1.2 that a configuration needs, and keeps
// the place of everything, so that whoever judges the values can point at them.
//
// The part: mappings and lists, by indentation or in { } and [ ], texts plain or
// in quotes, comments. So JSON is taken too. Not taken, and said so: anchors,
// aliases, merge keys, tags, directives, text of several lines, several
// documents. What is taken means the same to every YAML reader; a test holds it
// against another.
//
// It goes on after a mistake, so that all are found at once. Time and memory grow
// with the text's length, whatever the text: nesting and nodes are bounded. That
// is why it is here: readers of all of YAML tell the first mistake alone, take
// more than one meaning, and some can be brought down by a short text.
//
// It is not for meaning: every value is text here, and what a key is for, or
// whether it stands there twice, it does not know.
package yaml

// Kind is what a node is.
type Kind uint8

// The kinds.
const (
	Broken   Kind = iota // could not be read; a Problem says why
	Null                 // nothing stands there, or null, or ~
	Text                 // one value: text, number, true or false
	Mapping              // keys with values
	Sequence             // a list
)

// Span is a part of the text, in bytes from its beginning. End is behind it.
type Span struct{ Start, End int32 }

// Node is a value at its place.
type Node struct {
	Kind   Kind
	Quoted bool // Text that stood in quotes
	// Incomplete is set on a Mapping or Sequence of which a part could not be read:
	// what seems to be missing may be there.
	Incomplete bool
	flow       bool
	// Span of a Text is all of it, with its quotes; of a Mapping its first key, of
	// a Sequence its first dash, or either's opening bracket.
	Span
	Text    string  // of Text: without quotes and escapes
	Entries []Entry // of Mapping, in the order of the text
	Items   []Node  // of Sequence
}

// Entry is a key with its value.
type Entry struct {
	Key     string
	KeySpan Span
	Value   Node
}

// last returns the node that was added last, or nil.
func (n *Node) last() *Node {
	switch {
	case n.Kind == Mapping && len(n.Entries) > 0:
		return &n.Entries[len(n.Entries)-1].Value
	case n.Kind == Sequence && len(n.Items) > 0:
		return &n.Items[len(n.Items)-1]
	}
	return nil
}

// Fault is what sort of mistake a problem is.
type Fault uint8

// The faults.
const (
	Malformed Fault = iota // not YAML
	Foreign                // YAML, but not the part that is taken
	Tab                    // a tab where only spaces may stand
	Encoding               // not readable text
	TooMuch                // nested too deep, or too many values
)

// Problem is a mistake at its place.
type Problem struct {
	Fault Fault
	Span
	Message string
	Help    string // what to do; may be empty
}

// The bounds of what Read takes.
const (
	MaxDepth = 32
	MaxNodes = 1 << 22
	MaxBytes = 32 << 20
)
