// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// concern is an address that packets look for, as destination or as source.
type concern struct {
	addr netip.Addr
	role bpfGlance
}

// asVIP and asSource are the two roles: what clients ask for, and real servers whose
// packets may be replies.
func asVIP(addr netip.Addr) concern    { return concern{addr, bpfGlanceVIP_DESTINATION} }
func asSource(addr netip.Addr) concern { return concern{addr, bpfGlanceVIP_SOURCE} }

// vipTable is the addresses that packets look for: the map addresses has them, and the
// array vips where one look finds most of them.
type vipTable struct {
	all    map[concern]bool
	places map[uint32]int // how many of them have a place in the array
}

// newVIPTable starts with none.
func newVIPTable() vipTable {
	return vipTable{all: map[concern]bool{}, places: map[uint32]int{}}
}

// roles returns what an address is looked for as.
func (t *vipTable) roles(addr netip.Addr) (roles uint32) {
	for _, c := range []concern{asVIP(addr), asSource(addr)} {
		if t.all[c] {
			roles |= uint32(c.role)
		}
	}
	return roles
}

// number returns the number of an address in the array: packet_number of bpf/packet.h.
func (c concern) number() uint64 {
	bytes := c.addr.As16()
	high, low := binary.LittleEndian.Uint64(bytes[:8]), binary.LittleEndian.Uint64(bytes[8:])
	number := (high+uint64(c.role))*uint64(bpfGlanceVIP_FACTOR) ^ low
	if number <= uint64(bpfGlanceVIP_SEVERAL) {
		number += 2
	}
	return number
}

// vipPlace returns its place.
func (p *Plane) vipPlace(c concern) uint32 {
	number := c.number()
	spread := uint32(number>>32^number) * uint32(bpfGlanceVIP_FACTOR)
	return uint32(uint64(spread) * uint64(len(p.arrays.vips.items)) >> 32)
}

// addAddress makes packets to or from an address look further.
func (p *Plane) addAddress(c concern, u *undo) error {
	var has uint32
	if p.objects.Addresses.Lookup(encodeAddr(c.addr), &has) != nil || has&uint32(c.role) == 0 {
		roles := p.table.vips.roles(c.addr) | uint32(c.role)
		if err := p.objects.Addresses.Put(encodeAddr(c.addr), roles); err != nil {
			return fmt.Errorf("write addresses: %w", err)
		}
	}
	if p.noteAddress(c) {
		p.storePlace(p.vipPlace(c), c)
		if c.role == bpfGlanceVIP_DESTINATION {
			p.hops.avoid(c.addr)
		}
	}
	u.add(func() { p.table.departed = true })
	return nil
}

// noteAddress notes an address, and tells whether it is new.
func (p *Plane) noteAddress(c concern) bool {
	if p.table.vips.all[c] {
		return false
	}
	p.table.vips.all[c] = true
	p.table.vips.places[p.vipPlace(c)]++
	return true
}

// dropAddress makes packets to or from an address pass.
func (p *Plane) dropAddress(c concern) error {
	if err := p.forgetRole(c); err != nil {
		return err
	}
	delete(p.table.vips.all, c)
	place := p.vipPlace(c)
	if p.table.vips.places[place]--; p.table.vips.places[place] == 1 {
		for c = range p.table.vips.all {
			if p.vipPlace(c) == place {
				break
			}
		}
	}
	p.storePlace(place, c)
	return nil
}

// forgetRole takes a role off an address in the map, and the address with its last one.
func (p *Plane) forgetRole(c concern) error {
	if roles := p.table.vips.roles(c.addr) &^ uint32(c.role); roles != 0 {
		return p.objects.Addresses.Put(encodeAddr(c.addr), roles)
	}
	if err := p.objects.Addresses.Delete(encodeAddr(c.addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// storePlace writes what the array has to say of a place; c is who has it, if it is one
// alone.
func (p *Plane) storePlace(place uint32, c concern) {
	atomic.StoreUint64(&p.arrays.vips.items[place], p.placeNumber(place, c))
	if p.table.vips.places[place] == 0 {
		delete(p.table.vips.places, place)
	}
}

func (p *Plane) placeNumber(place uint32, c concern) uint64 {
	switch p.table.vips.places[place] {
	case 0:
		return uint64(bpfGlanceVIP_NONE)
	case 1:
		return c.number()
	}
	return uint64(bpfGlanceVIP_SEVERAL)
}

// repairAddresses makes both maps hold what they should.
func (p *Plane) repairAddresses() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := make(map[bpfAddr]uint32, len(p.table.vips.all))
	numbers := make(map[uint32]uint64, len(p.table.vips.all))
	for c := range p.table.vips.all {
		want[encodeAddr(c.addr)] |= uint32(c.role)
		place := p.vipPlace(c)
		numbers[place] = p.placeNumber(place, c)
	}
	repaired, err := repairMap("addresses", p.objects.Addresses, want, func(vip bpfAddr) string {
		return "address " + decodeAddr(vip).String()
	})
	mend := func(place uint32, number uint64) {
		if atomic.SwapUint64(&p.arrays.vips.items[place], number) != number {
			repaired = append(repaired, fmt.Sprintf("place %d was changed in the map vips", place))
		}
	}
	for place, number := range numbers {
		mend(place, number)
	}
	for i := range p.arrays.vips.items { // most are nobody's
		if atomic.LoadUint64(&p.arrays.vips.items[i]) != uint64(bpfGlanceVIP_NONE) && p.table.vips.places[uint32(i)] == 0 {
			mend(uint32(i), uint64(bpfGlanceVIP_NONE))
		}
	}
	return repaired, err
}
