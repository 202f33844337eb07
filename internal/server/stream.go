// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// pageBytes is how much is sent at a time. A list can have millions of lines: what
// is in memory is one page of it.
const pageBytes = 64 << 10

// pages sends what is written to it, a page at a time.
type pages struct {
	w       http.ResponseWriter
	control *http.ResponseController
	page    bytes.Buffer
	lines   *json.Encoder // writes to page
	started bool          // the first page was sent
}

// begin takes the request's deadlines away: from here on a client has writeTimeout
// for each page, so that a long list is not cut while one that reads nothing is.
func begin(w http.ResponseWriter, r *http.Request, media string) *pages {
	v := visitOf(r.Context())
	v.waitLong()
	w.Header().Set("Content-Type", media)
	p := &pages{w: w, control: v.control}
	p.lines = json.NewEncoder(&p.page)
	p.lines.SetEscapeHTML(false)
	return p
}

// add adds a line.
func (p *pages) add(value any) error {
	if err := p.lines.Encode(value); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if p.page.Len() < pageBytes {
		return nil
	}
	return p.flush()
}

// flush sends the page, and with an empty one what package http still holds.
func (p *pages) flush() error {
	p.started = true
	_ = p.control.SetWriteDeadline(deadline()) // see waitLong
	if _, err := p.w.Write(p.page.Bytes()); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	p.page.Reset()
	if err := p.control.Flush(); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}
