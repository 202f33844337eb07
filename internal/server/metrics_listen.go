// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"

	"lvx/api"
	"lvx/internal/lvs"
)

// ListenMetrics opens the TCP port that the settings name, for ServeMetrics. It
// returns nil if they name none, and an error that says what to change if the port
// cannot be had.
func ListenMetrics(settings lvs.MetricsListen) (net.Listener, error) {
	if settings.Listen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", settings.Listen)
	if err == nil {
		return listener, nil
	}
	fix := "write it as ADDRESS:PORT"
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		fix = "another program has the port; choose another one, or see who has it: ss -ltnp"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		fix = "this host has no such address; see: ip address"
	case errors.Is(err, syscall.EACCES):
		fix = "ports below 1024 need the right to them; choose a higher one"
	}
	return nil, fmt.Errorf("listen for metrics on %s (metrics.listen): %w; %s", settings.Listen, err, fix)
}

// ServeMetrics answers GET /metrics on the listener, and nothing else, until ctx
// ends; then it lets the scrapes under way finish for a few seconds and returns nil.
// Nobody is asked who they are: services, real servers and their numbers can be
// read by whoever reaches the port. The listener is closed in any case.
func (s *Server) ServeMetrics(ctx context.Context, listener net.Listener) error {
	var running sync.WaitGroup // scrapes: what they read may go when we return
	defer running.Wait()
	scrapes, web := s.MetricsHandler(), s.web()
	web.ConnContext = nil
	web.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		onlyMetrics(w, r, scrapes)
	})
	served := make(chan error, 1)
	go func() { served <- web.Serve(bound(listener)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics on %s: %w", listener.Addr(), errors.Join(err, web.Close()))
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := web.Shutdown(stopping); err != nil {
		err = errors.Join(err, web.Close())
		s.Log.Warn("scrapes cut off at shutdown", "err", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics on %s: %w", listener.Addr(), err)
	}
	return nil
}

// onlyMetrics lets nothing else through. Connections that brought something else
// are closed: a body would be read to its end otherwise.
func onlyMetrics(w http.ResponseWriter, r *http.Request, scrapes http.Handler) {
	switch {
	case r.URL.Path != api.PathMetrics || r.Method != http.MethodGet:
		w.Header().Set("Connection", "close")
		http.Error(w, "there is GET "+api.PathMetrics+" here, and nothing else", http.StatusNotFound)
	case r.ContentLength != 0:
		w.Header().Set("Connection", "close")
		http.Error(w, api.PathMetrics+" takes no body", http.StatusRequestEntityTooLarge)
	default:
		scrapes.ServeHTTP(w, r)
	}
}
