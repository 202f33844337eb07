// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"net/netip"
	"slices"
)

// Served is a service as its packets show it: its own address and, where a
// forwarding method rewrites that, those of its real servers.
type Served struct {
	Service     netip.AddrPort
	RealServers []netip.AddrPort
}

// has tells whether packets to or from that address are of the service.
func (s Served) has(a netip.AddrPort) bool {
	return a == s.Service || slices.Contains(s.RealServers, a)
}

// client returns the client's end of a packet of the service, and whether the
// packet is a reply; false if it is none of the service's.
func (s Served) client(p Packet) (client netip.AddrPort, reply, ok bool) {
	switch {
	case s.has(p.Destination):
		return p.Source, false, true
	case s.has(p.Source):
		return p.Destination, true, true
	}
	return netip.AddrPort{}, false, false
}

// Replies counts the frames that came from a service.
type Replies struct {
	FromRealServers int // were sent by a real server
	ToRouter        int // left the switch for the router, with the service as source
	ThroughDirector int // were seen at the director's ports with the service as source, in either direction
	// FromRealServerAddress left the switch for the router with a real server
	// as source: the client knows nothing of it.
	FromRealServerAddress int
	// Tunnelled are no replies: they are the packets that left the director in a tunnel.
	Tunnelled int
}

// CountReplies counts the frames of a service that tell which way its replies took.
func CountReplies(frames []Frame, s Served) (r Replies) {
	for _, f := range frames {
		p := f.Decode()
		_, reply, ok := s.client(p)
		host := hostOf(f.Port)
		if ok && !reply && host == Director && !f.ToHost && p.Outer != (Outer{}) {
			r.Tunnelled++
		}
		if !ok || !reply {
			continue
		}
		translated := p.Source == s.Service
		switch {
		case host == Director && translated:
			r.ThroughDirector++
		case host == Router && f.ToHost && translated:
			r.ToRouter++
		case host == Router && f.ToHost:
			r.FromRealServerAddress++
		case host != Director && host != Router && !f.ToHost:
			r.FromRealServers++
		}
	}
	return r
}
