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

// offloadsOn returns the bits of the offloads that are on and have to go off.
func offloadsOn(name string, mode lvs.XDPMode) (bits uint16, err error) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return 0, fmt.Errorf("open ethtool: %w", err)
	}
	defer tool.Close()
	features, err := tool.FeaturesWithState(name)
	if err != nil {
		return 0, fmt.Errorf("read offloads: %w", err)
	}
	for _, o := range offloads {
		f := features[o.name]
		if f.Active && f.Available && !f.NeverChanged && (!o.generic || mode == lvs.XDPGeneric) {
			bits |= o.bit
		}
	}
	return bits, nil
}

// changeOffloads turns offloads on or off.
func changeOffloads(name string, bits uint16, on bool) error {
	if bits&flagOffloads == 0 {
		return nil
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer tool.Close()
	for _, offload := range offloadNames(bits) {
		if changed := tool.Change(name, map[string]bool{offload: on}); changed != nil {
			err = errors.Join(err, fmt.Errorf("interface %s: change %s: %w", name, offload, changed))
		}
	}
	return err
}

const flagOffloads = 1<<4 - 1

func offloadNames(bits uint16) []string {
	names := []string{}
	for _, o := range offloads {
		if bits&o.bit != 0 {
			names = append(names, o.name)
		}
	}
	return names
}

// restoreOffload turns on again what was turned off at an interface, if it is
// still there.
func restoreOffload(index int, flags uint16) error {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return nil //nolint:nilerr // gone, and its offloads with it
	}
	return changeOffloads(i.Name, flags, true)
}

// restoreOffloads does so for every entry of `interfaces`, in this network namespace.
func restoreOffloads(interfaces *ebpf.Map) (err error) {
	var index uint32
	var entry bpfInterface
	for all := interfaces.Iterate(); all.Next(&index, &entry); {
		err = errors.Join(err, restoreOffload(int(index), entry.Flags))
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
