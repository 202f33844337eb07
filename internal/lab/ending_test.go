// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Frames of one connection as they arrive. The client's numbers begin at 100,
// the service's at 200.
func toService(t *testing.T, seq, ack uint32, flags TCPFlags) Frame {
	return at(wire(t, ethernet4, ipv4, fmt.Sprintf("9c40 0050 %08x %08x 50%02x faf0 0000 0000", seq, ack, uint8(flags))), "rs1", true)
}

func toClient(t *testing.T, seq, ack uint32, flags TCPFlags) Frame {
	return at(wire(t, ethernet4, ipv4[:30], "c0a81464 cb007109", fmt.Sprintf("0050 9c40 %08x %08x 50%02x faf0 0000 0000", seq, ack, uint8(flags))), Router, true)
}

func TestEndings(t *testing.T) {
	service := Served{Service: netip.MustParseAddrPort("192.168.20.100:80")}
	syn := toService(t, 100, 0, SYN)
	// The payload that the header of ipv4 claims counts too.
	payload := uint32(syn.Decode().Payload)
	serverFIN, clientFIN := toClient(t, 200, 101, FIN|ACK), toService(t, 101, 0, FIN|ACK)
	serverACK, clientACK := toClient(t, 300, 102+payload, ACK), toService(t, 300, 201+payload, ACK)
	for name, c := range map[string]struct {
		frames []Frame
		ended  int
	}{
		"the service closes first":      {[]Frame{syn, serverFIN, clientACK, clientFIN, serverACK}, 1},
		"the client closes first":       {[]Frame{syn, clientFIN, serverACK, serverFIN, clientACK}, 1},
		"both at once":                  {[]Frame{syn, clientFIN, serverFIN, serverACK, clientACK}, 1},
		"a reset":                       {[]Frame{syn, toClient(t, 200, 101, RST|ACK)}, 1},
		"the last ACK is missing":       {[]Frame{syn, serverFIN, clientACK, clientFIN}, 0},
		"an ACK of what was before":     {[]Frame{syn, serverFIN, clientFIN, serverACK, toService(t, 300, 200, ACK)}, 0},
		"the last is at the director":   {[]Frame{syn, clientFIN, serverACK, serverFIN, at(clientACK, Director, true), at(clientACK, Director, false)}, 0},
		"one that began before":         {[]Frame{clientFIN, serverACK, serverFIN, clientACK}, 0},
		"the same port a second time":   {[]Frame{syn, clientFIN, serverACK, serverFIN, clientACK, syn, clientFIN, serverACK, serverFIN, clientACK}, 2},
		"frames after the end":          {[]Frame{syn, clientFIN, serverACK, serverFIN, clientACK, clientACK, serverFIN}, 1},
		"frames of nobody's and others": {[]Frame{{Port: "rs1", ToHost: true}, syn, toClient(t, 1, 1, ACK)}, 0},
	} {
		e := endings{service: service, open: map[netip.AddrPort]*ending{}}
		for _, f := range c.frames {
			e.see(f)
		}
		if e.ended != c.ended {
			t.Errorf("%s: %d have ended, want %d", name, e.ended, c.ended)
		}
	}
}

// TestSettle: it waits for the frames that come late, as long as any do, and a
// second at most.
func TestSettle(t *testing.T) {
	service := Served{Service: netip.MustParseAddrPort("192.168.20.100:80")}
	frames := []Frame{toService(t, 100, 0, SYN), toClient(t, 200, 101, ACK), toClient(t, 200, 101, RST|ACK)}
	for _, test := range []struct {
		connections int
		every, took time.Duration
	}{
		{1, 30 * time.Millisecond, 90 * time.Millisecond},  // as soon as it has ended
		{2, 30 * time.Millisecond, 190 * time.Millisecond}, // the second never does
		{1, 200 * time.Millisecond, settleQuiet},           // silence
		{1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &Capture{came: make(chan struct{}, 1)}
			begin := time.Now()
			go func() {
				for _, f := range frames {
					time.Sleep(test.every)
					c.keep(f)
				}
			}()
			if test.every == 0 {
				synctest.Wait()
			}
			c.Settle(t.Context(), service, test.connections)
			if took := time.Since(begin); took != test.took {
				t.Errorf("%+v: it took %s", test, took)
			}
			time.Sleep(time.Second)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := &Capture{came: make(chan struct{}, 1)}
		begin, stop := time.Now(), make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(7 * time.Millisecond):
					c.keep(frames[1]) // there is always something
				}
			}
		}()
		c.Settle(t.Context(), service, 1)
		close(stop)
		if took := time.Since(begin); took != settleAtMost {
			t.Errorf("it took %s with frames without end", took)
		}
	})
}
