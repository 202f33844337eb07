// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"net/netip"
	"strings"
)

// AddressFilter picks addresses: one host, a prefix, or one host's port.
type AddressFilter struct {
	prefix netip.Prefix // zero picks all
	port   uint16       // 0 picks all
}

// ParseAddressFilter reads ADDRESS, ADDRESS:PORT, [ADDRESS6]:PORT or PREFIX/BITS.
// The empty text picks all.
func ParseAddressFilter(text string) (AddressFilter, error) {
	if text == "" {
		return AddressFilter{}, nil
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return AddressFilter{prefix: prefix}, nil
	}
	if host, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return AddressFilter{prefix: whole(host)}, nil
	}
	if both, err := netip.ParseAddrPort(text); err == nil {
		return AddressFilter{prefix: whole(both.Addr()), port: both.Port()}, nil
	}
	return AddressFilter{}, fmt.Errorf("%q is not ADDRESS, ADDRESS:PORT or ADDRESS/BITS", text)
}

// whole returns the prefix that holds this address alone.
func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

func (f AddressFilter) Picks(a netip.AddrPort) bool {
	return (!f.prefix.IsValid() || f.prefix.Contains(a.Addr())) && (f.port == 0 || f.port == a.Port())
}

// ServiceFilter picks virtual services.
type ServiceFilter struct {
	protocol Protocol // 0 picks all
	address  AddressFilter
}

// ParseServiceFilter reads a service as lvx prints it, "tcp 192.0.2.1:80", or
// with a slash, tcp/192.0.2.1:80, which needs no quotes in a shell. Without
// protocol or port it picks the services of all.
func ParseServiceFilter(text string) (f ServiceFilter, err error) {
	protocol, address, named := strings.Cut(strings.Replace(text, " ", "/", 1), "/")
	if named && f.protocol.UnmarshalText([]byte(strings.ToLower(protocol))) == nil {
		text = address
	}
	if f.address, err = ParseAddressFilter(text); err != nil {
		return f, fmt.Errorf("service %q is not [tcp/|udp/]VIP[:PORT]", text)
	}
	return f, nil
}

func (f ServiceFilter) Picks(k ServiceKey) bool {
	return (f.protocol == 0 || f.protocol == k.Protocol) && f.address.Picks(k.Address)
}

// ConnectionFilter picks connections. The zero value picks all.
type ConnectionFilter struct {
	Client, RealServer AddressFilter
	Service            ServiceFilter
	State              State // "" is any
}

// Picks tells whether the connection is one of those asked for.
func (f ConnectionFilter) Picks(c Connection) bool {
	return (f.State == "" || f.State == c.State) && f.Client.Picks(c.Client) && f.RealServer.Picks(c.RealServer) &&
		f.Service.Picks(ServiceKey{Protocol: c.Protocol, Address: c.Virtual})
}
