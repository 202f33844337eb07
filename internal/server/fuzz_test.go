// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"lvx/api"
)

// Whatever is asked, the answer has a status that is the client's affair, and the
// form that is promised.
func FuzzAPI(f *testing.F) {
	for _, path := range []string{
		api.PathServices, api.PathRealServers, api.PathConnections, api.PathNeighbours, api.PathReasons, api.PathStatus, api.PathEvents,
		api.PathHistory, api.PathRevisions, api.PathRevisions + "/7", api.PathConfiguration, "/openapi.yaml", "/openapi.json", api.PathMetrics,
	} {
		f.Add("GET", path, "service=tcp/192.0.2.1:80&client=10.0.0.0/8&limit=1&after=3", "", "text/event-stream", "")
	}
	f.Add("POST", api.PathChanges, "", `{"changes":[{"operation":"add-service","service":{"protocol":"tcp","address":"192.0.2.1:80"},"scheduler":"mh","scheduler_flags":["mh-port"]}],"wait_seconds":1.5,"keep_going":true}`, "", `"42"`)
	f.Add("POST", api.PathChanges, "", `{"changes":[{"operation":"add-server","real_server":{"address":"[2001:db8::1]:80","method":"dr","weight":1}}]}`, "", "*")
	f.Add("PUT", api.PathConfiguration, "allow_empty=true&confirm_seconds=60&wait_seconds=1&what=x", `{"timeouts":{"tcp_seconds":900},"services":[{"protocol":"tcp","address":"192.0.2.1:80","scheduler":"rr","real_servers":[]}]}`, "application/x-ndjson;q=0.5, */*", "")
	f.Add("POST", api.PathPlan, "", `{"settings":{"interfaces":["eth0"],"api":{"tls":{}}},"services":[]}`, "", "")
	f.Add("POST", api.PathConfirm, "", "", "", "")
	f.Add("POST", api.PathRollback, "", `{"revision":7}`, "", "")
	f.Add("OPTIONS", "*", "", "", "", "")
	f.Add("GET", "//v1/../v1/status", "%zz", "", ";q=x,,", "")

	s := New(Options{Director: full(), Log: quiet(), MayWrite: anyone})
	close(s.stopping) // streams end at once
	h := s.Handler()
	f.Fuzz(func(t *testing.T, method, path, query, body, accept, ifMatch string) {
		r := &http.Request{
			Method: method, Host: "lvx", RequestURI: path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			URL: &url.URL{Path: path, RawQuery: query}, Body: http.NoBody, ContentLength: int64(len(body)),
			Header: http.Header{"Content-Type": {api.TypeJSON}, "Accept": {accept}, "If-Match": {ifMatch}, "Last-Event-Id": {ifMatch}},
		}
		if body != "" {
			r.Body = io.NopCloser(strings.NewReader(body))
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(context.WithValue(t.Context(), peerKey{}, Peer{Known: true})))
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Code/100 == 2 {
			return
		}
		var refused api.Error
		answer := json.NewDecoder(w.Body)
		answer.DisallowUnknownFields()
		if err := answer.Decode(&refused); err != nil || refused.Message == "" {
			t.Fatalf("%d is not in the form of errors: %v", w.Code, err)
		}
		for _, code := range api.Codes() {
			if code.Code == refused.Code && code.Status == w.Code {
				return
			}
		}
		t.Errorf("%d has the code %s", w.Code, refused.Code)
	})
}
