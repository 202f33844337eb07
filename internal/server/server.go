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

	"lvx/internal/lvs"
)

// Reader is what the server shows of the director. All methods of Reader, Recorder
// and Changer may be called at the same time.
type Reader interface {
	Services() ([]lvs.ServiceStatus, error)
	// Connections calls each for every connection and stops at its first
	// error, which it returns as it is. each may block for as long as a
	// client reads slowly: no lock may be held while it is called.
	Connections(each func(lvs.Connection) error) error
	Reasons() ([]lvs.Reason, error)
	Status() (lvs.Status, error)
	Neighbours() ([]lvs.Neighbour, error)
}

// Recorder is what the director remembers.
type Recorder interface {
	// Configuration returns what the director is now, and its generation.
	Configuration() (lvs.Configuration, uint64)
	// Events returns the events with an ID above after that are still kept, and a
	// channel that is closed when there is another.
	Events(after uint64) (events []lvs.Event, more <-chan struct{})
	// History returns the last limit entries, the oldest first; with 0 all.
	History(limit int) ([]lvs.HistoryEntry, error)
	// Revisions returns the oldest first.
	Revisions() ([]lvs.Revision, error)
}

// Changer is how the director is changed. What it is asked for is made or, with an
// error, nothing of it.
type Changer interface {
	Apply(ctx context.Context, changes []lvs.Change, r lvs.Request) (lvs.Applied, error)
	Plan(wanted lvs.Configuration) (lvs.Plan, error)
	Configure(ctx context.Context, wanted lvs.Configuration, r lvs.Request) (lvs.Applied, error)
	Confirm(r lvs.Request) (lvs.Applied, error)
	// Rollback goes back to a revision, or with 0 to the one before the present.
	Rollback(ctx context.Context, revision uint64, r lvs.Request) (lvs.Applied, error)
}

// Director is what the server needs of the director.
type Director interface {
	Reader
	Recorder
	Changer
}

// Options are what a Server is made of.
type Options struct {
	Director Director
	Log      *slog.Logger
	// Version and Instance are put into the status, which says who answers.
	Version  string
	Instance string
	// MayWrite decides who may change things. Nil is the function MayWrite.
	MayWrite func(Peer) bool
	// NodeIPVS adds node_exporter's node_ipvs_* series to the metrics.
	NodeIPVS bool
}

// Server answers the API. Make one with New.
type Server struct {
	Options
	running  sync.WaitGroup // requests: what they read may go when Serve returns
	entering sync.Mutex     // guards ended, so that nobody enters behind Wait's back
	ended    bool
	readers  room
	writers  room
	streams  places        // of events
	stopping chan struct{} // closed when Serve ends: streams end
}

// New returns a server. It does not listen yet.
func New(options Options) *Server {
	if options.MayWrite == nil {
		options.MayWrite = MayWrite
	}
	return &Server{
		Options: options, readers: newRoom(), writers: newRoom(),
		streams: make(places, maxStreams), stopping: make(chan struct{}),
	}
}

// Serve answers on the listeners until ctx ends; then it takes no new request,
// lets those under way finish for a few seconds, ends the streams, and returns nil.
// The listeners, from Listen, ListenTLS or Activated, are closed in any case. If one
// of them fails, all stop. It is called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	web := s.web()
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		if l.Addr().Network() == "unix" { // ListenTLS sees to its own
			l = bound(l)
		}
		go func() {
			if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				served <- fmt.Errorf("serve %s: %w", l.Addr(), err)
				return
			}
			served <- nil
		}()
	}
	var failed error
	waiting := len(listeners)
	select {
	case failed = <-served:
		waiting--
	case <-ctx.Done():
	}
	s.stop(ctx, web)
	for range waiting {
		failed = errors.Join(failed, <-served)
	}
	return failed
}

func (s *Server) web() *http.Server {
	return &http.Server{
		Handler:                      s.Handler(),
		ConnContext:                  withPeer,
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
}

// stop waits for the requests under way. Their own contexts stay alive: a change
// is finished, not cut in the middle.
func (s *Server) stop(ctx context.Context, web *http.Server) {
	close(s.stopping)
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := web.Shutdown(stopping); err != nil {
		err = errors.Join(err, web.Close())
		s.Log.Warn("requests cut off at shutdown", "err", err)
	}
	s.entering.Lock()
	s.ended = true
	s.entering.Unlock()
	s.running.Wait()
}

// enter counts a request in, unless Serve ends: then what it would read may be gone.
func (s *Server) enter() bool {
	s.entering.Lock()
	defer s.entering.Unlock()
	if s.ended {
		return false
	}
	s.running.Add(1)
	return true
}

// deadline is for what writes a part of an answer now.
func deadline() time.Time { return time.Now().Add(writeTimeout) }
