// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"lvx/internal/cli"
)

// The man pages are the commands' own help. LVX_UPDATE=1 writes them anew.
func TestManPages(t *testing.T) {
	const pages = "../../packaging/man"
	fresh := t.TempDir()
	env := &cli.Env{Getenv: func(string) string { return "" }}
	root := env.Root([]*cobra.Command{directorCommand(env)})
	root.DisableAutoGenTag = true
	date := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	header := &doc.GenManHeader{Section: "8", Source: "lvx", Manual: "Linux Virtual Server", Date: &date}
	if err := doc.GenManTree(root, header, fresh); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("LVX_UPDATE") != "" {
		if err := os.RemoveAll(pages); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(pages, os.DirFS(fresh)); err != nil {
			t.Fatal(err)
		}
	}
	want, _ := filepath.Glob(filepath.Join(fresh, "*"))
	have, _ := filepath.Glob(filepath.Join(pages, "*"))
	if len(want) == 0 || len(want) != len(have) {
		t.Errorf("%d pages, %d committed", len(want), len(have))
	}
	for _, path := range want {
		made, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(filepath.Join(pages, filepath.Base(path)))
		if err != nil || string(committed) != string(made) {
			t.Errorf("%s is stale (%v): run LVX_UPDATE=1 go test ./cmd/lvx -run TestManPages", filepath.Base(path), err)
		}
	}
}
