// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// selector is a metric in an expression, with what it asks of labels.
type selector struct {
	metric   string
	matchers []matcher
}

type matcher struct{ label, value string }

// promQL is what an expression names.
type promQL struct {
	selectors []selector
	labels    []string // in by, on and their like
}

// promTokens cuts an expression: a string, a number or duration, a variable of
// Grafana, a name, or any other character.
var promTokens = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|` + "`[^`]*`" +
	`|[0-9.][0-9a-zA-Z_.]*|\$\{\w+\}|\$\w+|[a-zA-Z_:][a-zA-Z0-9_:]*|[^\s]`)

var (
	promLists = []string{"by", "without", "on", "ignoring", "group_left", "group_right"} // of labels follow
	promWords = []string{"and", "or", "unless", "bool", "offset", "inf", "nan"}
)

// parsePromQL finds the metrics and labels in an expression. It is no parser of
// PromQL: it takes what a correct expression names, and promtool judges the rest.
func parsePromQL(text string) (q promQL, err error) {
	tokens := promTokens.FindAllString(text, -1)
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	for i := 0; i < len(tokens); i++ {
		token := tokens[i]
		switch {
		case slices.Contains(promLists, token):
			if at(i+1) != "(" {
				continue // group_left needs no list
			}
			end := slices.Index(tokens[i:], ")")
			if end < 0 {
				return q, fmt.Errorf("%s: %s has no end", text, token)
			}
			q.labels = append(q.labels, slices.DeleteFunc(slices.Clone(tokens[i+2:i+end]), func(t string) bool { return t == "," })...)
			i += end
		case token == "{":
			return q, fmt.Errorf("%s: a selector without a metric's name", text)
		case !promName.MatchString(token) || slices.Contains(promWords, strings.ToLower(token)):
		case at(i+1) == "(" || at(i+1) == "by" || at(i+1) == "without": // a function
		default:
			s := selector{metric: token}
			if at(i+1) == "{" {
				end := slices.Index(tokens[i:], "}")
				if end < 0 {
					return q, fmt.Errorf("%s: %s has no end", text, token)
				}
				s.matchers = parseMatchers(tokens[i+2 : i+end])
				i += end
			}
			q.selectors = append(q.selectors, s)
		}
	}
	return q, nil
}

var promName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

func parseMatchers(tokens []string) (list []matcher) {
	for i, token := range tokens {
		switch {
		case promName.MatchString(token):
			list = append(list, matcher{label: token})
		case strings.ContainsAny(token[:1], "\"'`") && len(list) > 0 && i > 0:
			list[len(list)-1].value = token[1 : len(token)-1]
		}
	}
	return list
}

func TestParsePromQL(t *testing.T) {
	for text, want := range map[string]promQL{
		`up == 0`: {selectors: []selector{{metric: "up"}}},
		`sum by (a, b) (rate(x_total{l="v, {z}", m=~"$m"}[5m])) / on(c) group_left y offset 1h > bool 0.8`: {
			selectors: []selector{{"x_total", []matcher{{"l", "v, {z}"}, {"m", "$m"}}}, {metric: "y"}},
			labels:    []string{"a", "b", "c"},
		},
		`topk(10, count without (a) (b:c:d{e!='f\'g'}[$__rate_interval] @ 5)) or vector(1e3)`: {
			selectors: []selector{{"b:c:d", []matcher{{"e", `f\'g`}}}},
			labels:    []string{"a"},
		},
		`a * on (j) group_left (n, m) b == 0 and absent(c{d="e"})`: {
			selectors: []selector{{metric: "a"}, {metric: "b"}, {"c", []matcher{{"d", "e"}}}},
			labels:    []string{"j", "n", "m"},
		},
	} {
		got, err := parsePromQL(text)
		if err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(promQL{}, selector{}, matcher{})); d != "" {
			t.Errorf("%s: -want +got\n%s", text, d)
		}
	}
	for _, text := range []string{`{a="b"}`, `x{a="b"`, `sum by (a`} {
		if q, err := parsePromQL(text); err == nil {
			t.Errorf("%s is read as %+v", text, q)
		}
	}
}
