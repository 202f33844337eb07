// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// arpPacket is what of an ARP packet matters here.
type arpPacket struct {
	operation      uint16 // 1 who-has, 2 is-at
	sender, target netip.Addr
}

func (p arpPacket) marshal(mac net.HardwareAddr) []byte {
	b := binary.BigEndian.AppendUint16(nil, 1) // Ethernet
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IP)
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, p.operation)
	b = append(append(b, mac...), p.sender.AsSlice()...)
	return append(append(b, make([]byte, 6)...), p.target.AsSlice()...)
}

func parseARP(b []byte) (arpPacket, bool) {
	if len(b) < 28 {
		return arpPacket{}, false
	}
	return arpPacket{
		operation: binary.BigEndian.Uint16(b[6:]),
		sender:    netip.AddrFrom4([4]byte(b[14:18])),
		target:    netip.AddrFrom4([4]byte(b[24:28])),
	}, true
}

// ear is a packet socket for ARP on eth0.
type ear struct {
	fd   int
	link netlink.Link
}

func listenARP() (*ear, error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return nil, err
	}
	e := &ear{fd: fd, link: link}
	if err := unix.Bind(fd, e.address(nil)); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return e, nil
}

func (e *ear) address(mac net.HardwareAddr) *unix.SockaddrLinklayer {
	a := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP)), Ifindex: e.link.Attrs().Index, Halen: uint8(len(mac))}
	copy(a.Addr[:], mac)
	return a
}

// wait returns the first ARP packet from outside that matches, or an error
// once the time is over.
func (e *ear) wait(limit time.Duration, match func(arpPacket) bool) (arpPacket, error) {
	deadline := time.Now().Add(limit)
	buffer := make([]byte, 1500)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return arpPacket{}, errSilence
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || ready == 0 {
			continue
		}
		if err != nil {
			return arpPacket{}, err
		}
		n, from, err := unix.Recvfrom(e.fd, buffer, 0)
		if err != nil {
			return arpPacket{}, err
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if p, ok := parseARP(buffer[:n]); ok && match(p) {
			return p, nil
		}
	}
}

var errSilence = errors.New("no ARP packet came")

// whoHas asks for an address as an ordinary neighbour would, and tells whether
// it is answered. An answer for RIP, asked for afterwards, ends the waiting:
// one interface answers in order, so silence is known without a long wait.
func whoHas(target netip.Addr) (answered bool, err error) {
	e, err := listenARP()
	if err != nil {
		return false, err
	}
	defer unix.Close(e.fd)
	mac := e.link.Attrs().HardwareAddr
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	for _, a := range []netip.Addr{target, rip.Addr()} {
		ask := arpPacket{operation: 1, sender: client.Addr(), target: a}
		if err := unix.Sendto(e.fd, ask.marshal(mac), 0, e.address(broadcast)); err != nil {
			return false, err
		}
	}
	answer, err := e.wait(5*time.Second, func(p arpPacket) bool {
		return p.operation == 2 && (p.sender == target || p.sender == rip.Addr())
	})
	return answer.sender == target, err
}

// lan is a real server and a client on one cable.
func lan(t *testing.T) (server, neighbour *machine) {
	t.Helper()
	server, neighbour = newMachine(t), newMachine(t)
	cable(t, server, neighbour)
	server.addAddress("eth0", rip)
	neighbour.addAddress("eth0", client)
	return server, neighbour
}

func (m *machine) asks(target netip.Addr) (answered bool) {
	m.t.Helper()
	m.do(func() (err error) {
		answered, err = whoHas(target)
		return err
	})
	return answered
}

func TestJoinSilencesARP(t *testing.T) {
	server, neighbour := lan(t)
	server.addAddress(loopback, host32(vip))
	if !neighbour.asks(vip) {
		t.Fatal("with arp_ignore 0 a VIP on lo has to be answered, else this test proves nothing")
	}
	server.join(server.options(vip))
	if neighbour.asks(vip) {
		t.Error("ARP for the VIP is answered after join")
	}
	server.leave(server.options(vip))
	if !neighbour.asks(vip) {
		t.Error("ARP for the VIP, which was there before, is not answered after leave")
	}
}

func TestOnlyLoIsNotEnough(t *testing.T) {
	server, neighbour := lan(t)
	server.addAddress(loopback, host32(vip))
	server.set(loopback, "arp_ignore", 1)
	server.set(loopback, "arp_announce", 2)
	if !neighbour.asks(vip) {
		t.Error("conf/lo alone silences ARP: the kernel has changed, so has the advice to")
	}
	bad := wrong(server.status(server.options(vip)))
	fact, ok := bad["arp_ignore on eth0"]
	if !ok || fact.Effective != "0" || fact.Fix != "sysctl -w net.ipv4.conf.all.arp_ignore=1" || fact.Note == "" {
		t.Errorf("status of a host with only conf/lo set: %+v", fact)
	}
	if _, ok := bad["arp_announce on eth0"]; !ok {
		t.Error("status finds arp_announce right with only conf/lo set")
	}
}

// TestStatusAgreesWithKernel asks the kernel about every value of arp_ignore.
func TestStatusAgreesWithKernel(t *testing.T) {
	server, neighbour := lan(t)
	server.addAddress(loopback, host32(vip))
	for value := range 8 { // not 8: then RIP is not answered either, and whoHas cannot end
		server.set(all, "arp_ignore", value)
		answered := neighbour.asks(vip)
		_, bad := wrong(server.status(server.options(vip)))["arp_ignore on eth0"]
		if answered != bad {
			t.Errorf("arp_ignore %d: answered %v, status says wrong %v", value, answered, bad)
		}
	}
}

// asksAsVIP makes the server send a UDP packet from the VIP to a neighbour that
// it has not resolved, and returns the sender of its ARP request.
func asksAsVIP(t *testing.T, server, neighbour *machine, target netip.Addr) netip.Addr {
	t.Helper()
	var e *ear
	neighbour.do(func() (err error) { e, err = listenARP(); return err })
	defer unix.Close(e.fd)
	server.do(func() error { return sendUDP(vip, target) })
	request, err := e.wait(5*time.Second, func(p arpPacket) bool { return p.operation == 1 && p.target == target })
	if err != nil {
		t.Fatalf("the server's ARP request: %v", err)
	}
	return request.sender
}

func sendUDP(from, to netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Port: 9, Addr: to.As4()})
}

func TestServerAsksWithItsOwnAddress(t *testing.T) {
	server, neighbour := lan(t)
	server.addAddress(loopback, host32(vip))
	for value := range 2 {
		server.set(all, "arp_announce", value)
		target := netip.AddrFrom4([4]byte{192, 0, 2, byte(50 + value)})
		if got := asksAsVIP(t, server, neighbour, target); got != vip {
			t.Fatalf("with arp_announce %d the server asks as %s, not as the VIP: this test proves nothing", value, got)
		}
	}
	server.join(server.options(vip))
	if got := asksAsVIP(t, server, neighbour, netip.MustParseAddr("192.0.2.60")); got != rip.Addr() {
		t.Errorf("after join the server asks as %s, want its own %s", got, rip.Addr())
	}
}
