// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"net/http"

	"lvx/api"
	"lvx/internal/lvs"
)

// whichConnections are parameters that pick connections.
type whichConnections struct {
	Client     string `query:"client" doc:"Only those from clients that this picks: ADDRESS, ADDRESS:PORT or ADDRESS/BITS." example:"203.0.113.0/24"`
	RealServer string `query:"real_server" doc:"Only those to real servers that this picks: ADDRESS, ADDRESS:PORT or ADDRESS/BITS." example:"10.0.0.5"`
	Service    string `query:"service" doc:"Only those of services that this picks: [tcp/|udp/]VIP[:PORT]." example:"tcp/192.0.2.1:80"`
	State      string `query:"state" doc:"Only those in this state." example:"ESTABLISHED"`
	Limit      int    `query:"limit" minimum:"0" doc:"At most so many; 0 is all."`
}

func (in *whichConnections) filter() (f lvs.ConnectionFilter, err error) {
	if f.Client, err = lvs.ParseAddressFilter(in.Client); err != nil {
		return f, wrongFilter("client", err)
	}
	if f.RealServer, err = lvs.ParseAddressFilter(in.RealServer); err != nil {
		return f, wrongFilter("real_server", err)
	}
	if f.Service, err = lvs.ParseServiceFilter(in.Service); err != nil {
		return f, wrongFilter("service", err)
	}
	if f.State, err = lvs.ParseState(in.State); err != nil {
		return f, wrongFilter("state", err)
	}
	return f, nil
}

func (b *book) connecting() {
	add(b, route{
		id: "connections", method: http.MethodGet, path: api.PathConnections, codes: []string{"invalid"},
		summary: "Connections, one JSON object a line",
		text: `In no order. The list is sent as the table is read, however long it is. One that breaks off is not whole: the
connection is closed before the last chunk.`,
		content: map[string]any{api.TypeLines: lvs.Connection{}},
	}, func(_ context.Context, in *whichConnections) (*stream, error) {
		filter, err := in.filter()
		if err != nil {
			return nil, err
		}
		return streamTo(func(w http.ResponseWriter, r *http.Request) { b.listConnections(w, r, filter, in.Limit) }), nil
	})
}

// errEnough ends a list that has as many as were asked for.
var errEnough = errors.New("that is enough")

func (s *Server) listConnections(w http.ResponseWriter, r *http.Request, filter lvs.ConnectionFilter, limit int) {
	p := begin(w, r, api.TypeLines)
	count := 0
	err := s.Director.Connections(func(c lvs.Connection) error {
		if err := r.Context().Err(); err != nil {
			return err
		}
		if !filter.Picks(c) {
			return nil
		}
		if count++; count == limit {
			return errors.Join(p.add(c), errEnough)
		}
		return p.add(c)
	})
	if err == nil || errors.Is(err, errEnough) {
		err = p.flush()
	}
	switch {
	case err == nil:
		return
	case r.Context().Err() != nil: // the client went away, as clients may
	case !p.started:
		s.answerError(w, r, err)
		return
	default:
		s.Log.Warn("listing of connections cut off", "err", err)
	}
	// The status line said 200 already. Breaking the connection is the one way
	// left to say that the list is not whole.
	panic(http.ErrAbortHandler)
}
