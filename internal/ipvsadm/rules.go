// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"lvx/internal/lvs"
)

// PrintRules prints the services as the command lines that would make them:
// the save format. It returns w's error.
func (l List) PrintRules(w io.Writer, services []lvs.ServiceStatus, names Names) error {
	out := bufio.NewWriter(w)
	for _, s := range l.order(services) {
		name := serviceOption(s.Protocol) + " " + names.format(s.Protocol, s.Address, l.Numeric)
		fmt.Fprintf(out, "-A %s -s %s%s\n", name, s.Scheduler, flagsOption(s.Flags))
		for _, r := range s.RealServers {
			fmt.Fprintf(out, "-a %s -r %s %s\n", name, names.format(s.Protocol, r.Address, l.Numeric), serverOptions(r.RealServer))
		}
	}
	return out.Flush()
}

func serviceOption(p lvs.Protocol) string {
	switch p {
	case lvs.UDP:
		return "-u"
	case lvs.SCTP:
		return "--sctp-service"
	}
	return "-t"
}

func flagsOption(f lvs.SchedulerFlags) string {
	if f == "" {
		return ""
	}
	return " -b " + string(f)
}

// serverOptions returns what a rule says of a real server besides its address.
func serverOptions(r lvs.RealServer) string {
	switch r.Method {
	case lvs.NAT:
		return fmt.Sprintf("-m -w %d", r.Weight)
	case lvs.Tun:
		return fmt.Sprintf("-i -w %d%s", r.Weight, tunnelOptions(r.Tunnel))
	}
	return fmt.Sprintf("-g -w %d", r.Weight)
}

// tunnelOptions say everything, also what goes without saying.
func tunnelOptions(t lvs.Tunnel) string {
	options := " --tun-type " + string(t.Type)
	if t.Port != 0 {
		options += fmt.Sprintf(" --tun-port %d", t.Port)
	}
	switch {
	case t.Checksum != lvs.NoChecksum:
		options += " --tun-" + string(t.Checksum)
	case t.Type != lvs.IPIP:
		options += " --tun-nocsum"
	}
	return options
}

// maxRule bounds a line of a Script, in bytes.
const maxRule = 1 << 20

// Script reads command lines for -R, one a line.
type Script struct {
	lines *bufio.Scanner
	names Names
	line  int
}

// Line returns the number of the line that Next read last, from 1.
func (s *Script) Line() int { return s.line }

// NewScript returns a script that reads from in.
func NewScript(in io.Reader, names Names) *Script {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxRule)
	return &Script{lines: lines, names: names}
}

// Next returns the next command, or io.EOF. An *Error is of one line; it says
// whether the script ends there. Any other error is of reading and ends it.
func (s *Script) Next() (*Command, error) {
	for s.lines.Scan() {
		s.line++
		if args := split(s.lines.Text()); len(args) > 0 {
			return parse(args, s.names, true)
		}
	}
	if err := s.lines.Err(); err != nil {
		s.line++
		return nil, fmt.Errorf("read rules: %w", err)
	}
	return nil, io.EOF
}

// split cuts a line into words as ipvsadm does: at blanks alone, for there is
// no quoting. The program's own name says nothing, wherever it is.
func split(line string) []string {
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
	for i, word := range words {
		words[i], _, _ = strings.Cut(word, "\x00") // where a C string ends
	}
	return slices.DeleteFunc(words, func(word string) bool { return word == "ipvsadm" })
}
