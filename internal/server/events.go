// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// whichEvents are parameters that pick events.
type whichEvents struct {
	After  uint64 `query:"after" doc:"Only those with a greater ID. One above all that there are is 0."`
	LastID string `header:"Last-Event-ID" doc:"As after, which it replaces in a stream: what a client sends when it comes back."`
}

func (b *book) events() {
	add(b, route{
		id: "events", method: http.MethodGet, path: api.PathEvents,
		summary: "What happened to the director",
		text: `Those that are still kept, the oldest first. With Accept: text/event-stream they are a stream of server-sent events that
goes on with every new one until the client or the daemon ends it: id is the ID, event the type, data the whole event. A comment
every 15 seconds shows that the stream lives. There may be 32 streams.`,
		content: map[string]any{api.TypeJSON: []lvs.Event{}, api.TypeEvents: ""},
	}, func(_ context.Context, in *whichEvents) (*stream, error) {
		last, err := in.last()
		if err != nil {
			return nil, err
		}
		return streamTo(func(w http.ResponseWriter, r *http.Request) {
			if accepts(r, api.TypeEvents) {
				b.followEvents(w, r, last)
				return
			}
			events, _ := b.eventsAfter(in.After)
			answer(w, http.StatusOK, list(events))
		}), nil
	})
}

// last returns the ID after which a stream begins.
func (in *whichEvents) last() (uint64, error) {
	if in.LastID == "" {
		return in.After, nil
	}
	id, err := strconv.ParseUint(in.LastID, 10, 64)
	if err != nil {
		return 0, refuse("bad_request", "header Last-Event-ID %q: it is not the ID of an event", in.LastID)
	}
	return id, nil
}

// eventsAfter returns the events with an ID above after. IDs grow with the clock,
// also across restarts; when it was set back meanwhile, who comes with an ID above
// all that there are gets all.
func (s *Server) eventsAfter(after uint64) ([]lvs.Event, <-chan struct{}) {
	events, more := s.Director.Events(after)
	if len(events) > 0 || after == 0 {
		return events, more
	}
	all, moreOfAll := s.Director.Events(0)
	if len(all) > 0 && all[len(all)-1].ID >= after {
		return events, more
	}
	return all, moreOfAll
}

// followEvents sends events until the client goes or the server stops.
func (s *Server) followEvents(w http.ResponseWriter, r *http.Request, after uint64) {
	if !s.streams.take() {
		s.answerError(w, r, busy("there are "+strconv.Itoa(maxStreams)+" streams of events already"))
		return
	}
	defer s.streams.leave()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	p := begin(w, r, api.TypeEvents)
	for {
		events, more := s.eventsAfter(after)
		for _, e := range events {
			p.addEvent(e)
			after = e.ID
		}
		if p.flush() != nil {
			return // the client went away, or reads nothing
		}
		select {
		case <-more:
		case <-beat.C:
			p.page.WriteString(": still here\n\n")
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		}
	}
}

func (p *pages) addEvent(e lvs.Event) {
	data, err := json.Marshal(e)
	if err != nil {
		return // an event is numbers, words and a time: that cannot be
	}
	fmt.Fprintf(&p.page, "id: %d\nevent: %s\ndata: %s\n\n", e.ID, e.Type, data)
}
