// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is a family of series: what it is called and what it means.
// docs/metrics.md is made from the table below.
type metric struct {
	name   string
	kind   prometheus.ValueType
	unit   string   // of the value, for the document
	labels []string // in the order in which the collector gives their values
	help   string   // one sentence
}

// metricID names a row of the table.
type metricID int

// The metrics, in the order of the document. node* are those of node_exporter.
const (
	buildInfo metricID = iota
	startTime
	scrapeDuration
	scrapeSuccess
	seriesLeftOut
	warningCount
	eventCount

	configGeneration
	configUnconfirmed
	configDeadline
	configSuccess
	configTime

	tableEntries
	tableCapacity

	packetCount

	interfaceInfo
	interfaceLost

	serviceInfo
	serviceServers
	serviceUsable
	serviceConnections
	servicePackets
	serviceBytes

	serverReachable
	serverWeight
	serverConnections
	serverNewConnections
	serverPackets
	serverBytes

	nodeConnections
	nodeInPackets
	nodeOutPackets
	nodeInBytes
	nodeOutBytes
	nodeActive
	nodeInactive
	nodeWeight

	metricIDs
)

// The labels of one service and of one real server in it. A direction is always
// "in", from clients to real servers: with dr, answers do not pass the director.
var (
	serviceLabels = []string{"protocol", "service"}
	serverLabels  = []string{"protocol", "service", "real_server"}
	nodeLabels    = []string{"local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark"}
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// metrics says what each metric is. A counter and a gauge may not differ in the
// ending _total alone: OpenMetrics takes it off.
var metrics = [metricIDs]metric{
	buildInfo:      {"lvx_build_info", gauge, "", []string{"version", "goversion", "lvx_instance"}, "Always 1: which lvx answers, for which instance."},
	startTime:      {"lvx_start_time_seconds", gauge, "seconds since 1970", nil, "When the daemon started. The data plane may be older: it outlives the daemon."},
	scrapeDuration: {"lvx_scrape_duration_seconds", gauge, "seconds", nil, "How long it took to read the director for this scrape."},
	scrapeSuccess:  {"lvx_scrape_success", gauge, "0 or 1", []string{"part"}, "Whether a part of the director (status, reasons, services) could be read; with 0 the series made of it are missing."},
	seriesLeftOut:  {"lvx_series_left_out", gauge, "series", nil, "Series that are not here because there are more than 20000 services or real servers; 0 if all are."},
	warningCount:   {"lvx_warnings", gauge, "warnings", nil, "Things that work less well than the operator may think; lvx status lists them."},
	eventCount:     {"lvx_events_total", counter, "events", []string{"type"}, "What happened since the daemon started, by the types of lvx events."},

	configGeneration:  {"lvx_config_generation", gauge, "changes", nil, "Changes of the tables ever made, also before the daemon's start."},
	configUnconfirmed: {"lvx_config_unconfirmed", gauge, "0 or 1", nil, "Whether an apply waits to be confirmed."},
	configDeadline:    {"lvx_config_unconfirmed_deadline_timestamp_seconds", gauge, "seconds since 1970", nil, "When the apply that waits goes back by itself; missing if none waits."},
	configSuccess:     {"lvx_config_last_apply_success", gauge, "0 or 1", nil, "Whether the last change that was asked for, by file, command or API, was made (1) or refused (0); missing if there was none since the daemon started."},
	configTime:        {"lvx_config_last_apply_timestamp_seconds", gauge, "seconds since 1970", nil, "When the last change was asked for; missing if there was none since the daemon started."},

	tableEntries:  {"lvx_table_entries", gauge, "entries", []string{"table"}, "Entries of a table: connections (of IPv4 and IPv6 together), services or real_servers."},
	tableCapacity: {"lvx_table_capacity", gauge, "entries", []string{"table"}, "How many entries a table has room for; of connections so many of each of IPv4 and IPv6."},

	packetCount: {"lvx_packets_total", counter, "packets", []string{"reason", "verdict"}, "Packets by why they left the data plane (reason) and what became of them (forwarded, passed, dropped)."},

	interfaceInfo: {"lvx_interface_info", gauge, "", []string{"interface", "mode"}, "Always 1: an interface that the data plane is attached to, and its XDP mode (native or generic)."},
	interfaceLost: {"lvx_interface_lost_after_verdict_packets_total", counter, "packets", []string{"interface"}, "Packets that were forwarded and then lost by the driver, where the driver counts them."},

	serviceInfo:        {"lvx_service_info", gauge, "", []string{"protocol", "service", "name", "scheduler"}, "Always 1: the name that the operator gave a service, and its scheduler."},
	serviceServers:     {"lvx_service_real_servers", gauge, "real servers", serviceLabels, "Real servers of a service."},
	serviceUsable:      {"lvx_service_usable_real_servers", gauge, "real servers", serviceLabels, "Real servers of a service that can get new connections: reachable and with a weight above 0."},
	serviceConnections: {"lvx_service_connections_total", counter, "connections", serviceLabels, "Connections that clients opened to a service."},
	servicePackets:     {"lvx_service_packets_total", counter, "packets", andLabel(serviceLabels, "direction"), "Packets forwarded for a service."},
	serviceBytes:       {"lvx_service_bytes_total", counter, "bytes", andLabel(serviceLabels, "direction"), "Bytes of the IP packets forwarded for a service."},

	serverReachable:      {"lvx_real_server_reachable", gauge, "0 or 1", serverLabels, "Whether frames can be sent to a real server: its MAC address is known, or that of the router before it, if its method crosses routers. It says nothing of the program on it."},
	serverWeight:         {"lvx_real_server_weight", gauge, "shares", serverLabels, "A real server's share of new connections; 0 gives it none."},
	serverConnections:    {"lvx_real_server_connections", gauge, "connections", andLabel(serverLabels, "state"), "Connections that a real server has now, active and inactive as ipvsadm counts them."},
	serverNewConnections: {"lvx_real_server_new_connections_total", counter, "connections", serverLabels, "Connections that were given to a real server."},
	serverPackets:        {"lvx_real_server_packets_total", counter, "packets", andLabel(serverLabels, "direction"), "Packets forwarded to a real server."},
	serverBytes:          {"lvx_real_server_bytes_total", counter, "bytes", andLabel(serverLabels, "direction"), "Bytes of the IP packets forwarded to a real server."},

	// Names, labels and texts are node_exporter's (collector/ipvs_linux.go), so
	// that its dashboards and alerts work as they are.
	nodeConnections: {"node_ipvs_connections_total", counter, "connections", nil, "The total number of connections made."},
	nodeInPackets:   {"node_ipvs_incoming_packets_total", counter, "packets", nil, "The total number of incoming packets."},
	nodeOutPackets:  {"node_ipvs_outgoing_packets_total", counter, "packets", nil, "The total number of outgoing packets."},
	nodeInBytes:     {"node_ipvs_incoming_bytes_total", counter, "bytes", nil, "The total amount of incoming data."},
	nodeOutBytes:    {"node_ipvs_outgoing_bytes_total", counter, "bytes", nil, "The total amount of outgoing data."},
	nodeActive:      {"node_ipvs_backend_connections_active", gauge, "connections", nodeLabels, "The current active connections by local and remote address."},
	nodeInactive:    {"node_ipvs_backend_connections_inactive", gauge, "connections", nodeLabels, "The current inactive connections by local and remote address."},
	nodeWeight:      {"node_ipvs_backend_weight", gauge, "shares", nodeLabels, "The current backend weight by local and remote address."},
}

// andLabel returns the labels and one more.
func andLabel(labels []string, more string) []string { return append(slices.Clone(labels), more) }

// describe makes what the client library wants to know of each metric.
func describe() (descs [metricIDs]*prometheus.Desc) {
	for id, m := range metrics {
		descs[id] = prometheus.NewDesc(m.name, m.help, m.labels, nil)
	}
	return descs
}
