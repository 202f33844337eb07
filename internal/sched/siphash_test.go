// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// The reference vectors of SipHash-1-3: key 00 01 … 0f, message 00 01 … .
func TestSiphashVectors(t *testing.T) {
	secret := Secret{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	var message []byte
	for i := range 18 {
		message = append(message, byte(i))
	}
	for length, want := range map[int][8]byte{
		0:  {0xdc, 0xc4, 0x0f, 0x05, 0x58, 0x01, 0xac, 0xab},
		1:  {0x93, 0xca, 0x57, 0x7d, 0xf3, 0x9b, 0xf4, 0xc9},
		16: {0x66, 0x8b, 0x90, 0x7d, 0x1a, 0xdd, 0x4f, 0xcc},
		18: {0x3e, 0xe6, 0x73, 0xb4, 0x9c, 0x38, 0xfc, 0x8f},
	} {
		if got := secret.siphash(message[:length]); got != binary.LittleEndian.Uint64(want[:]) {
			t.Errorf("%d bytes: %016x, want % x backwards", length, got, want)
		}
	}
	if a := netip.AddrFrom16([16]byte(message)); secret.address(a) != secret.siphash(message[:16]) ||
		secret.addressAndPort(netip.AddrPortFrom(a, 0x1011)) != secret.siphash(message) {
		t.Error("an address is not hashed as its bytes, with the port in network order")
	}
}
