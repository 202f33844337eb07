// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// ServiceKey names a virtual service: what clients ask for.
type ServiceKey struct {
	Protocol Protocol       `json:"protocol"`
	Address  netip.AddrPort `json:"address"` // VIP and port
}

// String returns for instance "tcp 192.0.2.1:80".
func (k ServiceKey) String() string { return k.Protocol.String() + " " + k.Address.String() }

// Service is a virtual service and the real servers that answer for it.
type Service struct {
	ServiceKey
	// Name is the operator's own, from the file: 1 to 63 letters, digits, '.', '_' or
	// '-', or none. The data plane does not know it, and Equal does not look at it.
	Name      string         `json:"name,omitempty"`
	Scheduler Scheduler      `json:"scheduler"`
	Flags     SchedulerFlags `json:"scheduler_flags,omitempty"`
	// RealServers in scheduling order: the order in which equal servers are
	// tried. ipvsadm adds at the front (the kernel tries the newest first).
	RealServers []RealServer `json:"real_servers"`
}

// Find returns the index of the real server with this address, or -1.
func (s *Service) Find(address netip.AddrPort) int {
	return slices.IndexFunc(s.RealServers, func(r RealServer) bool { return r.Address == address })
}

// Clone returns a copy that shares nothing with s.
func (s Service) Clone() Service {
	s.RealServers = slices.Clone(s.RealServers)
	return s
}

// Equal tells whether two services are configured alike, order included.
func (s Service) Equal(o Service) bool {
	return s.ServiceKey == o.ServiceKey && s.Scheduler == o.Scheduler && s.Flags == o.Flags && slices.Equal(s.RealServers, o.RealServers)
}

// Scheduler names the rule that picks a real server for a new connection.
type Scheduler string

// The schedulers that the data plane has.
const (
	RR  Scheduler = "rr"  // round robin
	WRR Scheduler = "wrr" // weighted round robin, interleaved as the kernel does
	LC  Scheduler = "lc"  // fewest connections
	WLC Scheduler = "wlc" // fewest connections by weight; ipvsadm's default
	SH  Scheduler = "sh"  // by the client's address, with the kernel's hash
	MH  Scheduler = "mh"  // by the client's address, in a Maglev table with a keyed hash
)

// Schedulers lists the schedulers that the data plane has.
func Schedulers() []Scheduler { return []Scheduler{RR, WRR, LC, WLC, SH, MH} }

// KernelSchedulers lists every scheduler of kernel IPVS in ipvsadm's order.
// Those that Schedulers does not list are known words, not yet built.
func KernelSchedulers() []Scheduler {
	return []Scheduler{RR, WRR, LC, WLC, "lblc", "lblcr", "dh", SH, "sed", "nq", "fo", "ovf", MH}
}

var serviceName = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,62})?$`)

// Validate tells why a service cannot be in any table, or returns nil. It
// checks the service alone: duplicates among services are the caller's.
func (s *Service) Validate() error {
	switch {
	case s.Protocol != TCP && s.Protocol != UDP:
		return fmt.Errorf("service %s: protocol %s: %w", s.ServiceKey, s.Protocol, ErrUnsupported)
	case !unicast(s.Address.Addr()):
		return fmt.Errorf("service %s: the VIP has to be a unicast address that is not loopback: %w", s.ServiceKey, ErrInvalid)
	case s.Address.Addr().Is4In6() || s.Address.Addr().Zone() != "":
		return fmt.Errorf("service %s: write the VIP as plain IPv4 or IPv6: %w", s.ServiceKey, ErrInvalid)
	case s.Address.Port() == 0:
		return fmt.Errorf("service %s: port 0 (all ports): %w", s.ServiceKey, ErrUnsupported)
	case !slices.Contains(KernelSchedulers(), s.Scheduler):
		return fmt.Errorf("service %s: scheduler %q: %w", s.ServiceKey, s.Scheduler, ErrNoScheduler)
	case !slices.Contains(Schedulers(), s.Scheduler):
		return fmt.Errorf("service %s: scheduler %s: %w", s.ServiceKey, s.Scheduler, ErrUnsupported)
	case !serviceName.MatchString(s.Name):
		return fmt.Errorf("service %s: the name %q is not 1 to 63 letters, digits or . _ -: %w", s.ServiceKey, s.Name, ErrInvalid)
	}
	if flags, err := ParseSchedulerFlags(s.Scheduler, s.Flags.Names()); err != nil {
		return fmt.Errorf("service %s: %w", s.ServiceKey, err)
	} else if flags != s.Flags {
		return fmt.Errorf("service %s: scheduler flags %q: write them as %q: %w", s.ServiceKey, s.Flags, flags, ErrInvalid)
	}
	seen := map[netip.AddrPort]bool{}
	for _, r := range s.RealServers {
		if err := s.ValidateRealServer(r); err != nil {
			return err
		}
		if seen[r.Address] {
			return fmt.Errorf("service %s: real server %s: %w", s.ServiceKey, r.Address, ErrServerExists)
		}
		seen[r.Address] = true
	}
	return nil
}

// unicast tells whether hosts can have the address on a network.
func unicast(a netip.Addr) bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != broadcast
}
