// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"lvx/internal/lab"
)

// Checksums of everything that is on the wire, recomputed from nothing.

// inspector looks at every frame at every port of the switch.
type inspector struct {
	capture *lab.Capture
	mu      sync.Mutex // guards what follows
	looked  map[string]int
	wrong   []string
}

// inspect begins to look; the test fails at the end if a frame was wrong.
func (b *bed) inspect() *inspector {
	b.t.Helper()
	i := &inspector{looked: map[string]int{}}
	var err error
	i.capture, err = b.Watch(i.see)
	b.must("watch the switch", err)
	b.t.Cleanup(func() { i.report(b.t) })
	return i
}

func (i *inspector) see(f lab.Frame) {
	err := verifyFrame(f.Data)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.looked[f.Port]++
	if err != nil && len(i.wrong) < 10 {
		i.wrong = append(i.wrong, fmt.Sprintf("at %s, to the host %t: %v: % x", f.Port, f.ToHost, err, f.Data[:min(len(f.Data), 128)]))
	}
}

func (i *inspector) report(t *testing.T) {
	if _, err := i.capture.Stop(); err != nil {
		t.Log(err) // in a rush some frames are not looked at
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, w := range i.wrong {
		t.Errorf("a frame %s", w)
	}
	for _, host := range []string{lab.Director, lab.Router, "rs1"} {
		if i.looked[host] == 0 {
			t.Errorf("no frame was looked at at port %s: %v", host, i.looked)
		}
	}
}

// The protocols that have checksums, or others inside.
const (
	ipICMP   = 1
	ipIPv4   = 4
	ipTCP    = 6
	ipUDP    = 17
	ipIPv6   = 41
	ipGRE    = 47
	ipICMPv6 = 58

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

var errCutShort = errors.New("it is cut short")

// verifyFrame checks every checksum of a whole frame, also those inside tunnels.
// What has none is right.
func verifyFrame(d []byte) error {
	if len(d) < 14 {
		return errCutShort
	}
	return verifyIP(binary.BigEndian.Uint16(d[12:]), d[14:])
}

func verifyIP(kind uint16, d []byte) error {
	switch kind {
	case etherIPv4:
		return verifyIPv4(d)
	case etherIPv6:
		return verifyIPv6(d)
	}
	return nil
}

func verifyIPv4(d []byte) error {
	if len(d) < 20 || len(d) < int(d[0]&0xf)*4 {
		return fmt.Errorf("IPv4: %w", errCutShort)
	}
	header, total := int(d[0]&0xf)*4, int(binary.BigEndian.Uint16(d[2:]))
	if total < header || total > len(d) {
		return fmt.Errorf("IPv4 of %d bytes says %d", len(d), total)
	}
	if s := folded(d[:header]); s != 0xffff {
		return fmt.Errorf("IPv4 header adds up to %#x", s)
	}
	if binary.BigEndian.Uint16(d[6:])&0x3fff != 0 {
		return nil // a fragment has a part only of what the checksum is for
	}
	return verifyAbove(d[9], d[12:20], d[header:total])
}

// verifyIPv6 knows no extension headers but leaves what has some alone.
func verifyIPv6(d []byte) error {
	if len(d) < 40 {
		return fmt.Errorf("IPv6: %w", errCutShort)
	}
	payload := int(binary.BigEndian.Uint16(d[4:]))
	if payload > len(d)-40 {
		return fmt.Errorf("IPv6 of %d bytes says %d", len(d)-40, payload)
	}
	return verifyAbove(d[6], d[8:40], d[40:40+payload])
}

// verifyAbove checks what IP carries between these addresses.
func verifyAbove(protocol uint8, addresses, d []byte) error {
	pseudo := binary.BigEndian.AppendUint32(append([]byte(nil), addresses...), uint32(len(d)))
	pseudo = append(pseudo, 0, 0, 0, protocol)
	switch protocol {
	case ipTCP:
		return addsUp("TCP", 20, d, pseudo)
	case ipUDP:
		return verifyUDP(addresses, d, pseudo)
	case ipICMP:
		return addsUp("ICMP", 8, d, nil)
	case ipICMPv6:
		return addsUp("ICMPv6", 4, d, pseudo)
	case ipIPv4:
		return verifyInside("IP in IP", etherIPv4, d)
	case ipIPv6:
		return verifyInside("IP in IP", etherIPv6, d)
	case ipGRE:
		return verifyGRE(d)
	}
	return nil
}

func verifyInside(tunnel string, kind uint16, d []byte) error {
	if err := verifyIP(kind, d); err != nil {
		return fmt.Errorf("in %s: %w", tunnel, err)
	}
	return nil
}

func verifyUDP(addresses, d, pseudo []byte) error {
	if len(d) < 8 || int(binary.BigEndian.Uint16(d[4:])) != len(d) {
		return fmt.Errorf("UDP of %d bytes says another length", len(d))
	}
	tunnel := binary.BigEndian.Uint16(d[2:]) == lab.GUEPort
	// None is as good as right: in IPv4, and for tunnels (RFC 6935).
	if none := binary.BigEndian.Uint16(d[6:]) == 0; none && len(addresses) == 32 && !tunnel {
		return errors.New("UDP over IPv6 has no checksum")
	} else if !none {
		if err := addsUp("UDP", 8, d, pseudo); err != nil {
			return err
		}
	}
	if !tunnel || len(d) < 12 {
		return nil
	}
	kinds := map[byte]uint16{ipIPv4: etherIPv4, ipIPv6: etherIPv6}
	begin := 12 + int(d[8]&0x1f)*4
	return verifyInside("GUE", kinds[d[9]], d[min(begin, len(d)):])
}

func verifyGRE(d []byte) error {
	if len(d) < 4 {
		return fmt.Errorf("GRE: %w", errCutShort)
	}
	begin := 4
	if d[0]&0x80 != 0 {
		begin = 8
		if err := addsUp("GRE", 8, d, nil); err != nil {
			return err
		}
	}
	return verifyInside("GRE", binary.BigEndian.Uint16(d[2:]), d[begin:])
}

// addsUp checks that data and pseudo header add up to nothing.
func addsUp(what string, least int, d, pseudo []byte) error {
	if len(d) < least {
		return fmt.Errorf("%s: %w", what, errCutShort)
	}
	if s := folded(d, pseudo); s != 0xffff {
		return fmt.Errorf("%s of %d bytes adds up to %#x", what, len(d), s)
	}
	return nil
}

// folded is the ones' complement sum of parts, each but the first of even length.
func folded(parts ...[]byte) uint16 {
	var sum uint64
	for _, d := range parts {
		for ; len(d) >= 4; d = d[4:] {
			sum += uint64(binary.BigEndian.Uint32(d))
		}
		rest := [4]byte{}
		copy(rest[:], d)
		sum += uint64(binary.BigEndian.Uint32(rest[:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// TestVerifyFrame: what is right is found right, and a bit that is wrong is found,
// wherever it is.
func TestVerifyFrame(t *testing.T) {
	client := map[int]string{4: "203.0.113.9:40000", 6: "[2001:db8:113::9]:40000"}
	for _, family := range families {
		for _, v := range []virtual{tcp(family, 80), udp(family, 80)} {
			right := frame(t, netip.MustParseAddrPort(client[family]), v, lab.SYN)
			for _, d := range [][]byte{right, tunnelled(right, family)} {
				if err := verifyFrame(d); err != nil {
					t.Errorf("%s %s: %v", v.network(), v, err)
				}
				for at := 14; at < len(d); at++ {
					none := uncovered(d, at, family)
					if d[at] ^= 4; verifyFrame(d) == nil && !none {
						t.Errorf("%s %s: byte %d is wrong and nobody sees it", v.network(), v, at)
					}
					d[at] ^= 4
				}
			}
		}
	}
}

// tunnelled puts a frame's packet into GRE with a checksum, over IPv4.
func tunnelled(d []byte, family int) []byte {
	kind := map[int]uint16{4: etherIPv4, 6: etherIPv6}[family]
	gre := append(binary.BigEndian.AppendUint16([]byte{0x80, 0}, kind), make([]byte, 4)...)
	gre = append(gre, d[14:]...)
	binary.BigEndian.PutUint16(gre[4:], ^folded(gre))
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, ipGRE, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(gre)))
	binary.BigEndian.PutUint16(ip[10:], ^folded(ip))
	out := append(append([]byte(nil), d[:12]...), 0x08, 0x00)
	return append(append(out, ip...), gre...)
}

// uncovered are the bytes that no checksum is for: the padding of a short frame,
// and of an IPv6 header outside a tunnel what is before the addresses.
func uncovered(d []byte, at, family int) bool {
	if family == 6 && binary.BigEndian.Uint16(d[12:]) == etherIPv6 {
		return at < 14+8 || at >= 14+40+int(binary.BigEndian.Uint16(d[14+4:]))
	}
	return at >= 14+int(binary.BigEndian.Uint16(d[14+2:]))
}
