// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// visit is one request on its way through the server.
type visit struct {
	peer    Peer
	writer  bool // may change things
	room    room
	control *http.ResponseController
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// waitLong takes the deadlines away while the director works, or a stream runs. The
// one for reading has to go too: when it passes, package http takes the client for
// gone.
func (v *visit) waitLong() {
	// Without a connection, as in tests, there is no deadline either.
	_ = v.control.SetReadDeadline(time.Time{})
	_ = v.control.SetWriteDeadline(time.Time{})
}

// answerIn sets the deadline for writing an answer that begins after at most d.
func (v *visit) answerIn(d time.Duration) { _ = v.control.SetWriteDeadline(deadline().Add(d)) }

// answerSoon sets it for an answer that begins now.
func (v *visit) answerSoon() { v.answerIn(0) }

// Handler returns the HTTP handler of all paths. Who asks is taken from the
// connection: Serve sees to that.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range s.mount(mux) {
		wrong := s.wrongMethod(methods)
		mux.HandleFunc(path, wrong)
		mux.HandleFunc("HEAD "+path, wrong) // else package http runs GET, a stream included
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.answerError(w, r, notFound(r)) })
	// A browser that holds a certificate must not be made to change things by
	// another site.
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.answerError(w, r, refuse("forbidden", "the request comes from a page of another site"))
	}))
	return s.guarded(origins.Handler(mux))
}

// guarded lets in what may go to the director at all.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			s.answerError(w, r, busy("the daemon is stopping"))
			return
		}
		defer s.running.Done()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		v := &visit{peer: peerOf(r), room: s.readers, control: http.NewResponseController(w)}
		if v.writer = s.MayWrite(v.peer); v.writer {
			v.room = s.writers
		}
		if err := check(r, v.peer); err != nil {
			s.answerError(w, r, err)
			return
		}
		if !v.room.requests.take() {
			s.answerError(w, r, busy("too many requests at the same time"))
			return
		}
		defer v.room.requests.leave()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), visitKey{}, v)))
	})
}

// check refuses what no path would take.
func check(r *http.Request, peer Peer) error {
	if !peer.Known {
		return refuse("forbidden", "it is not known who asks")
	}
	// The mux would redirect these, which no program of ours follows.
	if clean := path.Clean(r.URL.Path); clean != r.URL.Path || !strings.HasPrefix(clean, "/") {
		return notFound(r)
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse("bad_request", "read the query: %s", err)
	}
	for name, values := range query {
		if len(values) > 1 {
			return refuse("bad_request", "query %s: it is there %d times", name, len(values))
		}
	}
	if len(r.Header.Values("If-Match")) > 1 {
		return refuse("bad_request", "header If-Match: it is there twice")
	}
	return nil
}

func notFound(r *http.Request) error {
	return refuse("not_found", "there is no %q in this version of the API", r.URL.Path)
}

// wrongMethod answers requests for a path with a method that nothing is mounted for.
func (s *Server) wrongMethod(methods []string) http.HandlerFunc {
	allow := strings.Join(slices.Sorted(slices.Values(methods)), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		s.answerError(w, r, refuse("method_not_allowed", "%s takes %s, not %s", r.URL.Path, allow, r.Method))
	}
}
