// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"lvx/internal/lvs"
)

// Names turns names into addresses and ports and back. A function that is nil
// knows no name: the zero Names is numeric only. How long a look-up may take is
// up to the functions.
type Names struct {
	// Host returns the IPv4 address of a host; ipvsadm asks for no other.
	Host func(name string) (netip.Addr, bool)
	// Port returns the port of a service such as "http".
	Port func(protocol lvs.Protocol, name string) (uint16, bool)
	// HostName returns the name of an address, for printing.
	HostName func(address netip.Addr) (string, bool)
	// PortName returns the name of a port, for printing.
	PortName func(protocol lvs.Protocol, port uint16) (string, bool)
}

// address reads host[:port], [v6]:port or v6. given tells whether there was a
// port.
func (n Names) address(protocol lvs.Protocol, text string) (a netip.AddrPort, given, ok bool) {
	if _, bare := number(text, 0, math.MaxInt64); bare {
		return a, false, false // more likely a port than an address
	}
	if ip, ok := ipv6(text); ok {
		return netip.AddrPortFrom(ip, 0), false, true
	}
	host, portText, given := strings.Cut(text, ":")
	ip, ok := n.ipv4(host)
	if inner, found := strings.CutPrefix(text, "["); found {
		if host, portText, ok = strings.Cut(inner, "]:"); !ok {
			return a, false, false
		}
		if ip, ok = ipv6(host); !ok {
			// ipvsadm takes an IPv4 host in brackets, and forgets the port.
			ip, ok = n.ipv4(host)
			return netip.AddrPortFrom(ip, 0), false, ok
		}
		given = true
	}
	if !ok || !given {
		return netip.AddrPortFrom(ip, 0), false, ok
	}
	port, ok := n.port(protocol, portText)
	return netip.AddrPortFrom(ip, port), true, ok
}

func (n Names) port(protocol lvs.Protocol, text string) (uint16, bool) {
	if port, ok := number(text, 0, math.MaxUint16); ok {
		return uint16(port), true
	}
	if n.Port == nil || protocol == 0 { // -r before -t: ipvsadm cannot tell either
		return 0, false
	}
	return n.Port(protocol, text)
}

// ipv4 reads an IPv4 address in any form that inet_aton(3) takes, or a host.
func (n Names) ipv4(text string) (netip.Addr, bool) {
	if a, ok := inetAton(text); ok {
		return a, true
	}
	if n.Host == nil || strings.Trim(text, ".0123456789") == "" { // 1.2.3.400 is no host
		return netip.Addr{}, false
	}
	return n.Host(text)
}

func ipv6(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Is6() && a.Zone() == ""
}

// inetAton reads 1.2.3.4, also as 1.2.772, 1.131844 or 0x1020304, as C does;
// whatever follows a blank is not looked at.
func inetAton(text string) (netip.Addr, bool) {
	if blank := strings.IndexAny(text, cSpace); blank >= 0 {
		text = text[:blank]
	}
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var address uint64
	for i, part := range parts {
		bits, last := 8, i == len(parts)-1
		if last {
			bits = 8 * (4 - i)
		}
		value, err := strconv.ParseUint(part, 0, bits)
		if err != nil || !cNumber(part) {
			return netip.Addr{}, false
		}
		address = address<<bits | value
	}
	return netip.AddrFrom4([4]byte{byte(address >> 24), byte(address >> 16), byte(address >> 8), byte(address)}), true
}

// cNumber tells whether Go's prefixes in a number are C's: 0x and 0, but not
// 0b, 0o or _.
func cNumber(part string) bool {
	return !strings.ContainsAny(part, "_oO") && !strings.HasPrefix(part, "0b") && !strings.HasPrefix(part, "0B")
}

// cSpace is what isspace(3) finds in the C locale.
const cSpace = " \t\n\v\f\r"

// number reads a decimal number in bounds as strtol(3) does, to the end.
func number(text string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimLeft(text, cSpace), 10, 64)
	return n, err == nil && n >= low && n <= high
}

// leadingNumber reads a number as atoi(3) does: 0 if there is none.
func leadingNumber(text string) int64 {
	text = strings.TrimLeft(text, cSpace)
	end := len(text)
	for i, r := range text {
		if (r < '0' || r > '9') && (i > 0 || r != '+' && r != '-') {
			end = i
			break
		}
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// host returns an address as it is printed: by name unless numeric, IPv6 in
// brackets.
func (n Names) host(a netip.Addr, numeric bool) string {
	text := a.String()
	if !numeric && n.HostName != nil {
		if name, ok := n.HostName(a); ok {
			text = name
		}
	}
	if a.Is4() {
		return text
	}
	return "[" + text + "]"
}

// format returns host:port as it is printed.
func (n Names) format(protocol lvs.Protocol, a netip.AddrPort, numeric bool) string {
	port := strconv.Itoa(int(a.Port()))
	if !numeric && n.PortName != nil {
		if name, ok := n.PortName(protocol, a.Port()); ok {
			port = name
		}
	}
	return n.host(a.Addr(), numeric) + ":" + port
}
