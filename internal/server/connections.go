// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"lvx/internal/lvs"
)

// pageLines is how many connections are sent at a time. The table can hold
// millions: what is in memory is one page of it.
const pageLines = 512

// connections streams one JSON object a line.
func (s *Server) connections(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	p := newPages(w)
	err := s.Director.Connections(func(c lvs.Connection) error {
		if err := r.Context().Err(); err != nil {
			return err
		}
		return p.add(c)
	})
	if err == nil {
		err = p.flush()
	}
	switch {
	case err == nil:
		return nil
	case r.Context().Err() != nil: // the client went away, as clients may
	case !p.started:
		return err
	default:
		s.Log.Warn("listing of connections cut off", "err", err)
	}
	// The status line said 200 already. Breaking the connection is the one way
	// left to say that the list is not whole.
	panic(http.ErrAbortHandler)
}

// pages sends values as JSON lines, a page at a time.
type pages struct {
	w       http.ResponseWriter
	page    *bytes.Buffer
	lines   *json.Encoder // writes to page
	count   int           // lines on the page
	started bool          // the first page was sent
}

func newPages(w http.ResponseWriter) *pages {
	page := &bytes.Buffer{}
	return &pages{w: w, page: page, lines: json.NewEncoder(page)}
}

func (p *pages) add(value any) error {
	if err := p.lines.Encode(value); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if p.count++; p.count < pageLines {
		return nil
	}
	return p.flush()
}

// flush sends the page. A client has writeTimeout for each page, so that a
// long list is not cut while one that reads nothing is.
func (p *pages) flush() error {
	p.started = true
	control := http.NewResponseController(p.w)
	if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("set the deadline: %w", err)
	}
	if _, err := p.w.Write(p.page.Bytes()); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	p.page.Reset()
	p.count = 0
	return control.Flush()
}
