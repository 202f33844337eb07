// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"regexp"
	"slices"

	"lvx/internal/lvs"
)

// maxMHTable is the largest prime below 2^20.
const maxMHTable = 1048573

const (
	addressHelp = `write ADDRESS:PORT, such as 192.168.20.100:80 or "[fd00::100]:80"`
	listenHelp  = `write ADDRESS:PORT, such as 127.0.0.1:9380 or "[::1]:9380"; 0.0.0.0 is all IPv4 addresses, [::] all there are`
)

// These are all keys of the file.
var fileShape = &shape{kind: objectKind, what: "the file", fields: []field{
	{name: "director", about: "The machine itself. Besides timeouts it is read when the daemon starts.", shape: directorShape},
	{name: "services", about: "The virtual services: what clients ask for.", required: true, example: `"services: []" for none`,
		shape: &shape{kind: listKind, item: serviceShape}},
	{name: "vrrp", later: true, about: "give the VIP to this machine, or to another, with a program for it"},
	{name: "api", about: "The API over TCP, beside the unix socket.", shape: apiShape},
	{name: "metrics", about: "Metrics for Prometheus over HTTP.", shape: metricsShape},
}}

var directorShape = &shape{kind: objectKind, what: "director", fields: []field{
	{name: "interfaces", about: "The interfaces on which packets are taken. Default: all Ethernet interfaces.", example: "interfaces: [eth0]",
		shape: &shape{kind: listKind, item: interfaceShape}},
	{name: "xdp", about: "Where the packet program runs: native in the driver, generic behind it, auto in the driver if it can.", fallback: "auto",
		shape: &shape{kind: wordKind, words: []string{"auto", "native", "generic"}}},
	{name: "local_addresses", later: true, about: "they are for fullnat"},
	{name: "capacity", about: "How much the tables hold.", shape: capacityShape},
	{name: "mh_table", about: "The size of mh's lookup tables, a prime. A larger one spreads clients more evenly and takes more memory.", fallback: lvs.DefaultMHTable,
		shape: &shape{kind: integerKind, min: 3, max: maxMHTable}},
	{name: "timeouts", about: "How long a connection is kept that is idle.", shape: timeoutsShape},
}}

var capacityShape = &shape{kind: objectKind, what: "director.capacity", fields: []field{
	{name: "connections", about: "Connections at a time, so many of IPv4 and as many of IPv6; room for one of each takes 96 bytes, used or not.", fallback: 1000000,
		shape: &shape{kind: integerKind, min: 1, max: lvs.MaxConnections}},
	{name: "services", about: "Virtual services.", fallback: lvs.DefaultServices, shape: &shape{kind: integerKind, min: 1, max: lvs.MaxServices}},
	{name: "real_servers", about: "Real servers. One counts once per service, and as long as it has connections.", fallback: lvs.DefaultRealServers,
		shape: &shape{kind: integerKind, min: 1, max: lvs.MaxRealServers}},
}}

var timeoutsShape = &shape{kind: objectKind, what: "director.timeouts", fields: []field{
	{name: "tcp", about: "Of a TCP connection in which nothing is sent.", fallback: "15m", shape: &shape{kind: durationKind}},
	{name: "tcp_fin", about: "Of a TCP connection that one side has closed.", fallback: "2m", shape: &shape{kind: durationKind}},
	{name: "udp", about: "Of a UDP client that sends nothing.", fallback: "5m", shape: &shape{kind: durationKind}},
}}

var serviceShape = &shape{kind: objectKind, what: "a service", fields: []field{
	{name: "name", about: "A name of your own: 1 to 63 letters, digits or . _ -", example: "name: web", shape: nameShape},
	{name: "address", about: "VIP and port.", required: true, example: `"address: 192.168.20.100:80"`, shape: addressShape},
	{name: "mark", later: true, about: "name the VIP and the port with address"},
	{name: "protocol", about: "The protocol.", required: true, example: `"protocol: tcp" or "protocol: udp"`,
		shape: &shape{kind: wordKind, words: []string{"tcp", "udp"}, later: []string{"sctp"}}},
	{name: "scheduler", about: "Which real server gets a new connection. The default is ipvsadm's.", fallback: string(lvs.WLC), shape: schedulerShape()},
	{name: "scheduler_flags", about: "Flags of the scheduler: -port looks at the client's port as well, -fallback gives clients of a real server with weight 0 another.",
		example: "scheduler_flags: [mh-port]", fallback: []string{},
		shape: &shape{kind: listKind, item: &shape{kind: wordKind, words: []string{"sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3"}}}},
	{name: "persistence", later: true, about: "the schedulers sh and mh keep a client on its real server"},
	{name: "one_packet", later: true, about: "a short director.timeouts.udp comes near to it"},
	{name: "method", about: "How packets reach the real servers, unless one says otherwise.", fallback: string(lvs.DR), shape: methodShape},
	{name: "check", later: true, about: "a weight of 0 takes a real server out"},
	{name: "sorry_server", later: true, about: "no other server answers in place of those with weight 0"},
	{name: "real_servers", about: "The real servers, in the order in which equal ones are tried.", required: true, example: `"real_servers: []" for none`,
		shape: &shape{kind: listKind, item: serverShape}},
}}

var serverShape = &shape{kind: objectKind, what: "a real server", fields: []field{
	{name: "address", about: "Address and port. The port is the service's; with nat it may be another. The family is the VIP's; with tun it may be the other.", required: true, example: `"address: 192.168.20.11:80"`, shape: addressShape},
	{name: "weight", about: "The share of new connections; 0 gives none, and those that there are stay.", fallback: 1,
		shape: &shape{kind: integerKind, min: 0, max: lvs.MaxWeight}},
	{name: "method", about: "How packets reach it. Default: the service's method.", shape: methodShape},
	{name: "tunnel", about: "What packets are put into, if the method is tun. Default: ipip.", shape: tunnelShape},
	{name: "upper", later: true, about: "a smaller weight gives a real server fewer connections"},
	{name: "lower", later: true, about: "a smaller weight gives a real server fewer connections"},
}}

var tunnelShape = &shape{kind: objectKind, what: "a tunnel", fields: []field{
	{name: "type", about: "IP in IP, generic UDP encapsulation, or GRE.", fallback: string(lvs.IPIP), shape: &shape{kind: wordKind, words: namesOf(lvs.TunnelTypes())}},
	{name: "port", about: "The UDP port at which the real server takes gue, which needs one. Other types have none.", example: "port: 6080",
		shape: &shape{kind: integerKind, min: 1, max: math.MaxUint16}},
	{name: "checksum", about: "csum: gue and gre carry a checksum over the packet. Default: none.",
		shape: &shape{kind: wordKind, words: []string{string(lvs.HeaderChecksum)}, later: []string{string(lvs.RemoteChecksum)}}},
}}

var apiShape = &shape{kind: objectKind, what: "api", fields: []field{
	{name: "listen", about: "ADDRESS:PORT for the API with certificates on both sides; empty: the unix socket alone.", fallback: "", example: `listen: "192.168.20.1:8443"`, shape: listenShape},
	{name: "tls", about: "The PEM files, all three of them.", shape: &shape{kind: objectKind, what: "api.tls", fields: []field{
		{name: "cert", about: "The daemon's certificate.", fallback: "", example: "cert: /etc/lvx/cert.pem", shape: pathShape},
		{name: "key", about: "Its key.", fallback: "", example: "key: /etc/lvx/key.pem", shape: pathShape},
		{name: "client_ca", about: "Who signs the clients' certificates.", fallback: "", example: "client_ca: /etc/lvx/clients.pem", shape: pathShape},
	}}},
}}

var metricsShape = &shape{kind: objectKind, what: "metrics", fields: []field{
	{name: "listen", about: "ADDRESS:PORT for metrics over plain HTTP; empty: the unix socket alone.", fallback: "", example: "listen: 127.0.0.1:9380", shape: listenShape},
	{name: "node_ipvs", about: "Serve the series of node_exporter's ipvs collector as well, under its names.", fallback: false, shape: &shape{kind: booleanKind}},
}}

var (
	addressShape   = &shape{kind: textKind, help: addressHelp}
	listenShape    = &shape{kind: textKind, help: listenHelp}
	nameShape      = &shape{kind: textKind, pattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`), code: codeName, message: "%s %q is not 1 to 63 letters, digits or . _ -, the first a letter or digit"}
	pathShape      = &shape{kind: textKind, pattern: regexp.MustCompile(`^(/[^\x00-\x1f\x7f]*)?$`), code: codePath, message: "%s: %q is not an absolute path", help: "begin it with /"}
	interfaceShape = &shape{kind: textKind, pattern: regexp.MustCompile(`^[!-.0-9;-~]{1,15}$`), code: codeInterface, message: "%s: %q cannot be the name of an interface", help: "names have up to 15 characters; list them with: ip link"}
	methodShape    = &shape{kind: wordKind, words: namesOf(lvs.Methods()), later: namesOf(lvs.LaterMethods())}
)

func namesOf[T ~string](list []T) []string {
	names := make([]string, len(list))
	for i, name := range list {
		names[i] = string(name)
	}
	return names
}

func schedulerShape() *shape {
	s := &shape{kind: wordKind}
	for _, name := range lvs.KernelSchedulers() {
		if slices.Contains(lvs.Schedulers(), name) {
			s.words = append(s.words, string(name))
		} else {
			s.later = append(s.later, string(name))
		}
	}
	return s
}
