// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"lvx/internal/lvs"
)

// FuzzPacket throws frames at the program. Whatever comes, it leaves by one
// counted exit; a passed or dropped frame is untouched, and a forwarded one has
// new MAC addresses and nothing else, and really was a packet to a service.
func FuzzPacket(f *testing.F) {
	r := newRig(f)
	r.service("tcp 198.51.100.1:80", lvs.WLC, server("10.0.0.1:80", 1))
	r.service("udp 198.51.100.1:53", lvs.RR, server("10.0.0.1:53", 1))
	r.service("tcp [2001:db8::1]:80", lvs.RR, server("[2001:db8:1::1]:80", 1))
	for _, seed := range []frame{
		{}, {flags: "A"}, {payload: 100}, {udp: true, vip: "198.51.100.1:53", payload: 9}, {vlans: []uint16{3}}, {vlans: []uint16{3, 4}},
		{vip: "[2001:db8::1]:80", client: "[2001:db8:9::9]:1"}, {vip: "[2001:db8::1]:80", client: "[2001:db8:9::9]:1", vlans: []uint16{9}},
	} {
		f.Add(seed.bytes(f))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 14 || len(in) > 2000 {
			t.Skip("the kernel takes test packets of 14 bytes and more")
		}
		r.t = t
		before := total(r.reasons())
		verdict, out := r.send(in)
		if after := total(r.reasons()); after != before+1 {
			t.Fatalf("%d packets counted", after-before)
		}
		switch verdict {
		case xdpPass, xdpDrop:
			r.wantBytes(out, in)
		case xdpTX:
			r.wantBytes(out, forwarded(in, serverMAC, directorMAC))
			if !plausible(in) {
				t.Errorf("forwarded what is no packet to a service: % x", in)
			}
		default:
			t.Fatalf("verdict %d", verdict)
		}
	})
}

func total(reasons map[string]uint64) (n uint64) {
	for _, packets := range reasons {
		n += packets
	}
	return n
}

// plausible looks for the VIP where the frame's type says that it is.
func plausible(in []byte) bool {
	at := 12
	for range 2 {
		if kind := binary.BigEndian.Uint16(in[at:]); kind == 0x8100 || kind == 0x88a8 {
			at += 4
		}
	}
	v4, v6 := netip.MustParseAddr("198.51.100.1").As4(), netip.MustParseAddr("2001:db8::1").As16()
	switch binary.BigEndian.Uint16(in[at:]) {
	case 0x0800:
		return bytes.Equal(in[at+2+16:at+2+20], v4[:])
	case 0x86dd:
		return bytes.Equal(in[at+2+24:at+2+40], v6[:])
	}
	return false
}
