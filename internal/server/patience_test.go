// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// pipes is a listener without a network, whose time a test can move.
type pipes struct {
	waiting chan net.Conn
	closed  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.waiting:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// dial connects.
func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.waiting <- there
	return here
}

// get sends a request of root's and returns the answer.
func (p *pipes) get(t *testing.T, method, path, body string) (*http.Response, net.Conn) {
	t.Helper()
	c := p.dial()
	_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: lvx\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer, c
}

// servePipes serves the director on pipes, to root, until the test ends.
func servePipes(t *testing.T, director Director) *pipes {
	t.Helper()
	p := &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})}
	web := New(Options{Director: director, Log: quiet()}).web()
	web.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, Peer{Known: true})
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(p) }()
	t.Cleanup(func() {
		if err := web.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return p
}

// sleepy is a director that takes its time.
type sleepy struct {
	*fake
	each time.Duration // for a connection
}

func (s sleepy) Connections(each func(lvs.Connection) error) error {
	return s.fake.Connections(func(c lvs.Connection) error {
		time.Sleep(s.each)
		return each(c)
	})
}

// A change may take longer than any timeout of the server.
func TestLongChangeIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := servePipes(t, &fake{during: func(lvs.Request) { time.Sleep(5 * time.Minute) }})
		for method, path := range map[string]string{http.MethodPost: api.PathChanges, http.MethodPut: api.PathConfiguration} {
			answer, c := p.get(t, method, path, "{}")
			text, err := io.ReadAll(answer.Body)
			same(t, err, "200 "+`{"generation":0,"changed":false,"warnings":[]}`+"\n", fmt.Sprintf("%d %s", answer.StatusCode, text))
			c.Close()
		}
	})
}

// So may a list, as long as the client reads it.
func TestLongListIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 5000
		p := servePipes(t, sleepy{fake: &fake{connections: many}, each: 20 * time.Millisecond})
		answer, c := p.get(t, "GET", api.PathConnections, "")
		defer c.Close()
		text, err := io.ReadAll(answer.Body)
		same(t, err, many, strings.Count(string(text), "\n"))
	})
}

// A client that reads nothing is cut off, and keeps nobody waiting meanwhile.
func TestSlowReaderBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		p := servePipes(t, &noted{fake: &fake{connections: 10_000}, ended: ended})
		began := time.Now()
		slow := p.dial()
		defer slow.Close()
		if _, err := io.WriteString(slow, "GET /v1/connections HTTP/1.1\r\nHost: lvx\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		answer, c := p.get(t, "GET", api.PathStatus, "")
		defer c.Close()
		same(t, nil, http.StatusOK, answer.StatusCode)
		same(t, nil, time.Duration(0), time.Since(began))
		if err := <-ended; err == nil || time.Since(began) != writeTimeout {
			t.Errorf("the list ended after %s with %v", time.Since(began), err)
		}
	})
}

// noted is a fake that tells with which error a list ended.
type noted struct {
	*fake
	ended chan error
}

func (n *noted) Connections(each func(lvs.Connection) error) error {
	err := n.fake.Connections(each)
	n.ended <- err
	return err
}

// A request that does not arrive is given up.
func TestSlowSenderIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := servePipes(t, &fake{})
		for path, want := range map[string]time.Duration{api.PathRollback: readTimeout, api.PathPlan: bodyTimeout} {
			began := time.Now()
			c := p.dial()
			if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: lvx\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", path); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(answer.Body)
			same(t, err, `408 {"code":"timeout","message":"request body read timeout"}`+"\n", fmt.Sprintf("%d %s", answer.StatusCode, text))
			same(t, nil, want, time.Since(began))
			c.Close()
		}
		began := time.Now()
		c := p.dial() // and says nothing
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		same(t, nil, headerTimeout, time.Since(began))
	})
}
