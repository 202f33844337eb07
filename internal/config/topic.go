// SPDX-License-Identifier: Apache-2.0

package config

import (
	_ "embed"
	"slices"
	"strings"
	"sync"
)

// Topic explains the diagnostics of one code.
type Topic struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	// Page says, in Markdown, what it means and why it matters, with an example that
	// causes it, and what to do.
	Page string `json:"page"`
}

//go:embed topics.md
var topicsText string

// Topics returns all topics by their codes.
func Topics() []Topic { return slices.Clone(topics()) }

// FindTopic returns the topic of a code, for instance "LVX1003".
func FindTopic(code string) (Topic, bool) {
	i := slices.IndexFunc(topics(), func(t Topic) bool { return t.Code == code })
	if i < 0 {
		return Topic{}, false
	}
	return topics()[i], true
}

// topics reads topics.md: each begins with "## CODE Title".
var topics = sync.OnceValue(func() (all []Topic) {
	for section := range strings.SplitSeq("\n"+topicsText, "\n## ") {
		heading, page, _ := strings.Cut(section, "\n")
		code, title, ok := strings.Cut(heading, " ")
		if !ok || !strings.HasPrefix(code, "LVX") {
			continue
		}
		severity := Error
		if strings.HasPrefix(code, "LVX12") {
			severity = Warning
		}
		all = append(all, Topic{Code: code, Severity: severity, Title: title, Page: strings.TrimSpace(page) + "\n"})
	}
	return all
})
