// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"lvx/internal/lab"
)

// load is traffic that goes on while a test changes things: streams that never
// end, and requests over connections of their own.
type load struct {
	streams []*talk
	cancel  context.CancelFunc
	wait    sync.WaitGroup

	requests, said atomic.Int64

	mu     sync.Mutex // guards the rest
	errs   []error
	byName map[string]int // requests by real server
}

// Each stream says something every streamPause, and each of requesters makes a
// request every requestPause: enough to be always under way, little enough to
// leave the client ports.
const (
	streamPause  = 5 * time.Millisecond
	requestPause = 10 * time.Millisecond
	requesters   = 4
)

// load begins with that many streams, which it opens before it returns.
func (b *bed) load(v virtual, streams int) *load {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, byName: map[string]int{}}
	for range streams {
		l.streams = append(l.streams, b.call(v))
	}
	for i, k := range l.streams {
		l.repeat(ctx, streamPause, func(n int) error {
			l.said.Add(1)
			if err := k.say(fmt.Sprintf("stream %d line %d", i, n)); err != nil {
				return fmt.Errorf("stream of %s to %s, line %d: %w", k.LocalAddr(), k.server, n, err)
			}
			return nil
		})
	}
	for range requesters {
		l.repeat(ctx, requestPause, func(int) error { l.request(b.Host(lab.Client), v); return nil })
	}
	b.t.Cleanup(func() { l.end() })
	return l
}

// repeat does something again and again until ctx ends or it fails.
func (l *load) repeat(ctx context.Context, pause time.Duration, something func(n int) error) {
	l.wait.Go(func() {
		next := time.NewTicker(pause)
		defer next.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-next.C:
			}
			if err := something(n); err != nil {
				l.fail(err)
				return
			}
		}
	})
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, fmt.Errorf("%s: %w", time.Now().Format("05.000"), err))
}

// request makes one, not cut short when the load ends.
func (l *load) request(from *lab.Host, v virtual) {
	l.requests.Add(1)
	k, err := call(context.Background(), from, v)
	if err != nil {
		l.fail(fmt.Errorf("request: %w", err))
		return
	}
	defer k.Close()
	if err := k.say("request"); err != nil {
		l.fail(fmt.Errorf("request of %s to %s: %w", k.LocalAddr(), k.server, err))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byName[k.server]++
}

// end stops the load and returns what failed. The streams stay open.
func (l *load) end() []error {
	l.cancel()
	l.wait.Wait()
	return l.errs
}

// more waits until the load has made that many more requests.
func (b *bed) more(l *load, requests int64) {
	b.t.Helper()
	goal := l.requests.Load() + requests
	eventually(b.t, 20*time.Second, "the load goes on", func() bool { return l.requests.Load() >= goal })
}

// check ends the load and fails the test for all that failed in it.
func (b *bed) check(l *load) {
	b.t.Helper()
	for i, err := range l.end() {
		if i == 5 {
			b.t.Errorf("and %d more", len(l.errs)-i)
			break
		}
		b.t.Error(err)
	}
	b.t.Logf("%d requests %v, %d lines in %d streams, %d failed", l.requests.Load(), l.byName, l.said.Load(), len(l.streams), len(l.errs))
	if l.requests.Load() == 0 || len(l.streams) > 0 && l.said.Load() == 0 {
		b.t.Error("there was no load")
	}
}
