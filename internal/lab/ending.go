// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"net/netip"
	"time"
)

// A request is answered before its connection has ended: the last FINs and ACKs
// are still under way then. So who counts frames has to wait for them.
const (
	settleAtMost = time.Second
	// settleQuiet without a frame is the end as well: a request that failed
	// leaves a connection that never ends.
	settleQuiet = 100 * time.Millisecond
)

// Settle waits until that many connections to the service have ended, in the
// eyes of both ends, or until no more frames come; at most a second.
func (c *Capture) Settle(ctx context.Context, service Served, connections int) {
	ctx, cancel := context.WithTimeout(ctx, settleAtMost)
	defer cancel()
	e := endings{service: service, open: map[netip.AddrPort]*ending{}}
	for seen := 0; ; {
		fresh := c.since(seen)
		seen += len(fresh)
		for _, f := range fresh {
			e.see(f)
		}
		if e.ended >= connections || !c.await(ctx) {
			return
		}
	}
}

// since returns the frames recorded so far, save the first ones.
func (c *Capture) since(first int) []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames[first:]
}

// await returns true once frames have come, false when none does.
func (c *Capture) await(ctx context.Context) bool {
	quiet := time.NewTimer(settleQuiet)
	defer quiet.Stop()
	select {
	case <-c.came:
		return true
	case <-quiet.C:
	case <-ctx.Done():
	}
	return false
}

// endings counts the connections to a service that have ended.
type endings struct {
	service Served
	open    map[netip.AddrPort]*ending // by client
	ended   int
}

// ending is how far the end of a connection has come, for each of its two
// directions: 0 is the client's, 1 the service's.
type ending struct {
	closed [2]bool   // a FIN was seen
	next   [2]uint32 // the sequence number behind it, which the other end acknowledges
	acked  [2]bool
}

// see takes the next frame. What counts is where it arrives, at a real server or
// at the router; whoever else sees it is only on the way.
func (e *endings) see(f Frame) {
	p := f.Decode()
	client, reply, ok := e.service.client(p)
	host := hostOf(f.Port)
	switch {
	case !ok || !f.ToHost || host == Director || reply != (host == Router):
	case reply:
		e.take(client, 1, p)
	default:
		if p.Flags == SYN {
			e.open[client] = new(ending)
		}
		e.take(client, 0, p)
	}
}

func (e *endings) take(client netip.AddrPort, from int, p Packet) {
	c := e.open[client]
	if c == nil {
		return
	}
	if p.Flags&FIN != 0 {
		c.closed[from], c.next[from] = true, p.Seq+uint32(p.Payload)+1
	}
	if other := 1 - from; p.Flags&ACK != 0 && c.closed[other] && p.Ack == c.next[other] {
		c.acked[other] = true
	}
	if p.Flags&RST != 0 || c.acked == [2]bool{true, true} {
		delete(e.open, client)
		e.ended++
	}
}
