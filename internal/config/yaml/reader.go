// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strings"
)

// reader stands at a byte of the text. Between two values of a block it always
// stands at the first character of a line that has content, or at the end.
type reader struct {
	text     string
	at       int
	line     int  // where the line of at begins
	open     bool // the document has begun: another marker ends it
	back     int  // column in which a misplaced block ends, or -1
	cut      bool // reading stopped early
	nodes    int
	most     int    // nodes that there may be
	closers  []byte // of the brackets that are open
	depth    int
	problems []Problem
}

// Read returns the value of the text, which is Null if there is none, and what is
// wrong with the text, in no order. With problems the value is what could be read.
func Read(text string) (Node, []Problem) { return read(text, MaxNodes) }

func read(text string, most int) (Node, []Problem) {
	if len(text) > MaxBytes {
		return Node{}, []Problem{{Fault: TooMuch, Message: fmt.Sprintf("%d bytes; at most %d are read", len(text), MaxBytes)}}
	}
	if problem, bad := checkEncoding(text); bad {
		return Node{}, []Problem{problem}
	}
	r := &reader{text: text, back: -1, most: most}
	if strings.HasPrefix(text, byteOrderMark) {
		r.at = len(byteOrderMark)
		r.line = r.at
	}
	if !r.start() {
		return Node{Kind: Null, Incomplete: r.cut}, r.problems
	}
	n := r.block(-1)
	for r.column() >= 0 {
		r.misplaced(&n)
	}
	return n, r.problems
}

// start goes to the document's first line with content, and tells whether there is one.
func (r *reader) start() bool {
	r.toContent()
	for r.column() == 0 && r.text[r.at] == '%' {
		r.report(Foreign, r.toEndOfLine(r.at), "directives (%) are not taken", "take this line out")
		r.nextLine()
	}
	if r.column() == 0 && r.isMarker("---") {
		r.at += len("---")
		if r.blanks(); !r.isEndOfLine() {
			r.report(Malformed, r.toEndOfLine(r.at), "nothing may follow --- on its line", "begin on the next line")
		}
		r.open = true
		r.nextLine()
	}
	r.open = true
	return r.column() >= 0
}

// column is where in its line the reader stands, from 0; -1 at the end of the text.
func (r *reader) column() int {
	if r.at >= len(r.text) {
		return -1
	}
	return r.at - r.line
}

// stop gives up the text from there on.
func (r *reader) stop(at int) {
	r.text, r.cut = r.text[:at], true
}

// report notes a problem; the last one that is kept says that there are more.
func (r *reader) report(fault Fault, where Span, message, help string) {
	switch n := len(r.problems); {
	case n < maxProblems:
		r.problems = append(r.problems, Problem{Fault: fault, Span: where, Message: message, Help: help})
	case n == maxProblems:
		r.problems = append(r.problems, Problem{Fault: TooMuch, Span: where, Message: "too many mistakes: the rest is not read"})
		line, _, _ := strings.Cut(r.text[r.at:], "\n") // which is read to its end
		r.stop(r.at + len(line))
	}
}

const maxProblems = 200

// nextLine goes to the first character of the next line that has content.
func (r *reader) nextLine() {
	end := strings.IndexByte(r.text[r.at:], '\n')
	if end < 0 {
		r.at = len(r.text)
		return
	}
	r.at += end + 1
	r.line = r.at
	r.toContent()
}

// toContent goes to the first content at or behind the beginning of a line.
func (r *reader) toContent() {
	for r.at < len(r.text) {
		r.spaces()
		tab := r.at
		if r.blanks(); r.isEndOfLine() {
			r.skipLine()
			continue
		}
		if r.at > tab {
			r.tab(tab)
			return
		}
		if r.column() == 0 && (r.open && r.isMarker("---") || r.isMarker("...")) {
			r.endOfDocument()
		}
		return
	}
}

// skipLine goes to the beginning of the next line.
func (r *reader) skipLine() {
	if end := strings.IndexByte(r.text[r.at:], '\n'); end >= 0 {
		r.at += end + 1
	} else {
		r.at = len(r.text)
	}
	r.line = r.at
}

// tab reports that a line is indented with one, and stops: nobody can know
// how many spaces it stands for.
func (r *reader) tab(at int) {
	lines := 1 + strings.Count(r.text[at:], "\n\t")
	message := "a tab indents this line"
	if lines > 1 {
		message += fmt.Sprintf(", and %d more below", lines-1)
	}
	r.report(Tab, span(at, at+1), message, "YAML is indented with spaces: turn the tabs into spaces")
	r.at = r.line
	r.stop(r.at)
}

// endOfDocument is at a line --- or ... behind content: nothing may follow.
func (r *reader) endOfDocument() {
	marker := r.at
	last := r.isMarker("...")
	r.at += len("---")
	if r.blanks(); last && r.isEndOfLine() {
		if r.nextLine(); r.column() < 0 {
			return
		}
		marker = r.at
	}
	r.report(Foreign, r.toEndOfLine(marker), "the file is one document; another begins here", "take it out, or make it a file of its own")
	r.at = marker
	r.stop(marker)
}

// isMarker tells whether the line is this marker of a document.
func (r *reader) isMarker(marker string) bool {
	rest, is := strings.CutPrefix(r.text[r.at:], marker)
	return is && (rest == "" || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

func (r *reader) spaces() {
	for r.at < len(r.text) && r.text[r.at] == ' ' {
		r.at++
	}
}

// blanks skips spaces and tabs.
func (r *reader) blanks() {
	for r.at < len(r.text) && isBlank(r.text[r.at]) {
		r.at++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isEndOfLine tells whether nothing but a comment stands in the rest of the line.
func (r *reader) isEndOfLine() bool { return r.lineEndsAt(r.at) }

func (r *reader) lineEndsAt(at int) bool {
	if at >= len(r.text) {
		return true
	}
	switch r.text[at] {
	case '\n':
		return true
	case '\r':
		return at+1 < len(r.text) && r.text[at+1] == '\n'
	case '#':
		return at == r.line || isBlank(r.text[at-1])
	}
	return false
}

// isSpaceAt tells whether a blank or a line's end stands there.
func (r *reader) isSpaceAt(at int) bool {
	return at >= len(r.text) || strings.IndexByte(" \t\r\n", r.text[at]) >= 0
}

// isDash tells whether an item of a list begins here.
func (r *reader) isDash() bool { return r.isIndicator('-') }

// isIndicator tells whether this character stands here with a space behind it.
func (r *reader) isIndicator(c byte) bool {
	return r.at < len(r.text) && r.text[r.at] == c && r.isSpaceAt(r.at+1)
}

func span(start, end int) Span { return Span{int32(start), int32(end)} }

// toEndOfLine is the span from there to the end of the line, without blanks there.
func (r *reader) toEndOfLine(start int) Span {
	line, _, _ := strings.Cut(r.text[start:], "\n")
	return span(start, start+len(strings.TrimRight(line, " \t\r")))
}

// word is the span from there to the next blank or, in a bracket, to what ends a value there.
func (r *reader) word(start int) Span {
	end := strings.IndexAny(r.text[start:], " \t\r\n,]}")
	if end < 0 {
		end = len(r.text) - start
	}
	return span(start, start+max(end, 1))
}
