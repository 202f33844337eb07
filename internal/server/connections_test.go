// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestConnections(t *testing.T) {
	f := &fake{connections: 2000}
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	for _, c := range []struct {
		query api.ConnectionQuery
		want  int
	}{
		{api.ConnectionQuery{}, 2000},
		{api.ConnectionQuery{Limit: 1}, 1},
		{api.ConnectionQuery{Limit: 1500}, 1500},
		{api.ConnectionQuery{Limit: 5000}, 2000},
		{api.ConnectionQuery{Client: "10.0.1.0/24"}, 256},
		{api.ConnectionQuery{Client: "10.0.1.0/24", Limit: 3}, 3},
		{api.ConnectionQuery{Client: "10.0.1.7:1024"}, 1},
		{api.ConnectionQuery{Client: "10.0.1.7:1025"}, 0},
		{api.ConnectionQuery{RealServer: "198.51.100.5", Service: "tcp/192.0.2.1:80", State: "established"}, 2000},
		{api.ConnectionQuery{RealServer: "198.51.100.6"}, 0},
		{api.ConnectionQuery{Service: "udp/192.0.2.1"}, 0},
		{api.ConnectionQuery{State: "FIN_WAIT"}, 0},
	} {
		count := 0
		err := client.Connections(t.Context(), c.query, func(lvs.Connection) error { count++; return nil })
		if err != nil || count != c.want {
			t.Errorf("%+v: got %d connections and %v, want %d", c.query, count, err, c.want)
		}
	}
	err := client.Connections(t.Context(), api.ConnectionQuery{Client: "somewhere"}, func(lvs.Connection) error { return nil })
	if !errors.Is(err, lvs.ErrInvalid) {
		t.Errorf("a filter that is none: %v", err)
	}
}

// A million connections pass through both sides without being kept on either.
func TestManyConnectionsTakeLittleMemory(t *testing.T) {
	const most = 16 << 20 // bytes; kept as text the list would be 150 MB
	many := 1_000_000
	if testing.Short() {
		many = 50_000
	}
	client := api.NewClient(start(t, &fake{connections: many}, nil))
	defer client.Close()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, highest, count := heap(), uint64(0), 0
	err := client.Connections(t.Context(), api.ConnectionQuery{}, func(c lvs.Connection) error {
		if c != connection(count) {
			return fmt.Errorf("connection %d is %v", count, c)
		}
		if count++; count%(many/10) == 0 {
			highest = max(highest, heap())
		}
		return nil
	})
	same(t, err, many, count)
	if highest > before+most {
		t.Errorf("the heap grew from %d to %d bytes", before, highest)
	}
}

// A list that breaks in the middle must not look like a whole one.
func TestBrokenListIsAnError(t *testing.T) {
	client := api.NewClient(start(t, &fake{connections: 3000, breakAt: 2000}, nil))
	defer client.Close()
	count := 0
	err := client.Connections(t.Context(), api.ConnectionQuery{}, func(lvs.Connection) error { count++; return nil })
	if !errors.Is(err, io.ErrUnexpectedEOF) || count == 0 || count >= 2000 {
		t.Errorf("got %d connections and %v", count, err)
	}
}
