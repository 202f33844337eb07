// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lvx/api"
	"lvx/internal/lvs"
)

func (e *Env) connectionsCommand() *cobra.Command {
	var q api.ConnectionQuery
	var asJSON bool
	c := &cobra.Command{
		Use:   "connections",
		Short: "The connections in the data plane's table",
		Long: "Lists connections in no order, as the table is read: on a busy director one may\nend, or begin, meanwhile. EXPIRES is the time left if no packet comes.\n\n" +
			"The director picks those that are asked for; what is not shown is not sent.",
		Example: "  lvx connections --client 203.0.113.0/24 --state established --limit 20\n  lvx connections --service web --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkConnectionQuery(q); err != nil {
				return wrongUsage(c, err)
			}
			return e.connections(c.Context(), q, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON: an array of connections")
	c.Flags().StringVar(&q.Client, "client", "", "only those of this client: ADDRESS[:PORT] or ADDRESS/BITS")
	c.Flags().StringVar(&q.RealServer, "real-server", "", "only those on this real server: ADDRESS[:PORT] or ADDRESS/BITS")
	c.Flags().StringVar(&q.Service, "service", "", "only those of this service: [tcp/|udp/]VIP[:PORT] or its name")
	c.Flags().StringVar(&q.State, "state", "", "only those in this state, for instance ESTABLISHED")
	c.Flags().IntVar(&q.Limit, "limit", 0, "stop after so many (0: no limit)")
	e.complete(c, "service", e.completeService)
	e.complete(c, "real-server", e.completeRealServer)
	e.complete(c, "state", completeWords(lvs.States()...))
	return c
}

// checkConnectionQuery finds what the director would refuse, before it is asked.
func checkConnectionQuery(q api.ConnectionQuery) error {
	if q.Limit < 0 {
		return fmt.Errorf("--limit %d is below 0", q.Limit)
	}
	if _, err := lvs.ParseAddressFilter(q.Client); err != nil {
		return fmt.Errorf("--client %w", err)
	}
	if _, err := lvs.ParseAddressFilter(q.RealServer); err != nil {
		return fmt.Errorf("--real-server %w", err)
	}
	if _, err := lvs.ParseServiceFilter(q.Service); err != nil && !mayBeName(q.Service) {
		return fmt.Errorf("--service: %w", err)
	}
	if _, err := lvs.ParseState(q.State); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

func (e *Env) connections(ctx context.Context, q api.ConnectionQuery, asJSON bool) error {
	client := e.client()
	defer client.Close()
	if _, err := lvs.ParseServiceFilter(q.Service); err != nil {
		named, err := pickServices(ctx, client, q.Service)
		if err != nil {
			return err
		}
		q.Service = named[0].Protocol.String() + "/" + named[0].Address.String()
	}
	sink := e.connectionSink(asJSON)
	if err := client.Connections(ctx, q, sink.add); err != nil {
		return err
	}
	return sink.end()
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
