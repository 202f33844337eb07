// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"lvx/internal/lvs"
)

// Swept is what one sweep did.
type Swept struct {
	Seen  uint64 // connections looked at
	Ended uint64 // connections whose time was up
	Moved uint64 // connections that had to leave the front of their table

	seen, inside [families]uint64 // of each family: seen, and left in the front
}

const families = 2 // tables: of IPv4, of IPv6

func (s *Swept) add(more Swept) {
	s.Seen += more.Seen
	s.Ended += more.Ended
	s.Moved += more.Moved
	for i := range families {
		s.seen[i] += more.seen[i]
		s.inside[i] += more.inside[i]
	}
}

// Sweep ends the connections whose time is up, and moves others out of the front of
// their table if it is no place for them. Run does the same, a part at a time.
func (p *Plane) Sweep() (Swept, error) {
	return p.sweepAt(coarseNow())
}

func (p *Plane) sweepAt(now time.Duration) (Swept, error) {
	question := p.askFronts()
	swept, err := p.settle(bpfSweep{NowNs: uint64(now), Sets: p.sets()})
	if err == nil {
		p.gather(swept, question)
	}
	return swept, err
}

// Flush ends all connections. Their packets pass to the kernel from then on, which
// resets those of TCP.
func (p *Plane) Flush() (Swept, error) {
	for i := range p.arrays.until.items {
		atomic.StoreUint64(&p.arrays.until.items[i], 0) // what goes by a ring ends, too
	}
	defer p.holdStill()()
	return p.sweep(bpfSweep{NowNs: uint64(coarseNow()), Sets: p.sets(), All: 1})
}

// sets returns how many sets each of the connection tables has, the front's too.
func (p *Plane) sets() uint32 { return p.objects.Connections4.MaxEntries() }

// maxSweep is how many sets one run of the program looks at: bpf_loop goes round
// 2^23 times at most (linux/bpf_verifier.h, BPF_MAX_LOOPS).
const maxSweep = 1 << 20

// settle sweeps, and moves connections as well, unless somebody reads the tables who
// might miss one that moves past.
func (p *Plane) settle(part bpfSweep) (Swept, error) {
	if p.settling.TryLock() {
		defer p.settling.Unlock()
		part.Settle = uint32(bpfSettleSETTLE_MOVE)
		if p.flooded.Load() {
			part.Settle = uint32(bpfSettleSETTLE_REPLACE)
		}
	}
	return p.sweep(part)
}

// sweep ends the connections of some sets whose time is up, or all. The program does
// it in the kernel: it finishes whatever happens to the daemon.
func (p *Plane) sweep(part bpfSweep) (total Swept, err error) {
	for end := part.First + part.Sets; part.First < end; part.First += part.Sets {
		part.Sets = min(maxSweep, end-part.First)
		var answer bpfSweep
		if _, err := p.objects.LvsSweep.Run(&ebpf.RunOptions{Context: part, ContextOut: &answer}); err != nil {
			return total, fmt.Errorf("run the sweep: %w", err)
		}
		total.add(Swept{
			Seen: answer.Seen4 + answer.Seen6, Ended: answer.Ended, Moved: answer.Moved,
			seen: [families]uint64{answer.Seen4, answer.Seen6}, inside: [families]uint64{answer.Inside4, answer.Inside6},
		})
	}
	return total, nil
}

// ErrNoRoom is returned if no connection can be made where the new one belongs.
var ErrNoRoom = errors.New("no room for the connection")

// Insert makes a connection in the state that it has, as if a packet had opened it;
// its idle time begins now. It tells whether it was made: there may be one already.
//
// Returns lvs.ErrNoServer if no service has that real server, and ErrNoRoom.
func (p *Plane) Insert(c lvs.Connection) (made bool, err error) {
	key := serverKey{lvs.ServiceKey{Protocol: c.Protocol, Address: c.Virtual}, c.RealServer}
	p.mu.Lock() // the id must not become another's meanwhile
	defer p.mu.Unlock()
	id, ok := p.table.servers[key]
	if !ok {
		return false, fmt.Errorf("real server %s of %s: %w", c.RealServer, key.service, lvs.ErrNoServer)
	}
	state, ok := encodeState(c.State)
	if !ok {
		return false, fmt.Errorf("state %q: %w", c.State, lvs.ErrInvalid)
	}
	e := p.encodeEntry(c)
	e.ServerId, e.State = id, state
	if err := runEntry(p.objects.LvsInsert, &e); err != nil {
		return false, err
	}
	switch e.Reason {
	case bpfReasonREASON_UNDECIDED:
		return e.Found == 0, nil
	case bpfReasonREASON_TABLE_FULL:
		return false, ErrNoRoom
	case bpfReasonREASON_SERVER_REMOVED:
		return false, nil // there is one, whose real server was taken out
	}
	return false, fmt.Errorf("make the connection: %s", reasons[e.Reason].Name)
}

// DeleteConnection ends a connection, and tells whether there was one.
func (p *Plane) DeleteConnection(c lvs.Connection) (bool, error) {
	e := p.encodeEntry(c)
	if err := runEntry(p.objects.LvsDelete, &e); err != nil {
		return false, err
	}
	if e.Reason != bpfReasonREASON_UNDECIDED {
		return false, fmt.Errorf("end the connection: %s", reasons[e.Reason].Name)
	}
	return e.Found == 1, nil
}

func (p *Plane) encodeEntry(c lvs.Connection) bpfConnEntry {
	return bpfConnEntry{
		NowNs: uint64(coarseNow()),
		Key: bpfConnKey{
			Client: encodeAddr(c.Client.Addr()), ClientPort: encodePort(c.Client.Port()),
			Vip: encodeAddr(c.Virtual.Addr()), Port: encodePort(c.Virtual.Port()),
			Protocol: uint8(c.Protocol),
		},
	}
}

func runEntry(program *ebpf.Program, e *bpfConnEntry) error {
	_, err := program.Run(&ebpf.RunOptions{Context: *e, ContextOut: e})
	if err != nil {
		return fmt.Errorf("run the program: %w", err)
	}
	return nil
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
