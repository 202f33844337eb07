// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deeply a request may nest; ours need six levels.
const maxDepth = 32

// readJSON reads exactly one JSON value and refuses what it does not know: a
// misspelt field must not be a change that is half made.
func readJSON(text []byte, into any) error {
	if err := checkNames(text); err != nil {
		return err
	}
	values := json.NewDecoder(bytes.NewReader(text))
	values.DisallowUnknownFields()
	if err := values.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	} else if err != nil {
		return err
	}
	if _, err := values.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the first JSON value")
	}
	return nil
}

// level is an object or a list that is not closed yet.
type level struct {
	names map[string]bool // seen in this object; nil for a list
	name  bool            // a name comes next, not a value
}

// checkNames refuses what package json would take: a field that is there twice,
// of which one would be lost, and one in capitals, which it takes for ours.
func checkNames(text []byte) error {
	tokens := json.NewDecoder(bytes.NewReader(text))
	tokens.UseNumber()
	open := []level{{}}
	for {
		token, err := tokens.Token()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		inner := &open[len(open)-1]
		switch delim, _ := token.(json.Delim); {
		case delim == '}' || delim == ']':
			open = open[:len(open)-1]
			continue
		case inner.name:
			if err := inner.add(token.(string)); err != nil {
				return err
			}
			continue
		}
		inner.name = inner.names != nil // after this value
		switch token {
		case json.Delim('{'):
			open = append(open, level{names: map[string]bool{}, name: true})
		case json.Delim('['):
			open = append(open, level{})
		}
		if len(open) > maxDepth {
			return errors.New("it is nested too deeply")
		}
	}
}

func (l *level) add(name string) error {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
		return fmt.Errorf("unknown field %q", name)
	}
	if l.names[name] {
		return fmt.Errorf("the field %q is there twice", name)
	}
	l.names[name], l.name = true, false
	return nil
}

// writeJSON writes a value and a newline.
func writeJSON(w io.Writer, value any) error {
	line := json.NewEncoder(w)
	line.SetEscapeHTML(false)
	if err := line.Encode(value); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}
