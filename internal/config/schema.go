// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
)

// Schema returns the JSON Schema (draft 2020-12) of the file, for editors. It says
// what the parser says of single values; what several of them say together, and
// what an address has to be, the parser alone knows.
func Schema() []byte {
	root := fileShape.schema()
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "lvx.yaml"
	root["description"] = "The file of the lvx director."
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(root) // maps and texts into memory
	return b.Bytes()
}

func (s *shape) schema() map[string]any {
	m := map[string]any{}
	switch s.kind {
	case objectKind:
		s.objectSchema(m)
	case listKind:
		m["type"] = "array"
		m["items"] = s.item.schema()
		if s.item.kind != objectKind {
			m["uniqueItems"] = true
		}
	case integerKind:
		m["type"] = "integer"
		m["minimum"] = s.min
		m["maximum"] = s.max
	case booleanKind:
		m["type"] = "boolean"
	case durationKind:
		m["type"] = "string"
		m["pattern"] = durationForm.String()
	case wordKind:
		m["enum"] = s.words
	case textKind:
		m["type"] = "string"
		if s.pattern != nil {
			m["pattern"] = s.pattern.String()
		}
	}
	return m
}

func (s *shape) objectSchema(m map[string]any) {
	properties := map[string]any{}
	required := []string{}
	for _, f := range s.fields {
		properties[f.name] = f.schema()
		if f.required {
			required = append(required, f.name)
		}
	}
	m["type"] = "object"
	m["properties"] = properties
	m["required"] = required
	m["additionalProperties"] = false
}

func (f *field) schema() map[string]any {
	if f.later {
		return map[string]any{"not": map[string]any{}, "description": "Not in this version of lvx: " + f.about + "."}
	}
	m := f.shape.schema()
	m["description"] = f.about
	if f.fallback != nil {
		m["default"] = f.fallback
	}
	return m
}
