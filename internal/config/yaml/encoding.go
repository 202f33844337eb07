// SPDX-License-Identifier: Apache-2.0

package yaml

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const byteOrderMark = "\uFEFF"

// checkEncoding tells of the first byte that is no text.
func checkEncoding(text string) (Problem, bool) {
	if strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") {
		return Problem{Fault: Encoding, Span: span(0, 2), Message: "the file is UTF-16", Help: "save it as UTF-8"}, true
	}
	for at := 0; at < len(text); {
		c, size := utf8.DecodeRuneInString(text[at:])
		switch {
		case c == utf8.RuneError && size == 1:
			return Problem{Fault: Encoding, Span: span(at, at+1), Message: fmt.Sprintf("byte 0x%02x is not UTF-8", text[at]), Help: "save the file as UTF-8"}, true
		case c == '\r' && !strings.HasPrefix(text[at:], "\r\n"):
			return Problem{Fault: Encoding, Span: span(at, at+1), Message: "a carriage return that ends no line", Help: "end lines with a line feed"}, true
		case isControl(c) && !(c == '\uFEFF' && at == 0):
			return Problem{Fault: Encoding, Span: span(at, at+size), Message: fmt.Sprintf("control character %U", c), Help: "take it out"}, true
		}
		at += size
	}
	return Problem{}, false
}

// isControl tells whether YAML 1.2 (5.1) keeps the character out of a file, or
// whether it ends a line to YAML 1.1 alone, which could hide one in a comment.
func isControl(c rune) bool {
	switch c {
	case '\t', '\n', '\r':
		return false
	case 0x7f, 0x85, 0x2028, 0x2029, '\uFEFF', 0xfffe, 0xffff:
		return true
	}
	return c < 0x20 || c >= 0x80 && c < 0xa0
}

// invisible returns the first character of a plain text that looks like a space
// or like nothing, but is a character like any other to YAML.
func invisible(text string) (at int, c rune) {
	for i, c := range text {
		if c >= utf8.RuneSelf && (unicode.IsSpace(c) || unicode.Is(unicode.Cf, c)) {
			return i, c
		}
	}
	return -1, 0
}
