// SPDX-License-Identifier: Apache-2.0

package lvx_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lvx/internal/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// readmeBlocks returns the indented blocks of commands under a heading, comments
// taken off.
func readmeBlocks(t *testing.T, heading string) (blocks [][]string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var block []string
	for line := range strings.Lines(section + "\nend\n") {
		if command, is := strings.CutPrefix(line, "    "); is {
			command, _, _ = strings.Cut(command, " #")
			block = append(block, strings.TrimSpace(command))
		} else if strings.TrimSpace(line) != "" && block != nil {
			blocks, block = append(blocks, block), nil
		}
	}
	return blocks
}

// buildForReadme builds lvx and its names into a directory of the test's.
func buildForReadme(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a lab: not in -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("builds a lab: needs root")
	}
	dir := filepath.Join(t.TempDir(), "bin")
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "lvx"), "./cmd/lvx")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// buildReadmeLab builds a lab for the lvx in dir, which goes with the test.
func buildReadmeLab(ctx context.Context, t *testing.T, dir string) *lab.Lab {
	t.Helper()
	l, err := lab.BuildDR(ctx, lab.Options{Self: filepath.Join(dir, "lvx")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// The tour's commands do what the README says, typed as they stand, with a /run
// of the test's own so that a lab that is up stays out of it.
func TestReadmeTour(t *testing.T) {
	dir := buildForReadme(t)
	var script strings.Builder
	script.WriteString("set -ex\nmount -t tmpfs tmpfs /run\ntrap 'bin/lvx lab down >/dev/null 2>&1 || true' EXIT\n")
	commands := 0
	for _, block := range readmeBlocks(t, "The five-minute tour") {
		for _, line := range block {
			fmt.Fprintln(&script, strings.TrimPrefix(line, "sudo "))
			commands++
		}
	}
	if commands < 5 {
		t.Fatalf("only %d commands found", commands)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", script.String())
	shell.Dir = filepath.Dir(dir)
	shell.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"192.168.20.11:80", "native XDP", `"real_server"`, "FIN_WAIT"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the tour does not show %q:\n%s", want, out)
		}
	}
}

// The recipe for real machines works on the lab's, typed as it stands.
func TestReadmeRecipe(t *testing.T) {
	dir := buildForReadme(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := buildReadmeLab(ctx, t, dir)
	director := l.Host("director")
	run := func(h *lab.Host, line string) string {
		t.Helper()
		out, err := h.Run(ctx, "sh", "-c", "cd "+dir+" && "+line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return out
	}
	// The lab's director has the VIP already; the recipe adds it.
	run(director, "ip addr del 192.168.20.100/32 dev eth0")
	blocks := readmeBlocks(t, "A virtual server on real machines")
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of commands, want the director's, the real servers', the operator's and the file's", len(blocks))
	}
	for _, line := range blocks[0] {
		if daemon, is := strings.CutSuffix(line, " &"); is {
			startReadmeDaemon(ctx, t, l, director, daemon)
			continue
		}
		run(director, line)
	}
	for _, h := range l.RealServers() {
		for _, line := range blocks[1] {
			run(h, line)
		}
		if _, err := l.StartDaemon(h, "lvx", "lab-http", h.Name, "192.168.20.100:80"); err != nil {
			t.Fatal(err)
		}
	}
	run(l.Host("client"), "curl -sS --retry 5 --retry-connrefused http://192.168.20.100/")
	var shown string
	for _, line := range slices.Concat(blocks[2], blocks[3]) {
		shown += run(director, line)
	}
	if !strings.Contains(shown, "ESTABLISHED") && !strings.Contains(shown, "FIN_WAIT") {
		t.Errorf("the connection is not listed:\n%s", shown)
	}
}

func startReadmeDaemon(ctx context.Context, t *testing.T, l *lab.Lab, h *lab.Host, line string) {
	t.Helper()
	words := strings.Fields(line)
	d, err := l.StartDaemon(h, words[0], words[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	ready := func(ctx context.Context) bool {
		_, err := h.Run(ctx, "lvx", "status")
		return err == nil
	}
	if err := d.Await(ctx, 20*time.Second, ready); err != nil {
		t.Fatalf("%v\n%s", err, d.Log())
	}
}
