// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const frameBytes = 100

// traffic is a sequence of packets, alike but for their flows.
type traffic struct {
	six          bool
	syn          bool // else ACKs
	destinations prefix
	first        int // of the destinations
	spread       int // so many of them
	clients      prefix
	from, flows  uint32 // flows 0: 2^32, so that none comes twice
	inOrder      bool   // else in steps that visit each flow once before any twice
}

// step returns how far it is from a flow to the next. Near the golden section of all,
// so that a part of them is spread over the whole.
func (t traffic) step() uint32 {
	switch {
	case t.flows == 1:
		return 0
	case t.inOrder:
		return 1
	case t.flows == 0:
		return 2654435769 // odd
	}
	step := uint32(float64(t.flows) * (math.Sqrt(5) - 1) / 2)
	for gcd(step, t.flows) != 1 {
		step++
	}
	return step
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// at returns the flow of the nth packet.
func (t traffic) at(n uint64) uint32 {
	if t.flows == 0 {
		return uint32(n) * t.step()
	}
	return uint32(n % uint64(t.flows) * uint64(t.step()) % uint64(t.flows))
}

// round returns what the generator needs to know, from packet number n of the
// sequence on.
func (t traffic) round(p port, n uint64) (genRound, []byte, error) {
	frame, err := t.frame(p.mac)
	if err != nil {
		return genRound{}, nil, err
	}
	return genRound{
		Ethernet: binary.NativeEndian.Uint64(frame), Ethernet8: binary.NativeEndian.Uint32(frame[8:]),
		IpSum: headerSum(frame), TtlProtocol: binary.NativeEndian.Uint16(frame[22:]),
		At: t.at(n), Step: t.step(), Flows: t.flows, From: t.from,
		Clients: t.clients.low(), Destination: t.destinations.low() + uint32(t.first), Spread: uint32(t.spread),
		Port: binary.NativeEndian.Uint16([]byte{vipPort >> 8, vipPort & 0xff}),
	}, frame, nil
}

// headerSum adds up an IPv4 header's words before its checksum.
func headerSum(frame []byte) (sum uint32) {
	for at := 14; at < 24; at += 2 {
		sum += uint32(binary.NativeEndian.Uint16(frame[at:]))
	}
	return sum
}

// frame returns the packet that the generator changes.
func (t traffic) frame(to net.HardwareAddr) ([]byte, error) {
	tcp := &layers.TCP{SrcPort: 1024, DstPort: vipPort, Window: 1000, SYN: t.syn, ACK: !t.syn}
	eth := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: to, EthernetType: layers.EthernetTypeIPv4}
	from, dst := t.clients.at(t.six, 0), t.destinations.at(t.six, 0)
	ip := t.ip(from, dst)
	if t.six {
		eth.EthernetType = layers.EthernetTypeIPv6
	}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		return nil, fmt.Errorf("make a frame: %w", err)
	}
	payload := gopacket.Payload(make([]byte, frameBytes-t.headers()))
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, eth, ip.(gopacket.SerializableLayer), tcp, payload); err != nil {
		return nil, fmt.Errorf("make a frame: %w", err)
	}
	return buffer.Bytes(), nil
}

func (t traffic) ip(from, to netip.Addr) gopacket.NetworkLayer {
	if t.six {
		return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	}
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
}

// headers returns the bytes of all headers.
func (t traffic) headers() int {
	if t.six {
		return 14 + 40 + 20
	}
	return 14 + 20 + 20
}
