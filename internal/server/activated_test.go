// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// activatedChild makes this program the one that systemd starts.
const activatedChild = "LVX_TEST_ACTIVATED"

func TestMain(m *testing.M) {
	if os.Getenv(activatedChild) == "" {
		os.Exit(m.Run())
	}
	_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	listener, err := Activated()
	if listener != nil {
		fmt.Print(listener.Addr())
		err = listener.Close()
	}
	fmt.Println(" ", err)
}

// activate runs this program as systemd does, with these sockets open.
func activate(t *testing.T, sockets ...*os.File) string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), activatedChild+"=1", "LISTEN_FDS="+strconv.Itoa(len(sockets)))
	child.ExtraFiles = sockets
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestActivated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	unixFile, err := unix.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer unixFile.Close()
	tcpFile, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcpFile.Close()

	same(t, nil, path+"  <nil>", activate(t, unixFile))
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
	same(t, nil, "<nil>", activate(t))
	for _, files := range [][]*os.File{{tcpFile}, {unixFile, unixFile}, {nil}} {
		if got := activate(t, files...); !strings.Contains(got, "not one unix stream socket") {
			t.Errorf("got %s", got)
		}
	}
}
