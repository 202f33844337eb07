// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
	"lvx/internal/sched"
)

// This file is the only border between lvs's nouns and the maps' bytes.

func encodeAddr(a netip.Addr) bpfAddr { return bpfAddr{Bytes: a.As16()} }

func decodeAddr(a bpfAddr) netip.Addr { return netip.AddrFrom16(a.Bytes).Unmap() }

// encodePort and decodePort swap to and from network order: the programs, and so
// the daemon, run on little-endian machines only.
func encodePort(port uint16) uint16 { return bits.ReverseBytes16(port) }

func decodePort(port uint16) uint16 { return bits.ReverseBytes16(port) }

func decodeAddrPort(a bpfAddr, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddr(a), decodePort(port))
}

func encodeKey(k lvs.ServiceKey) bpfServiceKey {
	return bpfServiceKey{
		Vip:      encodeAddr(k.Address.Addr()),
		Port:     encodePort(k.Address.Port()),
		Protocol: uint8(k.Protocol),
	}
}

func decodeKey(k bpfServiceKey) lvs.ServiceKey {
	return lvs.ServiceKey{Protocol: lvs.Protocol(k.Protocol), Address: decodeAddrPort(k.Vip, k.Port)}
}

var schedulers = map[lvs.Scheduler]bpfScheduler{
	lvs.RR:  bpfSchedulerSCHEDULER_RR,
	lvs.WRR: bpfSchedulerSCHEDULER_WRR,
	lvs.LC:  bpfSchedulerSCHEDULER_LC,
	lvs.WLC: bpfSchedulerSCHEDULER_WLC,
	lvs.SH:  bpfSchedulerSCHEDULER_SH,
	lvs.MH:  bpfSchedulerSCHEDULER_MH,
}

// poolFlags are the bits by the names that every scheduler takes.
var poolFlags = []struct {
	name string
	bit  bpfPoolFlag
}{
	{"flag-1", bpfPoolFlagPOOL_FALLBACK},
	{"flag-2", bpfPoolFlagPOOL_PORT},
	{"flag-3", bpfPoolFlagPOOL_FLAG_3},
}

func encodeFlags(s lvs.Scheduler, flags lvs.SchedulerFlags) (bits uint32) {
	names := flags.Names()
	for _, f := range poolFlags {
		own, err := lvs.ParseSchedulerFlags(s, []string{f.name})
		if err == nil && slices.Contains(names, string(own)) {
			bits |= uint32(f.bit)
		}
	}
	return bits
}

func decodeFlags(s lvs.Scheduler, bits uint32) lvs.SchedulerFlags {
	var names []string
	for _, f := range poolFlags {
		if bits&uint32(f.bit) != 0 {
			names = append(names, f.name)
		}
	}
	flags, _ := lvs.ParseSchedulerFlags(s, names) // every scheduler takes those names
	return flags
}

// encodeWeight and decodeSeat: see struct seat in types.h.
func encodeWeight(s sched.Seat) int32 {
	if s.Weight == 0 {
		return -int32(s.Last)
	}
	return int32(s.Weight)
}

func decodeSeat(s bpfSeat) sched.Seat {
	if s.Weight < 0 {
		return sched.Seat{ID: s.RealServer, Last: uint32(-s.Weight)}
	}
	return sched.Seat{ID: s.RealServer, Weight: uint32(s.Weight), Last: uint32(s.Weight)}
}

var methods = map[lvs.Method]bpfMethod{lvs.DR: bpfMethodMETHOD_DR, lvs.NAT: bpfMethodMETHOD_NAT, lvs.Tun: bpfMethodMETHOD_TUN}

var tunnels = map[lvs.TunnelType]bpfTunnelType{
	lvs.IPIP: bpfTunnelTypeTUNNEL_IPIP, lvs.GUE: bpfTunnelTypeTUNNEL_GUE, lvs.GRE: bpfTunnelTypeTUNNEL_GRE,
}

// encodeTunnel writes the fields of a real server that are its tunnel's.
func encodeTunnel(record *bpfRealServer, t lvs.Tunnel) {
	record.Tunnel, record.TunnelPort = uint8(tunnels[t.Type]), encodePort(t.Port)
	if t.Checksum == lvs.HeaderChecksum {
		record.TunnelFlags = uint8(bpfTunnelFlagTUNNEL_CHECKSUM)
	}
}

// decodeTunnel reads them. Other methods have none.
func decodeTunnel(record *bpfRealServer) (t lvs.Tunnel) {
	if record.Method != bpfMethodMETHOD_TUN {
		return t
	}
	t = lvs.Tunnel{Type: decodeName(tunnels, bpfTunnelType(record.Tunnel)), Port: decodePort(record.TunnelPort)}
	if record.TunnelFlags&uint8(bpfTunnelFlagTUNNEL_CHECKSUM) != 0 {
		t.Checksum = lvs.HeaderChecksum
	}
	return t
}

var states = map[bpfConnState]lvs.State{
	bpfConnStateSTATE_NONE:        lvs.StateNone,
	bpfConnStateSTATE_ESTABLISHED: lvs.StateEstablished,
	bpfConnStateSTATE_SYN_SENT:    lvs.StateSynSent,
	bpfConnStateSTATE_SYN_RECV:    lvs.StateSynRecv,
	bpfConnStateSTATE_FIN_WAIT:    lvs.StateFinWait,
	bpfConnStateSTATE_TIME_WAIT:   lvs.StateTimeWait,
	bpfConnStateSTATE_CLOSE:       lvs.StateClose,
	bpfConnStateSTATE_CLOSE_WAIT:  lvs.StateCloseWait,
	bpfConnStateSTATE_LAST_ACK:    lvs.StateLastAck,
	bpfConnStateSTATE_LISTEN:      lvs.StateListen,
	bpfConnStateSTATE_SYNACK:      lvs.StateSynAck,
	bpfConnStateSTATE_UDP:         lvs.StateUDP,
	bpfConnStateSTATE_UDP_NEW:     lvs.StateUDP,
}

// encodeState returns the state that a connection is made in: of UDP, one that was
// heard of before.
func encodeState(s lvs.State) (bpfConnState, bool) {
	for number, state := range states {
		if state == s && number != bpfConnStateSTATE_NONE && number != bpfConnStateSTATE_UDP_NEW {
			return number, true
		}
	}
	return 0, false
}

// decodeName returns the key of a value: the nouns' side of a table above.
func decodeName[K, V comparable](table map[K]V, value V) (name K) {
	for k, v := range table {
		if v == value {
			return k
		}
	}
	return name
}

func decodeStats(s bpfStats) lvs.Stats {
	return lvs.Stats{
		Connections: s.Connections,
		InPackets:   s.InPackets, OutPackets: s.OutPackets,
		InBytes: s.InBytes, OutBytes: s.OutBytes,
	}
}

// addStats returns a + sign·b.
func addStats(a, b bpfStats, sign int64) bpfStats {
	s := uint64(sign)
	a.Connections += s * b.Connections
	a.InPackets += s * b.InPackets
	a.OutPackets += s * b.OutPackets
	a.InBytes += s * b.InBytes
	a.OutBytes += s * b.OutBytes
	return a
}

func decodeCounts(word uint64) lvs.Counts {
	return lvs.Counts{Active: uint32(word), Inactive: uint32(word >> 32)}
}

// connWord is a connection's word taken apart; see enum conn_bits in types.h.
type connWord struct {
	expires uint32 // ticks
	server  uint32
	state   bpfConnState
	version uint8
}

func decodeWord(w uint64) connWord {
	return connWord{
		expires: uint32(w),
		server:  uint32(w>>bpfConnBitsCONN_SERVER_SHIFT) & uint32(bpfConnBitsCONN_SERVER_MASK),
		state:   bpfConnState(w>>bpfConnBitsCONN_STATE_SHIFT) & bpfConnState(bpfConnBitsCONN_STATE_MASK),
		version: uint8(w >> bpfConnBitsCONN_VERSION_SHIFT),
	}
}

// alive tells whether it is a connection's, be its time up or not.
func (w connWord) alive() bool {
	return w.state != bpfConnStateSTATE_NONE && w.state < bpfConnStateSTATE_BUSY
}

// connKey is a slot's key taken apart.
type connKey struct {
	version, generation uint8
	port                uint16  // the client's
	client              [4]byte // the client's address, if it is of IPv4
}

func decodeConnKey(k uint64) connKey {
	var bytes [8]byte
	binary.LittleEndian.PutUint64(bytes[:], k)
	return connKey{version: bytes[0], generation: bytes[1], port: binary.BigEndian.Uint16(bytes[2:]), client: [4]byte(bytes[4:])}
}

const tick = time.Second / time.Duration(bpfConnBitsCONN_TICKS_PER_SECOND)

// ticks returns the data plane's clock for a time of the coarse monotonic clock.
func ticks(now time.Duration) uint32 { return uint32(now / tick) }

// coarseNow reads the clock that the programs read (bpf_ktime_get_coarse_ns).
func coarseNow() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		panic(fmt.Sprintf("read CLOCK_MONOTONIC_COARSE: %v", err)) // every Linux has it
	}
	return time.Duration(t.Nano())
}

// encodeTicks returns a timeout in ticks, at least one.
func encodeTicks(d lvs.Duration) uint32 { return max(uint32(time.Duration(d)/tick), 1) }

func decodeTicks(t uint32) lvs.Duration { return lvs.Duration(time.Duration(t) * tick) }

// encodeMAC returns a next hop's word: the address in its first six bytes as on
// the wire, the state behind it.
func encodeMAC(mac net.HardwareAddr, state bpfHopState) uint64 {
	var bytes [8]byte
	copy(bytes[:6], mac)
	return binary.LittleEndian.Uint64(bytes[:]) | uint64(state)<<bpfHopStateHOP_STATE_SHIFT
}

func decodeMAC(word uint64) (net.HardwareAddr, bpfHopState) {
	bytes := binary.LittleEndian.AppendUint64(nil, word)
	return bytes[:6], bpfHopState(word >> bpfHopStateHOP_STATE_SHIFT)
}

var hopStates = map[bpfHopState]lvs.NextHopState{
	bpfHopStateHOP_UNRESOLVED: lvs.NextHopUnresolved,
	bpfHopStateHOP_READY:      lvs.NextHopReady,
	bpfHopStateHOP_OFF_LINK:   lvs.NextHopOffLink,
	bpfHopStateHOP_NO_ROUTE:   lvs.NextHopNoRoute,
	bpfHopStateHOP_LOCAL:      lvs.NextHopLocal,
	bpfHopStateHOP_ROUTED:     lvs.NextHopReady,
}
