// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/http"

	"lvx/api"
)

func (s *Server) services(w http.ResponseWriter, _ *http.Request) error {
	services, err := s.Director.Services()
	if err != nil {
		return err
	}
	for i := range services {
		services[i].RealServers = list(services[i].RealServers)
	}
	return answer(w, list(services))
}

func (s *Server) realServers(w http.ResponseWriter, _ *http.Request) error {
	services, err := s.Director.Services()
	if err != nil {
		return err
	}
	all := []api.RealServer{}
	for _, service := range services {
		for _, r := range service.RealServers {
			all = append(all, api.RealServer{Service: service.ServiceKey, RealServerStatus: r})
		}
	}
	return answer(w, all)
}

func (s *Server) reasons(w http.ResponseWriter, _ *http.Request) error {
	reasons, err := s.Director.Reasons()
	if err != nil {
		return err
	}
	return answer(w, list(reasons))
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	status, err := s.Director.Status()
	if err != nil {
		return err
	}
	status.Version, status.Instance = s.Version, s.Instance
	status.Interfaces, status.Warnings = list(status.Interfaces), list(status.Warnings)
	for i := range status.Interfaces {
		status.Interfaces[i].OffloadsOff = list(status.Interfaces[i].OffloadsOff)
	}
	return answer(w, status)
}
