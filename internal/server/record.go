// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"lvx/api"
	"lvx/internal/lvs"
)

type howMuchHistory struct {
	Limit int `query:"limit" minimum:"0" doc:"The last so many; 0 is all that are kept."`
}

type whichRevision struct {
	Revision uint64 `path:"revision" doc:"The revision's number."`
}

// recording adds what the director remembers.
func (b *book) recording() {
	b.events()
	add(b, route{
		id: "history", method: http.MethodGet, path: api.PathHistory,
		summary: "The audit log: who asked for which change, and what became of it", text: "The oldest first.",
	}, func(_ context.Context, in *howMuchHistory) (*body[[]lvs.HistoryEntry], error) {
		return listed(b.Director.History(in.Limit))
	})
	add(b, route{
		id: "revisions", method: http.MethodGet, path: api.PathRevisions,
		summary: "Configurations that can be gone back to", text: "The oldest first.",
	}, b.revisions)
	add(b, route{
		id: "revision", method: http.MethodGet, path: api.PathRevisions + "/{revision}", codes: []string{"no_revision"},
		summary: "One of the configurations that can be gone back to",
	}, b.revision)
}

func (s *Server) revisions(context.Context, *none) (*body[[]lvs.Revision], error) {
	kept, err := s.Director.Revisions()
	revisions := slices.Clone(kept)
	for i := range revisions {
		revisions[i].Configuration = api.WithLists(revisions[i].Configuration)
	}
	return listed(revisions, err)
}

func (s *Server) revision(ctx context.Context, in *whichRevision) (*body[lvs.Revision], error) {
	all, err := s.revisions(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range all.Body {
		if r.Number == in.Revision {
			return &body[lvs.Revision]{r}, nil
		}
	}
	return nil, fmt.Errorf("revision %d: %w", in.Revision, lvs.ErrNoRevision)
}
