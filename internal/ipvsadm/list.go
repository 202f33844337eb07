// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"lvx/internal/lvs"
)

// List is how to print. If several tables of columns are asked for, the first
// in the order of the fields is printed, as ipvsadm does.
type List struct {
	// Service is the one service to print; all if it is zero.
	Service lvs.ServiceKey
	Numeric bool // addresses and ports as numbers
	Exact   bool // numbers of Stats and Rate in full
	NoSort  bool // services and real servers in the order they come in
	JSON    bool // lvx's own: an array of objects, where the columns do not matter

	Stats, Rate, Thresholds, PersistentConn, TunInfo bool
}

const firstLine = "IP Virtual Server version 1.2.1 (size=4096)\n"

// nameWidth is the room for an address in a listing. ipvsadm cuts off what is
// longer, so that the columns stay where they are.
const nameWidth = 28

var protocolNames = map[lvs.Protocol]string{lvs.TCP: "TCP", lvs.UDP: "UDP", lvs.SCTP: "SCTP"}

// Pick returns the services to print in the order in which to print them. If
// l.Service is none of them it returns an *Error.
func (l List) Pick(services []lvs.ServiceStatus) ([]lvs.ServiceStatus, error) {
	if l.Service == (lvs.ServiceKey{}) {
		return l.order(services), nil
	}
	at := slices.IndexFunc(services, func(s lvs.ServiceStatus) bool { return s.ServiceKey == l.Service })
	if at < 0 {
		return nil, &Error{Message: noSuchService, Exit: ExitNotFound, EndsRestore: true}
	}
	return l.order(services[at : at+1]), nil
}

// PrintServices prints services and their real servers. If l.Service is none of
// them it prints nothing and returns an *Error. Other errors are w's.
func (l List) PrintServices(w io.Writer, services []lvs.ServiceStatus, names Names) error {
	services, err := l.Pick(services)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(w)
	if l.Service == (lvs.ServiceKey{}) {
		fmt.Fprint(out, firstLine)
	}
	fmt.Fprint(out, l.header())
	for _, s := range services {
		l.printService(out, s, names)
	}
	return out.Flush()
}

// order returns the services as they are to be printed: by family, protocol
// and address, the real servers by address.
func (l List) order(services []lvs.ServiceStatus) []lvs.ServiceStatus {
	if l.NoSort {
		return services
	}
	services = slices.Clone(services)
	for i := range services {
		services[i].RealServers = slices.Clone(services[i].RealServers)
		slices.SortFunc(services[i].RealServers, func(a, b lvs.RealServerStatus) int {
			return a.Address.Compare(b.Address)
		})
	}
	slices.SortFunc(services, func(a, b lvs.ServiceStatus) int {
		return cmp.Or(
			cmp.Compare(a.Address.Addr().BitLen(), b.Address.Addr().BitLen()),
			cmp.Compare(a.Protocol, b.Protocol),
			a.Address.Compare(b.Address),
		)
	})
	return services
}

func (l List) header() string {
	const remote = "  -> RemoteAddress:Port"
	switch {
	case l.Stats:
		return "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n" + remote + "\n"
	case l.Rate:
		return "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n" + remote + "\n"
	case l.Thresholds:
		return "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n" + remote + "\n"
	case l.PersistentConn:
		return "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n" + remote + "\n"
	case l.TunInfo:
		return "Prot LocalAddress:Port Scheduler Flags\n" + remote + "           Forward TunnelInfo    Weight ActiveConn InActConn\n"
	}
	return "Prot LocalAddress:Port Scheduler Flags\n" + remote + "           Forward Weight ActiveConn InActConn\n"
}

// printService leaves errors of w to its Flush.
func (l List) printService(w *bufio.Writer, s lvs.ServiceStatus, names Names) {
	name := fmt.Sprintf("%-4s %s", protocolNames[s.Protocol], cut(names.format(s.Protocol, s.Address, l.Numeric)))
	switch {
	case l.Stats:
		fmt.Fprintf(w, "%-33s%s\n", name, numbers(counted(s.Stats), l.Exact))
	case l.Rate:
		fmt.Fprintf(w, "%-33s%s\n", name, numbers(rounded(s.Rates), l.Exact))
	default:
		fmt.Fprintf(w, "%s %s%s\n", name, s.Scheduler, flagsColumn(s.Scheduler, s.Flags))
	}
	for _, r := range s.RealServers {
		fmt.Fprintf(w, "  -> %-28s%s\n", cut(names.format(s.Protocol, r.Address, l.Numeric)), l.columns(r))
	}
}

// flagsColumn returns a scheduler's flags as ipvsadm lists them. It knows no third
// flag of sh and mh, and leaves it out; what is saved has it.
func flagsColumn(s lvs.Scheduler, f lvs.SchedulerFlags) string {
	if f == "" {
		return ""
	}
	names := f.Names()
	if s == lvs.SH || s == lvs.MH {
		names = slices.DeleteFunc(names, func(name string) bool { return name == "flag-3" })
	}
	return " (" + strings.Join(names, ",") + ")"
}

func cut(name string) string { return name[:min(len(name), nameWidth)] }

// columns returns what follows a real server's address. Thresholds and
// persistence are not in this version, so there are none of them.
func (l List) columns(r lvs.RealServerStatus) string {
	conns := fmt.Sprintf("%-10d %-10d", r.Counts.Active, r.Counts.Inactive)
	switch {
	case l.Stats:
		return numbers(counted(r.Stats), l.Exact)
	case l.Rate:
		return numbers(rounded(r.Rates), true) // ipvsadm abbreviates a service's rates alone
	case l.Thresholds:
		return fmt.Sprintf(" %-10d %-10d %s", 0, 0, conns)
	case l.PersistentConn:
		return fmt.Sprintf(" %-9d %-11d %s", r.Weight, 0, conns)
	case l.TunInfo:
		return fmt.Sprintf(" %-7s %-13s %-6d %s", forward(r.Method), tunnelInfo(r.RealServer), r.Weight, conns)
	}
	return fmt.Sprintf(" %-7s %-6d %s", forward(r.Method), r.Weight, conns)
}

var forwards = map[lvs.Method]string{
	lvs.DR: "Route", lvs.NAT: "Masq", lvs.Tun: "Tunnel", lvs.Local: "Local", lvs.FullNAT: "FullNat",
}

func forward(m lvs.Method) string { return forwards[m] }

// tunnelInfo returns for instance "gue:6080:+c".
func tunnelInfo(r lvs.RealServer) string {
	if r.Method != lvs.Tun {
		return "n/a"
	}
	info := string(r.Tunnel.Type)
	if r.Tunnel.Port != 0 {
		info += fmt.Sprintf(":%d", r.Tunnel.Port)
	}
	switch {
	case r.Tunnel.Checksum == lvs.HeaderChecksum:
		info += ":+c"
	case r.Tunnel.Type != lvs.IPIP:
		info += ":-c"
	}
	return info
}
