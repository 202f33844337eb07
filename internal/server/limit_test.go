// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"lvx/api"
	"lvx/internal/lvs"
)

// do asks a handler as a user. Root may change things.
func do(t *testing.T, h http.Handler, uid uint32, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	ctx := context.WithValue(t.Context(), peerKey{}, Peer{Known: true, UID: uid})
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", api.TypeJSON)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const nobody = 4294967294

// Readers that take up all there is do not keep those out who may change things.
func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		f := &waiting{fake: &fake{}, finish: finish}
		h := New(Options{Director: f, Log: quiet()}).Handler()
		for range maxRequests {
			go do(t, h, nobody, "GET", api.PathServices, "")
		}
		synctest.Wait()
		refused := do(t, h, nobody, "GET", api.PathStatus, "")
		same(t, nil, `503 {"code":"busy","message":"too many requests at the same time; try again in a second"}`+"\n", fmt.Sprintf("%d %s", refused.Code, refused.Body))
		same(t, nil, "1", refused.Header().Get("Retry-After"))
		same(t, nil, 200, do(t, h, 0, "POST", api.PathChanges, `{"changes":[]}`).Code)
		close(finish)
		synctest.Wait()
		same(t, nil, 200, do(t, h, nobody, "GET", api.PathStatus, "").Code)
	})
}

// waiting is a director whose reading takes until the test lets go.
type waiting struct {
	*fake
	finish chan struct{}
}

func (w *waiting) Services() ([]lvs.ServiceStatus, error) { <-w.finish; return nil, nil }

func (w *waiting) Plan(lvs.Configuration) (lvs.Plan, error) { <-w.finish; return lvs.Plan{}, nil }

// Large bodies wait for each other, and small ones for none.
func TestLargeBodiesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		h := New(Options{Director: &waiting{fake: &fake{}, finish: finish}, Log: quiet()}).Handler()
		large := `{"services":[]` + strings.Repeat(" ", maxSmall) + `}`
		codes := make(chan int, maxLarge+1)
		for range maxLarge + 1 {
			go func() { codes <- do(t, h, nobody, "POST", api.PathPlan, large).Code }()
		}
		same(t, nil, http.StatusServiceUnavailable, <-codes) // after a while
		same(t, nil, 200, do(t, h, 0, "POST", api.PathChanges, `{"changes":[]`+strings.Repeat(" ", maxSmall)+`}`).Code)
		close(finish)
		for range maxLarge {
			same(t, nil, 200, <-codes)
		}
	})
}

func TestBodiesAreBounded(t *testing.T) {
	h := New(Options{Director: &fake{}, Log: quiet()}).Handler()
	blank := strings.Repeat(" ", maxBody-len(`{"changes":[]}`))
	if !testing.Short() {
		same(t, nil, 200, do(t, h, 0, "POST", api.PathChanges, `{"changes":[]`+blank+`}`).Code)
	}
	same(t, nil, 413, do(t, h, 0, "POST", api.PathChanges, `{"changes":[]`+blank+` }`).Code)
	same(t, nil, 413, do(t, h, 0, "PUT", api.PathConfiguration, `{"services":[]`+blank+`}`).Code)

	// One that does not say how long it is is read up to the limit.
	r := httptest.NewRequest("POST", api.PathRollback, struct{ *strings.Reader }{strings.NewReader(strings.Repeat(" ", maxSmall+1))})
	r = r.WithContext(context.WithValue(r.Context(), peerKey{}, Peer{Known: true}))
	r.ContentLength = -1
	r.Header.Set("Content-Type", api.TypeJSON)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	same(t, nil, 413, w.Code)
}

// A listener takes so many connections of one user and no more, and root's always.
func TestConnectionsAreBounded(t *testing.T) {
	b := bound(nil)
	for range maxConnections {
		if !b.take("uid 7") {
			t.Fatal("refused too early")
		}
	}
	if b.take("uid 7") {
		t.Error("one too many of one user")
	}
	for uid := 8; b.take(fmt.Sprint("uid ", uid)); uid++ {
	}
	same(t, nil, maxAll, b.all)
	b.leave("uid 7")
	if !b.take("uid 7") {
		t.Error("a place that was given back is lost")
	}

	here, there := net.Pipe()
	defer here.Close()
	c := &counted{Conn: there, leave: func() { b.leave("uid 7") }}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	same(t, nil, maxAll-1, b.all)
}
