// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
)

// jsonArray writes a JSON array element by element, one on a line, so that a
// long one is never in memory. Without its Close the text is no JSON: a list
// that was cut off cannot be taken for a whole one.
type jsonArray struct {
	w     io.Writer
	began bool
}

// Add writes one element.
func (a *jsonArray) Add(element any) error {
	text, err := json.Marshal(element)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	before := ",\n"
	if !a.began {
		before = "[\n"
	}
	a.began = true
	_, err = fmt.Fprintf(a.w, "%s%s", before, text)
	return err
}

// Close ends the array.
func (a *jsonArray) Close() error {
	end := "\n]\n"
	if !a.began {
		end = "[]\n"
	}
	_, err := io.WriteString(a.w, end)
	return err
}

// printJSON writes a whole list.
func printJSON[T any](w io.Writer, elements []T) error {
	array := &jsonArray{w: w}
	for _, one := range elements {
		if err := array.Add(one); err != nil {
			return err
		}
	}
	return array.Close()
}
