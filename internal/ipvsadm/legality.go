// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"slices"

	"lvx/internal/lvs"
)

// tunnelRules tells what goes with a type of tunnel: port, no checksum,
// checksum, remote checksum, in the characters of legality.
var tunnelRules = map[lvs.TunnelType]string{lvs.IPIP: "....", lvs.GUE: "r111", lvs.GRE: ".11."}

// check tells whether the line as a whole is legal, in ipvsadm's order.
func (l *line) check() error {
	if err := l.checkOptions(); err != nil {
		return err
	}
	switch l.command {
	case list:
		return l.checkList()
	case addService, editService:
		return l.checkService()
	case addServer, editServer:
		return l.checkServer()
	}
	return nil
}

// flagWords are the words of -b.
var flagWords = []string{"flag-1", "flag-2", "flag-3", "sh-fallback", "sh-port", "mh-fallback", "mh-port"}

// checkFlags tells whether the scheduler knows its flags. ipvsadm does so
// before it asks whether there may be any.
func (l *line) checkFlags() error {
	for _, name := range l.flagNames {
		if !slices.Contains(flagWords, name) {
			return wrong("invalid scheduler flag `%s'", name)
		}
		flags, err := lvs.ParseSchedulerFlags(l.scheduler, append(l.flags.Names(), name))
		if err != nil {
			return wrong("incompatible scheduler flag `%s'", name)
		}
		l.flags = flags
	}
	return nil
}

func (l *line) checkOptions() error {
	name := commandNames[l.command]
	one := noOption
	for o := range optionCount {
		legal := rule(o, l.command)
		switch {
		case !l.set[o] && legal == 'r':
			return wrong("You need to supply the '%s' option for the '%s' command", optionNames[o], name)
		case !l.set[o]:
		case legal == '.':
			return wrong("Illegal '%s' option with the '%s' command", optionNames[o], name)
		case legal == '1' && one != noOption:
			return wrong("The option '%s' conflicts with the '%s' option in the '%s' command", optionNames[o], optionNames[one], name)
		case legal == '1':
			one = o
		}
	}
	return nil
}

func (l *line) checkList() error {
	other := l.set[timeout] || l.set[daemon]
	numbers := l.set[stats] || l.set[rate] || l.set[thresholds]
	if (other || l.set[connection]) && numbers || other && l.set[persistentConn] {
		return wrong("options conflicts in the list command")
	}
	return nil
}

func (l *line) checkService() error {
	switch {
	case l.mark == 0 && l.service.Address.Port() == 0 && !l.set[persistent]:
		return wrong("Zero port specified for non-persistent service")
	case l.set[ops] && l.mark == 0 && l.service.Protocol != lvs.UDP:
		return wrong("One-Packet Scheduling is only for UDP virtual services")
	}
	return nil
}

func (l *line) checkServer() error {
	if l.method != 'i' && l.server.Addr().Is4() == l.ipv6 {
		return wrong("Different address family is allowed only for tunneling servers")
	}
	said := []option{tunType, tunPort, tunNoCsum, tunCsum, tunRemCsum}
	if l.method != 'i' && slices.ContainsFunc(said, func(o option) bool { return l.set[o] }) {
		return wrong("Tunnel options conflict with forward method")
	}
	return l.checkTunnel()
}

func (l *line) checkTunnel() error {
	one, name := noOption, l.tunnel.Type
	if l.method != 'i' {
		return nil
	}
	for i, o := range []option{tunPort, tunNoCsum, tunCsum, tunRemCsum} {
		legal := tunnelRules[name][i]
		switch {
		case !l.set[o] && legal == 'r':
			return wrong("You need to supply the '%s' option for the '%s' tunnel type", optionNames[o], name)
		case !l.set[o]:
		case legal == '.':
			return wrong("Illegal '%s' option with the '%s' tunnel type", optionNames[o], name)
		case legal == '1' && one != noOption:
			return wrong("The option '%s' conflicts with the '%s' option in the '%s' tunnel type", optionNames[o], optionNames[one], name)
		case legal == '1':
			one = o
		}
	}
	return nil
}

// unsupported refuses what is legal in ipvsadm but not in this version of lvx:
// better no than accepted and forgotten. It does not end a restore, as a
// refusal of the kernel does not.
func (l *line) unsupported() error {
	known := slices.Contains(lvs.KernelSchedulers(), l.scheduler)
	for _, feature := range []struct {
		asked bool
		name  string
	}{
		{l.service.Protocol == lvs.SCTP, "SCTP (--sctp-service)"},
		{l.set[serviceAddress] && l.mark != 0, "the firewall mark (-f)"},
		{l.set[persistent], "persistence (-p)"},
		{l.set[pe], "the persistence engine (--pe)"},
		{l.set[ops], "one-packet scheduling (-o)"},
		{known && !slices.Contains(lvs.Schedulers(), l.scheduler), "the scheduler " + string(l.scheduler)},
		{l.set[tunRemCsum], "the remote checksum (--tun-remcsum)"},
		{l.threshold, "the connection threshold (-x, -y)"},
		{l.command == startDaemon, "connection synchronisation (--start-daemon)"},
	} {
		if feature.asked {
			return &Error{Message: "lvx: " + feature.name + " is not in this version", Exit: ExitRunTime, Unbuilt: true}
		}
	}
	if l.command == stopDaemon {
		return &Error{Message: "No daemon is running", Exit: ExitRunTime}
	}
	return nil
}
