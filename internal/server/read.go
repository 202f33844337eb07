// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"net/http"
	"slices"

	"lvx/api"
	"lvx/internal/lvs"
)

// body is an answer that huma writes.
type body[T any] struct{ Body T }

// none are the parameters of a request that has none.
type none struct{}

// whichServices are parameters that pick services.
type whichServices struct {
	Service string `query:"service" doc:"Only the services that this picks: [tcp/|udp/]VIP[:PORT]." example:"tcp/192.0.2.1:80"`
}

// whichServers are parameters that pick real servers.
type whichServers struct {
	Service    string `query:"service" doc:"Only those of the services that this picks: [tcp/|udp/]VIP[:PORT]." example:"tcp/192.0.2.1:80"`
	RealServer string `query:"real_server" doc:"Only the real servers that this picks: ADDRESS, ADDRESS:PORT or ADDRESS/BITS." example:"10.0.0.0/24"`
}

// reading adds what the director is now, but for the connections.
func (b *book) reading() {
	add(b, route{
		id: "services", method: http.MethodGet, path: api.PathServices, codes: []string{"invalid"},
		summary: "Virtual services with their real servers", text: "The newest first, with what was counted.",
	}, b.services)
	add(b, route{
		id: "realServers", method: http.MethodGet, path: api.PathRealServers, codes: []string{"invalid"},
		summary: "Real servers, each with its service", text: "In the order of the services, and of scheduling within each.",
	}, b.realServers)
	b.connecting()
	add(b, route{
		id: "neighbours", method: http.MethodGet, path: api.PathNeighbours,
		summary: "Next hops of the real servers", text: "One for each address of a real server.",
	}, func(context.Context, *none) (*body[[]lvs.Neighbour], error) { return listed(b.Director.Neighbours()) })
	add(b, route{
		id: "reasons", method: http.MethodGet, path: api.PathReasons,
		summary: "Why packets left the data plane as they did", text: "Every reason with its count.",
	}, func(context.Context, *none) (*body[[]lvs.Reason], error) { return listed(b.Director.Reasons()) })
	add(b, route{
		id: "status", method: http.MethodGet, path: api.PathStatus,
		summary: "The director at a glance", text: "With warnings of what will not work as it stands.",
	}, b.status)
}

// listed answers with a list, which is [] if there is nothing.
func listed[T any](values []T, err error) (*body[[]T], error) {
	return &body[[]T]{list(values)}, err
}

func (s *Server) services(_ context.Context, in *whichServices) (*body[[]lvs.ServiceStatus], error) {
	services, err := s.picked(in.Service)
	if err != nil {
		return nil, err
	}
	for i := range services {
		services[i].RealServers = list(services[i].RealServers)
	}
	return listed(services, nil)
}

func (s *Server) realServers(_ context.Context, in *whichServers) (*body[[]api.RealServer], error) {
	filter, err := lvs.ParseAddressFilter(in.RealServer)
	if err != nil {
		return nil, wrongFilter("real_server", err)
	}
	services, err := s.picked(in.Service)
	if err != nil {
		return nil, err
	}
	all := []api.RealServer{}
	for _, service := range services {
		for _, r := range service.RealServers {
			if filter.Picks(r.Address) {
				all = append(all, api.RealServer{Service: service.ServiceKey, RealServerStatus: r})
			}
		}
	}
	return listed(all, nil)
}

// picked returns the services that a filter picks, in a list of the caller's own.
func (s *Server) picked(text string) ([]lvs.ServiceStatus, error) {
	filter, err := lvs.ParseServiceFilter(text)
	if err != nil {
		return nil, wrongFilter("service", err)
	}
	services, err := s.Director.Services()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(services), func(one lvs.ServiceStatus) bool { return !filter.Picks(one.ServiceKey) }), nil
}

// wrongFilter names the parameter in which a filter is not one.
func wrongFilter(name string, err error) error {
	return refuse("invalid", "query %s: %s", name, err)
}

func (s *Server) status(context.Context, *none) (*body[lvs.Status], error) {
	status, err := s.Director.Status()
	if err != nil {
		return nil, err
	}
	status.Version, status.Instance = s.Version, s.Instance
	status.Interfaces, status.Warnings = slices.Clone(list(status.Interfaces)), list(status.Warnings)
	for i := range status.Interfaces {
		status.Interfaces[i].OffloadsOff = list(status.Interfaces[i].OffloadsOff)
	}
	return &body[lvs.Status]{status}, nil
}
