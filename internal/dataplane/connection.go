// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"maps"
	"time"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// Swept is what one sweep did.
type Swept struct {
	Seen  uint64 // connections looked at
	Ended uint64 // connections whose time was up
}

// Sweep ends the connections whose time is up. The program does it in the
// kernel: it finishes whatever happens to the daemon.
func (p *Plane) Sweep() (Swept, error) { return p.sweepAt(coarseNow()) }

func (p *Plane) sweepAt(now time.Duration) (Swept, error) {
	var answer bpfSweep
	_, err := p.objects.LvsSweep.Run(&ebpf.RunOptions{
		Context:    bpfSweep{NowNs: uint64(now)},
		ContextOut: &answer,
	})
	if err != nil {
		return Swept{}, fmt.Errorf("run the sweep: %w", err)
	}
	return Swept{Seen: answer.Seen, Ended: answer.Ended}, nil
}

// Connections calls each for every connection that lives, in no order, and stops
// at its first error, which it returns. It needs little memory however many there
// are; a connection that is made or ends meanwhile may be missed.
func (p *Plane) Connections(each func(lvs.Connection) error) error {
	return p.connectionsAt(coarseNow(), each)
}

func (p *Plane) connectionsAt(now time.Duration, each func(lvs.Connection) error) error {
	return walk(p.objects.Connections, func(key bpfConnKey, word uint64) error {
		if c, alive := p.decodeConnection(key, word, now); alive {
			return each(c)
		}
		return nil
	})
}

func (p *Plane) decodeConnection(k bpfConnKey, raw uint64, now time.Duration) (lvs.Connection, bool) {
	w := decodeWord(raw)
	left := int32(w.expires - ticks(now))
	if raw == 0 || left <= 0 || int(w.server) >= len(p.arrays.servers.items) {
		return lvs.Connection{}, false
	}
	server := &p.arrays.servers.items[w.server]
	if uint8(server.Generation) != w.generation {
		return lvs.Connection{}, false
	}
	return lvs.Connection{
		Protocol:   lvs.Protocol(k.Protocol),
		Client:     decodeAddrPort(k.Client, k.ClientPort),
		Virtual:    decodeAddrPort(k.Vip, k.Port),
		RealServer: decodeAddrPort(server.Addr, server.Port),
		State:      states[w.state],
		Expires:    decodeTicks(uint32(left)),
	}, true
}

// The idle times of kernel IPVS that ipvsadm does not set
// (net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_timeouts).
var fixedTimeouts = map[bpfConnState]time.Duration{
	bpfConnStateSTATE_NONE:       2 * time.Second,
	bpfConnStateSTATE_SYN_SENT:   120 * time.Second,
	bpfConnStateSTATE_SYN_RECV:   60 * time.Second,
	bpfConnStateSTATE_TIME_WAIT:  120 * time.Second,
	bpfConnStateSTATE_CLOSE:      10 * time.Second,
	bpfConnStateSTATE_CLOSE_WAIT: 60 * time.Second,
	bpfConnStateSTATE_LAST_ACK:   30 * time.Second,
	bpfConnStateSTATE_LISTEN:     120 * time.Second,
	bpfConnStateSTATE_SYNACK:     120 * time.Second,
}

// initTimeouts writes the defaults of states that have none yet: maps that are
// adopted keep what an operator set.
func (p *Plane) initTimeouts() error {
	defaults := maps.Clone(fixedTimeouts)
	kernel := lvs.DefaultTimeouts()
	for state, field := range settable(&kernel) {
		defaults[state] = time.Duration(*field)
	}
	for state, timeout := range defaults {
		var n uint32
		if err := p.objects.Timeouts.Lookup(state, &n); err != nil {
			return fmt.Errorf("read timeouts: %w", err)
		}
		if n > 0 {
			continue
		}
		if err := p.putTimeout(state, lvs.Duration(timeout)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plane) putTimeout(state bpfConnState, d lvs.Duration) error {
	if err := p.objects.Timeouts.Put(state, encodeTicks(d)); err != nil {
		return fmt.Errorf("write the timeout of %s: %w", states[state], err)
	}
	return nil
}

// Timeouts returns the idle times in force.
func (p *Plane) Timeouts() (t lvs.Timeouts, err error) {
	for state, field := range settable(&t) {
		var n uint32
		if err := p.objects.Timeouts.Lookup(state, &n); err != nil {
			return t, fmt.Errorf("read timeouts: %w", err)
		}
		*field = decodeTicks(n)
	}
	return t, nil
}

// SetTimeouts changes idle times; 0 leaves one as it is. A connection gets the
// new one with its next packet.
func (p *Plane) SetTimeouts(t lvs.Timeouts) error {
	for state, field := range settable(&t) {
		if *field == 0 {
			continue
		}
		if err := p.putTimeout(state, *field); err != nil {
			return err
		}
	}
	return nil
}

func settable(t *lvs.Timeouts) map[bpfConnState]*lvs.Duration {
	return map[bpfConnState]*lvs.Duration{
		bpfConnStateSTATE_ESTABLISHED: &t.TCP,
		bpfConnStateSTATE_FIN_WAIT:    &t.TCPFin,
		bpfConnStateSTATE_UDP:         &t.UDP,
	}
}
