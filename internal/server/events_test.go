// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// screen is a client that shows what was written so far.
type screen struct {
	header http.Header
	mu     sync.Mutex
	status int
	text   strings.Builder
}

func (s *screen) Header() http.Header { return s.header }

func (s *screen) WriteHeader(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(text)
}

func (s *screen) Flush() {}

// shown returns what was written since it was last called.
func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.text.Reset()
	return s.text.String()
}

// follow opens a stream of events as root; it ends with ctx.
func follow(ctx context.Context, s *Server, path string, header http.Header) *screen {
	ctx = context.WithValue(ctx, peerKey{}, Peer{Known: true})
	r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
	r.Header = header.Clone()
	r.Header.Set("Accept", "text/event-stream")
	w := &screen{header: http.Header{}}
	go s.Handler().ServeHTTP(w, r)
	return w
}

func line(id int, kind lvs.EventType) string {
	return fmt.Sprintf(`id: %d
event: %s
data: {"id":%d,"time":"2026-11-21T06:30:00Z","type":"%s","object":"x","text":"it happened"}

`, id, kind, id, kind)
}

func TestEventStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		f.happen(lvs.EventStarted, "x")
		f.happen(lvs.EventChanged, "x")
		s := New(Options{Director: f, Log: quiet()})
		ctx, leave := context.WithCancel(t.Context())
		all := follow(ctx, s, api.PathEvents, http.Header{})
		later := follow(ctx, s, api.PathEvents+"?after=1", http.Header{})
		back := follow(ctx, s, api.PathEvents+"?after=1", http.Header{"Last-Event-Id": {"2"}})
		restarted := follow(ctx, s, api.PathEvents, http.Header{"Last-Event-Id": {"700"}})
		synctest.Wait()
		first, second := line(1, lvs.EventStarted), line(2, lvs.EventChanged)
		same(t, nil, first+second, all.shown())
		same(t, nil, second, later.shown())
		same(t, nil, "", back.shown())
		same(t, nil, first+second, restarted.shown())
		same(t, nil, "text/event-stream", all.header.Get("Content-Type"))

		f.happen(lvs.EventDrift, "x")
		synctest.Wait()
		for _, one := range []*screen{all, later, back, restarted} {
			same(t, nil, line(3, lvs.EventDrift), one.shown())
		}

		// The stream shows that it lives, however long nothing happens.
		for range 100 {
			time.Sleep(heartbeat)
			synctest.Wait()
			same(t, nil, ": still here\n\n", all.shown())
		}
		leave()
		synctest.Wait()
		same(t, nil, 0, len(s.streams))
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Director: &fake{}, Log: quiet()})
		ctx, leave := context.WithCancel(t.Context())
		for range maxStreams {
			follow(ctx, s, api.PathEvents, http.Header{})
		}
		synctest.Wait()
		refused := follow(ctx, s, api.PathEvents, http.Header{})
		synctest.Wait()
		same(t, nil, `503 {"code":"busy","message":"there are 32 streams of events already; try again in a second"}`+"\n",
			fmt.Sprintf("%d %s", refused.status, refused.shown()))
		same(t, nil, "1", refused.header.Get("Retry-After"))
		leave()
		synctest.Wait()
		allowed := follow(t.Context(), s, api.PathEvents, http.Header{})
		time.Sleep(heartbeat)
		synctest.Wait()
		same(t, nil, ": still here\n\n", allowed.shown())
		close(s.stopping) // as Serve does
	})
}

func TestEventsAsAList(t *testing.T) {
	f := &fake{}
	for range 3 {
		f.happen(lvs.EventChanged, "x")
	}
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	for after, want := range map[uint64]int{0: 3, 1: 2, 3: 0, 99: 3} {
		count := 0
		err := client.Events(t.Context(), after, func(lvs.Event) error { count++; return nil })
		same(t, err, want, count)
	}
}

// A client that leaves is forgotten, and one that stays sees what comes.
func TestFollowEvents(t *testing.T) {
	f := &fake{}
	f.happen(lvs.EventStarted, "director")
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	enough := errors.New("enough")
	var ids []uint64
	err := client.FollowEvents(t.Context(), 0, func(e lvs.Event) error {
		if ids = append(ids, e.ID); len(ids) == 3 {
			return enough
		}
		f.happen(lvs.EventChanged, "x")
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	same(t, nil, []uint64{1, 2, 3}, ids)
}
