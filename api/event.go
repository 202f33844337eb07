// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"lvx/internal/lvs"
)

// ErrStopped is returned by FollowEvents when the daemon stops.
var ErrStopped = errors.New("the lvx director stopped")

// maxEvent bounds a line of the stream of events, in bytes.
const maxEvent = 1 << 20

func after(id uint64) url.Values {
	if id == 0 {
		return nil
	}
	return url.Values{"after": {strconv.FormatUint(id, 10)}}
}

// Events calls each for every event with an ID above after that the daemon still
// keeps, the oldest first, and stops at its first error, which it returns.
func (c *Client) Events(ctx context.Context, id uint64, each func(lvs.Event) error) error {
	events, err := get[[]lvs.Event](ctx, c, PathEvents, after(id))
	if err != nil {
		return err
	}
	for _, e := range events {
		if err := each(e); err != nil {
			return err
		}
	}
	return nil
}

// FollowEvents calls each for every event with an ID above after: those that the
// daemon still keeps and then every new one, until ctx ends or each returns an
// error, which it returns.
//
// Returns ErrStopped when the daemon stops. IDs go on from there when it starts again.
func (c *Client) FollowEvents(ctx context.Context, id uint64, each func(lvs.Event) error) error {
	answer, err := c.do(ctx, request{method: http.MethodGet, path: PathEvents, query: after(id), accept: TypeEvents})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	err = readEvents(answer.Body, each)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		return ErrStopped
	}
	return err
}

// readEvents reads server-sent events as far as we send them: one line of data
// has all of an event, so the other fields need not be looked at.
func readEvents(stream io.Reader, each func(lvs.Event) error) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, is := strings.CutPrefix(lines.Text(), "data:")
		if !is {
			continue
		}
		var e lvs.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}
