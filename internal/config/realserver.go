// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"slices"

	"lvx/internal/config/yaml"
	"lvx/internal/lvs"
)

// server is a real server with the places of its parts.
type server struct {
	lvs.RealServer
	address *yaml.Node
	weight  *yaml.Node // nil if the file does not say
}

// methodOf returns the method of a service or real server, fallback if it says none, or
// "" if what it says is wrong.
func methodOf(n *yaml.Node, fallback lvs.Method) lvs.Method {
	switch method := get(n, "method"); {
	case method != nil:
		return lvs.Method(method.Text)
	case isBroken(n, "method"):
		return ""
	}
	return fallback
}

func (d *decoder) realServers(s *service, list *yaml.Node) {
	s.servers = make([]server, 0, len(list.Items))
	seen := make(map[netip.AddrPort]*yaml.Node, len(list.Items))
	for i := range list.Items {
		if list.Items[i].Kind != yaml.Mapping {
			continue
		}
		r, ok := d.realServer(s, &list.Items[i])
		if !ok {
			continue
		}
		if first := seen[r.Address]; first != nil {
			d.fail(codeServer, r.address.Span, fmt.Sprintf("the real server %s is in this service already, in line %d", r.Address, d.line(int(first.Start))), "take one out; a larger weight gives it more connections")
			continue
		}
		seen[r.Address] = r.address
		s.servers = append(s.servers, r)
		s.RealServers = append(s.RealServers, r.RealServer)
	}
}

// realServer returns false if a part of it is missing or wrong.
func (d *decoder) realServer(s *service, n *yaml.Node) (r server, ok bool) {
	errors := d.errors
	r.address, r.weight = get(n, "address"), get(n, "weight")
	r.Method, r.Weight = methodOf(n, s.method), numberOf(r.weight, 1)
	r.Tunnel = d.tunnel(r.Method, n)
	s.unsure = s.unsure || r.Method == ""
	if r.address == nil {
		return r, false
	}
	var fault *fault
	if r.Address, fault = parseAddress(r.address.Text, "a real server"); fault != nil {
		d.fail(fault.code, r.address.Span, fault.message, fault.help)
		return r, false
	}
	if s.address != nil && r.Method != "" {
		d.checkMethod(s, r)
	}
	return r, d.errors == errors
}

// checkMethod tells whether the method gets packets for the VIP to the real server's address.
func (d *decoder) checkMethod(s *service, r server) {
	if r.Address.Addr().Is4() != s.Address.Addr().Is4() && !r.Method.MapsFamily() {
		d.fail(codeFamily, r.address.Span, fmt.Sprintf("the real server is %s, its VIP %s is %s", family(r.Address), s.Address.Addr(), family(s.Address)),
			fmt.Sprintf("%s cannot turn one into the other: make two services, one for IPv4 and one for IPv6", r.Method))
	}
	if r.Address.Port() != s.Address.Port() && !r.Method.MapsPort() {
		want := netip.AddrPortFrom(r.Address.Addr(), s.Address.Port())
		d.fail(codePort, r.address.Span, fmt.Sprintf("the real server has port %d, its service %d", r.Address.Port(), s.Address.Port()),
			fmt.Sprintf("%s cannot change the port: write %q, and let the server listen there", r.Method, want))
	}
}

func family(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// tunnel reads the tunnel of a real server with this method. Of one that is wrong it
// returns what there can be, so that nothing else is said of it.
func (d *decoder) tunnel(method lvs.Method, n *yaml.Node) lvs.Tunnel {
	said := get(n, "tunnel")
	switch {
	case method == lvs.Tun && said == nil:
		return lvs.Tunnel{Type: lvs.IPIP}
	case method != lvs.Tun && said != nil && method != "":
		d.fail(codeTunnel, said.Span, fmt.Sprintf("a tunnel is for the method tun, and this real server has %s", method), "write method: tun, or take the tunnel out")
	}
	if method != lvs.Tun {
		return lvs.Tunnel{}
	}
	ipip := lvs.Tunnel{Type: lvs.IPIP}
	if isBroken(said, "type") {
		return ipip
	}
	t := lvs.Tunnel{
		Type: lvs.TunnelType(textOf(get(said, "type"))), Port: uint16(numberOf(get(said, "port"), 0)),
		Checksum: lvs.TunnelChecksum(textOf(get(said, "checksum"))),
	}
	if t.Type == "" {
		t.Type = lvs.IPIP
	}
	d.checkTunnel(said, t)
	if t.Validate() != nil {
		return ipip
	}
	return t
}

// checkTunnel tells whether the parts of a tunnel go together.
func (d *decoder) checkTunnel(said *yaml.Node, t lvs.Tunnel) {
	port, checksum := get(said, "port"), get(said, "checksum")
	switch {
	case t.Type == lvs.GUE && port == nil && !isBroken(said, "port") && !hasUnknown(said, tunnelShape):
		d.fail(codeTunnel, said.Span, "a gue tunnel needs a port", "add the UDP port at which the real server takes it: port: 6080")
	case t.Type != lvs.GUE && port != nil:
		d.fail(codeTunnel, port.Span, fmt.Sprintf("a tunnel of type %s has no port", t.Type), "take it out, or write type: gue")
	}
	if checksum != nil && !slices.Contains(lvs.TunnelChecksums(t.Type), t.Checksum) {
		d.fail(codeTunnel, checksum.Span, fmt.Sprintf("a tunnel of type %s has no checksum", t.Type), "take it out; gue and gre can have one")
	}
}
