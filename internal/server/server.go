// SPDX-License-Identifier: Apache-2.0

// Package server answers the daemon's API (package api) over HTTP: it decides
// who may ask, decodes strictly, and calls the director.
//
// It is not for deciding what a change does, nor for knowing the data plane:
// everything goes through the Director.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// Director is what the server needs of the director. All methods may be called
// at the same time.
type Director interface {
	Services() ([]lvs.ServiceStatus, error)
	// Connections calls each for every connection and stops at its first
	// error, which it returns as it is. each may block for as long as a
	// client reads slowly: no lock may be held while it is called.
	Connections(each func(lvs.Connection) error) error
	Reasons() ([]lvs.Reason, error)
	Status() (lvs.Status, error)
	// Apply makes all changes or, with an error, none; then it waits at most
	// that long for the next hops of new real servers.
	Apply(ctx context.Context, changes []lvs.Change, wait time.Duration) ([]lvs.Warning, error)
}

// Options are what a Server is made of.
type Options struct {
	Director Director
	Log      *slog.Logger
	// Version and Instance are put into the status, which says who answers.
	Version  string
	Instance string
	// MayWrite decides who may change things. Nil is root and the members of
	// the group AdminGroup.
	MayWrite func(Peer) bool
}

// Server answers the API. Make one with New.
type Server struct {
	Options
	running sync.WaitGroup // requests: what they read may go when Serve returns
}

// New returns a server. It does not listen yet.
func New(options Options) *Server {
	if options.MayWrite == nil {
		options.MayWrite = MayWrite
	}
	return &Server{Options: options}
}

// How long a client may take. A stream of connections may take longer: its
// write deadline moves with every page (see connections).
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 5 * time.Second
)

// Serve answers on the listener until ctx ends; then it takes no new request,
// lets those under way finish for a few seconds, and returns nil. The listener,
// from Listen or from systemd, is closed in any case.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	web := &http.Server{
		Handler:           s.Handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelError),
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	// The requests' own contexts stay alive here: a change under way is
	// finished, not cut in the middle.
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := web.Shutdown(stopping); err != nil {
		err = errors.Join(err, web.Close())
		s.Log.Warn("requests cut off at shutdown", "err", err)
	}
	s.running.Wait()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// Handler returns the HTTP handler of all paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(api.PathServices, s.only(http.MethodGet, s.services))
	mux.Handle(api.PathRealServers, s.only(http.MethodGet, s.realServers))
	mux.Handle(api.PathConnections, s.only(http.MethodGet, s.connections))
	mux.Handle(api.PathReasons, s.only(http.MethodGet, s.reasons))
	mux.Handle(api.PathStatus, s.only(http.MethodGet, s.status))
	mux.Handle(api.PathChanges, s.only(http.MethodPost, s.change))
	mux.Handle("/", s.answering(func(_ http.ResponseWriter, r *http.Request) error {
		return refuse(http.StatusNotFound, "not_found", "there is no %s in this version of the API", r.URL.Path)
	}))
	return mux
}

// handler answers a request, or returns the error to answer with.
type handler func(http.ResponseWriter, *http.Request) error

// only lets one method through.
func (s *Server) only(method string, h handler) http.Handler {
	return s.answering(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method {
			w.Header().Set("Allow", method)
			return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "%s takes %s, not %s", r.URL.Path, method, r.Method)
		}
		return h(w, r)
	})
}

// answering turns the error of a handler into an answer.
func (s *Server) answering(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Done()
		if err := h(w, r); err != nil {
			s.answerError(w, r, err)
		}
	})
}
