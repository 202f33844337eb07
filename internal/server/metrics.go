// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lvx/internal/lvs"
)

// concurrentScrapes bounds what scrapes may take of memory and time. One more is
// answered 503.
const concurrentScrapes = 4

// mostObjects is how many services, and how many real servers, have series of their
// own. With more, those of this kind are left out altogether, and
// lvx_series_left_out says so: half a list would look like a whole one.
const mostObjects = 20_000

// MetricsHandler returns the handler that answers with the metrics of
// docs/metrics.md, read from the director anew for each request. It knows no
// connections, so it shows no client's address. What cannot be read is missing in
// the answer, and lvx_scrape_success says so.
func (s *Server) MetricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(s))
	// OpenMetrics stays off: Prometheus gets from it nothing that the text has not.
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            metricsLog{s.Log},
		MaxRequestsInFlight: concurrentScrapes,
	})
}

// metricsLog is the form of a log that promhttp wants.
type metricsLog struct{ log *slog.Logger }

// Println logs what went wrong with an answer: mostly that nobody read it.
func (l metricsLog) Println(a ...any) {
	l.log.Warn("metrics not sent", "err", strings.TrimSuffix(fmt.Sprintln(a...), "\n"))
}

// collector makes metrics of what the director says. It reads the director once
// for each scrape; scrapes may run at the same time.
type collector struct {
	server *Server
	descs  [metricIDs]*prometheus.Desc
	most   int // mostObjects
	events eventCounter
	totals totals
}

func newCollector(s *Server) *collector {
	return &collector{server: s, descs: describe(), most: mostObjects}
}

// Describe tells which metrics there can be.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for id, desc := range c.descs {
		if metricID(id) < nodeConnections || c.server.NodeIPVS {
			descs <- desc
		}
	}
}

// Collect reads the director and sends what there is.
func (c *collector) Collect(series chan<- prometheus.Metric) {
	began := time.Now()
	s := &scrape{collector: c, series: series}
	status, statusErr := c.server.Director.Status()
	reasons, reasonsErr := c.server.Director.Reasons()
	services, servicesErr := c.server.Director.Services()
	s.events()
	took := time.Since(began)

	s.add(buildInfo, 1, c.server.Version, runtime.Version(), c.server.Instance)
	s.add(scrapeDuration, took.Seconds())
	if s.worked("status", statusErr) {
		s.status(status)
	}
	if s.worked("reasons", reasonsErr) {
		s.reasons(reasons)
	}
	if s.worked("services", servicesErr) {
		s.services(services)
	}
	s.add(seriesLeftOut, float64(s.leftOut))
}

// scrape is one answer under way.
type scrape struct {
	*collector
	series  chan<- prometheus.Metric
	leftOut int
}

// add sends one series, with the values of the metric's labels.
func (s *scrape) add(id metricID, value float64, labels ...string) {
	s.series <- prometheus.MustNewConstMetric(s.descs[id], metrics[id].kind, value, labels...)
}

// worked notes whether a part could be read.
func (s *scrape) worked(part string, err error) bool {
	if err != nil {
		s.server.Log.Error("metrics are incomplete", "part", part, "err", err)
	}
	s.add(scrapeSuccess, bit(err == nil), part)
	return err == nil
}

func (s *scrape) status(status lvs.Status) {
	s.add(startTime, unixSeconds(status.Started))
	s.add(warningCount, float64(len(status.Warnings)))
	s.add(configGeneration, float64(status.Generation))
	s.add(configUnconfirmed, bit(status.Unconfirmed != nil))
	if status.Unconfirmed != nil {
		s.add(configDeadline, unixSeconds(status.Unconfirmed.Deadline))
	}
	for _, t := range []struct {
		name  string
		usage lvs.Usage
	}{{"connections", status.Connections}, {"services", status.Services}, {"real_servers", status.RealServers}} {
		s.add(tableEntries, float64(t.usage.Used), t.name)
		s.add(tableCapacity, float64(t.usage.Capacity), t.name)
	}
	for _, i := range status.Interfaces {
		name := i.Name
		if !utf8.ValidString(name) { // the kernel takes any bytes, Prometheus does not
			name = strings.Trim(strconv.Quote(name), `"`)
		}
		s.add(interfaceInfo, 1, name, string(i.Mode))
		s.add(interfaceLost, float64(i.LostAfterVerdict), name)
	}
}

// reasons sends also those that no packet had: an increase can be seen only from 0.
func (s *scrape) reasons(reasons []lvs.Reason) {
	for _, r := range reasons {
		s.add(packetCount, float64(r.Packets), r.Name, string(r.Verdict))
	}
}

func (s *scrape) services(services []lvs.ServiceStatus) {
	servers := 0
	for _, service := range services {
		servers += len(service.RealServers)
	}
	if len(services) > s.most {
		s.leftOut += len(services) * seriesOfService
	} else {
		for i := range services {
			s.service(&services[i])
		}
	}
	if servers > s.most {
		s.leftOut += servers * seriesOfServer
	} else {
		for i := range services {
			s.realServers(&services[i])
		}
	}
	if s.server.NodeIPVS {
		s.nodeIPVS(services, servers)
	}
}

// How many series one service and one real server have.
const (
	seriesOfService = 6
	seriesOfServer  = 7
)

func (s *scrape) service(v *lvs.ServiceStatus) {
	protocol, name := v.Protocol.String(), v.Address.String()
	usable := 0
	for _, r := range v.RealServers {
		if r.Weight > 0 && r.NextHop.Reaches(r.Method) {
			usable++
		}
	}
	s.add(serviceInfo, 1, protocol, name, v.Name, string(v.Scheduler))
	s.add(serviceServers, float64(len(v.RealServers)), protocol, name)
	s.add(serviceUsable, float64(usable), protocol, name)
	s.add(serviceConnections, float64(v.Stats.Connections), protocol, name)
	s.add(servicePackets, float64(v.Stats.InPackets), protocol, name, "in")
	s.add(serviceBytes, float64(v.Stats.InBytes), protocol, name, "in")
}

func (s *scrape) realServers(v *lvs.ServiceStatus) {
	protocol, service := v.Protocol.String(), v.Address.String()
	for _, r := range v.RealServers {
		name := r.Address.String()
		s.add(serverReachable, bit(r.NextHop.Reaches(r.Method)), protocol, service, name)
		s.add(serverWeight, float64(r.Weight), protocol, service, name)
		s.add(serverConnections, float64(r.Counts.Active), protocol, service, name, "active")
		s.add(serverConnections, float64(r.Counts.Inactive), protocol, service, name, "inactive")
		s.add(serverNewConnections, float64(r.Stats.Connections), protocol, service, name)
		s.add(serverPackets, float64(r.Stats.InPackets), protocol, service, name, "in")
		s.add(serverBytes, float64(r.Stats.InBytes), protocol, service, name, "in")
	}
}

// eventCounter counts events by type, and remembers the last change that was asked
// for. The director keeps the last thousand: if more happen between two scrapes,
// those before are not counted.
type eventCounter struct {
	mu      sync.Mutex
	last    uint64 // ID of the last one counted
	count   map[lvs.EventType]uint64
	change  lvs.EventType // the last of changed and refused
	changed time.Time
}

// eventTypes are sent from the start, with 0: an increase can be seen only from 0.
var eventTypes = []lvs.EventType{
	lvs.EventStarted, lvs.EventChanged, lvs.EventRefused, lvs.EventUnconfirmed, lvs.EventConfirmed,
	lvs.EventRolledBack, lvs.EventDrift, lvs.EventWarning, lvs.EventCleared,
}

// events counts what happened since the last scrape and sends the sums.
func (s *scrape) events() {
	c := &s.collector.events
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh, _ := s.server.Director.Events(c.last)
	if c.count == nil {
		c.count = map[lvs.EventType]uint64{}
	}
	for _, e := range fresh {
		c.last = e.ID
		c.count[e.Type]++
		if e.Type == lvs.EventChanged || e.Type == lvs.EventRefused {
			c.change, c.changed = e.Type, e.Time
		}
	}
	for _, kind := range eventTypes {
		s.add(eventCount, float64(c.count[kind]), string(kind))
	}
	if c.change != "" {
		s.add(configSuccess, bit(c.change == lvs.EventChanged))
		s.add(configTime, unixSeconds(c.changed))
	}
}

// bit is a bool as Prometheus has it.
func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// unixSeconds is a time as Prometheus has it.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
