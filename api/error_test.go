// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"testing"
)

// Every code is there once, and stands for the same error on both sides.
func TestCodes(t *testing.T) {
	seen := map[string]bool{}
	last := 0
	for _, c := range Codes() {
		if seen[c.Code] || c.Status < last || c.Meaning == "" {
			t.Errorf("%s is there twice, out of order, or says nothing", c.Code)
		}
		seen[c.Code], last = true, c.Status
		if c.err == nil {
			continue
		}
		body, status := NewError(fmt.Errorf("this: %w", c.err))
		if body.Code != c.Code || status != c.Status || !errors.Is(body, c.err) || body.Error() != "this: "+c.err.Error() {
			t.Errorf("%v is %d %+v", c.err, status, body)
		}
		if refused := (&Refused{Code: c.Code}); !errors.Is(refused, c.err) {
			t.Errorf("a refused change with %s lost its identity", c.Code)
		}
	}
	if body, status := NewError(errors.New("odd")); body.Code != "internal" || status != 500 || errors.Unwrap(body) != nil {
		t.Errorf("another error is %d %+v", status, body)
	}
}
