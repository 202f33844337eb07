// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

func TestReadEvents(t *testing.T) {
	const stream = ": still here\n\nid: 7\nevent: drift\ndata: {\"id\":7,\"type\":\"drift\"}\n\n: still here\n\nid: 8\ndata:{\"id\":8}\n\n"
	var ids []uint64
	err := readEvents(strings.NewReader(stream), func(e lvs.Event) error { ids = append(ids, e.ID); return nil })
	if err != nil || len(ids) != 2 || ids[0] != 7 || ids[1] != 8 {
		t.Errorf("got %v and %v", ids, err)
	}
	for text, want := range map[string]string{
		"data: {":                                "read events: unexpected end of JSON input",
		"data: " + strings.Repeat(" ", maxEvent): "read events: bufio.Scanner: token too long",
	} {
		if err := readEvents(strings.NewReader(text), func(lvs.Event) error { return nil }); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	enough := errors.New("enough")
	if err := readEvents(strings.NewReader(stream), func(lvs.Event) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
}

// FuzzReadEvents: whatever comes, an error or events.
func FuzzReadEvents(f *testing.F) {
	f.Add("id: 7\nevent: drift\ndata: {\"id\":7}\n\n")
	f.Add(":\r\ndata:null\r\n\r\n")
	f.Fuzz(func(_ *testing.T, stream string) {
		_ = readEvents(strings.NewReader(stream), func(lvs.Event) error { return nil })
	})
}
