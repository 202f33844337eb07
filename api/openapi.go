// SPDX-License-Identifier: Apache-2.0

package api

import _ "embed" // openapi.json

//go:embed openapi.json
var openAPI string

// OpenAPI returns the description of the API, an OpenAPI 3.1 document in JSON;
// openapi.yaml is the same for people. Both are generated:
// LVX_UPDATE=1 go test ./internal/server -run OpenAPI.
func OpenAPI() string { return openAPI }
