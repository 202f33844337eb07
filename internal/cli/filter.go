// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"lvx/internal/lvs"
)

// addressFilter picks addresses: one host, a prefix, or one host's port.
type addressFilter struct {
	prefix netip.Prefix // zero picks all
	port   uint16       // 0 picks all
}

// parseAddressFilter reads ADDRESS, ADDRESS:PORT, [ADDRESS6]:PORT or PREFIX/BITS.
// The empty text picks all.
func parseAddressFilter(text string) (addressFilter, error) {
	if text == "" {
		return addressFilter{}, nil
	}
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return addressFilter{prefix: prefix}, nil
	}
	if host, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return addressFilter{prefix: whole(host)}, nil
	}
	if both, err := netip.ParseAddrPort(text); err == nil {
		return addressFilter{prefix: whole(both.Addr()), port: both.Port()}, nil
	}
	return addressFilter{}, fmt.Errorf("%q is not ADDRESS, ADDRESS:PORT or ADDRESS/BITS", text)
}

// whole returns the prefix that holds this address alone.
func whole(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}

func (f addressFilter) picks(a netip.AddrPort) bool {
	return (!f.prefix.IsValid() || f.prefix.Contains(a.Addr())) && (f.port == 0 || f.port == a.Port())
}

// serviceFilter picks virtual services.
type serviceFilter struct {
	protocol lvs.Protocol // 0 picks all
	address  addressFilter
}

// parseServiceFilter reads a service as lvx prints it, "tcp 192.0.2.1:80", or
// with a slash, tcp/192.0.2.1:80, which needs no quotes in a shell. Without
// protocol or port it picks the services of all.
func parseServiceFilter(text string) (f serviceFilter, err error) {
	protocol, address, named := strings.Cut(strings.Replace(text, " ", "/", 1), "/")
	if named && f.protocol.UnmarshalText([]byte(strings.ToLower(protocol))) == nil {
		text = address
	}
	if f.address, err = parseAddressFilter(text); err != nil {
		return f, fmt.Errorf("service %q is not [tcp/|udp/]VIP[:PORT]", text)
	}
	return f, nil
}

func (f serviceFilter) picks(k lvs.ServiceKey) bool {
	return (f.protocol == 0 || f.protocol == k.Protocol) && f.address.picks(k.Address)
}
