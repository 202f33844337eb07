// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/safchain/ethtool"

	"lvx/internal/lvs"
)

// offloads are the ones that hide from XDP what a packet was on the wire; their
// bits stand in the flags of bpf `struct interface`, so that unload can turn on
// again exactly what was turned off.
var offloads = []struct {
	name    string // the kernel's
	bit     uint16
	generic bool // only in generic mode, where XDP comes after it
}{
	{"rx-lro", 1 << 0, false},           // several packets made one
	{"rx-gro-hw", 1 << 1, false},        // the same, reversibly
	{"rx-vlan-hw-parse", 1 << 2, false}, // the tag is taken off the frame
	{"rx-gro", 1 << 3, true},
}

const flagOffloads = 1<<4 - 1

// turnOffloadsOff turns off what is on, and returns the bits of all that lvx has
// turned off, also before: those in flags.
func turnOffloadsOff(name string, mode lvs.XDPMode, flags uint16) (off uint16, err error) {
	off = flags & flagOffloads
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return off, fmt.Errorf("open ethtool: %w", err)
	}
	defer tool.Close()
	on, err := tool.Features(name)
	if err != nil {
		return off, fmt.Errorf("read offloads: %w", err)
	}
	for _, o := range offloads {
		if !on[o.name] || o.generic && mode != lvs.XDPGeneric {
			continue
		}
		// Some devices fix a feature; what cannot change is left as it is.
		if changed := tool.Change(name, map[string]bool{o.name: false}); changed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", o.name, changed))
			continue
		}
		if after, readErr := tool.Features(name); readErr == nil && !after[o.name] {
			off |= o.bit
		}
	}
	return off, err
}

func offloadNames(bits uint16) []string {
	names := []string{}
	for _, o := range offloads {
		if bits&o.bit != 0 {
			names = append(names, o.name)
		}
	}
	return names
}

// restoreOffloads turns on again what the entries of `interfaces` say was turned
// off, in this network namespace.
func restoreOffloads(interfaces *ebpf.Map) (err error) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer tool.Close()
	var index uint32
	var entry bpfInterface
	for all := interfaces.Iterate(); all.Next(&index, &entry); {
		i, findErr := net.InterfaceByIndex(int(index))
		if findErr != nil {
			continue // gone, and its offloads with it
		}
		for _, name := range offloadNames(entry.Flags) {
			if changed := tool.Change(i.Name, map[string]bool{name: true}); changed != nil {
				err = errors.Join(err, fmt.Errorf("interface %s: turn %s on again: %w", i.Name, name, changed))
			}
		}
	}
	return err
}

// lostAfterVerdict adds up what the driver says it lost of packets that the
// program sent. Drivers name such counters each in their way.
func lostAfterVerdict(name string) (lost uint64) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return 0
	}
	defer tool.Close()
	stats, err := tool.Stats(name)
	if err != nil {
		return 0 // the driver counts nothing
	}
	for counter, n := range stats {
		for _, suffix := range []string{"xdp_tx_errors", "xdp_tx_err", "xdp_xmit_errors", "xdp_redirect_errors", "xdp_redirect_fail", "xdp_tx_full"} {
			if strings.HasSuffix(counter, suffix) {
				lost += n
			}
		}
	}
	return lost
}
