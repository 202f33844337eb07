// SPDX-License-Identifier: Apache-2.0

package sched

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Secret keys the hashes of mh: who does not know it cannot choose a real server
// by choosing an address. Directors with the same one send a client to the same
// real server.
type Secret [2]uint64

// address hashes an address, of IPv4 in its v4-mapped form.
func (s Secret) address(a netip.Addr) uint64 {
	bytes := a.As16()
	return s.siphash(bytes[:])
}

// addressAndPort hashes an address and the port behind it, in network order.
func (s Secret) addressAndPort(a netip.AddrPort) uint64 {
	var bytes [18]byte
	address := a.Addr().As16()
	copy(bytes[:], address[:])
	binary.BigEndian.PutUint16(bytes[16:], a.Port())
	return s.siphash(bytes[:])
}

// siphash is SipHash-1-3 of Aumasson and Bernstein, "SipHash: a fast short-input
// PRF" (2012), as bpf/hash.h has it for 16 and 18 bytes.
func (s Secret) siphash(message []byte) uint64 {
	v := sip{
		s[0] ^ 0x736f6d6570736575, s[1] ^ 0x646f72616e646f6d,
		s[0] ^ 0x6c7967656e657261, s[1] ^ 0x7465646279746573,
	}
	last := uint64(len(message)) << 56
	for ; len(message) >= 8; message = message[8:] {
		v.compress(binary.LittleEndian.Uint64(message))
	}
	for i, b := range message {
		last |= uint64(b) << (8 * i)
	}
	v.compress(last)
	v[2] ^= 0xff
	for range 3 {
		v.round()
	}
	return v[0] ^ v[1] ^ v[2] ^ v[3]
}

type sip [4]uint64

func (v *sip) compress(word uint64) {
	v[3] ^= word
	v.round()
	v[0] ^= word
}

func (v *sip) round() {
	v[0] += v[1]
	v[2] += v[3]
	v[1] = bits.RotateLeft64(v[1], 13) ^ v[0]
	v[3] = bits.RotateLeft64(v[3], 16) ^ v[2]
	v[0] = bits.RotateLeft64(v[0], 32)
	v[2] += v[1]
	v[0] += v[3]
	v[1] = bits.RotateLeft64(v[1], 17) ^ v[2]
	v[3] = bits.RotateLeft64(v[3], 21) ^ v[0]
	v[2] = bits.RotateLeft64(v[2], 32)
}
