// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// perSet is how many connections of the capacity a set stands for: half of its
// slots. So a connection finds both of its sets taken, when the table holds its
// capacity, once in 300 times, and goes to the front; without a front, once in 3,000
// times (simulated; see docs/decisions/008-connection-table.md and 011-the-front.md).
const perSet = uint32(bpfConnBitsCONN_WAYS) / 2

// front is how many sets a table has besides: for when it is nearly empty, since the
// CPU's caches hold them, and for what finds its other sets full. A table that is not
// much larger has none.
//
// Where CPUs read in another order than the program's there is none: a packet could miss
// a connection that leaves it (test/protocol shows it, and that all else holds there).
var front = map[string]uint32{"amd64": uint32(bpfConnBitsCONN_FRONT)}[runtime.GOARCH]

// sets returns how many sets each of the connection tables takes.
func sets(connections uint32) uint32 {
	sets := max((connections+perSet-1)/perSet, 2)
	if sets > 2*front {
		sets += front
	}
	return sets
}

// split returns how many of a table's sets are not of the front, and how many are.
func split(sets uint32) (others, ofFront uint32) {
	if sets > 3*front {
		return sets - front, front
	}
	return sets, 0
}

// connections returns the capacity of that many sets; the front is not reckoned with.
func connections(sets uint32) uint32 {
	others, _ := split(sets)
	return others * perSet
}

// tableBytes returns the memory of both connection tables.
func tableBytes(spec *ebpf.CollectionSpec) uint64 {
	four, six := spec.Maps["connections4"], spec.Maps["connections6"]
	return uint64(four.MaxEntries)*uint64(four.ValueSize) + uint64(six.MaxEntries)*uint64(six.ValueSize)
}

// checkMemory refuses to make connection tables that are larger than the memory that
// is available: the kernel would take it from other programs.
func (p *Plane) checkMemory(spec *ebpf.CollectionSpec) error {
	want := tableBytes(spec)
	p.log.Info("connection tables", "connections", connections(spec.Maps["connections4"].MaxEntries), "bytes", want)
	available, known := memoryAvailable("/proc/meminfo")
	if !known || want <= available {
		return nil
	}
	return fmt.Errorf("room for %d connections takes %d MB, and %d MB of memory are available: at most %d connections fit; lower director.capacity.connections or --connections",
		p.options.Connections, want>>20, available>>20, fitting(available/(want/uint64(spec.Maps["connections4"].MaxEntries))))
}

// fitting returns the greatest capacity of no more than so many sets.
func fitting(room uint64) uint32 {
	if room > 3*uint64(front) {
		room -= uint64(front)
	} else {
		room = min(room, 2*uint64(front)) // one more set, and the front comes with it
	}
	return uint32(min(room, uint64(lvs.MaxConnections/perSet))) * perSet
}

// memoryAvailable returns MemAvailable of /proc/meminfo, in bytes (proc(5)): what new
// programs can have without swapping.
func memoryAvailable(path string) (bytes uint64, known bool) {
	file, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kilobytes uint64
		if strings.HasPrefix(lines.Text(), "MemAvailable:") {
			_, err := fmt.Sscanf(lines.Text(), "MemAvailable: %d kB", &kilobytes)
			return kilobytes << 10, err == nil
		}
	}
	return 0, false
}

// setConstants tells the programs the sizes that they reckon with.
func setConstants(spec *ebpf.CollectionSpec, sets, places uint32) error {
	others, ofFront := split(sets)
	return errors.Join(
		spec.Variables["conn_sets"].Set(others),
		spec.Variables["conn_front"].Set(ofFront),
		spec.Variables["vip_places"].Set(places),
	)
}
