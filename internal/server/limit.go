// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"time"
)

// What may be asked for at the same time, and how much of it. Those who may change
// things have places of their own, so that readers cannot keep them out.
const (
	maxRequests = 256      // of readers, and as many of writers
	maxStreams  = 32       // of events
	maxLarge    = 4        // bodies above maxSmall that are in memory, of readers and of writers
	maxHeader   = 8 << 10  // bytes
	maxSmall    = 64 << 10 // bytes of a body
	maxBody     = 32 << 20 // bytes of changes or a configuration: half a million real servers
)

// How long a client may take. A stream may take longer: its write deadline moves
// with every page (see stream).
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	bodyTimeout   = time.Minute // for bodies up to maxBody
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 5 * time.Second
	heartbeat     = 15 * time.Second // between comments in a stream of events
)

// places are how many of something there may be at the same time.
type places chan struct{}

// take takes a place if there is one.
func (p places) take() bool {
	select {
	case p <- struct{}{}:
		return true
	default:
		return false
	}
}

// await takes a place as soon as there is one, unless ctx ends first.
func (p places) await(ctx context.Context) bool {
	select {
	case p <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p places) leave() { <-p }

// room is what one kind of client may take up.
type room struct {
	requests places
	large    places
}

func newRoom() room { return room{requests: make(places, maxRequests), large: make(places, maxLarge)} }
