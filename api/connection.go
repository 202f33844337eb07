// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"lvx/internal/lvs"
)

// ConnectionQuery picks connections. The zero value picks all.
type ConnectionQuery struct {
	Client     string // ADDRESS, ADDRESS:PORT or PREFIX/BITS
	RealServer string // as Client
	Service    string // [tcp/|udp/]VIP[:PORT]
	State      string // for instance ESTABLISHED
	Limit      int    // at most so many; 0 is all
}

func (q ConnectionQuery) values() url.Values {
	values := url.Values{}
	for name, text := range map[string]string{"client": q.Client, "real_server": q.RealServer, "service": q.Service, "state": q.State} {
		if text != "" {
			values.Set(name, text)
		}
	}
	if q.Limit != 0 {
		values.Set("limit", strconv.Itoa(q.Limit))
	}
	return values
}

// Connections calls each for every connection that is asked for, in no order,
// and stops at its first error, which it returns. It holds one at a time.
//
// Returns lvs.ErrInvalid if the query is not one, and io.ErrUnexpectedEOF if the
// list is not whole.
func (c *Client) Connections(ctx context.Context, q ConnectionQuery, each func(lvs.Connection) error) error {
	answer, err := c.do(ctx, request{method: http.MethodGet, path: PathConnections, query: q.values()})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for lines := json.NewDecoder(answer.Body); ; {
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
