// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// batch is how many entries one system call reads at most.
const batch = 4096

// walk calls each for every entry of a hash map, in no order, and stops at its first
// error, which it returns. An entry that comes or goes meanwhile may be missed.
func walk[K, V any](m *ebpf.Map, each func(K, V) error) error {
	size := min(batch, int(m.MaxEntries()))
	keys, values := make([]K, size), make([]V, size)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read %s: %w", m, err)
		}
		for i := range n {
			if err := each(keys[i], values[i]); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the end of the map
		}
	}
}

// readArray returns the first n elements of an array map; of a per-CPU one the values
// of all CPUs, one element after the other.
func readArray[V any](m *ebpf.Map, n uint32, cpus int) ([]V, error) {
	values := make([]V, int(n)*cpus)
	keys := make([]uint32, batch)
	var cursor ebpf.MapBatchCursor
	for done := 0; done < int(n); {
		size := min(batch, int(n)-done)
		got, err := m.BatchLookup(&cursor, keys[:size], values[done*cpus:][:size*cpus], nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, fmt.Errorf("read %s: %w", m, err)
		}
		if done += got; err != nil && done < int(n) {
			return nil, fmt.Errorf("read %s: it ends after %d elements of %d", m, done, n)
		}
	}
	return values, nil
}
