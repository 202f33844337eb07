// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// line is a command line as far as it was read. Values are checked one by one
// while reading, in the order of the words, and together in check.
type line struct {
	names   Names
	command command
	set     [optionCount]bool

	service   lvs.ServiceKey
	mark      uint32
	ipv6      bool // the service is IPv6, by its address or by -6
	scheduler lvs.Scheduler
	flagNames []string // as said
	flags     lvs.SchedulerFlags

	server     netip.AddrPort
	serverPort bool // -r said a port
	method     byte // g, m or i
	weight     uint32
	threshold  bool       // -x or -y is above 0
	tunnel     lvs.Tunnel // if the method is i
	timeouts   lvs.Timeouts
}

// The largest numbers of ipvsadm: a C int, and 31 days.
const (
	maxInt     = 1<<31 - 1
	maxMark    = 1<<32 - 1
	maxTimeout = int64(lvs.MaxTimeout / time.Second)
)

func newLine(names Names) *line {
	return &line{names: names, scheduler: lvs.WLC, method: 'g', weight: 1, tunnel: lvs.Tunnel{Type: lvs.IPIP}}
}

// wrong is a mistake in the line: it ends a restore.
func wrong(format string, a ...any) error {
	return &Error{Message: fmt.Sprintf(format, a...), Exit: ExitUsage, EndsRestore: true}
}

func tryHelp() error {
	return &Error{
		Message: "Try `ipvsadm -h' or 'ipvsadm --help' for more information.",
		Exit:    ExitRunTime, EndsRestore: true,
	}
}

// read takes the words up to where ipvsadm begins to look at the whole.
func (l *line) read(args []string) error {
	w := &words{args: args}
	if err := l.readCommand(w); err != nil || l.command == help || l.command == version {
		return err
	}
	for {
		f, err := w.option()
		if err != nil {
			return err
		}
		if f == nil {
			break
		}
		if f.command != noCommand {
			return wrong("invalid option `%s'", w.word())
		}
		if err := l.take(f); err != nil {
			return err
		}
	}
	if err := l.readRest(w.rest); err != nil {
		return err
	}
	return l.checkFlags()
}

// readCommand takes the first option, which has to be a command.
func (l *line) readCommand(w *words) error {
	f, err := w.option()
	if err != nil || f == nil || f.command == noCommand {
		return tryHelp()
	}
	l.command = f.command
	if f.argument == required && f.value != "master" && f.value != "backup" {
		if f.command == stopDaemon {
			return wrong("illegal start_daemon specified")
		}
		return wrong("illegal start-daemon parameter specified")
	}
	return nil
}

func (l *line) take(f *found) error {
	if f.option != noOption {
		if l.set[f.option] {
			return wrong("multiple '%s' options specified", optionNames[f.option])
		}
		l.set[f.option] = true
	}
	if f.take == nil {
		return nil
	}
	return f.take(l, f)
}

// readRest takes the words that are no options: only --set has any.
func (l *line) readRest(rest []string) error {
	if l.command == setTimeouts {
		if len(rest) < 3 {
			return wrong("--set option requires 3 timeout values")
		}
		for i, into := range []*lvs.Duration{&l.timeouts.TCP, &l.timeouts.TCPFin, &l.timeouts.UDP} {
			seconds, ok := number(rest[i], 0, maxTimeout)
			if !ok {
				return wrong("invalid timeout value `%s' specified", rest[i])
			}
			*into = lvs.Duration(time.Duration(seconds) * time.Second)
		}
		rest = rest[3:]
	}
	if len(rest) > 0 {
		return wrong("unexpected argument %s", rest[0])
	}
	return nil
}

func (l *line) takeTCP(f *found) error  { return l.takeService(lvs.TCP, f.value) }
func (l *line) takeUDP(f *found) error  { return l.takeService(lvs.UDP, f.value) }
func (l *line) takeSCTP(f *found) error { return l.takeService(lvs.SCTP, f.value) }

func (l *line) takeService(protocol lvs.Protocol, text string) error {
	l.service.Protocol = protocol
	address, _, ok := l.names.address(protocol, text)
	if !ok {
		return wrong("illegal virtual server address[:port] specified")
	}
	l.service.Address, l.ipv6 = address, !address.Addr().Is4()
	return nil
}

func (l *line) takeMark(f *found) error {
	mark, ok := number(f.value, 1, maxMark)
	if !ok {
		return wrong("invalid fwmark value `%s' specified", f.value)
	}
	l.service.Protocol, l.mark = lvs.TCP, uint32(mark) // as in ipvsadm, for names of ports
	return nil
}

func (l *line) takeIPv6(*found) error {
	if l.mark == 0 {
		return wrong("-6 used before -f\n")
	}
	l.ipv6 = true
	return nil
}

func (l *line) takeScheduler(f *found) error {
	if f.value != "" { // as if it were not said
		l.scheduler = lvs.Scheduler(f.value)
	}
	return nil
}

func (l *line) takePersistent(f *found) error {
	if _, ok := number(f.value, 1, maxTimeout); f.given && !ok {
		return wrong("invalid timeout value `%s' specified", f.value)
	}
	return nil
}

// takeNetmask checks a mask by the family of the service named so far. Without
// persistence, which is refused elsewhere, a mask means nothing to the kernel
// either.
func (l *line) takeNetmask(f *found) error {
	if l.ipv6 {
		if n := leadingNumber(f.value); n < 1 || n > 128 {
			return wrong("illegal ipv6 netmask specified")
		}
		return nil
	}
	if _, ok := l.names.ipv4(f.value); !ok {
		return wrong("illegal virtual server persistent mask specified")
	}
	return nil
}

func (l *line) takeRealServer(f *found) error {
	var ok bool
	l.server, l.serverPort, ok = l.names.address(l.service.Protocol, f.value)
	if !ok {
		return wrong("illegal real server address[:port] specified")
	}
	return nil
}

func (l *line) takeMethod(f *found) error {
	l.method = f.short
	return nil
}

func (l *line) takeWeight(f *found) error {
	n, ok := number(f.value, 0, lvs.MaxWeight)
	if !ok {
		return wrong("illegal weight specified")
	}
	l.weight = uint32(n)
	return nil
}

func (l *line) takeThreshold(f *found) error {
	n, ok := number(f.value, 0, maxInt)
	if !ok {
		return wrong("illegal %s specified", strings.ReplaceAll(f.long, "-", "_"))
	}
	l.threshold = l.threshold || n > 0
	return nil
}

func (l *line) takeTunnelType(f *found) error {
	if _, ok := tunnelRules[lvs.TunnelType(f.value)]; !ok {
		return wrong("illegal tunnel type specified")
	}
	l.tunnel.Type = lvs.TunnelType(f.value)
	return nil
}

func (l *line) takeTunnelPort(f *found) error {
	n, ok := number(f.value, 1, math.MaxUint16)
	if !ok {
		return wrong("illegal tunnel port specified")
	}
	l.tunnel.Port = uint16(n)
	return nil
}

func (l *line) takeTunnelChecksum(f *found) error {
	l.tunnel.Checksum = lvs.TunnelChecksum(strings.TrimPrefix(f.long, "tun-"))
	return nil
}

func (l *line) takeFlags(f *found) error {
	l.flagNames = strings.FieldsFunc(f.value, func(r rune) bool { return r == ',' })
	return nil
}

func (l *line) takeGroup(f *found) error {
	family := "IPv4"
	if strings.Contains(f.value, ":") {
		family = "IPv6"
	}
	a, err := netip.ParseAddr(f.value)
	if err != nil || !a.IsMulticast() || a.Zone() != "" {
		return wrong("invalid %s mcast-group `%s'", family, f.value)
	}
	return nil
}

// bounded makes the take of an option whose number matters to nothing but its
// own legality.
func bounded(low, high int64, message string) func(*line, *found) error {
	return func(_ *line, f *found) error {
		if _, ok := number(f.value, low, high); !ok {
			return wrong("%s", message)
		}
		return nil
	}
}
