// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"net/netip"
	"slices"
)

// Method is a forwarding method: how a packet reaches its real server.
type Method string

// The forwarding methods.
const (
	DR      Method = "dr"      // direct routing: only the MAC addresses change
	NAT     Method = "nat"     // the destination is rewritten, replies pass the director
	Tun     Method = "tun"     // the packet is put into another
	FullNAT Method = "fullnat" // source and destination are rewritten
	Local   Method = "local"   // the director itself answers
)

// Methods lists the forwarding methods that the data plane has.
func Methods() []Method { return []Method{DR, NAT, Tun} }

// LaterMethods lists those that are known words, not yet built.
func LaterMethods() []Method { return []Method{FullNAT, Local} }

// MapsPort tells whether a real server of this method may have another port than its service.
func (m Method) MapsPort() bool { return m == NAT }

// MapsFamily tells whether one may have an address of the other family.
func (m Method) MapsFamily() bool { return m == Tun }

// MaxWeight is the largest weight, as in ipvsadm (a C int).
const MaxWeight = 1<<31 - 1

// RealServer is a machine that answers for a virtual service.
type RealServer struct {
	// Address is RIP and port. The port is the service's; with nat it may be another. The
	// family is the VIP's; with tun it may be the other.
	Address netip.AddrPort `json:"address"`
	Method  Method         `json:"method"`
	// Weight is the server's share of new connections, 0 to MaxWeight. 0 gives
	// it no new ones; connections it has stay.
	Weight uint32 `json:"weight"`
	// Tunnel is set if the method is tun, and only then.
	Tunnel Tunnel `json:"tunnel,omitzero"`
}

// ValidateRealServer tells why a real server cannot be one of s, apart from one with
// the same address being there already, or returns nil.
func (s *Service) ValidateRealServer(r RealServer) error {
	if err := s.validateRealServer(r); err != nil {
		return fmt.Errorf("service %s: real server %s: %w", s.ServiceKey, r.Address, err)
	}
	return nil
}

func (s *Service) validateRealServer(r RealServer) error {
	a := r.Address.Addr()
	switch {
	case !unicast(a) || a.Is4In6() || a.Zone() != "":
		return fmt.Errorf("the address has to be a plain unicast address: %w", ErrInvalid)
	case slices.Contains(LaterMethods(), r.Method):
		return fmt.Errorf("method %s: %w", r.Method, ErrUnsupported)
	case !slices.Contains(Methods(), r.Method):
		return fmt.Errorf("method %q is not one of %s: %w", r.Method, list(Methods()), ErrInvalid)
	case r.Address.Port() == 0:
		return fmt.Errorf("a real server needs a port: %w", ErrInvalid)
	case a.Is4() != s.Address.Addr().Is4() && !r.Method.MapsFamily():
		return fmt.Errorf("%s cannot change the address family: %w", r.Method, ErrInvalid)
	case r.Address.Port() != s.Address.Port() && !r.Method.MapsPort():
		return fmt.Errorf("%s cannot change the port (the service has %d): %w", r.Method, s.Address.Port(), ErrInvalid)
	case r.Weight > MaxWeight:
		return fmt.Errorf("weight %d is above %d: %w", r.Weight, MaxWeight, ErrInvalid)
	}
	return r.validateTunnel()
}

func (r RealServer) validateTunnel() error {
	switch {
	case r.Method == Tun:
		return r.Tunnel.Validate()
	case r.Tunnel != Tunnel{}:
		return fmt.Errorf("a tunnel is for the method tun, not for %s: %w", r.Method, ErrInvalid)
	}
	return nil
}
