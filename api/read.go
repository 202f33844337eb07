// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"lvx/internal/lvs"
)

// Services returns all services with their real servers, the newest first.
func (c *Client) Services(ctx context.Context) ([]lvs.ServiceStatus, error) {
	return get[[]lvs.ServiceStatus](ctx, c, PathServices, nil)
}

// RealServers returns all real servers of all services.
func (c *Client) RealServers(ctx context.Context) ([]RealServer, error) {
	return get[[]RealServer](ctx, c, PathRealServers, nil)
}

// Neighbours returns the next hops of the real servers.
func (c *Client) Neighbours(ctx context.Context) ([]lvs.Neighbour, error) {
	return get[[]lvs.Neighbour](ctx, c, PathNeighbours, nil)
}

// Reasons returns every reason with its count.
func (c *Client) Reasons(ctx context.Context) ([]lvs.Reason, error) {
	return get[[]lvs.Reason](ctx, c, PathReasons, nil)
}

// Status returns the daemon at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return get[Status](ctx, c, PathStatus, nil)
}

// History returns the last limit entries of the audit log, the oldest first; with
// 0 all that are kept.
func (c *Client) History(ctx context.Context, limit int) ([]lvs.HistoryEntry, error) {
	var query url.Values
	if limit != 0 {
		query = url.Values{"limit": {strconv.Itoa(limit)}}
	}
	return get[[]lvs.HistoryEntry](ctx, c, PathHistory, query)
}

// Revisions returns the configurations that can be gone back to, the oldest first.
func (c *Client) Revisions(ctx context.Context) ([]lvs.Revision, error) {
	return get[[]lvs.Revision](ctx, c, PathRevisions, nil)
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return ask[T](ctx, c, request{method: http.MethodGet, path: path, query: query})
}
