// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"lvx/internal/config/yaml"
	"lvx/internal/lvs"
)

// checkText tells what is wrong with a single value; "" if nothing is.
func checkText(n *yaml.Node, want *shape, name string) (problem, code, help string) {
	switch want.kind {
	case integerKind:
		return checkInteger(n, want, name)
	case booleanKind:
		if n.Quoted || n.Text != "true" && n.Text != "false" {
			return fmt.Sprintf("%s has to be true or false, not %s", name, asWritten(n)), codeType, "write true or false, without quotes"
		}
		return "", "", ""
	case durationKind:
		return checkDuration(n, name)
	}
	if kind := plainType(n.Text); !n.Quoted && kind != plainText {
		if want.help != "" {
			return wrongType(n, want, name), codeType, want.help
		}
		return wrongType(n, want, name), codeType, fmt.Sprintf("%s is %s to YAML; put quotes around it if it is meant: %q", n.Text, kind, n.Text)
	}
	switch {
	case want.kind == wordKind && slices.Contains(want.later, n.Text):
		return fmt.Sprintf("%s %s is not in this version of lvx", name, n.Text), codeLaterWord, "this version has " + strings.Join(want.words, ", ")
	case want.kind == wordKind && !slices.Contains(want.words, n.Text):
		return fmt.Sprintf("%s cannot be %q%s", name, shorten(n.Text), didYouMean(nearest(n.Text, want.words))), codeWord, "write " + oneOf(want.words)
	case want.pattern != nil && !want.pattern.MatchString(n.Text):
		return fmt.Sprintf(want.message, name, shorten(n.Text)), want.code, want.help
	}
	return "", "", ""
}

func oneOf(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return "one of " + strings.Join(words, ", ")
}

// asWritten returns the value as it stands in the file.
func asWritten(n *yaml.Node) string {
	if n.Quoted {
		return fmt.Sprintf("%q", shorten(n.Text))
	}
	return shorten(n.Text)
}

// shorten returns a text that fits into a message.
func shorten(text string) string {
	if runes := []rune(text[:min(len(text), 400)]); len(runes) > 80 {
		return string(runes[:80]) + "…"
	}
	return text
}

var (
	wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)
	digits      = regexp.MustCompile(`^[0-9]+$`)
)

func checkInteger(n *yaml.Node, want *shape, name string) (problem, code, help string) {
	switch {
	case n.Quoted && wholeNumber.MatchString(n.Text):
		return wrongType(n, want, name), codeType, "take the quotes off"
	case n.Quoted || plainType(n.Text) != plainNumber:
		return wrongType(n, want, name), codeType, ""
	case !wholeNumber.MatchString(n.Text):
		return fmt.Sprintf("%s: %s is not a whole number as this file writes it", name, shorten(n.Text)), codeType, "write its digits alone, such as 1000000"
	}
	if value, err := strconv.ParseUint(n.Text, 10, 64); err != nil || value < want.min || value > want.max {
		return fmt.Sprintf("%s is %s, which is not from %d to %d", name, shorten(n.Text), want.min, want.max), codeRange, ""
	}
	return "", "", ""
}

// durationForm is what time.ParseDuration reads, without a sign.
var durationForm = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))+$`)

func checkDuration(n *yaml.Node, name string) (problem, code, help string) {
	const units = "the units are h, m, s and ms"
	switch kind := plainType(n.Text); {
	case digits.MatchString(n.Text):
		return fmt.Sprintf("%s: %s has no unit", name, shorten(n.Text)), codeDuration, fmt.Sprintf("write %ss for seconds; %s", shorten(n.Text), units)
	case !n.Quoted && kind != plainText && kind != plainNumber:
		return wrongType(n, &shape{kind: durationKind}, name), codeType, ""
	case !durationForm.MatchString(n.Text):
		return fmt.Sprintf("%s: %q is not a duration", name, shorten(n.Text)), codeDuration, "write it as 15m or 1h30m; " + units
	}
	if value, err := time.ParseDuration(n.Text); err != nil || value <= 0 || value > lvs.MaxTimeout {
		return fmt.Sprintf("%s: %s is not above 0 and up to %.0fh", name, shorten(n.Text), lvs.MaxTimeout.Hours()), codeDuration, ""
	}
	if value, _ := time.ParseDuration(n.Text); value%lvs.TimeoutStep != 0 {
		return fmt.Sprintf("%s: %s is not a multiple of %s", name, shorten(n.Text), lvs.TimeoutStep), codeDuration,
			"the data plane's clock goes in steps of " + lvs.TimeoutStep.String()
	}
	return "", "", ""
}

// What YAML takes a text without quotes for.
const (
	plainText   = "a text"
	plainNumber = "a number"
	plainBool   = "true or false"
	plainBase60 = "a number in base 60"
	plainDate   = "a date"
)

var (
	numberForm = regexp.MustCompile(`^[-+]?(0[bo]?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF|nan|NaN|NAN))$`)
	base60Form = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)
	dateForm   = regexp.MustCompile(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?$`)
)

// plainType returns what any reader of YAML, 1.1 or 1.2, would take a text without
// quotes for, so that the file means the same to all of them.
func plainType(text string) string {
	switch text {
	case "true", "True", "TRUE", "false", "False", "FALSE", "yes", "Yes", "YES", "no", "No", "NO",
		"on", "On", "ON", "off", "Off", "OFF", "y", "Y", "n", "N":
		return plainBool
	}
	if text == "" || strings.IndexByte("+-.0123456789", text[0]) < 0 {
		return plainText
	}
	switch isAddress := strings.Count(text, ".") > 1; { // as most texts of this file are
	case !isAddress && numberForm.MatchString(text):
		return plainNumber
	case !isAddress && base60Form.MatchString(text):
		return plainBase60
	case strings.IndexByte(text, '-') == 4 && dateForm.MatchString(text):
		return plainDate
	}
	return plainText
}
