// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"lvx/api"
)

// route is one request that the API takes, as it is described and as it is mounted.
type route struct {
	id, method, path string
	summary          string
	text             string   // what the summary does not say
	codes            []string // that it may be refused with, besides those of every request
	changes          bool     // takes the right to change
	body             int64    // how much it takes, in bytes; 0 takes none
	// content is what it answers with, if it writes the answer itself (stream).
	content map[string]any
}

// book is the API in the making.
type book struct {
	*Server
	huma.API
}

// stream is the answer of a route that writes it itself.
type stream struct {
	Body func(huma.Context)
}

// streamTo is a stream that writes with what package http gives.
func streamTo(write func(http.ResponseWriter, *http.Request)) *stream {
	return &stream{Body: func(c huma.Context) {
		r, w := humago.Unwrap(c)
		write(w, r)
	}}
}

// mount describes and mounts everything, and returns the methods of each path.
func (s *Server) mount(mux *http.ServeMux) map[string][]string {
	methods := map[string][]string{}
	for path, item := range s.describe(mux).OpenAPI().Paths {
		for method, operation := range map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put} {
			if operation != nil {
				methods[path] = append(methods[path], method)
			}
		}
	}
	return methods
}

// describe makes the API of huma and mounts it on the mux.
func (s *Server) describe(mux *http.ServeMux) huma.API {
	b := &book{Server: s, API: humago.New(mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: "lvx", Version: "1", Description: about},
			Servers:    []*huma.Server{{URL: "http://lvx", Description: "on the unix socket: the name is not looked at"}},
			Components: &huma.Components{Schemas: newRegistry()},
		},
		Formats:                      map[string]huma.Format{api.TypeJSON: {Marshal: writeFormat, Unmarshal: readJSON}},
		DefaultFormat:                api.TypeJSON,
		RejectUnknownQueryParameters: true,
	})}
	b.reading()
	b.recording()
	b.changing()
	b.configuring()
	b.describing()
	b.metrics()
	return b.API
}

// about introduces openapi.yaml.
const about = `The API of an lvx director. On its unix socket the members of group lvx may read; root and those who are in group
lvx-admin as well may change. Over TCP every client has a certificate; those of the organizational unit lvx-admin may change.
Requests are strict: an unknown field or parameter is refused. Every answer that is not 2xx has the form of Error.`

// writeFormat leaves out the error of writing: a client that is gone cannot be
// told so.
func writeFormat(w io.Writer, value any) error {
	var page bytes.Buffer
	if err := writeJSON(&page, value); err != nil {
		return err
	}
	_, _ = w.Write(page.Bytes())
	return nil
}

// add adds a route. handle returns what is answered: a struct for huma, or a stream.
func add[I, O any](b *book, r route, handle func(context.Context, *I) (*O, error)) {
	operation := huma.Operation{
		OperationID: r.id, Method: r.method, Path: r.path, Summary: r.summary, Description: r.text,
		Responses:        b.responses(r),
		SkipValidateBody: true, // package lvs does, for all who change something
		MaxBodyBytes:     r.body + 1,
		BodyReadTimeout:  readTimeout,
		Middlewares:      huma.Middlewares{b.gate(r)},
	}
	if r.body > maxSmall {
		operation.BodyReadTimeout = bodyTimeout
	}
	huma.Register(b.API, operation, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err != nil {
			return nil, b.refusalOf(r.method, r.path, err)
		}
		return out, nil
	})
}

// responses describes the answers that huma cannot see in the types.
func (b *book) responses(r route) map[string]*huma.Response {
	all := map[string]*huma.Response{}
	if r.content != nil {
		done := &huma.Response{Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{}}
		for media, value := range r.content {
			done.Content[media] = &huma.MediaType{Schema: b.schema(reflect.TypeOf(value))}
		}
		all["200"] = done
	}
	refused := b.schema(reflect.TypeFor[api.Error]())
	for _, code := range api.Codes() {
		if !r.mayAnswer(code.Code) {
			continue
		}
		status := strconv.Itoa(code.Status)
		if all[status] == nil {
			all[status] = &huma.Response{Content: map[string]*huma.MediaType{api.TypeJSON: {Schema: refused}}}
		} else {
			all[status].Description += " "
		}
		all[status].Description += code.Code + ": " + code.Meaning
	}
	return all
}

func (b *book) schema(t reflect.Type) *huma.Schema {
	return b.OpenAPI().Components.Schemas.Schema(t, true, "")
}

// mayAnswer tells whether a code may be in the route's answer. A path that is not
// there or a method that it does not take are not the route's.
func (r route) mayAnswer(code string) bool {
	switch code {
	case "bad_request", "forbidden", "busy", "internal":
		return true
	case "too_large", "media_type", "timeout":
		return r.body > 0
	}
	for _, own := range r.codes {
		if own == code {
			return true
		}
	}
	return false
}

// gate checks what can be checked before the body is read, and keeps a place for a
// large one.
func (b *book) gate(route route) func(huma.Context, func(huma.Context)) {
	return func(c huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(c)
		v := visitOf(r.Context())
		if err := b.allow(route, v, r); err != nil {
			b.answerError(w, r, err)
			return
		}
		// A chunked body has length -1.
		if route.body > maxSmall && (r.ContentLength > maxSmall || r.ContentLength < 0) {
			waiting, cancel := context.WithTimeout(r.Context(), readTimeout)
			defer cancel()
			if !v.room.large.await(waiting) {
				b.answerError(w, r, busy("too many large requests at the same time"))
				return
			}
			defer v.room.large.leave()
		}
		if route.body > maxSmall {
			v.answerIn(bodyTimeout)
		}
		next(c)
	}
}

func (b *book) allow(route route, v *visit, r *http.Request) error {
	if route.changes && !v.writer {
		b.Log.Warn("change forbidden", "who", v.peer.String(), "method", r.Method, "path", r.URL.Path)
		return refuse("forbidden", "%s may read but not change; root and members of group %s may", v.peer, AdminGroup)
	}
	switch {
	case r.ContentLength == 0:
		return nil
	case route.body == 0:
		return refuse("bad_request", "%s %s takes no body", route.method, route.path)
	case r.ContentLength > route.body:
		return refuse("too_large", "the body is above %d bytes", route.body)
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != api.TypeJSON {
		return refuse("media_type", "the body is not said to be JSON: send it with Content-Type: %s", api.TypeJSON)
	}
	return nil
}

// accepts tells whether the client asks for this media type by name.
func accepts(r *http.Request, want string) bool {
	for _, header := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(header, ",") {
			media, parameters, err := mime.ParseMediaType(one)
			if err != nil || media != want {
				continue
			}
			weight, err := strconv.ParseFloat(parameters["q"], 64)
			return err != nil || weight > 0
		}
	}
	return false
}
