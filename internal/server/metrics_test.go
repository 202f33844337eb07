// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"lvx/api"
	"lvx/internal/lvs"
)

// scraped is a director as the collector sees it. What the collector may not ask,
// such as who the clients are, panics: the embedded interface is nil.
type scraped struct {
	Director
	status   lvs.Status
	reasons  []lvs.Reason
	services []lvs.ServiceStatus
	events   []lvs.Event

	statusErr, reasonsErr, servicesErr error

	reading func() // called before the services are read; may block
	reads   atomic.Int32
}

func (d *scraped) Status() (lvs.Status, error)    { return d.status, d.statusErr }
func (d *scraped) Reasons() ([]lvs.Reason, error) { return d.reasons, d.reasonsErr }

func (d *scraped) Services() ([]lvs.ServiceStatus, error) {
	d.reads.Add(1)
	if d.reading != nil {
		d.reading()
	}
	return d.services, d.servicesErr
}

func (d *scraped) Events(after uint64) ([]lvs.Event, <-chan struct{}) {
	first := slices.IndexFunc(d.events, func(e lvs.Event) bool { return e.ID > after })
	if first < 0 {
		return nil, nil
	}
	return d.events[first:], nil
}

// sampleDirector returns a director that has something of everything.
func sampleDirector() *scraped {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server := func(address string, weight uint32, hop lvs.NextHopState, n uint64) lvs.RealServerStatus {
		return lvs.RealServerStatus{
			RealServer: lvs.RealServer{Address: netip.MustParseAddrPort(address), Method: lvs.DR, Weight: weight},
			Counts:     lvs.Counts{Active: uint32(n), Inactive: uint32(2 * n)},
			Stats:      lvs.Stats{Connections: 10 * n, InPackets: 100 * n, InBytes: 6400 * n},
			NextHop:    lvs.NextHop{State: hop},
		}
	}
	return &scraped{
		status: lvs.Status{
			Started: at, Generation: 42,
			Unconfirmed: &lvs.Unconfirmed{Deadline: at.Add(time.Hour), Revision: 3, Back: 2},
			Interfaces: []lvs.Interface{
				{Name: "eth0", Mode: lvs.XDPNative},
				{Name: "eth\xff", Mode: lvs.XDPGeneric, LostAfterVerdict: 4},
			},
			Connections: lvs.Usage{Used: 9, Capacity: 1_000_000},
			Services:    lvs.Usage{Used: 2, Capacity: 4096},
			RealServers: lvs.Usage{Used: 3, Capacity: 16384},
			Warnings:    []lvs.Warning{{Object: "eth0", Text: "it is slow", Fix: "buy another"}},
		},
		reasons: []lvs.Reason{
			{Name: "FORWARDED", Verdict: lvs.Forwarded, Packets: 1 << 53},
			{Name: "NOT_OURS", Verdict: lvs.Passed, Packets: 5},
			{Name: "NO_NEIGHBOUR", Verdict: lvs.Dropped},
		},
		services: []lvs.ServiceStatus{{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")},
			Name:       "web", Scheduler: lvs.WLC,
			Stats: lvs.Stats{Connections: 40, InPackets: 400, InBytes: 25600},
			RealServers: []lvs.RealServerStatus{
				server("198.51.100.5:80", 1, lvs.NextHopReady, 1),
				server("198.51.100.6:80", 3, lvs.NextHopUnresolved, 2),
			},
		}, {
			ServiceKey:  lvs.ServiceKey{Protocol: lvs.UDP, Address: netip.MustParseAddrPort("[2001:db8::1]:53")},
			Scheduler:   lvs.RR,
			RealServers: []lvs.RealServerStatus{server("[2001:db8::5]:53", 0, lvs.NextHopLocal, 0)},
		}},
		events: []lvs.Event{
			{ID: 1001, Time: at, Type: lvs.EventStarted},
			{ID: 1002, Time: at.Add(time.Minute), Type: lvs.EventChanged},
			{ID: 1003, Time: at.Add(2 * time.Minute), Type: lvs.EventRefused},
		},
	}
}

func serverOf(d *scraped, node bool) *Server {
	return New(Options{Director: d, Log: slog.New(slog.DiscardHandler), Version: "1.2.3", Instance: "default", NodeIPVS: node})
}

// scrapeOnce returns what Prometheus would get.
func scrapeOnce(t *testing.T, h http.Handler) string {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathMetrics, nil))
	if answer.Code != http.StatusOK {
		t.Fatalf("%d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

// gathered returns what a collector sends, by name, checked as strictly as can be.
func gathered(t *testing.T, c *collector) map[string]*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	list, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	families := map[string]*dto.MetricFamily{}
	for _, f := range list {
		families[f.GetName()] = f
	}
	return families
}

// valueOf returns the value of one series, "" if there is none.
func valueOf(text, series string) string {
	for line := range strings.Lines(text) {
		if v, is := strings.CutPrefix(line, series+" "); is {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// The whole text, as it stands in testdata. LVX_UPDATE=1 writes it anew.
func TestMetricsText(t *testing.T) {
	for _, c := range []struct {
		file string
		node bool
		part *regexp.Regexp
	}{
		{"metrics.golden", false, regexp.MustCompile(``)},
		{"metrics_node.golden", true, regexp.MustCompile(`(^| )node_`)},
	} {
		t.Run(c.file, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := sampleDirector()
				d.reading = func() { time.Sleep(250 * time.Millisecond) } // on the bubble's clock
				var got strings.Builder
				for line := range strings.Lines(scrapeOnce(t, serverOf(d, c.node).MetricsHandler())) {
					if c.part.MatchString(line) {
						got.WriteString(strings.Replace(line, runtime.Version(), "GOVERSION", 1))
					}
				}
				sameAsFile(t, filepath.Join("testdata", c.file), got.String())
			})
		})
	}
}

// sameAsFile compares with a file, or writes it.
func sameAsFile(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("LVX_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what there is now (LVX_UPDATE=1 writes it anew): -%s +now\n%s", path, path, d)
	}
}

// What is sent is what the table says: names, labels, kinds.
func TestMetricsAreThoseOfTheTable(t *testing.T) {
	for _, node := range []bool{false, true} {
		got := map[string][]string{}
		for _, f := range gathered(t, newCollector(serverOf(sampleDirector(), node))) {
			var labels []string
			for _, l := range f.GetMetric()[0].GetLabel() {
				labels = append(labels, l.GetName())
			}
			got[f.GetName()] = append(labels, strings.ToLower(f.GetType().String()))
		}
		want := map[string][]string{}
		for id, m := range metrics {
			if node || metricID(id) < nodeConnections {
				want[m.name] = append(slices.Sorted(slices.Values(m.labels)), kindName(m))
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("node_ipvs %v: -table +sent\n%s", node, d)
		}
	}
}

func kindName(m metric) string {
	if m.kind == counter {
		return "counter"
	}
	return "gauge"
}

func TestMetricsNamesAreGood(t *testing.T) {
	text := scrapeOnce(t, serverOf(sampleDirector(), true).MetricsHandler())
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	bare := map[string]string{}
	for _, m := range metrics {
		short := strings.TrimSuffix(m.name, "_total")
		if other := bare[short]; other != "" {
			t.Errorf("%s and %s are one name in OpenMetrics", other, m.name)
		}
		bare[short] = m.name
		if (m.kind == counter) != strings.HasSuffix(m.name, "_total") {
			t.Errorf("%s: counters end in _total, and nothing else does", m.name)
		}
		if slices.ContainsFunc(m.labels, func(l string) bool { return strings.Contains(l, "client") }) {
			t.Errorf("%s has a client in its labels", m.name)
		}
	}
}

// What cannot be read is missing, and said to be; the rest is there.
func TestMetricsOfABrokenDirector(t *testing.T) {
	gone := errors.New("the map is gone")
	for part, c := range map[string]struct {
		breaks  func(*scraped)
		missing string
	}{
		"status":   {func(d *scraped) { d.statusErr = gone }, "lvx_table_entries"},
		"reasons":  {func(d *scraped) { d.reasonsErr = gone }, "lvx_packets_total"},
		"services": {func(d *scraped) { d.servicesErr = gone }, "lvx_service_info"},
	} {
		d := sampleDirector()
		c.breaks(d)
		var log bytes.Buffer
		s := serverOf(d, true)
		s.Log = slog.New(slog.NewTextHandler(&log, nil))
		text := scrapeOnce(t, s.MetricsHandler())
		for _, p := range []string{"status", "reasons", "services"} {
			want := "1"
			if p == part {
				want = "0"
			}
			if got := valueOf(text, fmt.Sprintf("lvx_scrape_success{part=%q}", p)); got != want {
				t.Errorf("%s broken: success of %s is %q", part, p, got)
			}
		}
		if strings.Contains(text, c.missing) {
			t.Errorf("%s broken: %s is sent", part, c.missing)
		}
		if !strings.Contains(log.String(), "part="+part) || !strings.Contains(log.String(), "the map is gone") {
			t.Errorf("%s broken: the log says %q", part, log.String())
		}
	}
}

func TestEventsAreCountedOnce(t *testing.T) {
	d := sampleDirector()
	h := serverOf(d, false).MetricsHandler()
	scrapeOnce(t, h)
	at := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	d.events = append(d.events, lvs.Event{ID: 1004, Time: at, Type: lvs.EventChanged}, lvs.Event{ID: 1005, Time: at.Add(time.Hour), Type: lvs.EventDrift})
	scrapeOnce(t, h)
	text := scrapeOnce(t, h)
	for series, want := range map[string]string{
		`lvx_events_total{type="changed"}`:        "2",
		`lvx_events_total{type="refused"}`:        "1",
		`lvx_events_total{type="drift"}`:          "1",
		`lvx_events_total{type="confirmed"}`:      "0",
		`lvx_config_last_apply_success`:           "1",
		`lvx_config_last_apply_timestamp_seconds`: asText(unixSeconds(at)),
	} {
		if got := valueOf(text, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
}

// A director to which nothing was asked yet has no last change.
func TestNoLastApplyBeforeThereWasOne(t *testing.T) {
	d := sampleDirector()
	d.events = d.events[:1]
	if text := scrapeOnce(t, serverOf(d, false).MetricsHandler()); strings.Contains(text, "last_apply") {
		t.Errorf("there is one:\n%s", text)
	}
}

// Every type of event is counted from 0.
func TestEveryEventTypeIsSent(t *testing.T) {
	source, err := os.ReadFile("../lvs/history.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`EventType\s*=\s*"([a-z-]+)"`).FindAllSubmatch(source, -1)
	if len(found) != len(eventTypes) {
		t.Errorf("%d types of events in package lvs, %d here", len(found), len(eventTypes))
	}
	for _, m := range found {
		if !slices.Contains(eventTypes, lvs.EventType(m[1])) {
			t.Errorf("events of type %s are not sent", m[1])
		}
	}
}

// The totals of node_exporter's series keep what a deleted service counted, as the
// kernel's do, and take a zeroed service for what it is.
func TestTotalsNeverGoDown(t *testing.T) {
	d := sampleDirector()
	h := serverOf(d, true).MetricsHandler()
	want := func(total string) {
		t.Helper()
		if got := valueOf(scrapeOnce(t, h), "node_ipvs_connections_total"); got != total {
			t.Errorf("%s connections, want %s", got, total)
		}
	}
	want("40")
	d.services[0].Stats.Connections = 50
	d.services[1].Stats.Connections = 7
	want("57")
	d.services[0].Stats.Connections = 2 // ipvsadm -Z, and two more
	want("59")
	deleted := d.services[0]
	d.services = d.services[1:]
	want("59")
	deleted.Stats.Connections = 1 // added again
	d.services = append(d.services, deleted)
	want("60")
}

// directorOf returns a director with so many services of so many real servers each.
func directorOf(services, servers int) *scraped {
	d := sampleDirector()
	server := d.services[0].RealServers[0]
	d.services = make([]lvs.ServiceStatus, services)
	for i := range d.services {
		v := &d.services[i]
		v.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}), 80)
		v.Protocol, v.Scheduler = lvs.TCP, lvs.WLC
		for j := range servers {
			server.Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(j >> 16), byte(j >> 8), byte(j)}), 80)
			v.RealServers = append(v.RealServers, server)
		}
	}
	return d
}

// Above the bound a kind is left out whole, and it is said how many series are missing.
func TestSeriesLeftOut(t *testing.T) {
	const most = 3
	scrape := func(services, servers int) (left, ofServices, ofServers, ofNode int) {
		c := newCollector(serverOf(directorOf(services, servers), true))
		c.most = most
		for name, family := range gathered(t, c) {
			m := metrics[slices.IndexFunc(metrics[:], func(m metric) bool { return m.name == name })]
			switch {
			case name == metrics[seriesLeftOut].name:
				left = int(family.GetMetric()[0].GetGauge().GetValue())
			case slices.Contains(m.labels, "real_server"):
				ofServers += len(family.GetMetric())
			case slices.Contains(m.labels, "service"):
				ofServices += len(family.GetMetric())
			case slices.Contains(m.labels, "remote_address"):
				ofNode += len(family.GetMetric())
			}
		}
		return left, ofServices, ofServers, ofNode
	}
	_, service, server, node := scrape(1, 1)
	for _, c := range []struct {
		services, servers                   int // servers per service
		left, ofServices, ofServers, ofNode int
	}{
		{1, 1, 0, service, server, node},
		{most, 1, 0, most * service, most * server, most * node},
		{1, most + 1, (most + 1) * (server + node), service, 0, 0},
		{2, 2, 4 * (server + node), 2 * service, 0, 0},
		{most + 1, 0, (most + 1) * service, 0, 0, 0},
	} {
		left, ofServices, ofServers, ofNode := scrape(c.services, c.servers)
		if got := [4]int{left, ofServices, ofServers, ofNode}; got != [4]int{c.left, c.ofServices, c.ofServers, c.ofNode} {
			t.Errorf("%d services of %d: %d series are left out, %d of services, %d of real servers, %d node_ipvs; want %+v",
				c.services, c.servers, left, ofServices, ofServers, ofNode, c)
		}
	}
}

// However many real servers there are, an answer has a size.
func TestScrapeIsBounded(t *testing.T) {
	text := scrapeOnce(t, serverOf(directorOf(10_000, 10), true).MetricsHandler())
	if len(text) > 6<<20 {
		t.Errorf("10,000 services of 10 real servers take %d bytes", len(text))
	}
}

// asText writes a value as the text format does.
func asText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// A scrape is read once from the director, whatever its size, and no more than so
// many are under way.
func TestConcurrentScrapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, goOn := sampleDirector(), make(chan struct{})
		d.reading = func() { <-goOn }
		h := serverOf(d, true).MetricsHandler()
		for range concurrentScrapes {
			go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathMetrics, nil))
		}
		synctest.Wait()
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, api.PathMetrics, nil))
		if answer.Code != http.StatusServiceUnavailable {
			t.Errorf("one more is answered %d", answer.Code)
		}
		close(goOn)
		synctest.Wait()
		scrapeOnce(t, h)
		if got := d.reads.Load(); got != concurrentScrapes+1 {
			t.Errorf("the services were read %d times for %d scrapes", got, concurrentScrapes+1)
		}
	})
}

// BenchmarkScrape is what a scrape costs: of the largest number of real servers
// that have series, and of more.
func BenchmarkScrape(b *testing.B) {
	for _, c := range []struct{ services, servers int }{{10, 10}, {2000, 10}, {10_000, 10}} {
		b.Run(fmt.Sprintf("%dx%d", c.services, c.servers), func(b *testing.B) {
			h := serverOf(directorOf(c.services, c.servers), true).MetricsHandler()
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				answer := httptest.NewRecorder()
				h.ServeHTTP(answer, httptest.NewRequestWithContext(b.Context(), http.MethodGet, api.PathMetrics, nil))
				size = answer.Body.Len()
			}
			b.ReportMetric(float64(size), "text-bytes")
		})
	}
}
