// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// loadLRUFor loads lvx with an LRU hash for a table (e). It shares all other maps
// with the plane whose pins these are, but for the counts of connections, which would
// go wrong: an LRU forgets without taking off.
func loadLRUFor(s shape, pins string) (*ebpf.Collection, error) {
	spec, err := loadLru()
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	for name := range spec.Programs {
		if name != lruProgLvsDirect {
			delete(spec.Programs, name)
		}
	}
	shared := map[string]*ebpf.Map{}
	defer func() {
		for _, m := range shared {
			m.Close()
		}
	}()
	for name, m := range spec.Maps {
		switch {
		case strings.HasPrefix(name, "."):
			continue // constants
		case name == lruMapAgain:
			continue // it is its own
		case name == lruMapLruFlows4 || name == lruMapLruFlows6:
			m.MaxEntries = 1
			if s.six == (name == lruMapLruFlows6) {
				m.MaxEntries = s.connections
			}
			continue
		}
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(pins, name), nil)
		if err != nil {
			return nil, fmt.Errorf("open the pinned %s: %w", name, err)
		}
		m.MaxEntries = pinned.MaxEntries()
		if name == lruMapCounts {
			pinned.Close()
			continue
		}
		shared[name] = pinned
	}
	if err := spec.Variables["vip_places"].Set(shared["vips"].MaxEntries()); err != nil {
		return nil, fmt.Errorf("set the size of vips: %w", err)
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	if err := collection.Maps[lruMapAgain].Put(uint32(0), collection.Programs[lruProgLvsDirect]); err != nil {
		return nil, fmt.Errorf("tell the program of itself: %w", err)
	}
	return collection, nil
}
