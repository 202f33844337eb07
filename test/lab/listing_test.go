// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// A query is a command line with filters, and what it may show.
type query struct {
	filters string
	may     func(lvs.Connection) bool
	streams bool // it has to show every stream
}

// TestListingUnderTraffic lists connections by every filter while others take their
// slots all the time: each that is shown is one that was asked for, whole, and no
// connection that lives throughout is missed.
func TestListingUnderTraffic(t *testing.T) {
	const flows, streams, rounds, perMillisecond = 30_000, 20, 12, 40
	b := newBed(t, lab.Options{})
	_ = b.frames() // at this rate a capture would lose some itself
	b.start(b.Host(lab.Director), "--interface", "eth0", "--connections", "4096")
	b.do("ipvsadm --set 0 0 1")
	web := tcp(4, 80)
	b.join(4)
	b.add(web, "rr", 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	talks := &load{cancel: cancel}
	for i := range streams {
		k := b.call(web)
		talks.streams = append(talks.streams, k)
		talks.repeat(ctx, streamPause, func(n int) error {
			talks.said.Add(1)
			return k.say(fmt.Sprintf("stream %d line %d", i, n))
		})
	}
	known := map[netip.AddrPort]bool{}
	for _, family := range families {
		v := udp(family, 53)
		b.do("ipvsadm -A %s -s rr", v.option())
		for _, h := range b.RealServers() {
			b.do("ipvsadm -a %s -r %s -g", v.option(), v.on(h))
		}
		clients := strangers(family, flows)
		for _, c := range clients {
			known[c] = true
		}
		frames := script(t, clients, v, 0)
		talks.wait.Go(func() {
			for ctx.Err() == nil {
				if err := b.post(family%2, frames, paced(ctx, perMillisecond)); err != nil {
					talks.fail(err)
					return
				}
			}
		})
	}
	t.Cleanup(func() { talks.end() })
	whole := b.wholeness(web, talks.streams, known)
	shown := map[string]int{}
	for range rounds {
		for _, q := range b.queries(web) {
			list := ask[lvs.Connection](b, "connections "+q.filters)
			shown[q.filters] += len(list)
			b.checkListing(q, list, whole, talks.streams)
		}
	}
	for _, err := range talks.end() {
		t.Error(err)
	}
	for filters, n := range shown {
		if n == 0 {
			t.Errorf("nothing was shown: %s", filters)
		}
	}
	reasons := b.reasons()
	t.Logf("shown in %d rounds: %v; %d packets were forwarded, %d of them stateless, %d contended", rounds, shown, reasons["FORWARDED"], reasons["STATELESS"], reasons["CONTENDED"])
	if talks.said.Load() == 0 || reasons["INTERNAL"] != 0 {
		t.Errorf("%d lines were said, %d packets were INTERNAL", talks.said.Load(), reasons["INTERNAL"])
	}
}

// queries are one for each filter, and some together.
func (b *bed) queries(web virtual) []query {
	server := b.RealServers()[0]
	prefix4, prefix6 := netip.MustParsePrefix("198.51.7.0/24"), netip.MustParsePrefix("2001:db8:1000::/36")
	return []query{
		{"", func(lvs.Connection) bool { return true }, true},
		{"--service " + web.Addr().String(), func(c lvs.Connection) bool { return c.Virtual.Addr() == web.Addr() }, true},
		{fmt.Sprintf("--service udp/%s", udp(6, 53)), func(c lvs.Connection) bool { return c.Virtual == udp(6, 53).AddrPort && c.Protocol == lvs.UDP }, false},
		{"--real-server " + server.Addr(6).String(), func(c lvs.Connection) bool { return c.RealServer.Addr() == server.Addr(6) }, false},
		{"--client " + prefix4.String(), func(c lvs.Connection) bool { return prefix4.Contains(c.Client.Addr()) }, false},
		{"--client " + prefix6.String(), func(c lvs.Connection) bool { return prefix6.Contains(c.Client.Addr()) }, false},
		{"--state established", func(c lvs.Connection) bool { return c.State == "ESTABLISHED" }, true},
		{"--state UDP --real-server " + server.Addr(4).String() + " --client 198.51.0.0/17", func(c lvs.Connection) bool {
			return c.State == "UDP" && c.RealServer.Addr() == server.Addr(4) && netip.MustParsePrefix("198.51.0.0/17").Contains(c.Client.Addr())
		}, false},
	}
}

// whileListing is how much later than the listing began a packet may have come.
const whileListing = time.Second

// wholeness returns what tells whether all parts of a connection belong together.
func (b *bed) wholeness(web virtual, streams []*talk, known map[netip.AddrPort]bool) func(lvs.Connection) bool {
	ofStreams := map[string]virtual{}
	for _, k := range streams {
		ofStreams[k.LocalAddr().String()] = web
	}
	return func(c lvs.Connection) bool {
		v, stream := ofStreams[c.Client.String()]
		switch {
		case stream:
			if c.Protocol != lvs.TCP || c.State != "ESTABLISHED" || c.Expires > lvs.Duration(15*time.Minute+whileListing) {
				return false
			}
		case c.Client.Addr().Is4():
			v = udp(4, 53)
		default:
			v = udp(6, 53)
		}
		if !stream && (!known[c.Client] || c.Protocol != lvs.UDP || c.State != "UDP" || c.Expires > lvs.Duration(time.Second+whileListing)) {
			return false
		}
		return c.Expires > 0 && c.Virtual == v.AddrPort && slices.ContainsFunc(b.RealServers(), func(h *lab.Host) bool { return c.RealServer == v.on(h) })
	}
}

func (b *bed) checkListing(q query, list []lvs.Connection, whole func(lvs.Connection) bool, streams []*talk) {
	b.t.Helper()
	shown := map[string]bool{}
	for _, c := range list {
		if !q.may(c) {
			b.t.Errorf("connections %s shows %+v", q.filters, c)
		}
		if !whole(c) {
			b.t.Errorf("connections %s: this is no connection: %+v", q.filters, c)
		}
		shown[c.Client.String()] = true
	}
	for _, k := range streams {
		if q.streams && !shown[k.LocalAddr().String()] {
			b.t.Errorf("connections %s: the stream of %s is missing", q.filters, k.LocalAddr())
		}
	}
}
