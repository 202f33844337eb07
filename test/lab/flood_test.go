// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lvx/internal/lab"
)

// A flood is floodRate packets a second, of floodFlows client ports.
const (
	floodRate  = 100_000
	floodFlows = 16
)

// flood sends packets to the director through its port of the switch: the way from the
// client would cost more than the director does. The function that it returns ends it
// and tells how many there were, in how many seconds.
func (b *bed) flood(v virtual) (stop func() (sent uint64, seconds float64)) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	type total struct {
		sent uint64
		err  error
	}
	done, start := make(chan total, 1), time.Now()
	frames := floodFrames(b.t, v)
	go func() {
		var t total
		t.err = b.Host(lab.Switch).Do(func() error {
			port, err := packetSocket(lab.Director)
			if err != nil {
				return err
			}
			defer unix.Close(port)
			beat := time.NewTicker(time.Millisecond)
			defer beat.Stop()
			for ctx.Err() == nil {
				<-beat.C
				for t.sent < floodRate*uint64(time.Since(start)/time.Millisecond)/1000 && ctx.Err() == nil {
					if _, err := unix.Write(port, frames[t.sent%floodFlows]); err == nil {
						t.sent++
					} else if !errors.Is(err, unix.ENOBUFS) { // which is: not sent, come again
						return err
					}
				}
			}
			return nil
		})
		done <- t
	}()
	b.t.Cleanup(cancel)
	return func() (uint64, float64) {
		b.t.Helper()
		cancel()
		t := <-done
		b.must("flood", t.err)
		return t.sent, time.Since(start).Seconds()
	}
}

// packetSocket opens a socket that writes frames to an interface, past its queue.
func packetSocket(name string) (int, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}) // no protocol: it receives nothing
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// floodFrames builds one frame of each flow, as the router would send it.
func floodFrames(t *testing.T, v virtual) (frames [][]byte) {
	t.Helper()
	for flow := range floodFlows {
		client := netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), uint16(20000+flow))
		frames = append(frames, frame(t, client, v, 0))
	}
	return frames
}
