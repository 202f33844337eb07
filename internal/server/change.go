// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

// maxBody bounds a request: about seven thousand changes.
const maxBody = 1 << 20

func (s *Server) change(w http.ResponseWriter, r *http.Request) error {
	peer := peerOf(r.Context())
	if !s.MayWrite(peer) {
		return refuse(http.StatusForbidden, "forbidden", "user %d may read but not change; root and members of group %s may", peer.UID, AdminGroup)
	}
	var wanted api.Changes
	if err := decode(http.MaxBytesReader(w, r.Body, maxBody), &wanted); err != nil {
		return err
	}
	wait := time.Duration(wanted.Wait)
	if wait < 0 || wait > api.MaxWait {
		return fmt.Errorf("wait_seconds is not between 0 and %g: %w", api.MaxWait.Seconds(), lvs.ErrInvalid)
	}
	warnings, err := s.Director.Apply(r.Context(), wanted.Changes, wait)
	if err != nil {
		return err
	}
	s.Log.Info("changes applied", "changes", len(wanted.Changes), "uid", peer.UID, "pid", peer.PID)
	return answer(w, api.Applied{Warnings: list(warnings)})
}

// decode reads exactly one JSON value and refuses what it does not know: a
// misspelt field must not be a change that is half made.
func decode(body io.Reader, into any) error {
	text := json.NewDecoder(body)
	text.DisallowUnknownFields()
	err := text.Decode(into)
	if err == nil {
		if _, err = text.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("there is more after the first JSON value")
	}
	if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "the request is above %d bytes; send the changes in parts", tooLong.Limit)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it is empty")
	}
	return refuse(http.StatusBadRequest, "bad_request", "read the request: %s", strings.TrimPrefix(err.Error(), "json: "))
}
