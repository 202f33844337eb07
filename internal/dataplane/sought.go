// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
)

// A MAC address is sought at most so often, and so many of them in that time: anybody can
// name clients that there are not.
const (
	soughtPause = time.Second
	soughtMost  = 100
)

// resolveSought has the kernel find MAC addresses that replies lack, until ctx ends. A
// client's next packet finds them.
func (p *Plane) resolveSought(ctx context.Context) { p.soughtLoop(ctx, p.resolve) }

func (p *Plane) soughtLoop(ctx context.Context, resolve func(addr netip.Addr, link int)) {
	reader, err := ringbuf.NewReader(p.objects.Sought)
	if err != nil {
		p.log.Error("read which neighbours are sought", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = reader.Close() }) // which ends Read
	defer stop()
	type neighbour struct {
		addr netip.Addr
		link uint32
	}
	asked := map[neighbour]bool{} // in this pause
	var began time.Time
	for {
		record, err := reader.Read()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				p.log.Error("read which neighbours are sought", "err", err)
			}
			return
		}
		var s bpfSoughtAddr
		if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &s); err != nil {
			p.log.Error("read which neighbours are sought", "err", err)
			return
		}
		if now := time.Now(); now.Sub(began) >= soughtPause {
			clear(asked)
			began = now
		}
		if n := (neighbour{decodeAddr(s.Addr), s.Ifindex}); !asked[n] && len(asked) < soughtMost {
			asked[n] = true
			resolve(n.addr, int(n.link))
		}
	}
}

// resolve has the kernel ask for a neighbour, as if it had a packet for it.
func (p *Plane) resolve(addr netip.Addr, link int) {
	err := p.hops.handle.NeighSet(&netlink.Neigh{
		LinkIndex: link, Family: family(addr), IP: addr.AsSlice(), Flags: netlink.NTF_USE,
	})
	if err != nil {
		p.log.Debug("resolve a neighbour", "address", addr, "err", err) // anybody can have it said often
	}
}
