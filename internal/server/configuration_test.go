// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"lvx/api"
	"lvx/internal/lvs"
)

var small = lvs.Configuration{
	Settings: lvs.Settings{Interfaces: []string{"eth0"}, Capacity: lvs.Capacity{Connections: 1000}},
	Timeouts: lvs.Timeouts{TCP: lvs.Duration(1500 * time.Millisecond)},
	Services: []lvs.Service{{
		ServiceKey: webKey, Name: "web", Scheduler: lvs.SH, Flags: "sh-port",
		RealServers: []lvs.RealServer{web.RealServers[0].RealServer},
	}},
}

func TestConfigure(t *testing.T) {
	f := &fake{done: lvs.Applied{Generation: 43, Changed: true, Revision: 5, Unconfirmed: &lvs.Unconfirmed{Deadline: morning, Revision: 5, Back: 4}}}
	client := api.NewClient(start(t, f, anyone))
	defer client.Close()
	query := api.ConfigureQuery{What: "apply lvx.yaml", Generation: 42, AllowEmpty: true, Confirm: 90 * time.Second, Wait: 1500 * time.Millisecond}
	applied, err := client.Configure(t.Context(), small, query, nil)
	same(t, err, api.Applied{Generation: 43, Changed: true, Revision: 5, Warnings: []api.Warning{}, Unconfirmed: f.done.Unconfirmed}, applied)
	same(t, nil, small, f.wanted)
	want := lvs.Request{
		Who: f.request.Who, What: "apply lvx.yaml", Generation: 42, AllowEmpty: true,
		Confirm: 90 * time.Second, Wait: 1500 * time.Millisecond,
	}
	same(t, nil, want, f.request)

	f.err = fmt.Errorf("service web: %w", lvs.ErrEmptied)
	if _, err := client.Configure(t.Context(), small, api.ConfigureQuery{}, nil); !errors.Is(err, lvs.ErrEmptied) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}

func TestConfigureShowsProgress(t *testing.T) {
	f := &fake{done: lvs.Applied{Generation: 43}}
	f.during = func(r lvs.Request) {
		for i := range 3 {
			r.Progress(lvs.Progress{Done: i + 1, Total: 3, Step: fmt.Sprint("step ", i)})
		}
	}
	client := api.NewClient(start(t, f, anyone))
	defer client.Close()
	var steps []lvs.Progress
	applied, err := client.Configure(t.Context(), small, api.ConfigureQuery{}, func(p lvs.Progress) { steps = append(steps, p) })
	same(t, err, uint64(43), applied.Generation)
	same(t, nil, []lvs.Progress{{Done: 1, Total: 3, Step: "step 0"}, {Done: 2, Total: 3, Step: "step 1"}, {Done: 3, Total: 3, Step: "step 2"}}, steps)

	f.err = lvs.ErrUnconfirmed
	if _, err = client.Configure(t.Context(), small, api.ConfigureQuery{}, func(lvs.Progress) {}); !errors.Is(err, lvs.ErrUnconfirmed) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}

// A client that reads no line does not stop the director, and loses only the oldest.
func TestProgressDoesNotWaitForTheClient(t *testing.T) {
	queue := make(steps, 4)
	for i := range 100 {
		queue.add(lvs.Progress{Done: i})
	}
	for i := 96; i < 100; i++ {
		same(t, nil, i, (<-queue).Done)
	}
}

// What was begun is finished, though the client goes away in the middle of it.
func TestConfigureOutlivesItsClient(t *testing.T) {
	for _, progress := range []func(lvs.Progress){nil, func(lvs.Progress) {}} {
		ctx, leave := context.WithCancel(t.Context())
		gone, ended := make(chan struct{}), make(chan error, 1)
		f := &fake{}
		f.during = func(r lvs.Request) {
			leave()
			<-gone
			if r.Progress != nil {
				for range 2 * maxSteps {
					r.Progress(lvs.Progress{Step: "one more"})
				}
			}
		}
		director := &watched{fake: f, ended: ended}
		client := api.NewClient(start(t, director, anyone))
		if _, err := client.Configure(ctx, small, api.ConfigureQuery{}, progress); !errors.Is(err, context.Canceled) {
			t.Errorf("the client has %v", err)
		}
		client.Close()
		close(gone)
		same(t, <-ended, nil, nil)
	}
}

// watched is a fake that tells with which error a configuration ended.
type watched struct {
	*fake
	ended chan error
}

func (w *watched) Configure(ctx context.Context, wanted lvs.Configuration, r lvs.Request) (lvs.Applied, error) {
	applied, err := w.fake.Configure(ctx, wanted, r)
	w.ended <- err
	return applied, err
}

func TestPlan(t *testing.T) {
	f := &fake{planned: lvs.Plan{Generation: 42, Emptied: []lvs.ServiceKey{webKey}}}
	client := api.NewClient(start(t, f, nil))
	defer client.Close()
	plan, err := client.Plan(t.Context(), small)
	same(t, err, lvs.Plan{Generation: 42, Changes: []lvs.Difference{}, Warnings: []lvs.Warning{}, Emptied: []lvs.ServiceKey{webKey}}, plan)
	f.err = fmt.Errorf("service: %w", lvs.ErrUnsupported)
	if _, err := client.Plan(t.Context(), small); !errors.Is(err, lvs.ErrUnsupported) {
		t.Errorf("the refusal lost its identity: %v", err)
	}
}
