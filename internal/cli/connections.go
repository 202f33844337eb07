// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lvx/internal/lvs"
)

// connectionQuery is what `lvx connections` was asked for.
type connectionQuery struct {
	asJSON bool
	limit  int // 0 is all

	client, realServer, service, state string
}

func (e *Env) connectionsCommand() *cobra.Command {
	var q connectionQuery
	c := &cobra.Command{
		Use:     "connections",
		Short:   "The connections in the data plane's table",
		Long:    "Lists connections in no order, as the table is read: on a busy director one may\nend, or begin, meanwhile. EXPIRES is the time left if no packet comes.",
		Example: "  lvx connections --client 203.0.113.0/24 --state established --limit 20",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.connections(c.Context(), q)
		},
	}
	c.Flags().BoolVar(&q.asJSON, "json", false, "print JSON: an array of connections")
	c.Flags().StringVar(&q.client, "client", "", "only those of this client: ADDRESS[:PORT] or ADDRESS/BITS")
	c.Flags().StringVar(&q.realServer, "real-server", "", "only those on this real server: ADDRESS[:PORT] or ADDRESS/BITS")
	c.Flags().StringVar(&q.service, "service", "", "only those of this service: [tcp/|udp/]VIP[:PORT]")
	c.Flags().StringVar(&q.state, "state", "", "only those in this state, for instance ESTABLISHED")
	c.Flags().IntVar(&q.limit, "limit", 0, "stop after so many (0: no limit)")
	return c
}

// errEnough ends a listing that has reached its limit.
var errEnough = errors.New("enough")

func (e *Env) connections(ctx context.Context, q connectionQuery) error {
	picks, err := q.filter()
	if err != nil {
		return usageError("connections: %s", err)
	}
	sink := e.connectionSink(q.asJSON)
	client := e.client()
	defer client.Close()
	left := q.limit
	err = client.Connections(ctx, func(one lvs.Connection) error {
		if !picks(one) {
			return nil
		}
		if err := sink.add(one); err != nil {
			return err
		}
		if left--; left == 0 {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	return sink.end()
}

// filter returns the question as a function.
func (q connectionQuery) filter() (func(lvs.Connection) bool, error) {
	if q.limit < 0 {
		return nil, fmt.Errorf("--limit %d is below 0", q.limit)
	}
	client, err := parseAddressFilter(q.client)
	if err != nil {
		return nil, fmt.Errorf("--client %w", err)
	}
	realServer, err := parseAddressFilter(q.realServer)
	if err != nil {
		return nil, fmt.Errorf("--real-server %w", err)
	}
	service, err := parseServiceFilter(q.service)
	if err != nil {
		return nil, fmt.Errorf("--service: %w", err)
	}
	state, err := parseState(q.state)
	if err != nil {
		return nil, err
	}
	return func(c lvs.Connection) bool {
		return client.picks(c.Client) && realServer.picks(c.RealServer) && (state == "" || state == c.State) &&
			service.picks(lvs.ServiceKey{Protocol: c.Protocol, Address: c.Virtual})
	}, nil
}

var states = []lvs.State{
	lvs.StateNone, lvs.StateEstablished, lvs.StateSynSent, lvs.StateSynRecv, lvs.StateFinWait, lvs.StateTimeWait,
	lvs.StateClose, lvs.StateCloseWait, lvs.StateLastAck, lvs.StateListen, lvs.StateSynAck, lvs.StateUDP,
}

// parseState reads the name of a state in either case. "" is any.
func parseState(text string) (lvs.State, error) {
	state := lvs.State(strings.ToUpper(text))
	if state != "" && !slices.Contains(states, state) {
		return "", fmt.Errorf("--state %s is not one of %s", text, strings.Trim(fmt.Sprint(states), "[]"))
	}
	return state, nil
}

// connectionSink is where connections go one by one: the table can hold
// millions, so neither form may keep them.
type connectionSink struct {
	add func(lvs.Connection) error
	end func() error
}

func (e *Env) connectionSink(asJSON bool) connectionSink {
	if asJSON {
		array := &jsonArray{w: e.Out}
		return connectionSink{add: func(c lvs.Connection) error { return array.Add(c) }, end: array.Close}
	}
	t := e.newTable("PROTOCOL", "CLIENT", "SERVICE", "REAL SERVER", "STATE", "EXPIRES")
	add := func(c lvs.Connection) error {
		return t.add(
			word(c.Protocol.String()), word(c.Client.String()), word(c.Virtual.String()), word(c.RealServer.String()),
			word(string(c.State)), cell{text: time.Duration(c.Expires).Round(time.Second).String(), right: true},
		)
	}
	return connectionSink{add: add, end: t.flush}
}
