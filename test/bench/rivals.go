// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// base is what lvx is measured against from below.
type base struct{ baseObjects }

func loadBaseFor(s shape, tableBytes uint64) (*base, error) {
	spec, err := loadBase()
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	lines := uint32(tableBytes / 64)
	for name, size := range map[string]uint32{
		baseMapBaseVips4: uint32(s.services), baseMapBaseVips6: uint32(s.services), baseMapBaseLines: lines,
	} {
		spec.Maps[name].MaxEntries = size
	}
	if err := spec.Variables[baseVarBaseLineCount].Set(lines); err != nil {
		return nil, fmt.Errorf("set the number of lines: %w", err)
	}
	b := &base{}
	if err := spec.LoadAndAssign(&b.baseObjects, nil); err != nil {
		return nil, fmt.Errorf("load the programs: %w", err)
	}
	return b, s.eachVIP(b.BaseVips4, b.BaseVips6, func(int) any { return baseMachine{Mac: [6]byte(serverMAC)} })
}

// eachVIP writes what a map of VIPs has for each service.
func (s shape) eachVIP(four, six *ebpf.Map, value func(int) any) error {
	m := four
	if s.six {
		m = six
	}
	for i := range s.services {
		if err := m.Put(vipKey(vips.at(s.six, i)), value(i)); err != nil {
			return fmt.Errorf("write a VIP: %w", err)
		}
	}
	return nil
}

// vipKey is struct vip4 or vip6 of bpf/parse.h.
func vipKey(addr netip.Addr) []byte {
	return append(binary.BigEndian.AppendUint16(addr.AsSlice(), vipPort), unix.IPPROTO_TCP, 0)
}

// plain is the balancer as everybody writes it.
type plain struct {
	plainObjects
	services int
}

// ringSize returns how many places a VIP's ring has: what Maglev recommends, or so
// many that 10,000 rings are 10 MB.
func (s shape) ringSize() uint32 {
	if s.services > 16 {
		return 251
	}
	return 65537
}

func loadPlainFor(s shape) (*plain, error) {
	spec, err := loadPlain()
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	services, four, six := uint32(s.services), s.connections, uint32(1)
	if s.six {
		four, six = six, four
	}
	for name, size := range map[string]uint32{
		plainMapPlainVips4: services, plainMapPlainVips6: services, plainMapPlainVipStats: services,
		plainMapPlainFlows4: four, plainMapPlainFlows6: six,
		plainMapPlainReals: uint32(s.servers), plainMapPlainRealStats: uint32(s.servers),
		plainMapPlainRings: services * s.ringSize(),
	} {
		spec.Maps[name].MaxEntries = size
	}
	if err := spec.Variables[plainVarPlainRingSize].Set(s.ringSize()); err != nil {
		return nil, fmt.Errorf("set the size of rings: %w", err)
	}
	p := &plain{services: s.services}
	if err := spec.LoadAndAssign(&p.plainObjects, nil); err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return p, p.fill(s)
}

func (p *plain) fill(s shape) error {
	if err := s.eachVIP(p.PlainVips4, p.PlainVips6, func(i int) any { return plainVipMeta{Id: uint32(i)} }); err != nil {
		return err
	}
	for i := range uint32(s.servers) {
		if err := p.PlainReals.Put(i, plainReal{Mac: [6]byte(serverMAC)}); err != nil {
			return fmt.Errorf("write a real server: %w", err)
		}
	}
	// Which real server a place has does not matter for the time it takes to
	// read: each has its share, in no order that a cache could like.
	places := p.PlainRings.MaxEntries()
	keys, values := make([]uint32, places), make([]uint32, places)
	for i := range keys {
		keys[i], values[i] = uint32(i), uint32(i)*2654435769>>7%uint32(s.servers)
	}
	if _, err := p.PlainRings.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("write the rings: %w", err)
	}
	return nil
}

// made returns how many connections were made so far.
func (p *plain) made() (sum uint64, err error) {
	for i := range uint32(p.PlainRealStats.MaxEntries()) {
		var perCPU []plainStats
		if err := p.PlainRealStats.Lookup(i, &perCPU); err != nil {
			return 0, fmt.Errorf("read the statistics: %w", err)
		}
		for _, s := range perCPU {
			sum += s.Connections
		}
	}
	return sum, nil
}
