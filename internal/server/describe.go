// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2/yaml"

	"lvx/api"
)

// describing adds the description of the API, which is generated.
func (b *book) describing() {
	add(b, route{
		id: "openapiYAML", method: http.MethodGet, path: api.PathOpenAPI + ".yaml",
		summary: "This description, in YAML", content: map[string]any{api.TypeYAML: ""},
	}, func(context.Context, *none) (*stream, error) {
		document, err := inYAML()
		return text(api.TypeYAML, document), err
	})
	add(b, route{
		id: "openapiJSON", method: http.MethodGet, path: api.PathOpenAPI + ".json",
		summary: "This description, in JSON", content: map[string]any{api.TypeJSON: map[string]any{}},
	}, func(context.Context, *none) (*stream, error) { return text(api.TypeJSON, []byte(api.OpenAPI())), nil })
}

// inYAML is api.OpenAPI in YAML.
var inYAML = sync.OnceValues(func() ([]byte, error) {
	var document bytes.Buffer
	err := yaml.Convert(&document, strings.NewReader(api.OpenAPI()))
	return document.Bytes(), err
})

// metrics adds what Prometheus reads.
func (b *book) metrics() {
	scrapes := b.MetricsHandler()
	add(b, route{
		id: "metrics", method: http.MethodGet, path: api.PathMetrics,
		summary: "Metrics, in the text form of Prometheus", text: "docs/metrics.md has all of them.",
		content: map[string]any{"text/plain": ""},
	}, func(context.Context, *none) (*stream, error) { return streamTo(scrapes.ServeHTTP), nil })
}

func text(media string, content []byte) *stream {
	return streamTo(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(content) // a client that is gone cannot be told so
	})
}
