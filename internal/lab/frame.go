// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String returns for instance "02:00:00:00:20:0b".
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText writes what String returns.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (m *MAC) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5])
	if err != nil {
		return fmt.Errorf("MAC address %q: %w", text, err)
	}
	return nil
}

// Frame is a frame that was seen at a port of the switch.
type Frame struct {
	Time   time.Time
	Port   string // the host that the port leads to; "director-eth1" for its second one
	ToHost bool   // the switch sent it to that host; else the host sent it
	Length int    // on the wire, in bytes
	Data   []byte // the first part of it, as much as the capture keeps
}

// Ethernet types and IP protocols that Decode knows.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
	typeIPv6 = 0x86dd

	protocolIPv4 = 4 // IP in IP
	protocolTCP  = 6
	protocolUDP  = 17
	protocolIPv6 = 41
	protocolGRE  = 47
)

// GUEPort is the UDP port that Decode takes for Generic UDP Encapsulation.
const GUEPort = 6080

// Outer is the header that a packet was put into on its way through a tunnel.
// It can be compared with ==.
type Outer struct {
	Tunnel      string     `json:"tunnel"` // ipip, gre or gue
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	TTL         uint8      `json:"ttl"` // or hop limit
	// The UDP ports of gue.
	SourcePort      uint16 `json:"source_port,omitempty"`
	DestinationPort uint16 `json:"destination_port,omitempty"`
}

// Packet is what Decode reads in a frame. It can be compared with ==.
type Packet struct {
	SourceMAC, DestinationMAC MAC
	VLAN                      uint16 // identifier of the outermost tag, 0 for none
	Type                      uint16 // Ethernet type behind the tags
	Outer                     Outer  // zero unless the packet is in a tunnel; the rest is of the packet inside then
	// The rest is zero unless it is IPv4 or IPv6.
	Source, Destination netip.AddrPort // port 0 if there is none, as in a later fragment
	Protocol            uint8
	TTL                 uint8 // or hop limit
	// The rest is zero unless it is TCP with a whole header.
	Seq, Ack uint32
	Flags    TCPFlags
	Payload  int // bytes of TCP payload on the wire
}

// TCPFlags are those of byte 13 of the TCP header.
type TCPFlags uint8

// The flags that a walk tells apart.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// String returns for instance "SYN-ACK".
func (f TCPFlags) String() string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "-")
}

// Decode reads a frame as far as it is understood; what is cut off or unknown
// leaves the later fields zero. A tunnel's packet is looked for in one header.
func (f Frame) Decode() Packet {
	p, _ := f.decode()
	return p
}

// decode returns the IP packet too, that inside if there is a tunnel: as much
// of it as the capture kept.
func (f Frame) decode() (p Packet, ip []byte) {
	d := f.Data
	if len(d) < 14 {
		return p, nil
	}
	copy(p.DestinationMAC[:], d)
	copy(p.SourceMAC[:], d[6:])
	p.Type, d = binary.BigEndian.Uint16(d[12:]), d[14:]
	for (p.Type == typeVLAN || p.Type == typeQinQ) && len(d) >= 4 {
		if p.VLAN == 0 {
			p.VLAN = binary.BigEndian.Uint16(d) & 0xfff
		}
		p.Type, d = binary.BigEndian.Uint16(d[2:]), d[4:]
	}
	above := p.decodeIP(p.Type, d)
	if inner, typ := p.enterTunnel(above); inner != nil {
		d = inner
		p.decodeIP(typ, d)
	}
	return p, d
}

// decodeIP reads an IP packet and returns what its header is followed by, nil
// if that is not to be had.
func (p *Packet) decodeIP(typ uint16, d []byte) (above []byte) {
	switch typ {
	case typeIPv4:
		return p.decodeIPv4(d)
	case typeIPv6:
		return p.decodeIPv6(d)
	}
	return nil
}

func (p *Packet) decodeIPv4(d []byte) (above []byte) {
	if len(d) < 20 {
		return nil
	}
	header := int(d[0]&0xf) * 4
	p.TTL, p.Protocol = d[8], d[9]
	p.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[12:16])), 0)
	p.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[16:20])), 0)
	laterFragment := binary.BigEndian.Uint16(d[6:])&0x1fff != 0
	if header < 20 || len(d) < header || laterFragment {
		return nil
	}
	p.decodeTransport(d[header:], int(binary.BigEndian.Uint16(d[2:]))-header)
	return d[header:]
}

// decodeIPv6 knows no extension headers: the lab's traffic has none.
func (p *Packet) decodeIPv6(d []byte) (above []byte) {
	if len(d) < 40 {
		return nil
	}
	p.Protocol, p.TTL = d[6], d[7]
	p.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(d[8:24])), 0)
	p.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(d[24:40])), 0)
	p.decodeTransport(d[40:], int(binary.BigEndian.Uint16(d[4:])))
	return d[40:]
}

// decodeTransport reads ports, and TCP's fields; length is that of d on the wire.
func (p *Packet) decodeTransport(d []byte, length int) {
	if p.Protocol != protocolTCP && p.Protocol != protocolUDP || len(d) < 8 {
		return
	}
	p.Source = netip.AddrPortFrom(p.Source.Addr(), binary.BigEndian.Uint16(d))
	p.Destination = netip.AddrPortFrom(p.Destination.Addr(), binary.BigEndian.Uint16(d[2:]))
	if p.Protocol != protocolTCP || len(d) < 20 {
		return
	}
	p.Seq, p.Ack = binary.BigEndian.Uint32(d[4:]), binary.BigEndian.Uint32(d[8:])
	p.Flags = TCPFlags(d[13])
	p.Payload = length - int(d[12]>>4)*4
}

// enterTunnel takes what an IP header is followed by. If that is a tunnel's
// packet, what was read so far becomes its outer header, and the packet inside
// is returned with its Ethernet type.
func (p *Packet) enterTunnel(above []byte) (inner []byte, typ uint16) {
	tunnel := "ipip"
	switch p.Protocol {
	case protocolIPv4:
		inner, typ = above, typeIPv4
	case protocolIPv6:
		inner, typ = above, typeIPv6
	case protocolGRE:
		tunnel = "gre"
		inner, typ = skipGRE(above)
	case protocolUDP:
		tunnel = "gue"
		if p.Destination.Port() == GUEPort {
			inner, typ = skipGUE(above)
		}
	}
	if len(inner) == 0 || typ != typeIPv4 && typ != typeIPv6 {
		return nil, 0
	}
	*p = Packet{SourceMAC: p.SourceMAC, DestinationMAC: p.DestinationMAC, VLAN: p.VLAN, Type: p.Type, Outer: Outer{
		Tunnel: tunnel, Source: p.Source.Addr(), Destination: p.Destination.Addr(), TTL: p.TTL,
		SourcePort: p.Source.Port(), DestinationPort: p.Destination.Port(),
	}}
	return inner, typ
}

// skipGRE returns what follows a GRE header (RFC 2784, RFC 2890) and its type.
func skipGRE(d []byte) (inner []byte, typ uint16) {
	const checksum, key, sequence = 0x80, 0x20, 0x10
	if len(d) < 4 || d[1]&7 != 0 {
		return nil, 0
	}
	length := 4
	for _, flag := range []byte{checksum, key, sequence} {
		if d[0]&flag != 0 {
			length += 4
		}
	}
	return d[min(length, len(d)):], binary.BigEndian.Uint16(d[2:])
}

// skipGUE returns what follows UDP and a GUE header and its type. Version 1 has
// no header of its own: the packet begins where it would.
func skipGUE(d []byte) (inner []byte, typ uint16) {
	const udp, header, control = 8, 4, 0x20
	if len(d) < udp+header {
		return nil, 0
	}
	d = d[udp:]
	switch version := d[0] >> 6; {
	case version == 1 && d[0]>>4 == 4:
		return d, typeIPv4
	case version == 1 && d[0]>>4 == 6:
		return d, typeIPv6
	case version != 0 || d[0]&control != 0:
		return nil, 0
	}
	types := map[byte]uint16{protocolIPv4: typeIPv4, protocolIPv6: typeIPv6}
	return d[min(header+int(d[0]&0x1f)*4, len(d)):], types[d[1]]
}
