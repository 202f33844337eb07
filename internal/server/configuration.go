// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"lvx/api"
	"lvx/internal/lvs"
)

type configurationOut struct {
	ETag string `header:"ETag" doc:"The generation of the tables, in quotes: for If-Match."`
	Body lvs.Configuration
}

type planIn struct{ Body lvs.Configuration }

type configureIn struct {
	Condition
	AllowEmpty bool    `query:"allow_empty" doc:"Lets it take the last real server of a service, or the last service."`
	Confirm    float64 `query:"confirm_seconds" doc:"Goes back by itself after this time unless it is confirmed, at most 3600; 0 needs no confirmation."`
	Wait       float64 `query:"wait_seconds" doc:"How long to wait, after the change, for the next hops of new real servers to be found; at most 5."`
	What       string  `query:"what" maxLength:"256" doc:"What the audit log shall say." example:"apply /etc/lvx/lvx.yaml"`
	Body       lvs.Configuration
}

// request returns what the director is asked.
func (in *configureIn) request(who Peer) (r lvs.Request, err error) {
	if r.Generation, err = in.generation(); err != nil {
		return r, err
	}
	r.Confirm, r.Wait = duration(in.Confirm), duration(in.Wait)
	if err := within("confirm_seconds", r.Confirm, api.MaxConfirm); err != nil {
		return r, err
	}
	if err := within("wait_seconds", r.Wait, api.MaxWait); err != nil {
		return r, err
	}
	if strings.ContainsFunc(in.What, unicode.IsControl) {
		return r, fmt.Errorf("what has control characters: %w", lvs.ErrInvalid)
	}
	r.Who, r.What, r.AllowEmpty = who.String(), in.What, in.AllowEmpty
	return r, nil
}

// duration returns seconds as a duration; what is none is negative.
func duration(seconds float64) time.Duration {
	if seconds >= 0 && seconds <= time.Hour.Seconds()*24 {
		return time.Duration(seconds * float64(time.Second))
	}
	return -1
}

// configuring adds what whole configurations are asked for with.
func (b *book) configuring() {
	add(b, route{
		id: "configuration", method: http.MethodGet, path: api.PathConfiguration,
		summary: "What the director is configured to be, as a whole",
		text:    "As it is now, whoever changed it how: lvx export writes it as a file.",
	}, b.configuration)
	add(b, route{
		id: "plan", method: http.MethodPost, path: api.PathPlan, body: maxBody,
		codes:   []string{"invalid", "no_scheduler", "service_exists", "server_exists", "unsupported"},
		summary: "What applying a configuration would do now", text: "Nothing is changed: it takes the right to read.",
	}, b.plan)
	add(b, route{
		id: "configure", method: http.MethodPut, path: api.PathConfiguration, changes: true, body: maxBody, codes: configureCodes,
		summary: "Apply a configuration: make the director be what it says, and nothing else",
		text: `All of it or nothing. The one before is kept as a revision to go back to. With Accept: application/x-ndjson the
answer is 200 and lines: {"progress":…} any number of times, then {"applied":…} or {"error":…}. What was begun is finished
even if the client goes away.`,
		content: map[string]any{api.TypeJSON: api.Applied{}, api.TypeLines: api.ConfigureLine{}},
	}, b.configure)
}

func (s *Server) configuration(context.Context, *none) (*configurationOut, error) {
	now, generation := s.Director.Configuration()
	return &configurationOut{ETag: fmt.Sprintf("%q", fmt.Sprint(generation)), Body: api.WithLists(now)}, nil
}

func (s *Server) plan(ctx context.Context, in *planIn) (*body[lvs.Plan], error) {
	v := visitOf(ctx)
	v.waitLong()
	plan, err := s.Director.Plan(in.Body)
	v.answerSoon()
	return &body[lvs.Plan]{wholePlan(plan)}, err
}

func (s *Server) configure(ctx context.Context, in *configureIn) (*stream, error) {
	v := visitOf(ctx)
	request, err := in.request(v.peer)
	if err != nil {
		return nil, err
	}
	return streamTo(func(w http.ResponseWriter, r *http.Request) {
		if accepts(r, api.TypeLines) {
			s.configureByLines(w, r, in.Body, request)
			return
		}
		v.waitLong()
		applied, err := s.Director.Configure(context.WithoutCancel(ctx), in.Body, request)
		v.answerSoon()
		if err != nil {
			s.answerError(w, r, err)
			return
		}
		answer(w, http.StatusOK, wholeApplied(applied))
	}), nil
}
