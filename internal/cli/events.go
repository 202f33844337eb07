// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

// eventTypes are those that --type knows.
var eventTypes = []lvs.EventType{
	lvs.EventStarted, lvs.EventChanged, lvs.EventRefused, lvs.EventUnconfirmed, lvs.EventConfirmed,
	lvs.EventRolledBack, lvs.EventDrift, lvs.EventWarning, lvs.EventCleared,
}

// eventQuery is what `lvx events` was asked for.
type eventQuery struct {
	asJSON, follow bool
	types          []string
	after          uint64
}

func (e *Env) eventsCommand() *cobra.Command {
	var q eventQuery
	c := &cobra.Command{
		Use:   "events",
		Short: "What happened to the director",
		Long: "Lists what happened since the daemon started, as far as it is kept, the latest\nlast: changes by whomever, applies that wait or go back, drift that was\nrepaired, warnings that come and go. --follow goes on with what happens from\nnow on, also when the daemon is started anew.\n\n" +
			"The types are started, changed, refused, unconfirmed, confirmed, rolled-back,\ndrift, warning and cleared.",
		Example: "  lvx events -f\n  lvx events --type drift,warning --json\n  lvx events -f --json | jq -r .text",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, t := range q.types {
				if !slices.Contains(eventTypes, lvs.EventType(t)) {
					return wrongUsage(c, notOneOf("--type", t, eventTypes))
				}
			}
			return e.events(c.Context(), q)
		},
	}
	c.Flags().BoolVar(&q.asJSON, "json", false, "print JSON: an array of events, with --follow one object a line")
	c.Flags().BoolVarP(&q.follow, "follow", "f", false, "go on with what happens from now on")
	c.Flags().StringSliceVar(&q.types, "type", nil, "only those of these types: TYPE,…")
	c.Flags().Uint64Var(&q.after, "after", 0, "only those after the one with this ID")
	e.complete(c, "type", completeWords(eventTypes...))
	return c
}

func (e *Env) events(ctx context.Context, q eventQuery) error {
	client := e.client()
	defer client.Close()
	sink := e.eventSink(q)
	if q.follow {
		f := follower{env: e, client: client, after: q.after, add: sink.add, pause: pause}
		return f.run(ctx)
	}
	if err := client.Events(ctx, q.after, sink.add); err != nil {
		return err
	}
	return sink.end()
}

// eventSink is where events go one by one; with --follow each is written at once.
type eventSink struct {
	add func(lvs.Event) error
	end func() error
}

func (e *Env) eventSink(q eventQuery) eventSink {
	sink := e.eventTable(q.follow)
	switch {
	case q.asJSON && q.follow:
		lines := json.NewEncoder(e.Out)
		sink = eventSink{add: func(v lvs.Event) error { return lines.Encode(v) }}
	case q.asJSON:
		array := &jsonArray{w: e.Out}
		sink = eventSink{add: func(v lvs.Event) error { return array.Add(v) }, end: array.Close}
	}
	if len(q.types) > 0 {
		all := sink.add
		sink.add = func(v lvs.Event) error {
			if slices.Contains(q.types, string(v.Type)) {
				return all(v)
			}
			return nil
		}
	}
	return sink
}

func (e *Env) eventTable(atOnce bool) eventSink {
	t := e.newTable("ID", "TIME", "TYPE", "OBJECT", "WHAT HAPPENED")
	if atOnce { // then what is to come cannot be measured
		t.widths = []int{13, len(time.DateTime), len("unconfirmed"), 28, 0}
	}
	return eventSink{end: t.flush, add: func(v lvs.Event) error {
		err := t.add(number(v.ID), word(moment(v.Time)), coloured(eventColour(v.Type), string(v.Type)), word(v.Object), word(v.Text))
		if err == nil && atOnce {
			err = t.flush()
		}
		return err
	}}
}

func eventColour(t lvs.EventType) colour {
	switch t {
	case lvs.EventRefused, lvs.EventDrift:
		return red
	case lvs.EventWarning, lvs.EventUnconfirmed, lvs.EventRolledBack:
		return yellow
	case lvs.EventConfirmed, lvs.EventCleared:
		return green
	}
	return plain
}

// follower reads events on and on, from one daemon after the other.
type follower struct {
	env    *Env
	client *api.Client
	after  uint64 // the ID of the last event that was shown
	add    func(lvs.Event) error
	pause  func(context.Context) // before a daemon that went away is asked again

	started time.Time // when the daemon did: its IDs begin anew then
	lost    bool      // the operator knows that it is away
}

// errOutput is returned when what was read cannot be written.
type errOutput struct{ error }

// run returns when ctx ends, the output is closed or the daemon refuses.
func (f *follower) run(ctx context.Context) error {
	for first := true; ; first = false {
		err := f.once(ctx)
		output, refusal := errOutput{}, (*api.Error)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &output):
			return output.error
		case errors.As(err, &refusal), errors.Is(err, api.ErrDenied), first && errors.Is(err, api.ErrNoDaemon):
			return err
		}
		if !f.lost {
			f.lost = true
			fmt.Fprintln(f.env.Err, "lvx: the daemon is away; waiting for it")
		}
		f.pause(ctx)
	}
}

// once follows one daemon until it goes.
func (f *follower) once(ctx context.Context) error {
	status, err := f.client.Status(ctx)
	if err != nil {
		return err
	}
	if !f.started.IsZero() && !status.Started.Equal(f.started) {
		f.after = 0
	}
	f.started = status.Started
	if f.lost {
		f.lost = false
		fmt.Fprintln(f.env.Err, "lvx: the daemon is back")
	}
	return f.client.FollowEvents(ctx, f.after, func(v lvs.Event) error {
		f.after = v.ID
		if err := f.add(v); err != nil {
			return errOutput{err}
		}
		return nil
	})
}

// pause waits a second, or until ctx ends.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// notOneOf is the error about a word that is none of those there are.
func notOneOf[T ~string](flag, word string, words []T) error {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return fmt.Errorf("%s %q is not one of %s", flag, word, strings.Join(list, ", "))
}
