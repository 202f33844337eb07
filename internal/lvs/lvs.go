// SPDX-License-Identifier: Apache-2.0

// Package lvs holds the nouns of a Linux Virtual Server: virtual service, real
// server, scheduler, forwarding method, connection, reason, change.
//
// It is for words and values only. It does no input or output, knows no map,
// no socket and no file, and imports the standard library alone.
package lvs

import (
	"fmt"
	"net/netip"
)

// Protocol is an IP protocol number that can be balanced.
type Protocol uint8

// The transport protocols by their IANA numbers.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

var protocolNames = map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}

// String returns the lower-case name, or the number of an unknown protocol.
func (p Protocol) String() string {
	if s, ok := protocolNames[p]; ok {
		return s
	}
	return fmt.Sprintf("protocol-%d", uint8(p))
}

// MarshalText writes the lower-case name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads "tcp", "udp" or "sctp".
func (p *Protocol) UnmarshalText(text []byte) error {
	for number, name := range protocolNames {
		if name == string(text) {
			*p = number
			return nil
		}
	}
	return fmt.Errorf("protocol %q is not one of tcp, udp, sctp", text)
}

// Unmap returns the address with an IPv4-mapped IPv6 address written as IPv4,
// so that one host has one form.
func Unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
