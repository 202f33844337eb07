// SPDX-License-Identifier: Apache-2.0

package lvx_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fenced returns the blocks of a document in this language, as one text.
func fenced(t *testing.T, document, language string) string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var blocks strings.Builder
	inside := false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```"+language
		case inside:
			blocks.WriteString(line)
		}
	}
	if blocks.Len() == 0 {
		t.Fatalf("%s has no block of %s", document, language)
	}
	return blocks.String()
}

// The guide's commands work on the lab's director from top to bottom, typed as they
// stand but for the file's directory, which is the test's own.
func TestGuide(t *testing.T) {
	dir := buildForReadme(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := buildReadmeLab(ctx, t, dir)
	here := func(text string) string { return strings.ReplaceAll(text, "/etc/lvx/", dir+"/") }
	if err := os.WriteFile(filepath.Join(dir, "lvx.yaml"), []byte(fenced(t, "docs/guide.md", "yaml")), 0o644); err != nil {
		t.Fatal(err)
	}
	director := l.Host("director")
	startReadmeDaemon(ctx, t, l, director, "lvx director --interface eth0")
	shown := map[string]string{}
	for line := range strings.Lines(fenced(t, "docs/guide.md", "sh")) {
		line = strings.TrimSpace(line)
		typed := here(line)
		if strings.HasPrefix(line, "lvx plan ") {
			typed += " || test $? = 2" // there are changes
		}
		out, err := director.Run(ctx, "sh", "-c", typed)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		shown[line] = out
	}
	for line, want := range map[string]string{
		"lvx services":               "192.168.20.100:80",
		"lvx status":                 "generation",
		"lvx events":                 "confirmed",
		"lvx history":                "apply " + dir + "/lvx.yaml",
		"lvx plan /etc/lvx/lvx.yaml": "nothing to do", // the last one
	} {
		if !strings.Contains(shown[line], want) {
			t.Errorf("%s does not show %q:\n%s", line, want, shown[line])
		}
	}
}
