// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"sync"
	"testing"

	"lvx/internal/lab"
)

// TestConcurrentConnections holds 1,000 connections open at the same time: wlc
// with weights 1:2 has to give them out within 2% of 1:2.
func TestConcurrentConnections(t *testing.T) {
	const connections, callers, share, tolerance = 1000, 20, 333, 20
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "wlc", 1, 2)
	turns := make(chan struct{}, connections)
	for range connections {
		turns <- struct{}{}
	}
	close(turns)
	var mu sync.Mutex // guards open and byName
	var open []*talk
	byName := map[string]int{}
	var wait sync.WaitGroup
	for range callers {
		wait.Go(func() {
			for range turns {
				k, err := call(t.Context(), b.Host(lab.Client), v)
				if err != nil {
					t.Error(err)
					continue
				}
				mu.Lock()
				open = append(open, k)
				byName[k.server]++
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	defer func() {
		for _, k := range open {
			k.Close()
		}
	}()
	if byName["rs1"]+byName["rs2"] != connections || byName["rs1"] < share-tolerance || byName["rs1"] > share+tolerance {
		t.Errorf("the connections went to %v", byName)
	}
	for _, h := range b.RealServers() {
		if c := b.counts(v, h); int(c.Active) != byName[h.Name] || c.Inactive != 0 {
			t.Errorf("%s holds %d connections, ipvsadm counts %+v", h.Name, byName[h.Name], c)
		}
	}
	for i, k := range open {
		if err := k.say("still here"); err != nil {
			t.Errorf("connection %d of %d: %v", i, connections, err)
		}
	}
}
