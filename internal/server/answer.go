// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"lvx/api"
)

// refusal is an error that only HTTP knows, with the status to answer.
type refusal struct {
	status int
	body   api.Error
}

// Error returns the message.
func (r *refusal) Error() string { return r.body.Message }

func refuse(status int, code, format string, a ...any) error {
	return &refusal{status: status, body: api.Error{Code: code, Message: fmt.Sprintf(format, a...)}}
}

func answer(w http.ResponseWriter, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that is gone cannot be told so.
	_, _ = w.Write(append(text, '\n'))
	return nil
}

// answerError writes the error's status and body. What went wrong on our side
// is logged as well, for a client may be a program that drops it.
func (s *Server) answerError(w http.ResponseWriter, r *http.Request, err error) {
	body, status := api.NewError(err)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		body, status = &refused.body, refused.status
	}
	if status == http.StatusInternalServerError {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // as above
}

// list returns an empty list for nil, which JSON would write as null.
func list[T any](values []T) []T {
	if values == nil {
		return []T{}
	}
	return values
}
