// SPDX-License-Identifier: Apache-2.0

package dataplane

import "fmt"

// This file keeps the map exits: by which port, and with which tag, frames leave for an
// interface. Replies need it, whose way the kernel's routes say.

// storeExits makes the map say what is known of the interfaces, and tells what it changed.
// It is called with the lock held.
func (t *hopTable) storeExits() ([]string, error) {
	want := make(map[uint32]bpfExit, len(t.ports))
	for index, p := range t.ports {
		want[uint32(index)] = bpfExit{Ifindex: uint32(p.ifindex), Vlan: p.vlan, Mtu: uint16(min(p.mtu, 0xffff))}
	}
	return repairMap("exits", t.plane.objects.Exits, want, func(index uint32) string {
		return fmt.Sprintf("interface %d", index)
	})
}

// repair is the part of Repair that is about next hops.
func (t *hopTable) repair() ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handle == nil {
		return nil, nil
	}
	return t.storeExits()
}
