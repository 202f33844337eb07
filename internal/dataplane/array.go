// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// array is an array map in our memory: a store to an element is seen by the next
// packet. What packets may be reading is changed field by field with package
// sync/atomic; only elements that nothing points to are written as a whole.
type array[T any] struct {
	memory []byte
	items  []T
}

func (a *array[T]) open(m *ebpf.Map) error { return a.openAs(m, unix.PROT_READ|unix.PROT_WRITE) }

// openToRead is for what only the programs may write.
func (a *array[T]) openToRead(m *ebpf.Map) error { return a.openAs(m, unix.PROT_READ) }

func (a *array[T]) openAs(m *ebpf.Map, protection int) error {
	var item T
	if size := unsafe.Sizeof(item); size%8 != 0 || uint32(size) != m.ValueSize() {
		return fmt.Errorf("map %s: its values have %d bytes, ours %d", m, m.ValueSize(), size)
	}
	page := os.Getpagesize()
	length := (int(m.ValueSize())*int(m.MaxEntries()) + page - 1) / page * page
	memory, err := unix.Mmap(m.FD(), 0, length, protection, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s into memory: %w", m, err)
	}
	a.memory = memory
	a.items = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), m.MaxEntries())
	return nil
}

// bytes returns the memory of n elements.
func (a *array[T]) bytes(first, n uint32) []byte {
	var item T
	size := uint64(unsafe.Sizeof(item))
	return a.memory[size*uint64(first) : size*(uint64(first)+uint64(n))]
}

func (a *array[T]) close() {
	if a.memory != nil {
		_ = unix.Munmap(a.memory) // nothing to do about it, and nothing lost
		a.memory, a.items = nil, nil
	}
}

// arrays are the maps that the daemon changes while packets read them.
type arrays struct {
	services array[bpfService]
	pools    array[bpfPool]
	seats    array[bpfSeat]
	servers  array[bpfRealServer]
	hops     array[bpfNextHop]
	counts   array[uint64]
	vips     array[uint64]
	crowds   array[bpfCrowd]
	until    array[uint64] // the map stateless
	ports    array[bpfPort]
	uses     array[bpfUses]
	four     array[bpfSet4] // connections of IPv4
	six      array[bpfSet6] // and of IPv6
}

func (a *arrays) open(m *bpfMaps) error {
	return errors.Join(
		a.services.open(m.Services),
		a.pools.open(m.Pools),
		a.seats.open(m.Seats),
		a.servers.open(m.RealServers),
		a.hops.open(m.NextHops),
		a.counts.open(m.Counts),
		a.vips.open(m.Vips),
		a.crowds.open(m.Crowds),
		a.until.open(m.Stateless),
		a.ports.open(m.Ports),
		a.uses.open(m.Uses),
		a.four.openToRead(m.Connections4),
		a.six.openToRead(m.Connections6),
	)
}

func (a *arrays) close() {
	a.services.close()
	a.pools.close()
	a.seats.close()
	a.servers.close()
	a.hops.close()
	a.counts.close()
	a.vips.close()
	a.crowds.close()
	a.until.close()
	a.ports.close()
	a.uses.close()
	a.four.close()
	a.six.close()
}
