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
	Outer            Outer          `json:"outer,omitzero"` // if the packet is in a tunnel; the rest is of the packet inside then
	Source           netip.AddrPort `json:"source"`
	Destination      netip.AddrPort `json:"destination"`
	TTL              uint8          `json:"ttl"` // or hop limit
	Flags            string         `json:"flags"`
	Payload          int            `json:"payload_bytes"`
	// Same tells that the IP packet is, bit for bit, that of the hop before,
	// so that only headers around it changed.
	Same bool `json:"same_ip_packet"`

	reply bool
	// before is the hop of the same packet before this one, from 1; 0 if there is none.
	before int
}

// segmentKey is what a TCP segment keeps on its whole way.
type segmentKey struct {
	reply    bool
	seq, ack uint32
	flags    TCPFlags
	payload  int
}

// Walk follows the first connection to the service that Deploy made through
// the switch, from its first frame to its last.
func (l *Lab) Walk(frames []Frame) []Hop {
	hops := walk(frames, l.served())
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

func walk(frames []Frame, s Served) []Hop {
	first, ok := firstClient(frames, s)
	if !ok {
		return nil
	}
	var hops []Hop
	last := map[segmentKey]int{} // the number of a segment's last hop
	packets := [][]byte{nil}     // by number of hop
	for i, f := range frames {
		p, ip := f.decode()
		client, reply, ok := s.client(p)
		if !ok || client != first || f.ToHost {
			continue
		}
		key := segmentKey{reply, p.Seq, p.Ack, p.Flags, p.Payload}
		hop := newHop(f, p, reply)
		hop.To = arrival(frames[i+1:], f)
		hop.before = last[key]
		hop.Same = hop.before > 0 && sameBytes(ip, packets[hop.before])
		hops, packets = append(hops, hop), append(packets, ip)
		last[key] = len(hops)
	}
	return hops
}

// arrival returns the host that a frame reached, "" if it reached none.
func arrival(later []Frame, sent Frame) string {
	for _, f := range later {
		if f.ToHost && bytes.Equal(f.Data, sent.Data) {
			return hostOf(f.Port)
		}
	}
	return ""
}

// sameBytes compares two packets as far as both were kept: a tunnel's header
// leaves less room for what is inside.
func sameBytes(a, b []byte) bool {
	n := min(len(a), len(b))
	return n > 0 && bytes.Equal(a[:n], b[:n])
}

// firstClient returns who sent the first SYN for the service.
func firstClient(frames []Frame, s Served) (netip.AddrPort, bool) {
	i := slices.IndexFunc(frames, func(f Frame) bool {
		p := f.Decode()
		return p.Destination == s.Service && p.Flags == SYN
	})
	if i < 0 {
		return netip.AddrPort{}, false
	}
	return frames[i].Decode().Source, true
}

func newHop(f Frame, p Packet, reply bool) Hop {
	return Hop{
		From: hostOf(f.Port), Frame: frameName(p, reply),
		SourceMAC: p.SourceMAC, DestinationMAC: p.DestinationMAC, Outer: p.Outer,
		Source: p.Source, Destination: p.Destination,
		TTL: p.TTL, Flags: p.Flags.String(), Payload: p.Payload,
		reply: reply,
	}
}

// The frames of an HTTP exchange that carry something.
const (
	frameRequest = "request"
	frameAnswer  = "answer"
)

// frameName says what the frame is in an HTTP exchange.
func frameName(p Packet, reply bool) string {
	switch {
	case p.Payload > 0 && reply:
		return frameAnswer
	case p.Payload > 0:
		return frameRequest
	}
	return (p.Flags &^ PSH).String()
}

// changes names the headers in which a hop differs from the hop of the same
// packet before it.
func (h Hop) changes(before Hop) (list []string) {
	for _, c := range []struct {
		name    string
		changed bool
	}{
		{"MAC addresses", h.SourceMAC != before.SourceMAC || h.DestinationMAC != before.DestinationMAC},
		{"outer header put on", before.Outer == Outer{} && h.Outer != Outer{}},
		{"outer header taken off", before.Outer != Outer{} && h.Outer == Outer{}},
		{"outer header", before.Outer != Outer{} && h.Outer != Outer{} && h.Outer.withoutTTL() != before.Outer.withoutTTL()},
		{"outer TTL", before.Outer != Outer{} && h.Outer != Outer{} && h.Outer.TTL != before.Outer.TTL},
		{"source address", h.Source.Addr() != before.Source.Addr()},
		{"source port", h.Source.Port() != before.Source.Port()},
		{"destination address", h.Destination.Addr() != before.Destination.Addr()},
		{"destination port", h.Destination.Port() != before.Destination.Port()},
		{"TTL", h.TTL != before.TTL},
	} {
		if c.changed {
			list = append(list, c.name)
		}
	}
	return list
}

func (o Outer) withoutTTL() Outer {
	o.TTL = 0
	return o
}
