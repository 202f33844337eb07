// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"net/netip"
	"slices"
)

// Hop is one frame's way through the switch, from one host to another.
type Hop struct {
	From             string         `json:"from"`
	To               string         `json:"to"`
	Frame            string         `json:"frame"` // "SYN", "request", "answer", …
	SourceMAC        MAC            `json:"source_mac"`
	DestinationMAC   MAC            `json:"destination_mac"`
	SourceMACOf      string         `json:"source_mac_of"` // whose interface it is
	DestinationMACOf string         `json:"destination_mac_of"`
	Source           netip.AddrPort `json:"source"`
	Destination      netip.AddrPort `json:"destination"`
	TTL              uint8          `json:"ttl"` // or hop limit
	Flags            string         `json:"flags"`
	Payload          int            `json:"payload_bytes"`
	// Same tells that the IP packet is, bit for bit, that of the hop before,
	// so that only Ethernet addresses changed.
	Same bool `json:"same_ip_packet"`
}

// Replies counts the frames that came from a service.
type Replies struct {
	ToRouter        int // left the switch for the router
	ThroughDirector int // were seen at the director's port, in either direction
}

// CountReplies counts the frames with the service as their source.
func CountReplies(frames []Frame, service netip.AddrPort) Replies {
	var r Replies
	for _, f := range frames {
		if f.Decode().Source != service {
			continue
		}
		switch {
		case f.Port == Director:
			r.ThroughDirector++
		case f.Port == Router && f.ToHost:
			r.ToRouter++
		}
	}
	return r
}

// Walk follows the first connection to the service that Deploy made through
// the switch, from its first frame to its last.
func (l *Lab) Walk(frames []Frame) []Hop {
	hops := walk(frames, l.Service())
	for i := range hops {
		hops[i].SourceMACOf = l.owner(hops[i].SourceMAC)
		hops[i].DestinationMACOf = l.owner(hops[i].DestinationMAC)
	}
	return hops
}

// owner returns the host that has an interface with this MAC address.
func (l *Lab) owner(mac MAC) string {
	for _, h := range l.hosts {
		for _, i := range h.Interfaces {
			if i.MAC == mac {
				return h.Name
			}
		}
	}
	return "nobody"
}

func walk(frames []Frame, service netip.AddrPort) []Hop {
	client, ok := firstClient(frames, service)
	if !ok {
		return nil
	}
	var hops []Hop
	var before []byte
	for i, f := range frames {
		p := f.Decode()
		ours := p.Source == client && p.Destination == service || p.Source == service && p.Destination == client
		if !ours || f.ToHost {
			continue
		}
		hop := newHop(f, p)
		for _, out := range frames[i+1:] {
			if out.ToHost && bytes.Equal(out.Data, f.Data) {
				hop.To = out.Port
				break
			}
		}
		ip := f.Data[14:]
		hop.Same = bytes.Equal(ip, before)
		before = ip
		hops = append(hops, hop)
	}
	return hops
}

// firstClient returns who sent the first SYN for the service.
func firstClient(frames []Frame, service netip.AddrPort) (netip.AddrPort, bool) {
	i := slices.IndexFunc(frames, func(f Frame) bool {
		p := f.Decode()
		return p.Destination == service && p.Flags == SYN
	})
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return frames[i].Decode().Source, true
}

func newHop(f Frame, p Packet) Hop {
	return Hop{
		From: f.Port, Frame: frameName(p),
		SourceMAC: p.SourceMAC, DestinationMAC: p.DestinationMAC,
		Source: p.Source, Destination: p.Destination,
		TTL: p.TTL, Flags: p.Flags.String(), Payload: p.Payload,
	}
}

// The frames of an HTTP exchange that carry something.
const (
	frameRequest = "request"
	frameAnswer  = "answer"
)

// frameName says what the frame is in an HTTP exchange.
func frameName(p Packet) string {
	switch {
	case p.Payload > 0 && p.Destination.Port() == ServicePort:
		return frameRequest
	case p.Payload > 0:
		return frameAnswer
	}
	return (p.Flags &^ PSH).String()
}
