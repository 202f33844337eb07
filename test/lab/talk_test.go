// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lvx/internal/lab"
)

// Clients and real servers talk in lines. A TCP server greets with its name and
// the client's address and then sends back what it gets; a UDP server puts the
// same words in front of every datagram.

// patience is how long a client waits for an answer: TCP may have to repeat a
// packet a few times where a test has it dropped.
const patience = 5 * time.Second

// deadline gives what follows on a socket that long.
func deadline(c interface{ SetDeadline(time.Time) error }) {
	_ = c.SetDeadline(time.Now().Add(patience)) // fails on a closed one, as what follows does
}

// serve runs a server at the service's address in the host until the test ends.
func serve(t *testing.T, h *lab.Host, v virtual) {
	t.Helper()
	if v.flag == "-u" {
		c, err := h.ListenPacket("udp", v.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go serveDatagrams(h.Name, c)
		return
	}
	l, err := h.Listen("tcp", v.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serveStreams(h.Name, l)
}

func serveStreams(name string, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
			_, _ = io.Copy(c, c) // until the client has enough
		}()
	}
}

func serveDatagrams(name string, c net.PacketConn) {
	data := make([]byte, 1<<16)
	for {
		n, client, err := c.ReadFrom(data)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(fmt.Appendf(nil, "%s %s\n%s", name, client, data[:n]), client)
	}
}

// talk is a client's connection to a service.
type talk struct {
	net.Conn
	server string // who answers
	lines  *bufio.Reader
}

// call connects to the service from a host and lets the server say who it is.
func call(ctx context.Context, from *lab.Host, v virtual) (*talk, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := from.Dial(ctx, v.network(), v.String())
	if err != nil {
		return nil, err
	}
	k := &talk{Conn: c}
	if v.flag == "-u" {
		return k, nil // speaks when it is spoken to
	}
	k.lines = bufio.NewReader(c)
	deadline(c)
	line, err := k.lines.ReadString('\n')
	if err == nil {
		err = k.greeted(line)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("greeting: %w", err)
	}
	return k, nil
}

// errMoved says that a connection is with another real server than before.
var errMoved = errors.New("another real server answers")

// greeted reads a server's words about itself and us.
func (k *talk) greeted(line string) error {
	name, client, _ := strings.Cut(strings.TrimSpace(line), " ")
	seen, err := netip.ParseAddrPort(client)
	if err != nil {
		return fmt.Errorf("the server says %q: %w", line, err)
	}
	if local := k.LocalAddr().String(); seen.String() != local {
		return fmt.Errorf("the server sees %s, the client is %s", seen, local)
	}
	if k.server != "" && k.server != name {
		return fmt.Errorf("%s after %s: %w", name, k.server, errMoved)
	}
	k.server = name
	return nil
}

// say sends a line and reads it back.
func (k *talk) say(text string) error { return k.sayWithin(text, patience) }

func (k *talk) sayWithin(text string, limit time.Duration) error {
	_ = k.SetDeadline(time.Now().Add(limit))
	if _, err := fmt.Fprintln(k, text); err != nil {
		return err
	}
	return k.hear(text, limit)
}

// hear reads a line that was sent.
func (k *talk) hear(text string, limit time.Duration) error {
	_ = k.SetDeadline(time.Now().Add(limit))
	if k.lines == nil {
		return k.hearDatagram(text)
	}
	line, err := k.lines.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != text {
		err = fmt.Errorf("sent %q, got back %q", text, line)
	}
	return err
}

func (k *talk) hearDatagram(text string) error {
	data := make([]byte, 1<<16)
	n, err := k.Read(data)
	if err != nil {
		return err
	}
	greeting, line, _ := strings.Cut(string(data[:n]), "\n")
	if strings.TrimSpace(line) != text {
		return fmt.Errorf("sent %q, got back %q", text, line)
	}
	return k.greeted(greeting)
}

// exchange sends data and reads it back, both at the same time.
func (k *talk) exchange(data []byte) error { return k.exchangeWithin(data, 4*patience) }

func (k *talk) exchangeWithin(data []byte, limit time.Duration) error {
	_ = k.SetDeadline(time.Now().Add(limit))
	sent := make(chan error, 1)
	go func() {
		_, err := k.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(k.lines, got)
	if err == nil && !bytes.Equal(got, data) {
		err = errors.New("what came back is not what was sent")
	}
	return errors.Join(err, <-sent)
}

// reset ends the connection by RST instead of FIN.
func (k *talk) reset() {
	_ = k.Conn.(*net.TCPConn).SetLinger(0)
	k.Close()
}

// call is call from the lab's client; the connection ends with the test.
func (b *bed) call(v virtual) *talk {
	b.t.Helper()
	k, err := call(b.t.Context(), b.Host(lab.Client), v)
	if err != nil {
		b.t.Fatalf("%s %s: %v", v.network(), v, err)
	}
	b.t.Cleanup(func() { k.Close() })
	return k
}

// must fails the test at an error of something that a client did.
func (b *bed) must(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}
