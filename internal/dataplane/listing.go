// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lvx/internal/lvs"
)

// Connections calls each for every connection that lives, in no order, and stops
// at its first error, which it returns. It reads the tables in memory while packets
// change them: each connection is as it was at one moment; one that is made or ends
// meanwhile may be missed, and one that is made anew may come twice. So may one that
// has to move, if each takes ten seconds and more for all.
func (p *Plane) Connections(each func(lvs.Connection) error) error {
	return p.connectionsAt(coarseNow(), each)
}

func (p *Plane) connectionsAt(now time.Duration, each func(lvs.Connection) error) error {
	timeouts, err := readArray[uint32](p.objects.Timeouts, uint32(bpfConnStateSTATE_MAX), 1)
	if err != nil {
		return err
	}
	defer p.holdStill()()
	timeouts[bpfConnStateSTATE_UDP_NEW] = timeouts[bpfConnStateSTATE_UDP]
	l := listing{plane: p, now: ticks(now), timeouts: timeouts, each: each}
	for i := range p.arrays.four.items {
		if err := l.set(&p.arrays.four.items[i].Slots, nil); err != nil {
			return err
		}
	}
	for i := range p.arrays.six.items {
		set := &p.arrays.six.items[i]
		if err := l.set(&set.Slots, &set.Clients); err != nil {
			return err
		}
	}
	return nil
}

// mostStill is how long a reader may keep connections from moving. A table in which
// none can has less room.
const mostStill = 10 * time.Second

// holdStill keeps connections from moving until release is called, or so long at most.
func (p *Plane) holdStill() (release func()) {
	p.settling.RLock()
	unlock := sync.OnceFunc(p.settling.RUnlock)
	timer := time.AfterFunc(mostStill, unlock)
	return func() {
		timer.Stop()
		unlock()
	}
}

// listing is one reading of both tables.
type listing struct {
	plane    *Plane
	now      uint32
	timeouts []uint32 // in ticks, by state
	each     func(lvs.Connection) error
}

// set reads a set; it has clients if it is of IPv6.
func (l *listing) set(slots *[ways]bpfSlot, clients *[ways]bpfClient6) error {
	for way := range slots {
		var client *bpfClient6
		if clients != nil {
			client = &clients[way]
		}
		address, key, word, alive := readSlot(&slots[way], client)
		if !alive {
			continue
		}
		if err := l.emit(address, key, word); err != nil {
			return err
		}
	}
	return nil
}

const ways = bpfConnBitsCONN_WAYS

// readTries is how often a slot is read that changes meanwhile: a packet changes it
// once in a while, and somebody with bpftool may have made nonsense of it.
const readTries = 8

// readSlot reads a slot, if a connection lives in it, with its client if it is of
// IPv6. If the word has one version before and after, so has all between.
func readSlot(slot *bpfSlot, client *bpfClient6) (address netip.Addr, key connKey, word connWord, alive bool) {
	for range readTries {
		word = decodeWord(atomic.LoadUint64(&slot.Word))
		if !word.alive() {
			break
		}
		key = decodeConnKey(atomic.LoadUint64(&slot.Key))
		address = netip.AddrFrom4(key.client)
		if client != nil {
			var bytes [16]byte
			binary.LittleEndian.PutUint64(bytes[:8], atomic.LoadUint64(&client.Word[0]))
			binary.LittleEndian.PutUint64(bytes[8:], atomic.LoadUint64(&client.Word[1]))
			address = netip.AddrFrom16(bytes)
		}
		after := decodeWord(atomic.LoadUint64(&slot.Word))
		if after.version == word.version && key.version == word.version {
			return address, key, word, true
		}
	}
	return address, key, word, false
}

// emit calls each for a connection that is not over.
func (l *listing) emit(client netip.Addr, k connKey, w connWord) error {
	servers := l.plane.arrays.servers.items
	left := int32(w.expires - l.now)
	if left <= 0 || int(w.server) >= len(servers) {
		return nil
	}
	server := &servers[w.server]
	if uint8(server.Generation) != k.generation {
		return nil
	}
	return l.each(lvs.Connection{
		Protocol:   lvs.Protocol(server.Service.Protocol),
		Client:     netip.AddrPortFrom(client, k.port),
		Virtual:    decodeAddrPort(server.Service.Vip, server.Service.Port),
		RealServer: decodeAddrPort(server.Addr, server.Port),
		State:      states[w.state],
		Expires:    decodeTicks(l.left(uint32(left), w.state)),
	})
}

// left returns how long a connection may be idle yet: up to a part of its timeout
// less than it has (conn_expires of bpf/state.h), which nobody asked for. One that
// was made when the timeout was longer has what it has.
func (l *listing) left(ticks uint32, state bpfConnState) uint32 {
	timeout := l.timeouts[state]
	if ticks <= timeout+timeout/uint32(bpfConnBitsCONN_SLACK) {
		return min(ticks, timeout)
	}
	return ticks
}
