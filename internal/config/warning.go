// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"time"

	"lvx/internal/config/yaml"
	"lvx/internal/lvs"
)

// maxTurns is how many turns one cycle of wrr has at most; weights with a longer
// one are scaled (package sched).
const maxTurns = 1 << 16

// spread is how many places of mh's table there should be for each real server:
// with fewer, shares differ from the weights by more than about 1 % (Maglev, 3.4).
const spread = 100

// shortTimeout is below what common clients and servers keep idle connections for.
const shortTimeout = time.Minute

// warnings notes what is possible and seldom meant.
func (d *decoder) warnings(root *yaml.Node) {
	vips := make(map[netip.Addr]*service, len(d.services))
	servers := 0
	for _, s := range d.services {
		if s.address != nil {
			vips[s.Address.Addr()] = s
		}
		servers += len(s.servers)
	}
	for _, s := range d.services {
		if s.node.Incomplete || get(s.node, "real_servers") == nil {
			continue
		}
		d.warnServers(s)
		d.warnScheduler(s)
		for _, r := range s.servers {
			if vip := vips[r.Address.Addr()]; vip != nil {
				d.warn(codeVIPIsServer, r.address.Span, fmt.Sprintf("the real server %s has an address that is a VIP, in line %d", r.Address, d.line(int(vip.address.Start))), "write the server's own address")
			}
		}
	}
	d.warnCapacity(root, servers)
	d.warnSettings(root)
}

func (d *decoder) warnServers(s *service) {
	list := get(s.node, "real_servers")
	if list.Incomplete || len(list.Items) != len(s.servers) {
		return // some are wrong, so that nothing can be said of all
	}
	zero := 0
	for _, r := range s.servers {
		if r.Weight == 0 {
			zero++
		}
	}
	switch {
	case len(s.servers) == 0:
		d.warn(codeNoServers, list.Span, "the service has no real servers: its clients get no answer", "")
	case zero == len(s.servers):
		d.warn(codeAllZero, s.servers[0].weight.Span, "all real servers of the service have weight 0: new clients get no answer", "give one a weight of 1")
	case len(s.servers) == 1:
		d.warn(codeOneServer, s.servers[0].address.Span, "the service has one real server: when that fails, the service fails", "add another")
	case zero > 0 && (s.Scheduler == lvs.SH || s.Scheduler == lvs.MH) && !s.Flags.Fallback():
		for _, r := range s.servers {
			if r.Weight == 0 {
				d.warnNoFallback(s, r)
			}
		}
	}
}

func (d *decoder) warnNoFallback(s *service, r server) {
	message := fmt.Sprintf("clients that %s gives to a real server with weight 0 get no answer", s.Scheduler)
	help := fmt.Sprintf("add %s-fallback to scheduler_flags, or take the server out", s.Scheduler)
	d.warn(codeNoFallback, r.weight.Span, message, help)
}

func (d *decoder) warnScheduler(s *service) {
	var sum uint64
	var divisor, first uint32
	var other *server // with another weight than the first, neither of them 0
	for i := range s.servers {
		r := &s.servers[i]
		sum += uint64(r.Weight)
		divisor = gcd(divisor, r.Weight)
		switch {
		case r.Weight == 0 || r.Weight == first:
		case first == 0:
			first = r.Weight
		case other == nil && r.weight != nil:
			other = r
		}
	}
	scheduler := get(s.node, "scheduler")
	switch {
	case scheduler == nil:
		scheduler = &yaml.Node{Span: s.node.Span}
	case (s.Scheduler == lvs.RR || s.Scheduler == lvs.LC) && other != nil:
		d.warn(codeIdleWeight, other.weight.Span, fmt.Sprintf("%s does not look at weights, but for 0", s.Scheduler), fmt.Sprintf("use w%s, or give all the weight 1", s.Scheduler))
	case s.Scheduler == lvs.WRR && divisor > 0 && sum/uint64(divisor) > maxTurns:
		d.warn(codeLongCycle, scheduler.Span, fmt.Sprintf("the weights make a cycle of %d turns; above %d they are rounded", sum/uint64(divisor), maxTurns), "use smaller weights in the same proportion")
	case s.Scheduler == lvs.MH:
		if size := cmp.Or(d.configuration.Settings.MHTable, lvs.DefaultMHTable); uint64(len(s.servers))*spread > uint64(size) {
			d.warn(codeSmallTable, scheduler.Span, fmt.Sprintf("%d real servers share a table of %d places: the shares will be uneven", len(s.servers), size), fmt.Sprintf("set director.mh_table to a prime of %d or more", min(len(s.servers)*spread, maxMHTable)))
		}
	}
	if flags := get(s.node, "scheduler_flags"); flags != nil {
		d.warnFlags(s, flags)
	}
}

// warnFlags notes flags that the scheduler takes and does nothing with.
func (d *decoder) warnFlags(s *service, flags *yaml.Node) {
	for i := range flags.Items {
		flag := &flags.Items[i]
		isHash := s.Scheduler == lvs.SH || s.Scheduler == lvs.MH
		if flag.Kind == yaml.Text && (!isHash || flag.Text == "flag-3") {
			d.warn(codeIdleFlag, flag.Span, fmt.Sprintf("the scheduler %s does nothing with %s", s.Scheduler, flag.Text), "take it out")
		}
	}
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// warnCapacity notes that the tables cannot hold what the file has.
func (d *decoder) warnCapacity(root *yaml.Node, servers int) {
	capacity := d.configuration.Settings.Capacity
	place := func(key string) yaml.Span {
		if n := get(get(get(root, "director"), "capacity"), key); n != nil {
			return n.Span
		}
		return get(root, "services").Span
	}
	if room := cmp.Or(capacity.Services, lvs.DefaultServices); uint64(len(d.services)) > uint64(room) {
		d.warn(codeCapacity, place("services"), fmt.Sprintf("the file has %d services, the director has room for %d", len(d.services), room), "set director.capacity.services")
	}
	if room := cmp.Or(capacity.RealServers, lvs.DefaultRealServers); uint64(servers) > uint64(room) {
		d.warn(codeCapacity, place("real_servers"), fmt.Sprintf("the file has %d real servers, the director has room for %d", servers, room), "set director.capacity.real_servers")
	}
}

func (d *decoder) warnSettings(root *yaml.Node) {
	tcp := get(get(get(root, "director"), "timeouts"), "tcp")
	if tcp != nil && time.Duration(d.configuration.Timeouts.TCP) < shortTimeout {
		d.warn(codeShortTimeout, tcp.Span, fmt.Sprintf("a TCP connection that is idle for %s is forgotten, and then reset", tcp.Text), "write 15m, or what the longest silence of a client is")
	}
	if listen, err := netip.ParseAddrPort(d.configuration.Settings.Metrics.Listen); err == nil && !listen.Addr().IsLoopback() {
		d.warn(codeMetricsOpen, get(get(root, "metrics"), "listen").Span, fmt.Sprintf("whoever reaches %s can read the metrics", listen), "listen on 127.0.0.1, or keep others out with a firewall")
	}
}
