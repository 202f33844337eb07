// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"lvx/api"
	"lvx/internal/lvs"
)

const generatedYAML = "# Generated: LVX_UPDATE=1 go test ./internal/server -run OpenAPI. DO NOT EDIT.\n"

// openapi.yaml and openapi.json are what the types and routes say, with the comments
// of the types. LVX_UPDATE=1 writes them.
func TestOpenAPI(t *testing.T) {
	description := New(Options{Director: &fake{}, Log: quiet()}).describe(http.NewServeMux()).OpenAPI()
	commentOn(t, description)
	inJSON, err := json.Marshal(description)
	if err != nil {
		t.Fatal(err)
	}
	inYAML, err := description.YAML()
	if err != nil {
		t.Fatal(err)
	}
	generated(t, "../../api/openapi.yaml", generatedYAML+string(inYAML))
	generated(t, "../../api/openapi.json", string(inJSON)+"\n")
}

// generated compares a file with what it should be, or writes it.
func generated(t *testing.T, path, want string) {
	t.Helper()
	if os.Getenv("LVX_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale; write it with LVX_UPDATE=1 go test ./internal/server -run OpenAPI", path)
	}
}

func TestOpenAPIIsServed(t *testing.T) {
	path := start(t, &fake{}, nil)
	same(t, nil, "200 "+api.OpenAPI(), asked(t, path, question{method: "GET", path: "/openapi.json"}))
	file, err := os.ReadFile("../../api/openapi.yaml")
	same(t, err, "200 "+strings.TrimPrefix(string(file), generatedYAML), asked(t, path, question{method: "GET", path: "/openapi.yaml"}))
}

// source is what the Go source says of the types of packages lvs and api.
type source struct {
	comments map[string]string   // by "Type" or "Type.Field"
	used     map[string]bool     // what of the table of wordings was taken
	words    map[string][]string // the constants of a type of text, by its name
}

// commentOn puts the comments and constants of the source into the description.
func commentOn(t *testing.T, description *huma.OpenAPI) {
	t.Helper()
	read := readSource(t, "../lvs", "../../api")
	registry := description.Components.Schemas
	for _, name := range slices.Sorted(maps.Keys(registry.Map())) {
		schema, goType := registry.Map()[name], registry.TypeFromRef("#/components/schemas/"+name)
		if schema.Description = sentence(read.say(goType.Name())); schema.Description == "" {
			t.Errorf("type %s has no comment", goType)
		}
		for property, value := range schema.Properties {
			field, owner := fieldOf(goType, property)
			read.describe(t, value, field, owner)
		}
	}
	seen := map[uintptr]bool{}
	notNull(reflect.ValueOf(description), seen)
	notNull(reflect.ValueOf(registry.Map()), seen)
	for key := range wording {
		if !read.used[key] {
			t.Errorf("the table of this test speaks of %s, which is not there", key)
		}
	}
}

// say returns the wording for a type or field, or else its comment.
func (s *source) say(key string) string {
	if text, worded := wording[key]; worded {
		s.used[key] = true
		return text
	}
	return s.comments[key]
}

// describe gives a property the comment of its field, and the words that it may be.
func (s *source) describe(t *testing.T, value *huma.Schema, field reflect.StructField, owner reflect.Type) {
	t.Helper()
	key := owner.Name() + "." + field.Name
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	text := s.say(key)
	if rest, begins := strings.CutPrefix(text, field.Name+" "); begins {
		text = name + " " + rest
	}
	if text == "" {
		text = s.comments[field.Type.Name()]
	}
	if text == "" {
		t.Errorf("%s has no comment: write one in its source, or in the table of this test", key)
	}
	value.Description = sentence(text)
	if field.Type.Kind() == reflect.Uint32 { // for which huma says int32
		most := float64(math.MaxUint32)
		value.Format, value.Maximum = "int64", &most
	}
	if field.Type == reflect.TypeFor[lvs.Method]() {
		for _, method := range lvs.Methods() { // the others are words for later
			value.Enum = append(value.Enum, string(method))
		}
		return
	}
	if field.Type == reflect.TypeFor[lvs.TunnelChecksum]() {
		value.Enum = []any{string(lvs.NoChecksum), string(lvs.HeaderChecksum)}
		return
	}
	if field.Name == "Code" {
		for _, code := range api.Codes() {
			value.Enum = append(value.Enum, code.Code)
		}
	}
	for _, word := range s.words[field.Type.Name()] {
		value.Enum = append(value.Enum, word)
	}
}

// sentence begins with a capital letter and ends with a stop, on one line.
func sentence(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" {
		return ""
	}
	if first, _, _ := strings.Cut(text, " "); !strings.Contains(first, "_") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return strings.TrimSuffix(text, ".") + "."
}

// fieldOf returns the field that JSON has under a name, and the struct that it is
// declared in.
func fieldOf(t reflect.Type, name string) (reflect.StructField, reflect.Type) {
	for _, field := range reflect.VisibleFields(t) {
		if tag, _, _ := strings.Cut(field.Tag.Get("json"), ","); tag != name {
			continue
		}
		owner := t
		for _, i := range field.Index[:len(field.Index)-1] {
			owner = owner.Field(i).Type
		}
		return field, owner
	}
	panic(fmt.Sprintf("%s has no field %q", t, name))
}

// notNull takes null out of all lists: ours are empty instead.
func notNull(v reflect.Value, seen map[uintptr]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || seen[v.Pointer()] {
			return
		}
		seen[v.Pointer()] = true
		if schema, is := v.Interface().(*huma.Schema); is {
			schema.Nullable = false
		}
		notNull(v.Elem(), seen)
	case reflect.Interface:
		if !v.IsNil() {
			notNull(v.Elem(), seen)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				notNull(v.Field(i), seen)
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			notNull(v.MapIndex(key), seen)
		}
	case reflect.Slice:
		for i := range v.Len() {
			notNull(v.Index(i), seen)
		}
	}
}

func readSource(t *testing.T, dirs ...string) *source {
	t.Helper()
	s := &source{comments: map[string]string{}, used: map[string]bool{}, words: map[string][]string{}}
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				if group, is := d.(*ast.GenDecl); is {
					s.read(group)
				}
			}
		}
	}
	return s
}

func (s *source) read(group *ast.GenDecl) {
	for _, spec := range group.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			s.comments[spec.Name.Name] = sentence(textOf(group.Doc, spec.Doc, spec.Comment))
			if fields, is := spec.Type.(*ast.StructType); is {
				for _, field := range fields.Fields.List {
					for _, name := range field.Names {
						s.comments[spec.Name.Name+"."+name.Name] = textOf(field.Doc, field.Comment)
					}
				}
			}
		case *ast.ValueSpec:
			kind, is := spec.Type.(*ast.Ident)
			if !is || len(spec.Values) != 1 {
				continue
			}
			if word, is := spec.Values[0].(*ast.BasicLit); is && word.Kind == token.STRING {
				value, _ := strconv.Unquote(word.Value)
				s.words[kind.Name] = append(s.words[kind.Name], value)
			}
		}
	}
}

func textOf(groups ...*ast.CommentGroup) string {
	var all []string
	for _, g := range groups {
		all = append(all, strings.TrimSpace(g.Text()))
	}
	return strings.TrimSpace(strings.Join(all, " "))
}
