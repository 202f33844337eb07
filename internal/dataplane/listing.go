// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"lvx/internal/lvs"
)

// Connections calls each for every connection that lives, in no order, and stops
// at its first error, which it returns. It reads the tables in memory while packets
// change them: each connection is as it was at one moment; one that is made or ends
// meanwhile may be missed, and one that is made anew may come twice.
func (p *Plane) Connections(each func(lvs.Connection) error) error {
	return p.connectionsAt(coarseNow(), each)
}

func (p *Plane) connectionsAt(now time.Duration, each func(lvs.Connection) error) error {
	timeouts, err := readArray[uint32](p.objects.Timeouts, uint32(bpfConnStateSTATE_MAX), 1)
	if err != nil {
		return err
	}
	timeouts[bpfConnStateSTATE_UDP_NEW] = timeouts[bpfConnStateSTATE_UDP]
	l := listing{plane: p, now: ticks(now), timeouts: timeouts, each: each}
	if err := l.four(); err != nil {
		return err
	}
	return l.six()
}

// listing is one reading of both tables.
type listing struct {
	plane    *Plane
	now      uint32
	timeouts []uint32 // in ticks, by state
	each     func(lvs.Connection) error
}

func (l *listing) four() error {
	sets := l.plane.arrays.four.items
	for i := range sets {
		for j := range sets[i].Slots {
			slot := &sets[i].Slots[j]
			key, word, alive := readSlot(&slot.Key, &slot.Word, nil)
			if !alive {
				continue
			}
			if err := l.emit(netip.AddrFrom4(key.client), key, word); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *listing) six() error {
	sets := l.plane.arrays.six.items
	var client [16]byte
	for i := range sets {
		for j := range sets[i].Slots {
			slot := &sets[i].Slots[j]
			key, word, alive := readSlot(&slot.Key, &slot.Word, func() {
				binary.LittleEndian.PutUint64(client[:8], atomic.LoadUint64(&sets[i].Clients[j].Word[0]))
				binary.LittleEndian.PutUint64(client[8:], atomic.LoadUint64(&sets[i].Clients[j].Word[1]))
			})
			if !alive {
				continue
			}
			if err := l.emit(netip.AddrFrom16(client), key, word); err != nil {
				return err
			}
		}
	}
	return nil
}

// readTries is how often a slot is read that changes meanwhile: a packet changes it
// once in a while, and somebody with bpftool may have made nonsense of it.
const readTries = 8

// readSlot reads a slot, if a connection lives in it, and calls rest to read what
// else there is. If the word has one version before and after, so has all between.
func readSlot(key, word *uint64, rest func()) (connKey, connWord, bool) {
	for range readTries {
		before := decodeWord(atomic.LoadUint64(word))
		if !before.alive() {
			return connKey{}, before, false
		}
		k := decodeConnKey(atomic.LoadUint64(key))
		if rest != nil {
			rest()
		}
		after := decodeWord(atomic.LoadUint64(word))
		if after.version == before.version && k.version == before.version {
			return k, before, true
		}
	}
	return connKey{}, connWord{}, false
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
