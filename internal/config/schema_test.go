// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

// docs/lvx.schema.json is made from the table of keys: LVX_UPDATE=1 writes it anew.
func TestSchemaDocument(t *testing.T) {
	golden(t, "../../docs/lvx.schema.json", string(Schema()))
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("lvx.schema.json", text); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("lvx.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// structural are the errors that the schema knows as well: of a value alone.
var structural = []string{
	codeUnknownKey, codeMissing, codeNoValue, codeType, codeRange, codeWord, codeItem,
	codeName, codePath, codeInterface, codeLaterKey, codeLaterWord,
}

// semantic are those that the parser alone knows: of several values together, or
// of what a text means. A duration is both: its form is in the schema, how long it may be is not.
var semantic = []string{
	codeAddress, codeHost, codePrefix, codeAllPorts, codeDuration, codeService, codeServer,
	codeNameTwice, codeFamily, codePort, codeFlag, codePrime, codeTLS, codeTunnel,
}

// ofText are those that no value that JSON can write has: of the text before it is
// values, and of a key that is there twice.
var ofText = []string{codeMalformed, codeEmpty, codeTwice, codeForeign, codeTab, codeEncoding, codeTooMuch, codeRefused}

func TestEveryErrorIsOneSort(t *testing.T) {
	all := slices.Sorted(slices.Values(slices.Concat(structural, semantic, ofText)))
	var errors []string
	for _, topic := range Topics() {
		if topic.Severity == Error {
			errors = append(errors, topic.Code)
		}
	}
	if !slices.Equal(all, errors) {
		t.Errorf("%v\n%v", all, errors)
	}
}

// Schema and parser find the same documents right and wrong, but for what the
// parser alone can know.
func TestSchemaAgrees(t *testing.T) {
	schema := compileSchema(t)
	rapid.Check(t, func(t *rapid.T) {
		document := drawValue(t, fileShape, "file")
		for range rapid.IntRange(0, 3).Draw(t, "mutations") {
			document = mutate(t, document)
		}
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		compareVerdicts(t, schema, text)
	})
}

func compareVerdicts(t interface{ Fatalf(string, ...any) }, schema *jsonschema.Schema, text []byte) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	refused := schema.Validate(value)
	_, found := Parse("lvx.yaml", text)
	isStructural := slices.ContainsFunc(found, func(d Diagnostic) bool {
		return slices.Contains(structural, d.Code) || d.Code == codeDuration && !strings.Contains(d.Message, "is not above 0")
	})
	if isEmpty := string(text) == "null"; isStructural != (refused != nil) && !isEmpty {
		t.Fatalf("%s\nschema: %v\nparser: %s", text, refused, write(found))
	}
	for _, d := range found.Errors() {
		if slices.Contains(ofText, d.Code) && d.Code != codeEmpty {
			t.Fatalf("%s\n%s", text, write(found))
		}
	}
}

// drawValue makes a value that is right by its shape, or nearly.
func drawValue(t *rapid.T, s *shape, label string) any {
	switch s.kind {
	case objectKind:
		m := map[string]any{}
		for _, f := range s.fields {
			if !f.later && (f.required || rapid.Bool().Draw(t, f.name+"?")) {
				m[f.name] = drawValue(t, f.shape, f.name)
			}
		}
		return m
	case listKind:
		items := []any{}
		for range rapid.IntRange(0, 3).Draw(t, label+" items") {
			items = append(items, drawValue(t, s.item, label))
		}
		return items
	case integerKind:
		return rapid.OneOf(rapid.Int64Range(int64(s.min), int64(s.max)), rapid.Int64Range(-2, 5)).Draw(t, label)
	case booleanKind:
		return rapid.Bool().Draw(t, label)
	case durationKind:
		return rapid.SampledFrom([]string{"15m", "1h30m", "900s", "0s", "745h", "900", "15 m", ""}).Draw(t, label)
	case wordKind:
		return rapid.SampledFrom(slices.Concat(s.words, s.words, s.later, []string{"x"})).Draw(t, label)
	}
	return rapid.SampledFrom([]string{
		"192.168.20.100:80", "192.168.20.101:80", "[fd00::1]:80", "127.0.0.1:1", "web", "eth0", "/etc/x", "", "a b", "x/y", strings.Repeat("n", 64), "é", "on", "12",
	}).Draw(t, label)
}

// mutate changes one value somewhere.
func mutate(t *rapid.T, value any) any {
	strange := []any{nil, true, 0, -1, 3.5, 1 << 40, "", "text", "12", []any{}, []any{nil}, []any{"a", "a"}, map[string]any{}, map[string]any{"x": 1}}
	switch v := value.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		switch what := rapid.IntRange(0, 5).Draw(t, "what"); {
		case what == 0:
			v[rapid.SampledFrom([]string{"x", "weigth", "vrrp", "check", "name", "address", "mark", "tls", "services", "addresz"}).Draw(t, "key")] = rapid.SampledFrom(strange).Draw(t, "strange")
		case what == 1 && len(keys) > 0:
			delete(v, rapid.SampledFrom(keys).Draw(t, "key"))
		case len(keys) > 0:
			key := rapid.SampledFrom(keys).Draw(t, "key")
			v[key] = mutate(t, v[key])
		}
		return v
	case []any:
		if len(v) > 0 && rapid.IntRange(0, 4).Draw(t, "into") > 0 {
			i := rapid.IntRange(0, len(v)-1).Draw(t, "index")
			v[i] = mutate(t, v[i])
			return v
		}
	}
	return rapid.SampledFrom(strange).Draw(t, "strange")
}

// What the table says of each key is what the schema says to an editor.
func TestSchemaSpeaks(t *testing.T) {
	var walk func(s *shape, path string)
	walk = func(s *shape, path string) {
		if s == nil {
			return
		}
		if s.kind == objectKind && s.what == "" {
			t.Errorf("%s has no name for people", path)
		}
		for _, f := range s.fields {
			name := fmt.Sprintf("%s.%s", path, f.name)
			if f.about == "" || f.later != (f.shape == nil) || f.required && f.example == "" || !f.later && !strings.ContainsAny(f.about, ".:") {
				t.Errorf("%s: %+v", name, f)
			}
			walk(f.shape, name)
		}
		walk(s.item, path+"[]")
	}
	walk(fileShape, "")
}
