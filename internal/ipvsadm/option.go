// SPDX-License-Identifier: Apache-2.0

package ipvsadm

// command is what a line does. The order is that of the columns of legality.
type command int

const (
	noCommand command = iota
	addService
	editService
	deleteService
	flush
	list
	addServer
	deleteServer
	editServer
	setTimeouts
	startDaemon
	stopDaemon
	restore
	save
	zero
	help
	version
)

// commandNames are the names inside messages.
var commandNames = [...]string{
	"", "add-service", "edit-service", "delete-service", "flush", "list", "add-server", "delete-server",
	"edit-server", "set", "start-daemon", "stop-daemon", "restore", "save", "zero",
}

// option is a thing that a line can say once. The order is that in which
// ipvsadm checks them, lvx's own last.
type option int

const (
	numeric option = iota
	connection
	serviceAddress
	scheduler
	persistent
	netmask
	realServer
	forwardingMethod
	weight
	uThreshold
	lThreshold
	mcastInterface
	timeout
	daemon
	stats
	rate
	thresholds
	persistentConn
	noSort
	syncID
	exact
	ops
	pe
	schedFlags
	mcastGroup
	mcastPort
	mcastTTL
	syncMaxLen
	tunInfo
	tunType
	tunPort
	tunNoCsum
	tunCsum
	tunRemCsum
	asJSON
	dryRun
	atomic
	optionCount
	noOption // may be said more than once: -6, --sort
)

// optionNames are the names inside messages.
var optionNames = [optionCount]string{
	"numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server",
	"forwarding-method", "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon",
	"stats", "rate", "thresholds", "persistent-conn", "nosort", "syncid", "exact", "ops", "pe",
	"sched-flags", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen", "tun-info", "tun-type",
	"tun-port", "tun-nocsum", "tun-csum", "tun-remcsum", "json", "dry-run", "atomic",
}

// legality tells which option goes with which command: r required, o optional,
// 1 at most one of the 1s, a dot illegal.
var legality = [optionCount]string{
	//                AEDCLade---RSZ    (the dashes are --set, --start-daemon, --stop-daemon)
	numeric:          "....o.......o.",
	connection:       "....1.........",
	serviceAddress:   "rrr.1rrr.....o",
	scheduler:        "oo............",
	persistent:       "oo............",
	netmask:          "oo............",
	realServer:       ".....rrr......",
	forwardingMethod: ".....o.o......",
	weight:           ".....o.o......",
	uThreshold:       ".....o.o......",
	lThreshold:       ".....o.o......",
	mcastInterface:   ".........o....",
	timeout:          "....1.........",
	daemon:           "....1.........",
	stats:            "....o.........",
	rate:             "....o.........",
	thresholds:       "....o.........",
	persistentConn:   "....o.........",
	noSort:           "....o.........",
	syncID:           "....o....oo...",
	exact:            "....o.........",
	ops:              "oo............",
	pe:               "oo............",
	schedFlags:       "oo............",
	mcastGroup:       ".........o....",
	mcastPort:        ".........o....",
	mcastTTL:         ".........o....",
	syncMaxLen:       ".........o....",
	tunInfo:          "....o.........",
	tunType:          ".....o.o......",
	tunPort:          ".....o.o......",
	tunNoCsum:        ".....o.o......",
	tunCsum:          ".....o.o......",
	tunRemCsum:       ".....o.o......",
	asJSON:           "....o.........",
	dryRun:           "oooo.oooo..o..",
	atomic:           "...........o..",
}

// entry is one word of the command line's vocabulary.
type entry struct {
	long     string
	short    byte // 0 if there is none
	argument argument
	command  command // what it does, if it is no option
	option   option
	// take reads the value; nil if being there says everything.
	take func(l *line, f *found) error
}

var vocabulary = []entry{
	{long: "add-service", short: 'A', command: addService},
	{long: "edit-service", short: 'E', command: editService},
	{long: "delete-service", short: 'D', command: deleteService},
	{long: "clear", short: 'C', command: flush},
	{long: "list", short: 'L', command: list},
	{long: "list", short: 'l', command: list},
	{long: "zero", short: 'Z', command: zero},
	{long: "add-server", short: 'a', command: addServer},
	{long: "edit-server", short: 'e', command: editServer},
	{long: "delete-server", short: 'd', command: deleteServer},
	{long: "set", command: setTimeouts},
	{long: "help", short: 'h', command: help},
	{long: "version", short: 'v', command: version},
	{long: "restore", short: 'R', command: restore},
	{long: "save", short: 'S', command: save},
	{long: "start-daemon", argument: required, command: startDaemon},
	{long: "stop-daemon", argument: required, command: stopDaemon},

	{long: "tcp-service", short: 't', argument: required, option: serviceAddress, take: (*line).takeTCP},
	{long: "udp-service", short: 'u', argument: required, option: serviceAddress, take: (*line).takeUDP},
	{long: "sctp-service", argument: required, option: serviceAddress, take: (*line).takeSCTP},
	{long: "fwmark-service", short: 'f', argument: required, option: serviceAddress, take: (*line).takeMark},
	{long: "ipv6", short: '6', option: noOption, take: (*line).takeIPv6},
	{long: "scheduler", short: 's', argument: required, option: scheduler, take: (*line).takeScheduler},
	{long: "persistent", short: 'p', argument: optional, option: persistent, take: (*line).takePersistent},
	{long: "netmask", short: 'M', argument: required, option: netmask, take: (*line).takeNetmask},
	{long: "real-server", short: 'r', argument: required, option: realServer, take: (*line).takeRealServer},
	{long: "gatewaying", short: 'g', option: forwardingMethod, take: (*line).takeMethod},
	{long: "masquerading", short: 'm', option: forwardingMethod, take: (*line).takeMethod},
	{long: "ipip", short: 'i', option: forwardingMethod, take: (*line).takeMethod},
	{long: "weight", short: 'w', argument: required, option: weight, take: (*line).takeWeight},
	{long: "u-threshold", short: 'x', argument: required, option: uThreshold, take: (*line).takeThreshold},
	{long: "l-threshold", short: 'y', argument: required, option: lThreshold, take: (*line).takeThreshold},
	{long: "tun-type", argument: required, option: tunType, take: (*line).takeTunnelType},
	{long: "tun-port", argument: required, option: tunPort, take: (*line).takeTunnelPort},
	{long: "tun-nocsum", option: tunNoCsum},
	{long: "tun-csum", option: tunCsum, take: (*line).takeTunnelChecksum},
	{long: "tun-remcsum", option: tunRemCsum, take: (*line).takeTunnelChecksum},
	{long: "numeric", short: 'n', option: numeric},
	{long: "connection", short: 'c', option: connection},
	{long: "timeout", option: timeout},
	{long: "daemon", option: daemon},
	{long: "stats", option: stats},
	{long: "rate", option: rate},
	{long: "thresholds", option: thresholds},
	{long: "persistent-conn", option: persistentConn},
	{long: "tun-info", option: tunInfo},
	{long: "nosort", option: noSort},
	{long: "sort", option: noOption},
	{long: "exact", short: 'X', option: exact},
	{long: "ops", short: 'o', option: ops},
	{long: "pe", argument: required, option: pe},
	{long: "sched-flags", short: 'b', argument: required, option: schedFlags, take: (*line).takeFlags},
	{long: "syncid", argument: required, option: syncID, take: bounded(0, 255, "illegal syncid specified")},
	{long: "sync-maxlen", argument: required, option: syncMaxLen, take: bounded(1, 65507, "illegal sync-maxlen specified")},
	{long: "mcast-interface", argument: required, option: mcastInterface},
	{long: "mcast-group", argument: required, option: mcastGroup, take: (*line).takeGroup},
	{long: "mcast-port", argument: required, option: mcastPort, take: bounded(1, 65535, "illegal mcast-port specified")},
	{long: "mcast-ttl", argument: required, option: mcastTTL, take: bounded(1, 255, "illegal mcast-ttl specified")},

	// lvx's own.
	{long: "json", option: asJSON},
	{long: "dry-run", option: dryRun},
	{long: "atomic", option: atomic},
}

// rule returns the character of legality for an option with a command.
func rule(o option, c command) byte { return legality[o][c-addService] }

func longEntry(name string) *entry {
	for i := range vocabulary {
		if vocabulary[i].long == name {
			return &vocabulary[i]
		}
	}
	return nil
}

func shortEntry(letter byte) *entry {
	for i := range vocabulary {
		if vocabulary[i].short == letter && letter != 0 {
			return &vocabulary[i]
		}
	}
	return nil
}
