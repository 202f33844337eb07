// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"bytes"
	"fmt"
	"strings"
)

var closers = map[byte]byte{'[': ']', '{': '}'}

// flow reads a list in [ ] or a mapping in { }. It returns false if the text ends
// before the bracket closes, which is reported: then the reader stands at the
// line that cannot belong to it.
func (r *reader) flow(parent int) (n Node, closed bool) {
	if n, is := r.bracketedAddress(); is {
		return n, true
	}
	if !r.enter() {
		return Node{}, false
	}
	defer r.leave()
	open := r.at
	n = Node{Kind: Mapping, flow: true, Span: span(open, open+1)}
	if r.text[open] == '[' {
		n.Kind = Sequence
	}
	closer := closers[r.text[open]]
	r.closers = append(r.closers, closer)
	defer func() { r.closers = r.closers[:len(r.closers)-1] }()
	r.at++
	for r.gap(parent) && !r.full() {
		switch c := r.text[r.at]; {
		case c == closer:
			r.at++
			return n, true
		case c == ']' || c == '}':
			r.notClosed(&n, open)
			if bytes.IndexByte(r.closers, c) < 0 {
				r.at++ // it can only have been meant for this one
			}
			return n, true
		case c == ',':
			r.report(Malformed, span(r.at, r.at+1), "nothing stands before this comma", "take it out")
			r.at++
		case !r.flowElement(&n, parent):
			n.Incomplete = true
			return n, false
		}
	}
	r.notClosed(&n, open)
	return n, false
}

func (r *reader) notClosed(n *Node, open int) {
	if !r.cut {
		bracket := r.text[open]
		r.report(Malformed, r.toEndOfLine(open), fmt.Sprintf("this %c is not closed", bracket), fmt.Sprintf("write %c behind its last value", closers[bracket]))
	}
	n.Incomplete = true
}

// flowElement reads one element with the comma behind it.
func (r *reader) flowElement(n *Node, parent int) (closed bool) {
	problems := len(r.problems)
	if n.Kind == Mapping {
		closed = r.flowEntry(n, parent)
	} else {
		var item Node
		item, closed = r.flowValue(parent)
		n.Items = append(n.Items, item)
	}
	if !closed {
		return false
	}
	end := r.at
	if !r.gap(parent) {
		return true
	}
	switch c := r.text[r.at]; {
	case c == ',':
		r.at++
		return true
	case c == ']' || c == '}':
		return true
	case len(r.problems) == problems:
		r.noComma(n, end)
	}
	n.Incomplete = true
	r.skipElement()
	return true
}

// noComma reports what stands behind an element.
func (r *reader) noComma(n *Node, end int) {
	const help = "write a comma between two values; put quotes around a text with a comma or a colon"
	switch last := n.last(); {
	case r.text[r.at] != ':' || last == nil:
		r.report(Malformed, span(end-1, end), "a comma is missing here", help)
	case n.Kind == Sequence:
		r.report(Malformed, span(int(last.Start), r.at+1), `"key: value" in a list`, `write "{ key: value }", or put quotes around a text with a colon`)
	default:
		r.report(Malformed, span(int(last.Start), r.at+1), "a comma is missing in front of this colon", help)
		last.Kind = Broken
	}
}

// skipElement goes to the next comma or closing bracket, or the end of the line.
func (r *reader) skipElement() {
	for r.at < len(r.text) && strings.IndexByte(",]}\n", r.text[r.at]) < 0 {
		r.at++
	}
	if r.at < len(r.text) && r.text[r.at] == ',' {
		r.at++
	}
}

// flowEntry reads "key: value" in a bracket.
func (r *reader) flowEntry(n *Node, parent int) (closed bool) {
	key, where, ok := r.flowKey()
	if !ok {
		n.Incomplete = true
		return true
	}
	value := Node{Kind: Null, Span: where}
	closed = true
	if r.gap(parent) && strings.IndexByte(",]}", r.text[r.at]) < 0 {
		value, closed = r.flowValue(parent)
	}
	n.Entries = append(n.Entries, Entry{Key: key, KeySpan: where, Value: value})
	return closed
}

// flowKey reads "key:".
func (r *reader) flowKey() (text string, where Span, ok bool) {
	key := r.flowScalar()
	if key.Kind == Broken {
		return "", Span{}, false
	}
	r.blanks()
	text, where = key.Text, key.Span
	if r.at-int(key.Start) > maxKey {
		r.report(Malformed, key.Span, fmt.Sprintf("a key is at most %d bytes long", maxKey), "")
		return "", Span{}, false
	}
	isColon := r.at < len(r.text) && r.text[r.at] == ':'
	if isColon && (key.Quoted || r.isSpaceAt(r.at+1)) {
		r.at++
		return text, where, true
	}
	if isColon { // before a comma or a bracket, where readers of YAML 1.1 see it in the text
		r.at++
		text, where.End = text+":", int32(r.at)
	}
	name, value, colon := strings.Cut(text, ":")
	switch {
	case colon && value != "" && !key.Quoted:
		r.report(Malformed, where, fmt.Sprintf("%q has no space behind its colon", text), fmt.Sprintf(`write "%s: %s"`, name, value))
	default:
		r.report(Malformed, where, fmt.Sprintf("%q is a key without a value", text), `write "key: value"`)
	}
	return "", Span{}, false
}

// flowValue reads a value in a bracket.
func (r *reader) flowValue(parent int) (n Node, closed bool) {
	if c := r.text[r.at]; c == '[' || c == '{' {
		return r.flow(parent)
	}
	return r.flowScalar(), true
}

// flowScalar reads a text in a bracket. It always goes on by a byte at least.
func (r *reader) flowScalar() Node {
	word := r.word(r.at)
	switch c := r.text[r.at]; {
	case c == '"' || c == '\'':
		return r.quoted()
	case c == '&' || c == '*' || c == '!':
		r.foreign(word)
	case r.isIndicator('?'):
		r.report(Foreign, word, `keys with "?" are not taken`, `write "key: value"`)
	case strings.IndexByte("[]{},|>%@`#:?", c) >= 0, r.isDash(), c == '-' && isFlowIndicator(r.text[r.at+1]):
		r.reserved(word)
	default:
		end := r.plainEnd(r.at, true)
		n := r.finishPlain(Node{Kind: Text, Span: span(r.at, end), Text: r.text[r.at:end]})
		r.at = end
		return n
	}
	r.at = int(word.End)
	return Node{Span: word}
}

// gap skips blanks, comments and line ends inside a bracket. It returns false at
// the end of the text, and at a line that is not indented deeper than parent: that
// one cannot belong to the bracket, unless it closes it in parent's own column.
func (r *reader) gap(parent int) bool {
	for {
		r.blanks()
		if r.at >= len(r.text) {
			return false
		}
		if !r.isEndOfLine() {
			return true
		}
		r.skipLine()
		r.spaces()
		indent := r.column()
		if tab := r.at; r.at < len(r.text) && r.text[tab] == '\t' && indent <= parent {
			if r.blanks(); !r.isEndOfLine() {
				r.tab(tab)
				return false
			}
		}
		if r.isEndOfLine() || indent > parent {
			continue
		}
		closes := strings.IndexByte("]}", r.text[r.at]) >= 0
		if !closes || indent < parent {
			r.at = r.line - 1 // where the line before ends
			return false
		}
	}
}

// bracketedAddress takes [fd00::1]:80 without quotes for what it was meant to be,
// and says what is wrong with it: to YAML it begins a list.
func (r *reader) bracketedAddress() (n Node, is bool) {
	address := strings.IndexAny(r.text[r.at:], "],{} \n")
	if address < 0 {
		return Node{}, false
	}
	inside, behind := r.text[r.at:r.at+address], r.text[r.at+address:]
	behind, closed := strings.CutPrefix(behind, "]")
	if !closed || strings.Count(inside, ":") < 2 || strings.Trim(inside[1:], "0123456789abcdefABCDEF:.%") != "" || !strings.HasPrefix(behind, ":") {
		return Node{}, false
	}
	word := r.word(r.at + len(inside) + 1)
	word.Start = int32(r.at)
	text := r.text[word.Start:word.End]
	r.report(Malformed, word, fmt.Sprintf("%s needs quotes: [ begins a list", text), fmt.Sprintf(`write "%s"`, text))
	r.at = int(word.End)
	return Node{Kind: Text, Quoted: true, Span: word, Text: text}, true
}
