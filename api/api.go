// SPDX-License-Identifier: Apache-2.0

// Package api is the public contract of the daemon: the requests and answers
// that go over its unix socket, and a client for them.
//
// It is not for serving (package server) and not for deciding (package
// director). Everything in it is a value that JSON carries.
package api

import (
	"errors"
	"net/http"
	"time"

	"lvx/internal/lvs"
)

// The paths of the API. Reading is GET; PathChanges takes a POST of Changes.
const (
	PathServices    = "/v1/services"     // []lvs.ServiceStatus
	PathRealServers = "/v1/real-servers" // []RealServer
	PathConnections = "/v1/connections"  // stream of lvs.Connection, one JSON object a line
	PathReasons     = "/v1/reasons"      // []lvs.Reason
	PathStatus      = "/v1/status"       // Status
	PathChanges     = "/v1/changes"      // Changes → Applied
)

// RealServer is one real server of one service.
type RealServer struct {
	Service lvs.ServiceKey `json:"service"`
	lvs.RealServerStatus
}

// Changes asks for changes that are made together or not at all.
type Changes struct {
	Changes []lvs.Change `json:"changes"`
	// Wait is how long to wait, after the changes, for the next hops of the
	// real servers to be found, so that the first connection does not fail.
	// 0 does not wait. At most MaxWait.
	Wait lvs.Duration `json:"wait_seconds,omitzero"`
}

// MaxWait bounds Changes.Wait.
const MaxWait = 5 * time.Second

// Applied is the answer to Changes that were made.
type Applied struct {
	// Warnings name what is legal but will not work as it stands.
	Warnings []Warning `json:"warnings"`
}

// What the director tells of itself is the same on both sides of the socket.
type (
	// Status is the daemon at a glance.
	Status = lvs.Status
	// Interface is a network interface that the data plane is attached to.
	Interface = lvs.Interface
	// Usage is how full a table is.
	Usage = lvs.Usage
	// Packets are all packets seen, by verdict.
	Packets = lvs.Packets
	// Warning is something that works less well than the operator may think.
	Warning = lvs.Warning
)

// Error is the body of every answer that is not 2xx.
type Error struct {
	Code    string `json:"code"`    // one of the codes below, for programs
	Message string `json:"message"` // for people
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error of package lvs that the code stands for, so that
// errors.Is works across the socket.
func (e *Error) Unwrap() error {
	for _, k := range kinds {
		if k.code == e.Code {
			return k.err
		}
	}
	return nil
}

var kinds = []struct {
	code   string
	status int
	err    error
}{
	{"service_exists", http.StatusConflict, lvs.ErrServiceExists},
	{"no_service", http.StatusNotFound, lvs.ErrNoService},
	{"server_exists", http.StatusConflict, lvs.ErrServerExists},
	{"no_server", http.StatusNotFound, lvs.ErrNoServer},
	{"no_scheduler", http.StatusBadRequest, lvs.ErrNoScheduler},
	{"invalid", http.StatusBadRequest, lvs.ErrInvalid},
	{"unsupported", http.StatusNotImplemented, lvs.ErrUnsupported},
	{"full", http.StatusInsufficientStorage, lvs.ErrFull},
}

// NewError returns the body and the HTTP status for an error.
func NewError(err error) (*Error, int) {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return &Error{Code: k.code, Message: err.Error()}, k.status
		}
	}
	return &Error{Code: "internal", Message: err.Error()}, http.StatusInternalServerError
}
