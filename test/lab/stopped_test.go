// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"syscall"
	"testing"
	"time"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestDaemonStoppedOrKilled stops the daemon (SIGSTOP) for twenty seconds in which more
// connections begin and end than the tables have room for, and then kills it in the
// middle of traffic. The data plane goes on by itself; afterwards what is counted is
// what is listed, and when all is over nothing is left.
func TestDaemonStoppedOrKilled(t *testing.T) {
	const away = 20 * time.Second
	b := newBed(t, lab.Options{})
	b.join(4)
	b.start(b.Host(lab.Director), "--interface", "eth0", "--connections", "3000")
	b.do("ipvsadm --set 60 2 2")
	web, names := tcp(4, 80), udp(4, 53)
	b.add(web, "wlc", 1, 1)
	b.add(names, "wlc", 1, 2)
	l := b.load(web, 10)
	queries := b.load(names, 0)
	b.more(l, 50)
	made := b.numbers(web, "--stats --exact")[web.String()][0]
	begun := l.requests.Load()

	b.must("stop it", b.daemon.Signal(syscall.SIGSTOP))
	<-time.After(away) // it is the time itself that is tested: timers run out, and nobody sweeps
	asked := l.requests.Load() - begun
	b.must("let it go on", b.daemon.Signal(syscall.SIGCONT))
	if now := b.numbers(web, "--stats --exact")[web.String()][0]; now-made < uint64(asked) {
		t.Errorf("%d requests were made while the daemon was stopped, %d connections counted", asked, now-made)
	}
	b.check(l)
	b.check(queries)
	streams := l.streams
	b.standStill(web, names, streams)

	l = b.load(web, 10)
	for range 5 {
		b.more(l, 30)
		b.stop(b.daemon, syscall.SIGKILL)
		b.more(l, 30)
		b.start(b.Host(lab.Director), "--interface", "eth0")
	}
	b.check(l)
	streams = append(streams, l.streams...)
	b.standStill(web, names, streams)
	if reasons := b.reasons(); reasons["STATELESS"]+reasons["TABLE_FULL"]+reasons["NO_CONNECTION"] > 0 {
		t.Errorf("there was room for all connections: %v", reasons)
	}

	for _, k := range streams {
		k.Close()
	}
	eventually(t, 10*time.Second, "nothing is left", func() bool {
		return b.sum(web) == lvs.Counts{} && b.sum(names) == lvs.Counts{} && b.status().Connections.Used == 0
	})
	if list := ask[lvs.Connection](b, "connections"); len(list) > 0 {
		t.Errorf("still listed: %v", list)
	}
	checkFaithful(t, b.frames(), web)
}

// standStill waits until only the streams are left, and fails the test unless they are
// counted as they are listed, and answer.
func (b *bed) standStill(web, names virtual, streams []*talk) {
	b.t.Helper()
	eventually(b.t, 10*time.Second, "what is over goes", func() bool {
		return b.sum(names) == lvs.Counts{} && b.sum(web) == lvs.Counts{Active: uint32(len(streams))}
	})
	if ok, text := b.exact(web); !ok {
		b.t.Error(text)
	}
	for i, k := range streams {
		if err := k.say("still here"); err != nil {
			b.t.Errorf("stream %d: %v", i, err)
		}
	}
}
