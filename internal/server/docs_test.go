// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// The names that docs/api.md has for what a test has elsewhere.
const (
	docsFile    = "../../docs/api.md"
	docsSocket  = "/run/lvx/default.sock"
	docsAddress = "director.example.net:9443"
)

func readDocs(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// need skips the test if a program is missing and the test may be left out.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil && testing.Short() {
			t.Skipf("runs the examples of docs/api.md: needs %s", program)
		} else if err != nil {
			t.Fatalf("the examples of docs/api.md need %s: %v", program, err)
		}
	}
}

// The examples of docs/api.md work as they stand, and there is one of everything
// that the API has.
func TestDocs(t *testing.T) {
	need(t, "bash", "curl", "openssl")
	dir := t.TempDir()
	f := full()
	held := newContract(t, New(Options{Director: f, Log: quiet(), MayWrite: anyone}).Handler())
	socket := filepath.Join(dir, "s")
	serveHandler(t, socket, held)
	names := strings.NewReplacer(docsSocket, socket)
	for i, block := range blocks(readDocs(t)) {
		if strings.Contains(block, docsAddress) {
			files := lvs.TLSSettings{Cert: filepath.Join(dir, "director.pem"), Key: filepath.Join(dir, "director.key"), ClientCA: filepath.Join(dir, "ca.pem")}
			host, _, _ := strings.Cut(docsAddress, ":")
			_, port, _ := strings.Cut(serveTLS(t, f, files), ":")
			names = strings.NewReplacer(docsAddress, host+":"+port)
			writeRC(t, dir, "resolve = "+host+":"+port+":127.0.0.1")
		} else {
			writeRC(t, dir, "")
		}
		follows := strings.Contains(block, api.TypeEvents)
		if follows {
			writeRC(t, dir, "max-time = 1")
		}
		out, err := run(t, dir, names.Replace(block))
		if exit := (*exec.ExitError)(nil); follows && errors.As(err, &exit) && exit.ExitCode() == 28 {
			err = nil // it followed until its time was over
		}
		if err != nil || strings.TrimSpace(out) == "" && !strings.Contains(block, "-o ") {
			t.Errorf("block %d: %v\n%s\n%s", i+1, err, block, out)
		}
		if follows && !strings.HasPrefix(out, "id: 1\nevent: rolled-back\ndata: {") {
			t.Errorf("the stream is %q", out)
		}
	}
	for path, methods := range held.document["paths"].(map[string]any) {
		for method := range methods.(map[string]any) {
			if what := strings.ToUpper(method) + " " + path + " 200"; !held.seen[what] {
				t.Errorf("docs/api.md has no example of %s", what)
			}
		}
	}
	same(t, nil, lvs.EditServer, f.changes[0].Operation)
}

// serveHandler serves a handler on a unix socket.
func serveHandler(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: h, ConnContext: withPeer}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	t.Cleanup(func() {
		if err := web.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// blocks returns the sh blocks of a document.
func blocks(text string) (all []string) {
	for {
		_, rest, found := strings.Cut(text, "\n```sh\n")
		if !found {
			return all
		}
		block, rest, _ := strings.Cut(rest, "\n```")
		all, text = append(all, block), rest
	}
}

// writeRC makes curl fail when the server refuses, and say only what it is told.
func writeRC(t *testing.T, dir, more string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte("silent\nshow-error\nfail-with-body\n"+more+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-e", "-c", script)
	shell.Dir = dir
	shell.Env = append(os.Environ(), "CURL_HOME="+dir)
	out, err := shell.CombinedOutput()
	return string(out), err
}

// The tables of docs/api.md are those of the code.
func TestDocsTables(t *testing.T) {
	text := readDocs(t)
	var rows []string
	for _, c := range api.Codes() {
		rows = append(rows, fmt.Sprintf("| %d | `%s` | %s |", c.Status, c.Code, c.Meaning))
	}
	rows = append(rows,
		fmt.Sprintf("| body of changes, plans and configurations | %d MiB, in one minute |", maxBody>>20),
		fmt.Sprintf("| other bodies | %d KiB, in %g seconds |", maxSmall>>10, readTimeout.Seconds()),
		fmt.Sprintf("| headers | %d KiB, in %g seconds |", maxHeader>>10, headerTimeout.Seconds()),
		fmt.Sprintf("| an answer, or a page of a stream | read within %g seconds |", writeTimeout.Seconds()),
		fmt.Sprintf("| requests at the same time | %d of those who may read, and as many of those who may change |", maxRequests),
		fmt.Sprintf("| of them with a body above %d KiB | %d and %[2]d; others wait %g seconds for a place |", maxSmall>>10, maxLarge, readTimeout.Seconds()),
		fmt.Sprintf("| streams of events | %d |", maxStreams),
		fmt.Sprintf("| connections | %d of a user or an address, %d in all; root's are not counted |", maxConnections, maxAll),
		fmt.Sprintf("| `wait_seconds` | %g |", api.MaxWait.Seconds()),
		fmt.Sprintf("| `confirm_seconds` | %g |", api.MaxConfirm.Seconds()),
		"| `what` | 256 characters |", // TestRefusals tries one more
	)
	for _, row := range rows {
		if !strings.Contains(text, "\n"+row+"\n") {
			t.Errorf("docs/api.md has no row\n%s", row)
		}
	}
}
