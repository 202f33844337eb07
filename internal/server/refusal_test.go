// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/http"
	"strings"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestRefusals(t *testing.T) {
	f := &fake{}
	path := start(t, f, anyone)
	for _, c := range []struct{ name, method, path, body, want string }{
		{"no such path", "GET", "/v1/servces", "", `404 {"code":"not_found","message":"there is no \"/v1/servces\" in this version of the API"}`},
		{"a path that is not clean", "GET", "//v1/../status", "", `404 {"code":"not_found","message":"there is no \"//v1/../status\" in this version of the API"}`},
		{"reading by POST", "POST", api.PathStatus, "{}", `405 {"code":"method_not_allowed","message":"/v1/status takes GET, not POST"}`},
		{"changing by GET", "GET", api.PathChanges, "", `405 {"code":"method_not_allowed","message":"/v1/changes takes POST, not GET"}`},
		{"deleting", "DELETE", api.PathConfiguration, "", `405 {"code":"method_not_allowed","message":"/v1/configuration takes GET, PUT, not DELETE"}`},
		{"unknown parameter", "GET", api.PathServices + "?servce=1", "", `400 {"code":"bad_request","message":"query servce: unknown query parameter"}`},
		{"a parameter that is there twice", "GET", api.PathServices + "?service=1&service=2", "", `400 {"code":"bad_request","message":"query service: it is there 2 times"}`},
		{"a query that is none", "GET", api.PathServices + "?service=%zz", "", `400 {"code":"bad_request","message":"read the query: invalid URL escape \"%zz\""}`},
		{"no number", "GET", api.PathHistory + "?limit=many", "", `400 {"code":"bad_request","message":"query limit \"many\": invalid integer"}`},
		{"a number below 0", "GET", api.PathHistory + "?limit=-1", "", `400 {"code":"bad_request","message":"query limit \"-1\": expected number >= 0"}`},
		{"no revision", "GET", api.PathRevisions + "/last", "", `400 {"code":"bad_request","message":"path revision \"last\": invalid integer"}`},
		{"no service", "GET", api.PathServices + "?service=web", "", `400 {"code":"invalid","message":"query service: service \"web\" is not [tcp/|udp/]VIP[:PORT]"}`},
		{"no address", "GET", api.PathConnections + "?client=300.1.1.1", "", `400 {"code":"invalid","message":"query client: \"300.1.1.1\" is not ADDRESS, ADDRESS:PORT or ADDRESS/BITS"}`},
		{"no state", "GET", api.PathConnections + "?state=OPEN", "", `400 {"code":"invalid","message":"query state: state \"OPEN\" is not one of NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK UDP"}`},
		{"a body where none belongs", "GET", api.PathStatus, "{}", `400 {"code":"bad_request","message":"GET /v1/status takes no body"}`},
		{"empty", "POST", api.PathChanges, "", `400 {"code":"bad_request","message":"request body is required"}`},
		{"blank", "POST", api.PathChanges, " ", `400 {"code":"bad_request","message":"read the request: it is empty"}`},
		{"no JSON", "POST", api.PathChanges, "{changes", `400 {"code":"bad_request","message":"read the request: invalid character 'c'"}`},
		{"unknown field", "POST", api.PathChanges, `{"changes":[{"operatoin":"clear"}]}`, `400 {"code":"bad_request","message":"read the request: unknown field \"operatoin\""}`},
		{"a field in capitals", "POST", api.PathChanges, `{"Changes":[]}`, `400 {"code":"bad_request","message":"read the request: unknown field \"Changes\""}`},
		{"a field that is there twice", "POST", api.PathChanges, `{"changes":[],"changes":[{"operation":"clear"}]}`, `400 {"code":"bad_request","message":"read the request: the field \"changes\" is there twice"}`},
		{"a value of another kind", "POST", api.PathChanges, `{"changes":[{"real_server":{"weight":-1}}]}`, `400 {"code":"bad_request","message":"read the request: changes.real_server.weight cannot be the number -1"}`},
		{"trailing text", "POST", api.PathChanges, `{"changes":[]} {}`, `400 {"code":"bad_request","message":"read the request: there is more after the first JSON value"}`},
		{"nested deeply", "POST", api.PathChanges, strings.Repeat("[", 1000), `400 {"code":"bad_request","message":"read the request: it is nested too deeply"}`},
		{"too long a wait", "POST", api.PathChanges, `{"changes":[],"wait_seconds":60}`, `400 {"code":"invalid","message":"wait_seconds is not between 0 and 5: not possible"}`},
		{"too long to confirm", "PUT", api.PathConfiguration + "?confirm_seconds=3601", `{"services":[]}`, `400 {"code":"invalid","message":"confirm_seconds is not between 0 and 3600: not possible"}`},
		{"not a time", "PUT", api.PathConfiguration + "?confirm_seconds=nan", `{"services":[]}`, `400 {"code":"invalid","message":"confirm_seconds is not between 0 and 3600: not possible"}`},
		{"control characters", "PUT", api.PathConfiguration + "?what=%1b[2J", `{"services":[]}`, `400 {"code":"invalid","message":"what has control characters: not possible"}`},
		{"too much text", "PUT", api.PathConfiguration + "?what=" + strings.Repeat("x", 257), `{"services":[]}`, `400 {"code":"bad_request","message":"query what \"` + strings.Repeat("x", 257) + `\": expected length <= 256"}`},
		{"too large", "POST", api.PathRollback, strings.Repeat(" ", maxSmall+1), `413 {"code":"too_large","message":"the body is above 65536 bytes"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, nil, c.want+"\n", asked(t, path, question{method: c.method, path: c.path, body: c.body}))
		})
	}
	same(t, nil, lvs.Request{}, f.request) // nothing was asked of the director
}

func TestHeadersThatAreRefused(t *testing.T) {
	f := &fake{}
	path := start(t, f, anyone)
	body := `{"changes":[]}`
	for _, c := range []struct{ name, header, value, want string }{
		{"a body that is no JSON", "Content-Type", "application/x-www-form-urlencoded", `415 {"code":"media_type","message":"the body is not said to be JSON: send it with Content-Type: application/json"}`},
		{"a page of another site", "Origin", "https://example.net", `403 {"code":"forbidden","message":"the request comes from a page of another site"}`},
		{"a generation without quotes", "If-Match", "42", `400 {"code":"bad_request","message":"header If-Match \"42\": it is not a generation in quotes, as in \"42\""}`},
		{"a weak generation", "If-Match", `W/"42"`, `400 {"code":"bad_request","message":"header If-Match \"W/\\\"42\\\"\": it is not a generation in quotes, as in \"42\""}`},
		{"a generation that never is", "If-Match", `"0"`, `412 {"code":"generation","message":"the change is for generation 0, and they begin with 1: the tables were changed meanwhile"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := question{method: "POST", path: api.PathChanges, body: body, header: map[string]string{c.header: c.value}}
			same(t, nil, c.want+"\n", asked(t, path, q))
		})
	}
	same(t, nil, lvs.Request{}, f.request)

	response, _ := ask(t, path, question{method: "HEAD", path: api.PathConnections})
	same(t, nil, "405 GET", http.StatusText(response.StatusCode)[:0]+"405 "+response.Header.Get("Allow"))
}
