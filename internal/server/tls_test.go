// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// authority signs certificates.
type authority struct {
	t           *testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), SerialNumber: big.NewInt(1),
		IsCA: true, BasicConstraintsValid: true,
	}
	a.certificate, a.key = a.sign(template, nil)
	return a
}

// sign signs a certificate with a's key, or with its own if a has none yet.
func (a *authority) sign(template *x509.Certificate, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	text, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(text)
	if err != nil {
		a.t.Fatal(err)
	}
	return certificate, key
}

// issue returns a certificate for a client or a server of this name.
func (a *authority) issue(name string, units ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name, OrganizationalUnit: units}, NotAfter: time.Now().Add(time.Hour), SerialNumber: big.NewInt(2),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	certificate, key := a.sign(template, a.certificate)
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
}

// write puts PEM files of a certificate where the settings say.
func (a *authority) write(files lvs.TLSSettings, own tls.Certificate) {
	a.t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		a.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		files.Cert:     {Type: "CERTIFICATE", Bytes: own.Certificate[0]},
		files.Key:      {Type: "PRIVATE KEY", Bytes: key},
		files.ClientCA: {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
}

func tlsFiles(dir string) lvs.TLSSettings {
	return lvs.TLSSettings{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), ClientCA: filepath.Join(dir, "ca.pem")}
}

// serveTLS serves the director on loopback and returns the address.
func serveTLS(t *testing.T, director Director, files lvs.TLSSettings) string {
	t.Helper()
	listener, err := ListenTLS(lvs.APISettings{Listen: "127.0.0.1:0", TLS: files})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- New(Options{Director: director, Log: quiet()}).Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// askTLS asks with a certificate and returns the status and body, or the error.
func askTLS(t *testing.T, config *tls.Config, method, url, body string) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", api.TypeJSON)
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, text)
}

func TestTLS(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	files := tlsFiles(t.TempDir())
	ours.write(files, ours.issue("director"))
	f := &fake{}
	address := serveTLS(t, f, files)
	roots := x509.NewCertPool()
	roots.AddCert(ours.certificate)
	const changes = `{"changes":[]}`
	for _, c := range []struct {
		name, method, path, body string
		config                   *tls.Config
		want                     string
	}{
		{"reading", "GET", api.PathServices, "", &tls.Config{Certificates: []tls.Certificate{ours.issue("bob", "ops")}}, "200 []"},
		{"changing", "POST", api.PathChanges, changes, &tls.Config{Certificates: []tls.Certificate{ours.issue("bob", "ops")}}, "403 "},
		{"changing as an admin", "POST", api.PathChanges, changes, &tls.Config{Certificates: []tls.Certificate{ours.issue("alice", "ops", AdminGroup)}}, "200 "},
		{"no certificate", "GET", api.PathServices, "", &tls.Config{}, "certificate required"},
		{"another's certificate", "GET", api.PathServices, "", &tls.Config{Certificates: []tls.Certificate{theirs.issue("alice", AdminGroup)}}, "certificate"},
		{"an older TLS", "GET", api.PathServices, "", &tls.Config{Certificates: []tls.Certificate{ours.issue("bob")}, MaxVersion: tls.VersionTLS12}, "protocol version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.RootCAs = roots
			if got := askTLS(t, c.config, c.method, "https://"+address+c.path, c.body); !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if !strings.HasPrefix(f.request.Who, "certificate alice (127.0.0.1:") {
		t.Errorf("who asked is %q", f.request.Who)
	}
	if got := askTLS(t, nil, "GET", "http://"+address+api.PathServices, ""); !strings.HasPrefix(got, "400 ") {
		t.Errorf("without TLS: %s", got)
	}
}

// Certificates that change are taken up, and broken ones are not.
func TestTLSFilesAreReadAgain(t *testing.T) {
	ours := newAuthority(t, "ours")
	files := tlsFiles(t.TempDir())
	ours.write(files, ours.issue("first"))
	address := serveTLS(t, &fake{}, files)
	roots := x509.NewCertPool()
	roots.AddCert(ours.certificate)
	config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{ours.issue("bob")}}
	name := func() string {
		c, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	touch := func(at time.Time) {
		for _, file := range []string{files.Cert, files.Key, files.ClientCA} {
			if err := os.Chtimes(file, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	same(t, nil, "first", name())
	ours.write(files, ours.issue("second"))
	touch(time.Now().Add(time.Minute))
	same(t, nil, "second", name())
	if err := os.WriteFile(files.Key, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(time.Now().Add(time.Hour))
	same(t, nil, "second", name())
}

func TestListenTLSSaysWhatIsWrong(t *testing.T) {
	ours := newAuthority(t, "ours")
	files := tlsFiles(t.TempDir())
	listen := func(want string) {
		t.Helper()
		l, err := ListenTLS(lvs.APISettings{Listen: "127.0.0.1:0", TLS: files})
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	listen("read api.tls.cert " + files.Cert)
	ours.write(files, ours.issue("director"))
	if err := os.WriteFile(files.ClientCA, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen("read api.tls.client_ca: " + files.ClientCA + " has no certificate in PEM")
	if err := os.Remove(files.ClientCA); err != nil {
		t.Fatal(err)
	}
	listen("read api.tls.client_ca: open")
}
