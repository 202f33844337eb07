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
	Port   string // the host that the port leads to
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

	protocolTCP = 6
	protocolUDP = 17
)

// Packet is what Decode reads in a frame. It can be compared with ==.
type Packet struct {
	SourceMAC, DestinationMAC MAC
	VLAN                      uint16 // identifier of the outermost tag, 0 for none
	Type                      uint16 // Ethernet type behind the tags
	// The rest is zero unless Type is IPv4 or IPv6.
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
// leaves the later fields zero.
func (f Frame) Decode() (p Packet) {
	d := f.Data
	if len(d) < 14 {
		return p
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
	switch p.Type {
	case typeIPv4:
		p.decodeIPv4(d)
	case typeIPv6:
		p.decodeIPv6(d)
	}
	return p
}

func (p *Packet) decodeIPv4(d []byte) {
	if len(d) < 20 {
		return
	}
	header := int(d[0]&0xf) * 4
	p.TTL, p.Protocol = d[8], d[9]
	p.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[12:16])), 0)
	p.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(d[16:20])), 0)
	laterFragment := binary.BigEndian.Uint16(d[6:])&0x1fff != 0
	if header < 20 || len(d) < header || laterFragment {
		return
	}
	p.decodeTransport(d[header:], int(binary.BigEndian.Uint16(d[2:]))-header)
}

// decodeIPv6 knows no extension headers: the lab's traffic has none.
func (p *Packet) decodeIPv6(d []byte) {
	if len(d) < 40 {
		return
	}
	p.Protocol, p.TTL = d[6], d[7]
	p.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(d[8:24])), 0)
	p.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(d[24:40])), 0)
	p.decodeTransport(d[40:], int(binary.BigEndian.Uint16(d[4:])))
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
