// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"syscall"
	"testing"
	"time"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestRestartsUnderLoad kills the daemon and starts it again, 20 times, and once
// ends it in order: no request fails, no packet is lost, no connection is
// forgotten and no counter goes back.
func TestRestartsUnderLoad(t *testing.T) {
	const kills = 20
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "wlc", 1, 1)
	l := b.load(v, 20)
	b.more(l, 20)
	before := b.ledger(v)
	for i := range kills + 1 {
		signal := syscall.SIGKILL
		if i == kills {
			signal = syscall.SIGTERM
		}
		b.stop(b.daemon, signal)
		b.more(l, 5) // while nobody is there
		b.start(b.Host(lab.Director), "--interface", "eth0")
		after := b.ledger(v)
		after.follows(t, before)
		before = after
		for _, k := range l.streams {
			if server := before.streams[k.LocalAddr().String()]; server != v.on(b.Host(k.server)).String() {
				t.Errorf("after start %d the stream of %s to %s is listed at %q", i, k.LocalAddr(), k.server, server)
			}
		}
	}
	b.check(l)
	b.settled() // the last acknowledgement may be under way
	frames := b.frames()
	if n := repeatedSYNs(frames, v); n != 0 {
		t.Errorf("%d SYNs were lost", n)
	}
	checkFaithful(t, frames, v)
	checkLossless(t, frames, v)
}

// checkLossless counts frames into and out of the director.
func checkLossless(t *testing.T, frames []lab.Frame, v virtual) {
	t.Helper()
	in, out := 0, 0
	for _, f := range frames {
		if f.Port == lab.Director && f.Decode().Destination == v.AddrPort {
			if f.ToHost {
				in++
			} else {
				out++
			}
		}
	}
	if in == 0 || in != out {
		t.Errorf("%d frames of the service came to the director, %d left it", in, out)
	}
}

// ledger is what a director has counted, and which connections it lists.
type ledger struct {
	counters map[string]uint64
	streams  map[string]string // real server by client, of established ones
}

func (b *bed) ledger(v virtual) ledger {
	b.t.Helper()
	l := ledger{b.reasons(), map[string]string{}}
	for name, numbers := range b.numbers(v, "--stats --exact") {
		l.counters["conns of "+name] = numbers[0]
		l.counters["packets of "+name] = numbers[1]
		l.counters["bytes of "+name] = numbers[3]
	}
	for _, c := range ask[lvs.Connection](b, "connections --state established") {
		l.streams[c.Client.String()] = c.RealServer.String()
	}
	return l
}

// follows fails the test if a counter is lower than it was.
func (l ledger) follows(t *testing.T, before ledger) {
	t.Helper()
	for name, n := range before.counters {
		if l.counters[name] < n {
			t.Errorf("%s: %d after %d", name, l.counters[name], n)
		}
	}
	if maps.Equal(l.counters, before.counters) {
		t.Error("nothing was counted meanwhile")
	}
}

// TestKilledInTheMiddleOfChanges kills the daemon wherever a stream of changes
// has brought it. The next one takes over a table that makes sense.
func TestKilledInTheMiddleOfChanges(t *testing.T) {
	const kills = 12
	b := newBed(t, lab.Options{})
	v, other := tcp(4, 80), tcp(4, 81)
	b.deploy(v, "wrr", 1, 2)
	l := b.load(v, 10)
	for i := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var changing sync.WaitGroup
		changing.Go(func() { b.change(ctx, v, other) })
		<-time.After(time.Duration(30+7*i) * time.Millisecond) // no moment is better than another
		b.stop(b.daemon, syscall.SIGKILL)
		cancel()
		changing.Wait()
		b.start(b.Host(lab.Director), "--interface", "eth0")
		for _, h := range b.RealServers() {
			b.counts(v, h) // fails if it is not listed
		}
	}
	b.check(l)
	checkFaithful(t, b.frames(), v)
	b.do("ipvsadm -C")
	if list := b.do("ipvsadm -S -n"); list != "" {
		t.Errorf("ipvsadm -C leaves:\n%s", list)
	}
}

// change edits one service, and adds and deletes another, until ctx ends. Nobody
// minds what fails while the daemon is gone.
func (b *bed) change(ctx context.Context, v, other virtual) {
	rs := b.Host("rs1")
	for n := 0; ctx.Err() == nil; n++ {
		for _, line := range []string{
			fmt.Sprintf("ipvsadm -A %s -s wlc", other.option()),
			fmt.Sprintf("ipvsadm -a %s -r %s -g", other.option(), other.on(rs)),
			fmt.Sprintf("ipvsadm -E %s -s %s", v.option(), []string{"rr", "wrr", "lc", "wlc"}[n%4]),
			fmt.Sprintf("ipvsadm -e %s -r %s -g -w %d", v.option(), v.on(rs), 1+n%9),
			fmt.Sprintf("ipvsadm -D %s", other.option()),
		} {
			_, _, _ = try(b.t, b.Host(lab.Director), line, "")
		}
	}
}

// TestForwardingWithoutDaemon ends the daemon in order: the data plane goes on by
// itself, for new connections too.
func TestForwardingWithoutDaemon(t *testing.T) {
	b := newBed(t, lab.Options{})
	v := tcp(6, 80)
	b.deploy(v, "rr", 1, 1)
	k := b.call(v)
	b.stop(b.daemon, syscall.SIGTERM)
	if _, said, err := try(t, b.Host(lab.Director), "ipvsadm -Ln", ""); err == nil || said == "" {
		t.Errorf("ipvsadm without a daemon says %q, %v", said, err)
	}
	b.must("an old connection", k.say("old"))
	names := map[string]bool{}
	for range 4 {
		k := b.call(v)
		b.must("a new connection", k.say("new"))
		names[k.server] = true
	}
	if len(names) != 2 {
		t.Errorf("new connections went to %v", names)
	}
	begin := time.Now()
	b.start(b.Host(lab.Director), "--interface", "eth0")
	t.Logf("the daemon was back after %s", time.Since(begin).Round(time.Millisecond))
	if n := b.numbers(v, "--stats --exact")[v.String()]; n[0] != 5 {
		t.Errorf("5 connections were made, %d counted", n[0])
	}
}
