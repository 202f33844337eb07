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

// vipTable is the VIPs that packets look for: the map addresses has them, and the
// array vips where one look finds most of them.
type vipTable struct {
	all    map[netip.Addr]bool
	places map[uint32]int // how many of them have a place in the array
}

// newVIPTable starts with none.
func newVIPTable() vipTable {
	return vipTable{all: map[netip.Addr]bool{}, places: map[uint32]int{}}
}

// vipNumber returns the number of an address in the array: packet_number of
// bpf/packet.h.
func vipNumber(vip netip.Addr) uint64 {
	bytes := vip.As16()
	high, low := binary.LittleEndian.Uint64(bytes[:8]), binary.LittleEndian.Uint64(bytes[8:])
	return high*uint64(bpfGlanceVIP_FACTOR) ^ low | 2
}

// vipPlace returns its place.
func (p *Plane) vipPlace(vip netip.Addr) uint32 {
	number := vipNumber(vip)
	spread := uint32(number>>32^number) * uint32(bpfGlanceVIP_FACTOR)
	return uint32(uint64(spread) * uint64(len(p.arrays.vips.items)) >> 32)
}

// addAddress makes packets for a VIP look further.
func (p *Plane) addAddress(vip netip.Addr, u *undo) error {
	var unused uint32
	if p.objects.Addresses.Lookup(encodeAddr(vip), &unused) != nil {
		if err := p.objects.Addresses.Put(encodeAddr(vip), unused); err != nil {
			return fmt.Errorf("write addresses: %w", err)
		}
	}
	if p.noteAddress(vip) {
		p.storePlace(p.vipPlace(vip), vip)
	}
	u.add(func() { p.table.departed = true })
	return nil
}

// noteAddress notes a VIP, and tells whether it is new.
func (p *Plane) noteAddress(vip netip.Addr) bool {
	if p.table.vips.all[vip] {
		return false
	}
	p.table.vips.all[vip] = true
	p.table.vips.places[p.vipPlace(vip)]++
	return true
}

// dropAddress makes packets for a VIP pass.
func (p *Plane) dropAddress(vip netip.Addr) error {
	if err := p.objects.Addresses.Delete(encodeAddr(vip)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	delete(p.table.vips.all, vip)
	place := p.vipPlace(vip)
	if p.table.vips.places[place]--; p.table.vips.places[place] == 1 {
		for vip = range p.table.vips.all {
			if p.vipPlace(vip) == place {
				break
			}
		}
	}
	p.storePlace(place, vip)
	return nil
}

// storePlace writes what the array has to say of a place; vip is who has it, if it is
// one alone.
func (p *Plane) storePlace(place uint32, vip netip.Addr) {
	atomic.StoreUint64(&p.arrays.vips.items[place], p.placeNumber(place, vip))
	if p.table.vips.places[place] == 0 {
		delete(p.table.vips.places, place)
	}
}

func (p *Plane) placeNumber(place uint32, vip netip.Addr) uint64 {
	switch p.table.vips.places[place] {
	case 0:
		return uint64(bpfGlanceVIP_NONE)
	case 1:
		return vipNumber(vip)
	}
	return uint64(bpfGlanceVIP_SEVERAL)
}

// repairAddresses makes both maps hold what they should.
func (p *Plane) repairAddresses() ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := make(map[bpfAddr]uint32, len(p.table.vips.all))
	numbers := make(map[uint32]uint64, len(p.table.vips.all))
	for vip := range p.table.vips.all {
		want[encodeAddr(vip)] = 0
		place := p.vipPlace(vip)
		numbers[place] = p.placeNumber(place, vip)
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
