// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"os"
	"path/filepath"
	"testing"

	"lvx/internal/lvs"
)

// How large tables are is known from how large they are: what a pinned one holds is
// what was asked for, in whole sets.
func TestCapacityOfSets(t *testing.T) {
	for _, n := range []uint32{1, 2, 3, 4, 5, 1000, 4*front - 1, 4 * front, 4*front + 1, 4*front + 2, 6 * front, 6*front + 1, 1_000_000, lvs.MaxConnections} {
		want := max((n+1)/2*2, 4)
		if got := connections(sets(n)); got != want {
			t.Errorf("asked for %d: %d", n, got)
		}
		if others, ofFront := split(sets(n)); others < 2 || ofFront != 0 && ofFront != front || others+ofFront != sets(n) {
			t.Errorf("asked for %d: %d sets and %d of the front of %d", n, others, ofFront, sets(n))
		}
	}
}

// What is said to fit fits, and one more set does not.
func TestFitting(t *testing.T) {
	for _, room := range []uint64{2, 3, 1000, uint64(2 * front), uint64(2*front) + 1, uint64(3 * front), uint64(3*front) + 1, 1 << 24} {
		n := fitting(room)
		if need := uint64(sets(n)); need > room {
			t.Errorf("in %d sets: %d connections, which take %d", room, n, need)
		}
		if more := uint64(sets(n + 1)); more <= room {
			t.Errorf("in %d sets: %d connections, but one more takes %d", room, n, more)
		}
	}
	if n := fitting(1 << 40); n != lvs.MaxConnections {
		t.Errorf("in all the world: %d", n)
	}
}

func TestMemoryAvailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meminfo")
	for text, want := range map[string]uint64{
		"MemTotal:       24657548 kB\nMemAvailable:   100010 kB\nBuffers: 1 kB\n": 100010 << 10,
		"MemTotal: 5 kB\n":     0,
		"MemAvailable: lots\n": 0,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, known := memoryAvailable(file); got != want || known != (want > 0) {
			t.Errorf("%q: %d %v", text, got, known)
		}
	}
	if _, known := memoryAvailable(file + "none"); known {
		t.Error("of no file")
	}
}
