// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"fmt"
	"strings"
	"testing"
)

// docs/metrics.md is made from the table of metrics: LVX_UPDATE=1 writes it anew.
func TestMetricsDocument(t *testing.T) {
	sameAsFile(t, "../../docs/metrics.md", metricsDocument())
}

// metricsChapters cut the table into those of the document; each begins with a metric.
var metricsChapters = []struct {
	from        metricID
	title, text string
}{
	{buildInfo, "The director", ""},
	{configGeneration, "What was applied", ""},
	{tableEntries, "Tables", ""},
	{packetCount, "Packets", "[reasons.md](reasons.md) explains the reasons. Every reason is there from the start, with 0."},
	{interfaceInfo, "Interfaces", ""},
	{serviceInfo, "Virtual services", "Of each virtual service. The name is on `lvx_service_info` alone, so that a new name is no new counter; " +
		"to have it with another series:\n`lvx_service_connections_total * on (job, instance, protocol, service) group_left (name) lvx_service_info`."},
	{serverReachable, "Real servers", "Of each real server in each virtual service."},
	{nodeConnections, "node_exporter's series", "With `node_ipvs: true`, names, labels and texts are those of node_exporter's `ipvs` collector, so that its dashboards and " +
		"alerts\nwork as they are. Leave it off where node_exporter shows IPVS of the same host to the same Prometheus. `local_mark` is empty;\nthe outgoing " +
		"totals count the answers of nat alone, since with dr and tun they do not pass the director. As in the kernel, the totals keep what a\ndeleted service had counted, until the daemon stops."},
	{metricIDs, "", ""},
}

const metricsPreface = `# Metrics

The daemon shows what it counts in the text format of Prometheus: on the unix socket to whoever may open it, and on a TCP port if the file
(` + "`/etc/lvx/lvx.yaml`" + `) names one:

    metrics: { listen: "192.0.2.10:9380", node_ipvs: false }

    curl --unix-socket /run/lvx/default.sock http://lvx/metrics
    curl http://192.0.2.10:9380/metrics

The port answers ` + "`GET /metrics`" + ` and nothing else, to whoever reaches it: bind it to an address of your management network. At most %d scrapes
run at a time, one more is answered 503; one address has at most %d connections. Each scrape reads the director once, and reads nothing of clients:
no client's address is in any label.

| label | is |
|---|---|
| ` + "`protocol`" + ` | ` + "`tcp` or `udp`" + ` |
| ` + "`service`" + ` | VIP and port, for instance ` + "`192.0.2.1:80` or `[2001:db8::1]:80`" + ` |
| ` + "`real_server`" + ` | address and port of a real server, written alike |
| ` + "`direction`" + ` | ` + "`in`" + `, from clients to real servers; with dr and tun, answers do not pass the director |

A virtual service has %d series and a real server %d in each of its services (%d more with ` + "`node_ipvs`" + `); all others together are about a
hundred. With more than %d virtual services, or real servers, the series of each of them are left out, and ` + "`lvx_series_left_out`" + ` is how many.
Counters of virtual services and real servers begin at 0 with each of them, and after ` + "`ipvsadm --zero`" + `; Prometheus takes that for what it is.

Ready to use: the dashboard [packaging/grafana/lvx.json](../packaging/grafana/lvx.json) and the alerts
[packaging/prometheus/alerts.yaml](../packaging/prometheus/alerts.yaml), which [alerts.md](alerts.md) explains. Both expect the job's name ` + "`lvx`" + `:

    scrape_configs:
      - job_name: lvx
        static_configs: [{ targets: ["192.0.2.10:9380"] }]
`

func metricsDocument() string {
	var b strings.Builder
	fmt.Fprintf(&b, metricsPreface, concurrentScrapes, maxConnections, seriesOfService, seriesOfServer, seriesOfNodeServer, mostObjects)
	for i, chapter := range metricsChapters[:len(metricsChapters)-1] {
		fmt.Fprintf(&b, "\n## %s\n\n", chapter.title)
		if chapter.text != "" {
			fmt.Fprintf(&b, "%s\n\n", chapter.text)
		}
		b.WriteString("| metric | type | labels | unit | what it is |\n|---|---|---|---|---|\n")
		for _, m := range metrics[chapter.from:metricsChapters[i+1].from] {
			labels := "`" + strings.Join(m.labels, "` `") + "`"
			if len(m.labels) == 0 {
				labels = "–"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, kindName(m), labels, cmp.Or(m.unit, "–"), m.help)
		}
	}
	return b.String()
}
