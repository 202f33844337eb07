// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"lvx/internal/lvs"
)

// ListenTLS opens the API on TCP. Every client has to show a certificate that
// client_ca has signed; TLS is 1.3. The files are read again when they change; as
// long as the new ones cannot be used, those read before are.
func ListenTLS(settings lvs.APISettings) (net.Listener, error) {
	files := &certificates{TLSSettings: settings.TLS}
	if _, err := files.current(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return nil, fmt.Errorf("open the API on TCP: %w", err)
	}
	return tls.NewListener(bound(listener), &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return files.current() },
	}), nil
}

// certificates are PEM files and what was in them.
type certificates struct {
	lvs.TLSSettings
	mu     sync.Mutex
	stamps [3]time.Time // of the files, when they were read
	config *tls.Config
}

// current returns what the files say, or said when they could be used last.
func (c *certificates) current() (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := c.look()
	if c.config != nil && stamps == c.stamps {
		return c.config, nil
	}
	config, err := c.read()
	if err != nil && c.config == nil {
		return nil, err
	} else if err == nil {
		c.config, c.stamps = config, stamps
	}
	return c.config, nil
}

func (c *certificates) look() (stamps [3]time.Time) {
	for i, name := range []string{c.Cert, c.Key, c.ClientCA} {
		if info, err := os.Stat(name); err == nil {
			stamps[i] = info.ModTime()
		}
	}
	return stamps
}

func (c *certificates) read() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read api.tls.cert %s and key %s: %w", c.Cert, c.Key, err)
	}
	text, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read api.tls.client_ca: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read api.tls.client_ca: %s has no certificate in PEM", c.ClientCA)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clients,
		NextProtos:   []string{"http/1.1"},
		// A session that is resumed would not be looked at again.
		SessionTicketsDisabled: true,
	}, nil
}
