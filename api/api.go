// SPDX-License-Identifier: Apache-2.0

// Package api is the public contract of the daemon: the requests and answers
// that go over its sockets, their description in openapi.yaml, and a client.
//
// It is not for serving (package server) and not for deciding (package
// director). Everything in it is a value that JSON carries.
package api

import "lvx/internal/lvs"

// The paths of the API, each with the methods it takes and what it answers with.
const (
	PathServices      = "/v1/services"      // GET []lvs.ServiceStatus
	PathRealServers   = "/v1/real-servers"  // GET []RealServer
	PathConnections   = "/v1/connections"   // GET a stream of lvs.Connection, one JSON object a line
	PathNeighbours    = "/v1/neighbours"    // GET []lvs.Neighbour
	PathReasons       = "/v1/reasons"       // GET []lvs.Reason
	PathStatus        = "/v1/status"        // GET lvs.Status
	PathEvents        = "/v1/events"        // GET []lvs.Event, or a stream of server-sent events
	PathHistory       = "/v1/history"       // GET []lvs.HistoryEntry
	PathRevisions     = "/v1/revisions"     // GET []lvs.Revision; with /{revision} one of them
	PathConfiguration = "/v1/configuration" // GET lvs.Configuration; PUT lvs.Configuration → Applied
	PathChanges       = "/v1/changes"       // POST Changes → Applied
	PathPlan          = "/v1/plan"          // POST lvs.Configuration → lvs.Plan
	PathConfirm       = "/v1/confirm"       // POST → Applied
	PathRollback      = "/v1/rollback"      // POST Rollback → Applied
	PathOpenAPI       = "/openapi"          // GET with .yaml or .json: the description of all this
	PathMetrics       = "/metrics"          // GET the text that Prometheus reads
)

// The media types of requests and answers.
const (
	TypeJSON   = "application/json"
	TypeLines  = "application/x-ndjson" // one JSON value a line
	TypeEvents = "text/event-stream"    // server-sent events
	TypeYAML   = "application/yaml"     // of PathOpenAPI
)

// RealServer is one real server of one service.
type RealServer struct {
	Service lvs.ServiceKey `json:"service"`
	lvs.RealServerStatus
}

// What the director tells of itself is the same on both sides of the socket.
type (
	// Status is the daemon at a glance.
	Status = lvs.Status
	// Interface is a network interface that the data plane is attached to.
	Interface = lvs.Interface
	// Usage is how full a table is.
	Usage = lvs.Usage
	// Packets are all packets seen, by verdict.
	Packets = lvs.Packets
	// Warning is something that works less well than the operator may think.
	Warning = lvs.Warning
)
