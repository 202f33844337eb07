// SPDX-License-Identifier: Apache-2.0

package server

import (
	"strconv"
	"strings"
	"sync"

	"lvx/internal/lvs"
)

// nodeIPVS sends the series of node_exporter's ipvs collector.
func (s *scrape) nodeIPVS(services []lvs.ServiceStatus, servers int) {
	sum := s.totals.add(services)
	s.add(nodeConnections, float64(sum.Connections))
	s.add(nodeInPackets, float64(sum.InPackets))
	s.add(nodeOutPackets, float64(sum.OutPackets))
	s.add(nodeInBytes, float64(sum.InBytes))
	s.add(nodeOutBytes, float64(sum.OutBytes))
	if servers > s.most {
		s.leftOut += servers * seriesOfNodeServer
		return
	}
	for i := range services {
		s.nodeServers(&services[i])
	}
}

// seriesOfNodeServer is how many series of node_exporter one real server has.
const seriesOfNodeServer = 3

func (s *scrape) nodeServers(v *lvs.ServiceStatus) {
	for _, r := range v.RealServers {
		labels := []string{
			v.Address.Addr().String(), portText(v.Address.Port()), r.Address.Addr().String(), portText(r.Address.Port()),
			strings.ToUpper(v.Protocol.String()), "", // no firewall marks
		}
		s.add(nodeActive, float64(r.Counts.Active), labels...)
		s.add(nodeInactive, float64(r.Counts.Inactive), labels...)
		s.add(nodeWeight, float64(r.Weight), labels...)
	}
}

func portText(number uint16) string { return strconv.FormatUint(uint64(number), 10) }

// totals are the sums of all services there were since the first scrape, and of
// what those had counted then. The kernel's own totals also keep what a deleted
// service counted: a sum of what is there would go down, and Prometheus would take
// that for a restart and count everything again. Safe for concurrent use.
type totals struct {
	mu   sync.Mutex
	sum  lvs.Stats
	last map[lvs.ServiceKey]lvs.Stats
}

// add takes in what was counted since the last call, and returns the sums.
func (t *totals) add(services []lvs.ServiceStatus) lvs.Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := make(map[lvs.ServiceKey]lvs.Stats, len(services))
	for _, v := range services {
		was := t.last[v.ServiceKey]
		t.sum.Connections += grown(was.Connections, v.Stats.Connections)
		t.sum.InPackets += grown(was.InPackets, v.Stats.InPackets)
		t.sum.OutPackets += grown(was.OutPackets, v.Stats.OutPackets)
		t.sum.InBytes += grown(was.InBytes, v.Stats.InBytes)
		t.sum.OutBytes += grown(was.OutBytes, v.Stats.OutBytes)
		last[v.ServiceKey] = v.Stats
	}
	t.last = last
	return t.sum
}

// grown returns what was counted between two readings. A counter that went down was
// set to 0 in between.
func grown(was, is uint64) uint64 {
	if is < was {
		return is
	}
	return is - was
}
