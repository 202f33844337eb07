// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strings"
)

// block reads the value that begins here and goes on over the lines below that
// are indented deeper than parent.
func (r *reader) block(parent int) (n Node) {
	if !r.enter() {
		return Node{}
	}
	defer r.leave()
	if !r.isKeyHere() && r.properties() && r.isEndOfLine() {
		if r.nextLine(); r.column() <= parent {
			return Node{}
		}
	}
	switch {
	case r.isDash():
		return r.sequence(parent)
	case r.isKeyHere(), r.isIndicator('?'):
		return r.mapping()
	}
	start, column := r.at, r.column()
	n = r.inline(parent)
	r.finishLine(&n)
	if n.Kind == Text && !n.Quoted && r.column() == column && !r.isDash() {
		r.notAnEntry(start) // among keys, as the next line tells
		n = r.mapping()
		n.Incomplete = true
	}
	return n
}

// skipExplicit skips keys that are written with "?", and their values.
func (r *reader) skipExplicit() {
	for column := r.column(); r.column() == column && (r.isIndicator('?') || r.isIndicator(':')); {
		if r.isIndicator('?') {
			r.report(Foreign, r.toEndOfLine(r.at), `keys with "?" are not taken`, `write "key: value"`)
		}
		r.skipDeeper(column)
	}
}

// enter bounds how deep values are nested: the reader calls itself.
func (r *reader) enter() bool {
	if r.depth == MaxDepth {
		r.report(TooMuch, r.word(r.at), fmt.Sprintf("values are nested more than %d deep", MaxDepth), "")
		r.stop(r.at)
		return false
	}
	r.depth++
	return true
}

func (r *reader) leave() { r.depth-- }

// full bounds how much memory the nodes take: there is no room for another.
func (r *reader) full() bool {
	if r.nodes++; r.nodes <= r.most {
		return false
	}
	if !r.cut {
		r.report(TooMuch, span(r.at, r.at+1), fmt.Sprintf("more than %d values: the rest is not read", r.most), "")
		r.stop(r.at)
	}
	return true
}

// mapping reads keys that begin in this column.
func (r *reader) mapping() Node {
	n := Node{Kind: Mapping, Span: span(r.at, r.at)}
	for column := r.column(); r.column() >= column && !r.returns(column) && !r.full(); {
		if r.column() > column || r.isDash() {
			r.misplaced(&n)
			continue
		}
		r.entry(&n, column)
	}
	n.Incomplete = n.Incomplete || r.cut
	if len(n.Entries) > 0 {
		n.Span = n.Entries[0].KeySpan
	}
	return n
}

// entry reads "key: value".
func (r *reader) entry(n *Node, column int) {
	start := r.at
	key, where, ok := r.key()
	switch {
	case !ok:
		r.at = start
		n.Incomplete = true
		if r.isIndicator('?') {
			r.skipExplicit()
			return
		}
		r.notAnEntry(start)
		r.skipDeeper(column)
		return
	case key == "<<":
		r.report(Foreign, where, "merge keys (<<) are not taken", "write the values out where they belong")
		n.Incomplete = true
		r.skipDeeper(column)
		return
	case r.text[start] == '&' || r.text[start] == '!' || r.text[start] == '*':
		r.foreign(r.word(start))
		n.Incomplete = true
		r.skipDeeper(column)
		return
	}
	n.Entries = append(n.Entries, Entry{Key: key, KeySpan: where, Value: r.value(where, column)})
}

// notAnEntry reports a line among keys that is none.
func (r *reader) notAnEntry(start int) {
	line := r.toEndOfLine(start)
	text := r.text[line.Start:line.End]
	switch key, value, colon := strings.Cut(text, ":"); {
	case key != "" && value != "" && colon && strings.IndexByte(`"'[{`, text[0]) < 0:
		r.report(Malformed, line, fmt.Sprintf("%q has no space behind its colon", text), fmt.Sprintf(`write "%s: %s"`, key, value))
	default:
		r.report(Malformed, line, fmt.Sprintf(`%q is not "key: value"`, text), "")
	}
}

// skipDeeper leaves this line and those below that are indented deeper than column.
func (r *reader) skipDeeper(column int) {
	for r.nextLine(); r.column() > column; r.nextLine() {
		continue
	}
}

// value reads what stands behind "key:", in the line or below it. An item of a
// list may stand in the key's own column.
func (r *reader) value(key Span, column int) (n Node) {
	r.blanks()
	r.properties()
	if !r.isEndOfLine() {
		n = r.inline(column)
		r.finishLine(&n)
		return n
	}
	r.nextLine()
	switch at := r.column(); {
	case at > column, at == column && r.isDash():
		return r.block(column)
	}
	if r.cut {
		return Node{Span: key} // it may be in what is not read
	}
	return Node{Kind: Null, Span: key}
}

// sequence reads items whose dashes stand in this column. Where that is parent's
// own, a line without a dash is parent's next key.
func (r *reader) sequence(parent int) Node {
	n := Node{Kind: Sequence, Span: span(r.at, r.at+1)}
	for column := r.column(); r.column() >= column && !r.returns(column) && !r.full(); {
		switch {
		case r.column() > column:
			r.misplaced(&n)
		case r.isDash():
			r.item(&n, column)
		case parent == column:
			n.Incomplete = n.Incomplete || r.cut
			return n
		default:
			r.misplaced(&n)
		}
	}
	n.Incomplete = n.Incomplete || r.cut
	return n
}

// item reads "- value".
func (r *reader) item(n *Node, column int) {
	value := Node{Kind: Null, Span: span(r.at, r.at+1)}
	r.at++
	r.spaces()
	tab := r.at
	switch r.blanks(); {
	case r.at > tab:
		r.tab(tab)
		value.Kind = Broken
	case r.isEndOfLine():
		if r.nextLine(); r.column() > column {
			value = r.block(column)
		} else if r.cut {
			value.Kind = Broken // it may be in what is not read
		}
	default:
		value = r.block(column)
	}
	n.Items = append(n.Items, value)
}

// misplaced reads a line whose indentation fits nowhere, with those below it. What
// it holds is taken as part of what stands above, to find no mistake twice.
func (r *reader) misplaced(n *Node) {
	last := n.last()
	column := -1 // of last, to which lines may return
	if last != nil && (last.Kind == Mapping || last.Kind == Sequence) && !last.flow {
		column = r.columnOf(last.Start)
	}
	isBlock := r.isDash() || r.isKeyHere()
	isTold := r.column() == column || isBlock && last != nil && last.Kind == Broken
	if !isTold {
		r.reportMisplaced(n, last)
	}
	back := r.back
	if r.column() != column {
		r.back = column
	}
	m := r.block(r.column() - 1)
	r.back = back
	isBlock = m.Kind == Mapping || m.Kind == Sequence
	switch {
	case isBlock && last != nil && m.Kind == last.Kind && !last.flow:
		last.join(m)
	case isBlock && m.Kind == n.Kind && !n.flow:
		n.join(m)
	case isBlock && n.Kind == Sequence && last != nil && (last.Kind == Text || last.Kind == Broken):
		*last = m
		last.Incomplete = true
	default:
		n.Incomplete = true
		if last != nil && last.Kind == Text {
			last.Kind = Broken
		}
	}
}

// returns tells whether the line goes on with what stood above a misplaced one.
func (r *reader) returns(column int) bool { return r.column() > column && r.column() == r.back }

func (r *reader) columnOf(at int32) int {
	return int(at) - 1 - strings.LastIndexByte(r.text[:at], '\n')
}

func (r *reader) reportMisplaced(n, last *Node) {
	line := r.toEndOfLine(r.at)
	isBlock := r.isDash() || r.isKeyHere()
	text := n // that the line may be meant to belong to
	if n.Kind == Sequence {
		text = last
	}
	switch before := r.above(); {
	case !isBlock && last != nil && last.Kind == Text:
		r.report(Malformed, line, "text that goes on in the next line is not taken", "write it on one line")
	case isBlock && text != nil && text.Kind == Text:
		r.report(Malformed, text.Span, fmt.Sprintf(`%q is not "key:", but has lines below it`, r.text[text.Start:text.End]), "")
	case before == r.column():
		r.report(Malformed, line, "this line begins where the one above does, but does not fit behind it", "indent it deeper, or less deep")
	default:
		r.report(Malformed, line, fmt.Sprintf("this line is indented by %s and the one above by %d: it belongs nowhere", spaces(r.column()), before), "indent it as its neighbours are")
	}
}

// above is how far the last line with content above this one is indented.
func (r *reader) above() (column int) {
	for end := r.line; end > 0; {
		start := strings.LastIndexByte(r.text[:end-1], '\n') + 1
		text := strings.TrimLeft(r.text[start:end], " ")
		column = end - start - len(text)
		if text = strings.TrimSpace(text); text != "" && text[0] != '#' {
			return column
		}
		end = start
	}
	return 0
}

func spaces(n int) string {
	if n == 1 {
		return "1 space"
	}
	return fmt.Sprintf("%d spaces", n)
}

func (n *Node) join(m Node) {
	n.Entries = append(n.Entries, m.Entries...)
	n.Items = append(n.Items, m.Items...)
	n.Incomplete = n.Incomplete || m.Incomplete
}

// finishLine is behind a value: nothing more may stand in its line.
func (r *reader) finishLine(n *Node) {
	if r.blanks(); !r.isEndOfLine() {
		rest := r.toEndOfLine(r.at)
		help := ""
		if n.Quoted {
			help = `inside "…" write \" for a quote, inside '…' write ''`
		}
		r.report(Malformed, rest, fmt.Sprintf("%q stands behind a value that has ended", r.text[rest.Start:rest.End]), help)
		n.Kind = Broken
	}
	r.nextLine()
}
