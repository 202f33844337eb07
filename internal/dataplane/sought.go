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

// A client's MAC address is sought at most so often, and so many are remembered.
const (
	soughtPause = time.Second
	soughtMost  = 4096
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
	asked := map[netip.Addr]time.Time{}
	for {
		record, err := reader.Read()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		var s bpfSoughtAddr
		if err != nil || binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &s) != nil {
			p.log.Warn("read which neighbours are sought", "err", err)
			continue
		}
		if len(asked) >= soughtMost {
			clear(asked)
		}
		addr := decodeAddr(s.Addr)
		if now := time.Now(); now.Sub(asked[addr]) >= soughtPause {
			asked[addr] = now
			resolve(addr, int(s.Ifindex))
		}
	}
}

// resolve has the kernel ask for a neighbour, as if it had a packet for it.
func (p *Plane) resolve(addr netip.Addr, link int) {
	err := p.hops.handle.NeighSet(&netlink.Neigh{
		LinkIndex: link, Family: family(addr), IP: addr.AsSlice(), Flags: netlink.NTF_USE,
	})
	if err != nil {
		p.log.Warn("resolve a neighbour", "address", addr, "err", err)
	}
}
