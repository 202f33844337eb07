// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"

	"lvx/api"
	"lvx/internal/lvs"
)

// maxSteps is how many steps may wait to be sent to a client that reads slowly.
// The oldest are left out: the director does not wait for it.
const maxSteps = 1024

// steps is a queue between the director, which adds, and one client.
type steps chan lvs.Progress

func (s steps) add(p lvs.Progress) {
	for {
		select {
		case s <- p:
			return
		default:
		}
		select {
		case <-s: // the oldest
		default:
		}
	}
}

// configureByLines applies a configuration and sends a line after every step. If
// the client goes away, it only ceases to write.
func (s *Server) configureByLines(w http.ResponseWriter, r *http.Request, wanted lvs.Configuration, request lvs.Request) {
	lines := sender{pages: begin(w, r, api.TypeLines)}
	taken := make(steps, maxSteps)
	request.Progress = taken.add
	last := make(chan api.ConfigureLine, 1)
	go func() {
		applied, err := s.Director.Configure(context.WithoutCancel(r.Context()), wanted, request)
		if err != nil {
			last <- api.ConfigureLine{Error: &s.refusalOf(r.Method, r.URL.Path, err).body}
			return
		}
		done := wholeApplied(applied)
		last <- api.ConfigureLine{Applied: &done}
	}()
	for {
		select {
		case p := <-taken:
			lines.send(api.ConfigureLine{Progress: &p}, len(taken) == 0)
		case line := <-last:
			for len(taken) > 0 {
				p := <-taken
				lines.send(api.ConfigureLine{Progress: &p}, false)
			}
			lines.send(line, true)
			return
		}
	}
}

// sender sends lines until that fails.
type sender struct {
	*pages
	failed bool
}

// send sends a line, at once or with those that follow.
func (s *sender) send(line api.ConfigureLine, now bool) {
	if s.failed {
		return
	}
	err := s.add(line)
	if err == nil && now {
		err = s.flush()
	}
	s.failed = err != nil
}
