// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"net"
	"sync"
)

// maxConnections bounds the connections of one user, or over TCP from one address;
// maxAll those of a listener. Root is bound by neither: somebody has to be able to
// look.
const (
	maxConnections = 256
	maxAll         = 1024
)

// bounded is a listener that closes connections that are too many at once, before
// anything is read from them.
type bounded struct {
	net.Listener
	mu  sync.Mutex
	of  map[string]int // open connections by who
	all int
}

func bound(l net.Listener) *bounded { return &bounded{Listener: l, of: map[string]int{}} }

// Accept returns the next connection that has a place.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := owner(c)
		if who == "" {
			return c, nil
		}
		if b.take(who) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { b.leave(who) })}, nil
		}
		_ = c.Close() // it never was one of ours
	}
}

func (b *bounded) take(who string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of[who] >= maxConnections || b.all >= maxAll {
		return false
	}
	b.of[who]++
	b.all++
	return true
}

func (b *bounded) leave(who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.of[who]--; b.of[who] == 0 {
		delete(b.of, who)
	}
}

// owner names who opened a connection; "" is root.
func owner(c net.Conn) string {
	if peer, err := readPeer(c); err == nil {
		if peer.UID == 0 {
			return ""
		}
		return fmt.Sprint("uid ", peer.UID)
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return "unknown"
	}
	return host
}

// counted is a connection that gives its place back.
type counted struct {
	net.Conn
	leave func()
}

// Close closes the connection.
func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
