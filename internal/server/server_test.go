// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

// The listener is one that was handed over, as systemd does.
func TestStopFinishesTheChangeUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	begun, finish := make(chan struct{}), make(chan struct{})
	director := &fake{during: func(lvs.Request) { close(begun); <-finish }}
	ctx, stop := context.WithCancel(context.Background())
	served, applied := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- New(Options{Director: director, Log: quiet(), MayWrite: anyone}).Serve(ctx, listener)
	}()
	go func() {
		client := api.NewClient(path)
		defer client.Close()
		_, err := client.Apply(context.Background(), api.Changes{Changes: []lvs.Change{{Operation: lvs.Clear}}})
		applied <- err
	}()
	<-begun
	stop()
	close(finish)
	same(t, <-applied, nil, nil)
	same(t, <-served, nil, nil)
}

func TestStopEndsStreams(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	director := &fake{}
	director.happen(lvs.EventStarted, "director")
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- New(Options{Director: director, Log: quiet()}).Serve(ctx, listener) }()
	client := api.NewClient(path)
	defer client.Close()
	err = client.FollowEvents(t.Context(), 0, func(lvs.Event) error { stop(); return nil })
	if !errors.Is(err, api.ErrStopped) {
		t.Errorf("the stream ended with %v", err)
	}
	same(t, <-served, nil, nil)
}

func TestServeOnSeveralListeners(t *testing.T) {
	dir := t.TempDir()
	var listeners []net.Listener
	for _, name := range []string{"a", "b"} {
		l, err := Listen(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	served := make(chan error, 1)
	go func() {
		served <- New(Options{Director: &fake{}, Log: quiet(), Version: "1"}).Serve(context.Background(), listeners...)
	}()
	for _, name := range []string{"a", "b"} {
		client := api.NewClient(filepath.Join(dir, name))
		status, err := client.Status(t.Context())
		client.Close()
		same(t, err, "1", status.Version)
	}
	// When one of them fails, none is left that looks alive.
	listeners[1].Close()
	if err := <-served; err == nil || !strings.HasPrefix(err.Error(), "serve "+filepath.Join(dir, "b")) {
		t.Errorf("got %v", err)
	}
	client := api.NewClient(filepath.Join(dir, "a"))
	defer client.Close()
	if _, err := client.Status(t.Context()); !errors.Is(err, api.ErrNoDaemon) {
		t.Errorf("the other still answers: %v", err)
	}
}
