// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// fault is what is wrong with an address.
type fault struct{ code, message, help string }

// parseAddress reads ADDRESS:PORT of what has one address of its own; who is "a
// VIP" or "a real server". It takes what lvs.Service.Validate takes.
func parseAddress(text, who string) (netip.AddrPort, *fault) {
	if strings.Contains(text, "/") {
		return netip.AddrPort{}, prefixFault(text, who)
	}
	a, f := parseAddrPort(text, addressHelp)
	if f != nil {
		return a, f
	}
	host := a.Addr()
	cannot := ""
	switch {
	case host.Zone() != "":
		return a, &fault{codeHost, fmt.Sprintf("%s cannot be in a zone (%%%s)", who, host.Zone()), "take the zone out"}
	case host.Is4In6():
		return a, &fault{codeHost, fmt.Sprintf("%s is an IPv4 address written as IPv6", host), fmt.Sprintf("write %s", netip.AddrPortFrom(host.Unmap(), a.Port()))}
	case host.IsUnspecified():
		cannot = "stands for no address"
	case host.IsLoopback():
		cannot = "is a loopback address"
	case host.IsMulticast():
		cannot = "is a multicast address"
	case host == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		cannot = "is the broadcast address"
	}
	if cannot != "" {
		return a, &fault{codeHost, fmt.Sprintf("%s cannot be %s: it %s", host, who, cannot), "write the address that a host has on the network"}
	}
	if a.Port() == 0 {
		return a, &fault{codeAllPorts, "port 0, which is all ports, is not in this version of lvx", "make a service for each port"}
	}
	return a, nil
}

// parseListen reads ADDRESS:PORT to listen on.
func parseListen(text string) (netip.AddrPort, *fault) {
	a, f := parseAddrPort(text, listenHelp)
	switch {
	case f != nil:
		return a, f
	case a.Addr().Is4In6():
		return a, &fault{codeHost, fmt.Sprintf("%s is an IPv4 address written as IPv6", a.Addr()), fmt.Sprintf("write %s", netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))}
	case a.Addr().IsMulticast():
		return a, &fault{codeHost, fmt.Sprintf("%s is a multicast address: nobody can listen there", a.Addr()), listenHelp}
	case a.Port() == 0:
		return a, &fault{codeAddress, fmt.Sprintf("%q has port 0", text), "write a port from 1 to 65535"}
	}
	return a, nil
}

// parseAddrPort reads the form alone.
func parseAddrPort(text, help string) (netip.AddrPort, *fault) {
	a, err := netip.ParseAddrPort(text)
	if err == nil && strings.HasSuffix(text, ":"+strconv.Itoa(int(a.Port()))) {
		return a, nil
	}
	return netip.AddrPort{}, addressFault(text, help)
}

// addressFault says what is wrong with a text that is not ADDRESS:PORT.
func addressFault(text, help string) *fault {
	shown := shorten(text)
	colon := strings.LastIndexByte(text, ':')
	if host, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		if colon > 0 && host.Is6() && text[0] != '[' {
			if before, err := netip.ParseAddr(text[:colon]); err == nil && portOf(text[colon+1:]) {
				return &fault{codeAddress, fmt.Sprintf("%q can be an address without a port, or one with the port %s", shown, text[colon+1:]), fmt.Sprintf(`write "[%s]:%s" if that is the port`, before, text[colon+1:])}
			}
		}
		return &fault{codeAddress, fmt.Sprintf("%q has no port", shown), fmt.Sprintf("write %q, with the right port", netip.AddrPortFrom(host, 80))}
	}
	if colon < 0 {
		return &fault{codeAddress, fmt.Sprintf("%q is not ADDRESS:PORT", shown), help}
	}
	before, port := text[:colon], text[colon+1:]
	host, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(before, "["), "]"))
	switch {
	case err == nil && !portOf(port):
		return &fault{codeAddress, fmt.Sprintf("%q is not a port, which is a number from 1 to 65535 without zeros before it", shorten(port)), help}
	case err == nil:
		return &fault{codeAddress, fmt.Sprintf("%q is not written as an address", shown), fmt.Sprintf(`write "%s:%s"`, bracketed(host), port)}
	case err != nil && strings.Trim(before, "0123456789.") == "" && before != "":
		_, why, _ := strings.Cut(err.Error(), "): ")
		return &fault{codeAddress, fmt.Sprintf("%q is not an address: %s", shorten(before), why), help}
	case isHostName(before):
		return &fault{codeAddress, fmt.Sprintf("%q is a name; names are not looked up", shorten(before)), help}
	}
	return &fault{codeAddress, fmt.Sprintf("%q is not ADDRESS:PORT", shown), help}
}

func bracketed(host netip.Addr) string {
	if host.Is6() {
		return "[" + host.String() + "]"
	}
	return host.String()
}

// portOf tells whether a text is a port in its one form.
func portOf(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(port, 10) == text
}

func isHostName(text string) bool {
	return strings.ContainsAny(text, "ghijklmnopqrstuvwxyzGHIJKLMNOPQRSTUVWXYZ") && !strings.ContainsAny(text, ":[] ")
}

// prefixFault says what is wrong with an address that has a slash.
func prefixFault(text, who string) *fault {
	const one = "write one address with its port"
	host, rest, _ := strings.Cut(text, "/")
	bits, port, _ := strings.Cut(rest, ":")
	if a, err := netip.ParseAddrPort(host); err == nil { // ADDRESS:PORT/BITS
		host, port = a.Addr().String(), strconv.Itoa(int(a.Port()))
	}
	prefix, err := netip.ParsePrefix(strings.Trim(host, "[]") + "/" + strings.TrimSuffix(bits, "]"))
	if err != nil {
		return &fault{codeAddress, fmt.Sprintf("%q is not ADDRESS:PORT", shorten(text)), addressHelp}
	}
	if !portOf(port) {
		port = "80"
	}
	if prefix.IsSingleIP() {
		return &fault{codePrefix, fmt.Sprintf("%q: the /%d is not written here", shorten(text), prefix.Bits()), fmt.Sprintf(`write "%s:%s"`, bracketed(prefix.Addr()), port)}
	}
	return &fault{codePrefix, fmt.Sprintf("%s is a network; %s is one address", prefix, who), one}
}
