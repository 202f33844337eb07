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
	"strings"
	"time"

	"lvx/internal/lvs"
)

// ConfigureQuery says how a configuration is applied. The zero value applies it
// at once and for good, whatever the tables are now.
type ConfigureQuery struct {
	What       string        // for the audit log, for instance "apply /etc/lvx/lvx.yaml"
	Generation uint64        // of the tables that the configuration is for; 0 is any
	AllowEmpty bool          // lets it take the last real server of a service, or the last service
	Confirm    time.Duration // goes back after this time unless confirmed; 0 needs no confirmation; at most MaxConfirm
	Wait       time.Duration // for the next hops of new real servers; at most MaxWait
}

func (q ConfigureQuery) values() url.Values {
	values := url.Values{}
	add := func(name, text string, asked bool) {
		if asked {
			values.Set(name, text)
		}
	}
	add("what", q.What, q.What != "")
	add("allow_empty", "true", q.AllowEmpty)
	add("confirm_seconds", seconds(q.Confirm), q.Confirm != 0)
	add("wait_seconds", seconds(q.Wait), q.Wait != 0)
	return values
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) }

// ConfigureLine is a line of the answer to a configuration that is applied, if
// the request accepts TypeLines. One of its fields is set: Progress any number of
// times, then Applied or Error, once, as the last line.
type ConfigureLine struct {
	Progress *lvs.Progress `json:"progress,omitempty"`
	Applied  *Applied      `json:"applied,omitempty"`
	Error    *Error        `json:"error,omitempty"`
}

// WithLists returns the configuration with empty lists where there are none, which
// JSON would write as null. It changes nothing of what c shares with others.
func WithLists(c lvs.Configuration) lvs.Configuration {
	c.Services = append([]lvs.Service{}, c.Services...)
	for i := range c.Services {
		if c.Services[i].RealServers == nil {
			c.Services[i].RealServers = []lvs.RealServer{}
		}
	}
	return c
}

// Configuration returns the director's configuration as it is now, and the
// generation of its tables.
func (c *Client) Configuration(ctx context.Context) (lvs.Configuration, uint64, error) {
	var now lvs.Configuration
	answer, err := c.do(ctx, request{method: http.MethodGet, path: PathConfiguration})
	if err != nil {
		return now, 0, err
	}
	defer answer.Body.Close()
	tag := answer.Header.Get("ETag")
	generation, err := strconv.ParseUint(strings.Trim(tag, `"`), 10, 64)
	if err != nil {
		return now, 0, fmt.Errorf("read the daemon's answer: the ETag %q is not a generation", tag)
	}
	err = decode(answer.Body, &now)
	return now, generation, err
}

// Plan returns what applying the configuration would do now.
func (c *Client) Plan(ctx context.Context, wanted lvs.Configuration) (lvs.Plan, error) {
	return ask[lvs.Plan](ctx, c, request{method: http.MethodPost, path: PathPlan, body: WithLists(wanted)})
}

// Configure makes the director what the configuration says or, with an error,
// leaves it as it was. It calls progress after every step, unless that is nil.
//
// Returns lvs.ErrGeneration, lvs.ErrEmptied and lvs.ErrUnconfirmed among others.
func (c *Client) Configure(ctx context.Context, wanted lvs.Configuration, q ConfigureQuery, progress func(lvs.Progress)) (Applied, error) {
	r := request{method: http.MethodPut, path: PathConfiguration, query: q.values(), body: WithLists(wanted), generation: q.Generation}
	if progress == nil {
		return ask[Applied](ctx, c, r)
	}
	r.accept = TypeLines
	answer, err := c.do(ctx, r)
	if err != nil {
		return Applied{}, err
	}
	defer answer.Body.Close()
	return readLines(answer.Body, progress)
}

func readLines(body io.Reader, progress func(lvs.Progress)) (Applied, error) {
	for lines := json.NewDecoder(body); ; {
		var line ConfigureLine
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("it ends before it says what was done: %w", io.ErrUnexpectedEOF)
		}
		switch {
		case err != nil:
			return Applied{}, fmt.Errorf("read the daemon's answer: %w", err)
		case line.Error != nil:
			return Applied{}, line.Error
		case line.Applied != nil:
			return *line.Applied, nil
		case line.Progress != nil:
			progress(*line.Progress)
		}
	}
}
