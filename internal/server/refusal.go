// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"lvx/api"
)

// refusal is an error as it is answered.
type refusal struct {
	status int
	body   api.Error
	retry  bool // the client may try again soon
}

// Error returns the message.
func (r *refusal) Error() string { return r.body.Message }

// GetStatus returns the HTTP status; it makes a refusal a huma.StatusError.
func (r *refusal) GetStatus() int { return r.status }

// MarshalJSON writes the body.
func (r *refusal) MarshalJSON() ([]byte, error) {
	var text bytes.Buffer
	err := writeJSON(&text, r.body)
	return text.Bytes(), err
}

// GetHeaders returns what huma adds to the answer.
func (r *refusal) GetHeaders() http.Header {
	if !r.retry {
		return nil
	}
	return http.Header{"Retry-After": {"1"}}
}

// refuse returns an error with one of the codes that are the server's own.
func refuse(code, format string, a ...any) error {
	r := &refusal{status: http.StatusInternalServerError, body: api.Error{Code: code, Message: fmt.Sprintf(format, a...)}}
	for _, c := range api.Codes() {
		if c.Code == code {
			r.status = c.Status
		}
	}
	r.retry = r.status == http.StatusServiceUnavailable
	return r
}

func busy(what string) error { return refuse("busy", "%s; try again in a second", what) }

// refusalOf returns the answer to an error. What went wrong on our side is logged
// as well, for a client may be a program that drops it.
func (s *Server) refusalOf(method, path string, err error) *refusal {
	if known := (*refusal)(nil); errors.As(err, &known) {
		return known
	}
	body, status := api.NewError(err)
	if status == http.StatusInternalServerError {
		s.Log.Error("request failed", "method", method, "path", path, "err", err)
	}
	return &refusal{status: status, body: *body}
}

// answerError is for the paths that huma does not write to.
func (s *Server) answerError(w http.ResponseWriter, r *http.Request, err error) {
	refused := s.refusalOf(r.Method, r.URL.Path, err)
	for name, values := range refused.GetHeaders() {
		w.Header()[name] = values
	}
	answer(w, refused.status, refused)
}

// answer writes a value as JSON. It is one that JSON can carry.
func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", api.TypeJSON)
	w.WriteHeader(status)
	_ = writeJSON(w, value) // a client that is gone cannot be told so
}

// huma makes its errors with these two variables. Ours have the form of package
// api, with the words of its validation in one message.
func init() {
	huma.NewError = newError
	huma.NewErrorWithContext = func(_ huma.Context, status int, message string, errs ...error) huma.StatusError {
		return newError(status, message, errs...)
	}
}

var codeOf = map[int]string{
	http.StatusRequestTimeout:        "timeout",
	http.StatusRequestEntityTooLarge: "too_large",
}

func newError(status int, message string, errs ...error) huma.StatusError {
	var details []string
	for _, err := range errs {
		details = append(details, explain(err))
	}
	if len(details) > 0 {
		message = strings.Join(details, "; ")
	}
	// All that is left to huma is reading the request: what it cannot read is
	// the client's fault, even a body that breaks off, which it calls 500.
	code, known := codeOf[status]
	if !known {
		code = "bad_request"
	}
	refused := (*refusal)(nil)
	errors.As(refuse(code, "%s", message), &refused)
	return refused
}

// wrongType is how package json says that a value is of a kind that its field cannot
// have, in words of Go: which value, and the field with its path.
var wrongType = regexp.MustCompile(`^cannot unmarshal (.+) into Go struct field [A-Za-z]+\.(\S+) of type \S+$`)

// explain says where in the request something is wrong, and what was there unless
// it is a whole body.
func explain(err error) string {
	detail := (*huma.ErrorDetail)(nil)
	if !errors.As(err, &detail) {
		return err.Error()
	}
	where, name, _ := strings.Cut(detail.Location, ".")
	switch value := fmt.Sprint(detail.Value); {
	case where == "body":
		return "read the request: " + wrongType.ReplaceAllString(strings.TrimPrefix(detail.Message, "json: "), "$2 cannot be the $1")
	case value == "":
		return fmt.Sprintf("%s %s: %s", where, name, detail.Message)
	default:
		return fmt.Sprintf("%s %s %q: %s", where, name, value, detail.Message)
	}
}

// list returns an empty list for nil, which JSON would write as null.
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}
