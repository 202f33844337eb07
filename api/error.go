// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net/http"
	"slices"

	"lvx/internal/lvs"
)

// ErrDenied is returned when the caller may not open the socket, or may read but
// not change.
var ErrDenied = errors.New("permission denied")

// Error is the body of every answer that is not 2xx.
type Error struct {
	Code    string `json:"code"`    // one word, for programs
	Message string `json:"message"` // for people
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error of package lvs that the code stands for, so that
// errors.Is works across the socket.
func (e *Error) Unwrap() error { return meaning(e.Code) }

// Refused is a change that was not made while others were (Changes.KeepGoing).
type Refused struct {
	Index   int    `json:"index"`   // in the list of changes, from 0
	Code    string `json:"code"`    // as in Error
	Message string `json:"message"` // as in Error
}

// Error returns the message.
func (r *Refused) Error() string { return r.Message }

// Unwrap returns the error of package lvs that the code stands for.
func (r *Refused) Unwrap() error { return meaning(r.Code) }

// Code is one of the words that Error and Refused carry.
type Code struct {
	Code    string
	Status  int    // of HTTP
	Meaning string // one sentence
	err     error  // that it stands for, of package lvs or this one; nil for the server's own
}

var codes = []Code{
	{"bad_request", http.StatusBadRequest, "The request cannot be read: no JSON, an unknown field, a parameter of another kind.", nil},
	{"invalid", http.StatusBadRequest, "It can be read and is not possible: an address, a weight, a filter that cannot be.", lvs.ErrInvalid},
	{"no_scheduler", http.StatusBadRequest, "There is no scheduler of this name.", lvs.ErrNoScheduler},
	{"forbidden", http.StatusForbidden, "Who asks may read but not change, or is unknown.", ErrDenied},
	{"no_service", http.StatusNotFound, "There is no such service.", lvs.ErrNoService},
	{"no_server", http.StatusNotFound, "The service has no such real server.", lvs.ErrNoServer},
	{"no_revision", http.StatusNotFound, "The revision was never made, or is no longer kept.", lvs.ErrNoRevision},
	{"not_found", http.StatusNotFound, "There is no such path.", nil},
	{"method_not_allowed", http.StatusMethodNotAllowed, "The path takes other methods: the header Allow lists them.", nil},
	{"timeout", http.StatusRequestTimeout, "The request did not arrive in time.", nil},
	{"service_exists", http.StatusConflict, "The service is there already.", lvs.ErrServiceExists},
	{"server_exists", http.StatusConflict, "The service has this real server already.", lvs.ErrServerExists},
	{"unconfirmed", http.StatusConflict, "An apply waits to be confirmed: confirm it or roll it back first.", lvs.ErrUnconfirmed},
	{"nothing_waits", http.StatusConflict, "No apply waits to be confirmed.", lvs.ErrNothingWaits},
	{"emptied", http.StatusConflict, "A service would lose its last real server, or the director its last service, without allow_empty.", lvs.ErrEmptied},
	{"generation", http.StatusPreconditionFailed, "The tables are not of the generation in If-Match: somebody changed them meanwhile.", lvs.ErrGeneration},
	{"too_large", http.StatusRequestEntityTooLarge, "The body is above the limit.", nil},
	{"media_type", http.StatusUnsupportedMediaType, "The body is not said to be application/json.", nil},
	{"internal", http.StatusInternalServerError, "Something went wrong in the director: its log says more.", nil},
	{"unsupported", http.StatusNotImplemented, "This version cannot do it yet.", lvs.ErrUnsupported},
	{"busy", http.StatusServiceUnavailable, "Too many requests at the same time: try again after the seconds in Retry-After.", nil},
	{"full", http.StatusInsufficientStorage, "A table is full.", lvs.ErrFull},
}

// Codes lists every code that an answer may carry, in the order of their status.
func Codes() []Code { return slices.Clone(codes) }

// NewError returns the body and the HTTP status for an error.
func NewError(err error) (*Error, int) {
	for _, c := range codes {
		if c.err != nil && errors.Is(err, c.err) {
			return &Error{Code: c.Code, Message: err.Error()}, c.Status
		}
	}
	return &Error{Code: "internal", Message: err.Error()}, http.StatusInternalServerError
}

func meaning(code string) error {
	for _, c := range codes {
		if c.Code == code {
			return c.err
		}
	}
	return nil
}
