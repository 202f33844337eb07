// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// quoted reads a text in quotes, which ends in its line.
func (r *reader) quoted() Node {
	start, quote := r.at, r.text[r.at]
	for at := start + 1; at < len(r.text) && r.text[at] != '\n'; at++ {
		switch c := r.text[at]; {
		case c == '\\' && quote == '"' && !strings.HasPrefix(r.text[at+1:], "\n"):
			at++
		case c == '\'' && quote == c && strings.HasPrefix(r.text[at:], "''"):
			at++
		case c == quote:
			r.at = at + 1
			return r.unquote(Node{Kind: Text, Quoted: true, Span: span(start, at+1)})
		}
	}
	line := r.toEndOfLine(start)
	r.at = int(line.End)
	r.report(Malformed, line, fmt.Sprintf("no closing %c in this line", quote), "a text ends in the line in which it begins")
	return Node{Span: line}
}

// unquote sets the text of n without its quotes.
func (r *reader) unquote(n Node) Node {
	inside := r.text[n.Start+1 : n.End-1]
	if r.text[n.Start] == '\'' {
		n.Text = strings.ReplaceAll(inside, "''", "'")
		return n
	}
	at := strings.IndexByte(inside, '\\')
	if at < 0 {
		n.Text = inside
		return n
	}
	text := []byte(inside[:at])
	for at < len(inside) {
		if inside[at] != '\\' {
			text = append(text, inside[at])
			at++
			continue
		}
		c, size := escape(inside[at:])
		if size == 0 {
			where := span(int(n.Start)+1+at, int(n.Start)+2+at+runeLen(inside[at+1:]))
			r.report(Malformed, where, fmt.Sprintf("%s is not an escape that is known", r.text[where.Start:where.End]), `write \\ for a backslash; the escapes are those of JSON`)
			n.Kind = Broken
			return n
		}
		text = utf8.AppendRune(text, c)
		at += size
	}
	n.Text = string(text)
	return n
}

func runeLen(text string) int {
	_, size := utf8.DecodeRuneInString(text)
	return size
}

var escapes = map[byte]rune{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape returns what the escape at the beginning of text stands for, and how
// many bytes it takes: 0 if it is none.
func escape(text string) (rune, int) {
	if len(text) < 2 {
		return 0, 0
	}
	if c, ok := escapes[text[1]]; ok {
		return c, 2
	}
	c, ok := hex4(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(c) {
		return c, 6
	}
	low, ok := hex4(text[6:])
	if c = utf16.DecodeRune(c, low); !ok || c == utf8.RuneError {
		return 0, 0
	}
	return c, 12
}

// hex4 reads \uXXXX.
func hex4(text string) (rune, bool) {
	if len(text) < 6 || text[:2] != `\u` {
		return 0, false
	}
	c, err := strconv.ParseUint(text[2:6], 16, 16)
	return rune(c), err == nil
}
