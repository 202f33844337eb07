// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"

	"lvx/internal/lvs"
)

// ErrNoDaemon is returned by every call when nothing listens on the socket, and
// ErrDenied when the caller may not open it.
var (
	ErrNoDaemon = errors.New("no lvx director is running")
	ErrDenied   = errors.New("permission denied")
)

// Client talks to a daemon over its unix socket. It is safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client for the socket at this path. It does not dial yet.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Services returns all services with their real servers.
func (c *Client) Services(ctx context.Context) (s []lvs.ServiceStatus, err error) {
	return s, c.get(ctx, PathServices, &s)
}

// RealServers returns all real servers of all services.
func (c *Client) RealServers(ctx context.Context) (r []RealServer, err error) {
	return r, c.get(ctx, PathRealServers, &r)
}

// Reasons returns every reason with its count.
func (c *Client) Reasons(ctx context.Context) (r []lvs.Reason, err error) {
	return r, c.get(ctx, PathReasons, &r)
}

// Status returns the daemon at a glance.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.get(ctx, PathStatus, &s)
}

// Connections calls each for every connection, in no order, and stops at its
// first error, which it returns.
func (c *Client) Connections(ctx context.Context, each func(lvs.Connection) error) error {
	body, err := c.do(ctx, http.MethodGet, PathConnections, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var one lvs.Connection
		if err := lines.Decode(&one); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read connections: %w", err)
		}
		if err := each(one); err != nil {
			return err
		}
	}
}

// Apply makes all changes or, with an error, none.
func (c *Client) Apply(ctx context.Context, changes Changes) (a Applied, err error) {
	text, err := json.Marshal(changes)
	if err != nil {
		return a, fmt.Errorf("encode changes: %w", err)
	}
	body, err := c.do(ctx, http.MethodPost, PathChanges, bytes.NewReader(text))
	if err != nil {
		return a, err
	}
	defer body.Close()
	return a, decode(body, &a)
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	body, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer body.Close()
	return decode(body, into)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://lvx"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("open socket %s: %w", c.socket, ErrDenied)
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w (socket %s: %w)", ErrNoDaemon, c.socket, op.Err)
		}
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if answer.StatusCode/100 == 2 {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	refusal := &Error{}
	if err := decode(answer.Body, refusal); err != nil || refusal.Message == "" {
		return nil, fmt.Errorf("%s %s: %s", method, path, answer.Status)
	}
	return nil, refusal
}

func decode(body io.Reader, into any) error {
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
