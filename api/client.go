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
	"net/url"
	"syscall"
)

// ErrNoDaemon is returned by every call when nothing listens on the socket.
var ErrNoDaemon = errors.New("no lvx director is running")

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

// request is one question to the daemon.
type request struct {
	method, path string
	query        url.Values
	accept       string // a media type, or "" for JSON
	body         any    // sent as JSON; nil is none
	generation   uint64 // sent as If-Match; 0 is any
}

func (r request) build(ctx context.Context) (*http.Request, error) {
	address := url.URL{Scheme: "http", Host: "lvx", Path: r.path, RawQuery: r.query.Encode()}
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	built, err := http.NewRequestWithContext(ctx, r.method, address.String(), body)
	if err != nil {
		return nil, err
	}
	if r.body != nil {
		built.Header.Set("Content-Type", TypeJSON)
	}
	if r.accept != "" {
		built.Header.Set("Accept", r.accept)
	}
	if r.generation != 0 {
		built.Header.Set("If-Match", fmt.Sprintf("%q", fmt.Sprint(r.generation)))
	}
	return built, nil
}

// ask reads the whole answer.
func ask[T any](ctx context.Context, c *Client, r request) (value T, err error) {
	answer, err := c.do(ctx, r)
	if err != nil {
		return value, err
	}
	defer answer.Body.Close()
	err = decode(answer.Body, &value)
	return value, err
}

// do asks and returns an answer that is 2xx, whose body is the caller's to close.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	asked, err := r.build(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(asked)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("open socket %s: %w", c.socket, ErrDenied)
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w (socket %s: %w)", ErrNoDaemon, c.socket, op.Err)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil, fmt.Errorf("the daemon went away in the middle of %s %s: see with lvx status and lvx history what became of it", r.method, r.path)
		}
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	refusal := &Error{}
	if err := decode(answer.Body, refusal); err != nil || refusal.Message == "" {
		return nil, fmt.Errorf("%s %s: %s", r.method, r.path, answer.Status)
	}
	return nil, refusal
}

func decode(body io.Reader, into any) error {
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}
