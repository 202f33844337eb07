// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestPeerIsTheProcessThatConnected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	peer := peerOf(withPeer(t.Context(), accepted))
	want := Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid()), Known: true}
	if peer != want {
		t.Errorf("got %+v, want %+v", peer, want)
	}
}

func TestMayWrite(t *testing.T) {
	for _, c := range []struct {
		name string
		peer Peer
		want bool
	}{
		{"root", Peer{UID: 0, Known: true}, true},
		{"nobody", Peer{UID: 65534, GID: 65534, Known: true}, false},
		{"unknown, whose zero is not root", Peer{}, false},
	} {
		if got := MayWrite(c.peer); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	if got := peerOf(withPeer(t.Context(), &net.TCPConn{})); got.Known {
		t.Errorf("a connection without credentials is %+v", got)
	}
}
