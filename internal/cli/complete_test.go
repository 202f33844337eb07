// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCompletionOffersWhatThereIs(t *testing.T) {
	socket := daemon(t, 0)
	for line, want := range map[string]string{
		"services ":                   "tcp/192.0.2.1:80 web udp/[2001:db8::1]:53 :4",
		"services web ":               ":4",
		"connections --service ":      "tcp/192.0.2.1:80 web udp/[2001:db8::1]:53 :4",
		"connections --real-server ":  "198.51.100.5:80 198.51.100.6:80 :4",
		"real-servers --real-server ": "198.51.100.5:80 198.51.100.6:80 :4",
		"connections --state EST":     "NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK UDP :4",
		"events --type ":              "started changed refused unconfirmed confirmed rolled-back drift warning cleared :4",
		"neighbours --state ":         "ready unresolved off-link no-route local :4",
		"reasons --verdict ":          "forwarded passed dropped :4",
		"rollback ":                   "1 :4",
		"export --revision ":          "1 :4",
		"check ":                      ":0", // files
		"apply ":                      ":0",
		"plan a.yaml ":                ":4",
		"status ":                     ":4",
	} {
		words := strings.Split(line, " ")
		got := run(socket, append([]string{"__complete"}, words...))
		var offered []string
		for text := range strings.Lines(got.out) {
			word, _, _ := strings.Cut(strings.TrimSpace(text), "\t")
			offered = append(offered, word)
		}
		if strings.Join(offered, " ") != want {
			t.Errorf("%q: %q, want %q", line, strings.Join(offered, " "), want)
		}
	}
}

// A daemon that does not answer costs a moment, not the shell.
func TestCompletionDoesNotHang(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	start := time.Now()
	if got := run(path, []string{"__complete", "services", ""}); got.code != ExitDone || !strings.HasPrefix(got.out, ":4") {
		t.Errorf("%+v", got)
	}
	if took := time.Since(start); took > 10*completionWait {
		t.Errorf("it took %s", took)
	}
}
