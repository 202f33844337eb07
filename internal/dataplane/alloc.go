// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// extents hands out runs of an array. The zero value has nothing; grow by put.
// Not safe for concurrent use.
type extents struct {
	what string
	free []extent // sorted, never touching
}

type extent struct{ first, length uint32 }

func byFirst(x extent, first uint32) int { return cmp.Compare(x.first, first) }

// newExtents returns an allocator of [first, first+length).
func newExtents(what string, first, length uint32) extents {
	return extents{what: what, free: []extent{{first, length}}}
}

// take returns the first of a free run of n, or ErrFull.
func (e *extents) take(n uint32) (uint32, error) {
	if n == 0 {
		return 0, nil
	}
	for i := range e.free {
		run := &e.free[i]
		if run.length < n {
			continue
		}
		first := run.first
		run.first += n
		if run.length -= n; run.length == 0 {
			e.free = slices.Delete(e.free, i, i+1)
		}
		return first, nil
	}
	return 0, fmt.Errorf("no room for %d more %s: %w", n, e.what, lvs.ErrFull)
}

// takeLast is take from the other end.
func (e *extents) takeLast(n uint32) (uint32, error) {
	for i, run := range slices.Backward(e.free) {
		if run.length < n || n == 0 {
			continue
		}
		rest := run.length - n
		if e.free[i].length = rest; rest == 0 {
			e.free = slices.Delete(e.free, i, i+1)
		}
		return run.first + rest, nil
	}
	return e.take(n) // nothing, or an error
}

// put gives a run back.
func (e *extents) put(first, n uint32) {
	if n == 0 {
		return
	}
	i, _ := slices.BinarySearchFunc(e.free, first, byFirst)
	e.free = slices.Insert(e.free, i, extent{first, n})
	if i+1 < len(e.free) && e.free[i].first+e.free[i].length == e.free[i+1].first {
		e.free[i].length += e.free[i+1].length
		e.free = slices.Delete(e.free, i+1, i+2)
	}
	if i > 0 && e.free[i-1].first+e.free[i-1].length == e.free[i].first {
		e.free[i-1].length += e.free[i].length
		e.free = slices.Delete(e.free, i, i+1)
	}
}

// reserve marks a run that is in use already, and tells whether it was free.
func (e *extents) reserve(first, n uint32) bool {
	if n == 0 {
		return true
	}
	i, found := slices.BinarySearchFunc(e.free, first, byFirst)
	if !found {
		i-- // the last run that begins before it
	}
	if i < 0 {
		return false
	}
	run := e.free[i]
	if uint64(first)+uint64(n) > uint64(run.first)+uint64(run.length) {
		return false
	}
	e.free = slices.Delete(e.free, i, i+1)
	e.put(run.first, first-run.first)
	e.put(first+n, run.first+run.length-first-n)
	return true
}

// left returns how much is free.
func (e *extents) left() (n uint32) {
	for _, run := range e.free {
		n += run.length
	}
	return n
}

// synchronize waits until every packet that was in a program when it was called
// has left it: a grace period of RCU, which membarrier(2) waits for. It takes
// some milliseconds. Kernels with nohz_full refuse it (EINVAL): there a packet's
// way through the program, which takes microseconds, is given a tenth of a second.
func synchronize() {
	const global = 1 // MEMBARRIER_CMD_GLOBAL
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); err != 0 {
		time.Sleep(100 * time.Millisecond)
	}
}
