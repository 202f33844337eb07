// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strings"
)

// inline reads a value that begins in this line; only what is in brackets may go
// on in lines below that are indented deeper than parent.
func (r *reader) inline(parent int) Node {
	rest := r.toEndOfLine(r.at)
	switch c := r.text[r.at]; {
	case c == '[' || c == '{':
		n, _ := r.flow(parent)
		return n
	case c == '"' || c == '\'':
		return r.quoted()
	case c == '*':
		r.foreign(r.word(r.at))
	case c == '|' || c == '>':
		r.report(Foreign, rest, "text of several lines (| and >) is not taken", "write it on one line")
		r.at = int(rest.End)
		r.skipText(parent)
		return Node{Span: rest}
	case r.isDash():
		r.report(Malformed, rest, `a list with "-" begins on its own line`, "write it below, or in [ ]")
	case r.isIndicator('?'):
		r.report(Foreign, rest, `keys with "?" are not taken`, `write "key: value"`)
	case strings.IndexByte(",]}%@`", c) >= 0 || r.isIndicator(':'):
		r.reserved(rest)
	default:
		return r.plain(rest)
	}
	r.at = int(rest.End)
	return Node{Span: rest}
}

// properties reports the anchors and tags before a value, and skips them.
func (r *reader) properties() (any bool) {
	for r.at < len(r.text) && (r.text[r.at] == '&' || r.text[r.at] == '!') {
		word := r.word(r.at)
		r.foreign(word)
		r.at = int(word.End)
		r.blanks()
		any = true
	}
	return any
}

// foreign reports an anchor, an alias or a tag.
func (r *reader) foreign(word Span) {
	switch r.text[word.Start] {
	case '&':
		r.report(Foreign, word, "anchors (&) are not taken", "write the value out where it belongs")
	case '*':
		r.report(Foreign, word, "aliases (*) are not taken", "write the value out; put quotes around a text that begins with *")
	default:
		r.report(Foreign, word, "tags (!) are not taken", "take it out; put quotes around a text that begins with !")
	}
}

func (r *reader) reserved(where Span) {
	r.report(Malformed, where, fmt.Sprintf("a text cannot begin with %q", r.text[where.Start]), "put quotes around it, or take it out")
}

// skipText skips the lines of a text of several lines, to the last one.
func (r *reader) skipText(parent int) {
	for {
		next := strings.IndexByte(r.text[r.at:], '\n')
		if next < 0 {
			return
		}
		line := r.text[r.at+next+1:]
		content := strings.TrimLeft(line, " ")
		if content != "" && content[0] != '\n' && content[0] != '\r' && len(line)-len(content) <= parent {
			return
		}
		r.line = r.at + next + 1
		r.at = r.line
		if end := r.toEndOfLine(r.at); int(end.End) > r.at {
			r.at = int(end.End)
		}
		if content == "" {
			return
		}
	}
}

// plain reads a text without quotes to the end of the line.
func (r *reader) plain(rest Span) Node {
	end := r.plainEnd(r.at, false)
	n := Node{Kind: Text, Span: span(r.at, end), Text: r.text[r.at:end]}
	r.at = end
	if r.blanks(); r.at < len(r.text) && r.text[r.at] == ':' && !r.isEndOfLine() {
		r.report(Malformed, rest, `a second "key: value" in one line`, "write it on its own line, in the column of the first; or put quotes around a text with a colon")
		r.at = int(rest.End)
		return Node{Span: rest}
	}
	return r.finishPlain(n)
}

// finishPlain knows what a text without quotes is.
func (r *reader) finishPlain(n Node) Node {
	if at, c := invisible(n.Text); at >= 0 {
		where := int(n.Start) + at
		r.report(Encoding, span(where, where+1), fmt.Sprintf("%U looks like a space or like nothing, but is a character of the text", c), "write a common space, or put quotes around the text")
		n.Kind = Broken
	}
	switch n.Text {
	case "null", "Null", "NULL", "~":
		n.Kind = Null
	}
	return n
}

// plainEnd is where a text without quotes that begins there ends, without the
// blanks behind it: before ": " or " #", and in brackets before , [ ] { }.
func (r *reader) plainEnd(start int, flow bool) int {
	end := start
	for at := start; at < len(r.text); at++ {
		c := r.text[at]
		if c == '\n' || c == '#' && at > start && isBlank(r.text[at-1]) || flow && isFlowIndicator(c) {
			break
		}
		if c == ':' && (r.isSpaceAt(at+1) || flow && at+1 < len(r.text) && isFlowIndicator(r.text[at+1])) {
			break
		}
		if !isBlank(c) && c != '\r' {
			end = at + 1
		}
	}
	return end
}

func isFlowIndicator(c byte) bool { return strings.IndexByte(",[]{}", c) >= 0 }

// isKeyHere tells whether the line begins with "key:".
func (r *reader) isKeyHere() bool {
	at, problems := r.at, len(r.problems)
	_, _, ok := r.key()
	r.at, r.problems = at, r.problems[:problems]
	return ok
}

// maxKey is how far behind a key's beginning its colon may be, as in every YAML (7.4.2).
const maxKey = 1024

// key reads "key:" up to behind the colon.
func (r *reader) key() (text string, where Span, ok bool) {
	switch c := r.text[r.at]; {
	case c == '"' || c == '\'':
		n := r.quoted()
		text, where, ok = n.Text, n.Span, n.Kind == Text
	case r.isIndicator('?') || strings.IndexByte("[]{},|>%@`#", c) >= 0:
		return "", Span{}, false
	default:
		end := r.plainEnd(r.at, false)
		text, where, ok = r.text[r.at:end], span(r.at, end), end > r.at
		r.at = end
	}
	r.blanks()
	if !ok || r.at-int(where.Start) > maxKey || !r.isIndicator(':') {
		return "", Span{}, false
	}
	r.at++
	return text, where, true
}
