// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"lvx/internal/lab"
)

// Frames that no socket sends: from addresses that nobody has, in an order that we
// choose.

// frame builds one as the router would send it; flags are those of TCP.
func frame(t *testing.T, client netip.AddrPort, v virtual, flags lab.TCPFlags) []byte {
	t.Helper()
	link := &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0x20, 254}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0x20, 1}}
	network, above := ip(client.Addr(), v, link)
	var transport gopacket.SerializableLayer
	if v.flag == "-u" {
		u := &layers.UDP{SrcPort: layers.UDPPort(client.Port()), DstPort: layers.UDPPort(v.Port())}
		transport, _ = u, u.SetNetworkLayerForChecksum(above) // fails for what is not IP alone
	} else {
		s := &layers.TCP{
			SrcPort: layers.TCPPort(client.Port()), DstPort: layers.TCPPort(v.Port()), Window: 1000,
			FIN: flags&lab.FIN != 0, SYN: flags&lab.SYN != 0, RST: flags&lab.RST != 0, PSH: flags&lab.PSH != 0, ACK: flags&lab.ACK != 0,
		}
		transport, _ = s, s.SetNetworkLayerForChecksum(above)
	}
	out := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(out, options, link, network, transport, gopacket.Payload("frame")); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// ip is the IP header of either family; it sets the link's type.
func ip(client netip.Addr, v virtual, link *layers.Ethernet) (gopacket.SerializableLayer, gopacket.NetworkLayer) {
	protocol := layers.IPProtocolTCP
	if v.flag == "-u" {
		protocol = layers.IPProtocolUDP
	}
	if v.family() == 4 {
		link.EthernetType = layers.EthernetTypeIPv4
		h := &layers.IPv4{Version: 4, TTL: 63, Protocol: protocol, SrcIP: client.AsSlice(), DstIP: v.Addr().AsSlice()}
		return h, h
	}
	link.EthernetType = layers.EthernetTypeIPv6
	h := &layers.IPv6{Version: 6, HopLimit: 63, NextHeader: protocol, SrcIP: client.AsSlice(), DstIP: v.Addr().AsSlice()}
	return h, h
}

// post writes frames to the director through its port of the switch, from one CPU.
// Before each it calls ready with its number, until that says no.
func (b *bed) post(cpu int, frames [][]byte, ready func(n int) bool) error {
	return b.Host(lab.Switch).Do(func() error { // on a thread of its own
		var only unix.CPUSet
		only.Set(cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			return err
		}
		port, err := packetSocket(lab.Director)
		if err != nil {
			return err
		}
		defer unix.Close(port)
		for n := 0; n < len(frames) && ready(n); {
			_, err := unix.Write(port, frames[n])
			switch {
			case err == nil:
				n++
			case !errors.Is(err, unix.ENOBUFS): // which is: not sent, come again
				return err
			}
		}
		return nil
	})
}

// paced is for post: so many frames a millisecond, until ctx ends.
func paced(ctx context.Context, perMillisecond int) func(int) bool {
	return func(n int) bool {
		if n%perMillisecond == 0 {
			<-time.After(time.Millisecond)
		}
		return ctx.Err() == nil
	}
}
