// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"lvx/api"
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
	peer := peerOf(httptest.NewRequestWithContext(withPeer(t.Context(), accepted), "GET", "/", nil))
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
		{"a certificate", Peer{Known: true, Certificate: certificate("alice", "ops")}, false},
		{"a certificate of the admins", Peer{Known: true, Certificate: certificate("alice", "ops", AdminGroup)}, true},
	} {
		if got := MayWrite(c.peer); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
	if _, err := readPeer(&net.TCPConn{}); err == nil {
		t.Error("a TCP connection has credentials")
	}
}

func certificate(name string, units ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name, OrganizationalUnit: units}}
}

func TestPeerSaysWhoItIs(t *testing.T) {
	for want, peer := range map[string]Peer{
		"root (uid 0, pid 4711)":                   {Known: true, PID: 4711},
		"unknown (uid 4294967294, pid 1)":          {Known: true, UID: 4294967294, PID: 1},
		"unknown":                                  {},
		"certificate alice (192.0.2.7:40000)":      {Known: true, Certificate: certificate("alice"), Address: "192.0.2.7:40000"},
		`certificate "a\x1b[2J" (192.0.2.7:40000)`: {Known: true, Certificate: certificate("a\x1b[2J"), Address: "192.0.2.7:40000"},
	} {
		if got := peer.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// Nobody who is not known may even read.
func TestStrangersAreRefused(t *testing.T) {
	answer := httptest.NewRecorder()
	New(Options{Director: &fake{}, Log: quiet()}).Handler().ServeHTTP(answer, httptest.NewRequest("GET", api.PathStatus, nil))
	same(t, nil, `403 {"code":"forbidden","message":"it is not known who asks"}`+"\n", fmt.Sprintf("%d %s", answer.Code, answer.Body))
}
