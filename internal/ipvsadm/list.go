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
	Exact   bool // numbers of Stats in full
	NoSort  bool // services and real servers in the order they come in

	Stats, Thresholds, PersistentConn, TunInfo bool
}

const firstLine = "IP Virtual Server version 1.2.1 (size=4096)\n"

// nameWidth is the room for an address in a listing. ipvsadm cuts off what is
// longer, so that the columns stay where they are.
const nameWidth = 28

var protocolNames = map[lvs.Protocol]string{lvs.TCP: "TCP", lvs.UDP: "UDP", lvs.SCTP: "SCTP"}

// PrintServices prints services and their real servers. If l.Service is none of
// them it prints nothing and returns an *Error. Other errors are w's.
func (l List) PrintServices(w io.Writer, services []lvs.ServiceStatus, names Names) error {
	one := l.Service != lvs.ServiceKey{}
	if one {
		services = slices.DeleteFunc(slices.Clone(services), func(s lvs.ServiceStatus) bool { return s.ServiceKey != l.Service })
		if len(services) == 0 {
			return &Error{Message: noSuchService, Exit: ExitNotFound, EndsRestore: true}
		}
	}
	out := bufio.NewWriter(w)
	if !one {
		fmt.Fprint(out, firstLine)
	}
	fmt.Fprint(out, l.header())
	for _, s := range l.order(services) {
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
	if l.Stats {
		fmt.Fprintf(w, "%-33s%s\n", name, l.numbers(s.Stats))
	} else {
		fmt.Fprintf(w, "%s %s\n", name, s.Scheduler)
	}
	for _, r := range s.RealServers {
		fmt.Fprintf(w, "  -> %-28s%s\n", cut(names.format(s.Protocol, r.Address, l.Numeric)), l.columns(r))
	}
}

func cut(name string) string { return name[:min(len(name), nameWidth)] }

// columns returns what follows a real server's address. Thresholds and
// persistence are not in this version, so there are none of them.
func (l List) columns(r lvs.RealServerStatus) string {
	conns := fmt.Sprintf("%-10d %-10d", r.Counts.Active, r.Counts.Inactive)
	switch {
	case l.Stats:
		return l.numbers(r.Stats)
	case l.Thresholds:
		return fmt.Sprintf(" %-10d %-10d %s", 0, 0, conns)
	case l.PersistentConn:
		return fmt.Sprintf(" %-9d %-11d %s", r.Weight, 0, conns)
	case l.TunInfo:
		return fmt.Sprintf(" %-7s %-13s %-6d %s", forward(r.Method), tunnelInfo(r.Method), r.Weight, conns)
	}
	return fmt.Sprintf(" %-7s %-6d %s", forward(r.Method), r.Weight, conns)
}

// numbers returns the five columns of statistics, each led by a blank unless it
// fills its column.
func (l List) numbers(s lvs.Stats) string {
	var text strings.Builder
	for _, n := range []uint64{s.Connections, s.InPackets, s.OutPackets, s.InBytes, s.OutBytes} {
		if l.Exact {
			fmt.Fprintf(&text, " %8d", n)
		} else {
			text.WriteString(short(n))
		}
	}
	return text.String()
}

// short returns a number in nine columns, in thousands (not 1024) from 10^8 on.
func short(n uint64) string {
	switch {
	case n < 100_000_000:
		return fmt.Sprintf("%9d", n)
	case n < 1_000_000_000:
		return fmt.Sprintf("%8dK", n/1000)
	case n < 100_000_000_000:
		return fmt.Sprintf("%8dM", n/1_000_000)
	case n < 100_000_000_000_000:
		return fmt.Sprintf("%8dG", n/1_000_000_000)
	}
	return fmt.Sprintf("%8dT", n/1_000_000_000_000)
}

var forwards = map[lvs.Method]string{
	lvs.DR: "Route", lvs.NAT: "Masq", lvs.Tun: "Tunnel", lvs.Local: "Local", lvs.FullNAT: "FullNat",
}

func forward(m lvs.Method) string { return forwards[m] }

func tunnelInfo(m lvs.Method) string {
	if m == lvs.Tun {
		return "ipip"
	}
	return "n/a"
}
