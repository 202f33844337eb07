// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge is the name of the segment's bridge in the host that is the switch.
func (s segment) bridge() string { return fmt.Sprintf("br%d", s) }

// End is one end of a wire: an interface that the wire makes in a host.
type End struct {
	Host      *Host
	Name      string
	MAC       MAC
	Addresses []netip.Prefix
}

// Connect joins two hosts by a wire.
func (l *Lab) Connect(a, b End) error {
	err := a.Host.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:        netlink.LinkAttrs{Name: a.Name, MTU: l.options.MTU, TxQLen: -1, HardwareAddr: a.MAC[:]},
			PeerName:         b.Name,
			PeerHardwareAddr: b.MAC[:],
			PeerTxQLen:       -1,
			PeerMTU:          uint32(l.options.MTU),
			PeerNamespace:    netlink.NsFd(b.Host.spaces.net.Fd()),
		})
	})
	if err != nil {
		return fmt.Errorf("wire %s to %s: %w", a.Host.Name, b.Host.Name, err)
	}
	for _, e := range []End{a, b} {
		if err := e.Host.Do(e.setUp); err != nil {
			return fmt.Errorf("host %s: interface %s: %w", e.Host.Name, e.Name, err)
		}
		e.Host.Interfaces = append(e.Host.Interfaces, Interface{Name: e.Name, MAC: e.MAC, Addresses: e.Addresses})
	}
	return nil
}

// setUp sets addresses and starts the interface, in the host's network.
func (e End) setUp() error {
	link, err := netlink.LinkByName(e.Name)
	if err != nil {
		return err
	}
	if err := completeChecksums(e.Name); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return addAddresses(link, e.Addresses)
}

func addAddresses(link netlink.Link, prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if p.Bits() == 128 {
			// A VIP: the host's own packets are to have its own address as source,
			// which of two of IPv6 is not the one that came first.
			a.ValidLft, a.PreferedLft = math.MaxUint32, 0
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("add address %s: %w", p, err)
		}
	}
	return nil
}

// completeChecksums turns transmit checksum offload off. A veth hands frames
// on with the checksum left to a card that never comes; an XDP program at the
// other end cannot see that, and what it forwards is thrown away at the real
// server (TcpInCsumErrors). It also keeps captures readable.
func completeChecksums(name string) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("open ethtool: %w", err)
	}
	defer tool.Close()
	off := map[string]bool{"tx-checksum-ip-generic": false, "tx-checksum-sctp": false}
	if err := tool.Change(name, off); err != nil {
		return fmt.Errorf("turn transmit checksum offload off: %w", err)
	}
	return nil
}

// silence makes a host that is no IP host: else its own neighbour discovery
// would be on the wire.
func silence(h *Host) error {
	silent := []sysctl{{"ipv6/conf/all/disable_ipv6", "1"}, {"ipv6/conf/default/disable_ipv6", "1"}}
	if err := h.Do(func() error { return setSysctls(silent) }); err != nil {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	return nil
}

// addBridge makes a host the switch of a segment.
func (l *Lab) addBridge(h *Host, s segment) error {
	mac := MAC{0x02, 0, 0, 0, 0xff, byte(s)}
	no := false
	err := h.Do(func() error {
		bridge := &netlink.Bridge{
			LinkAttrs:         netlink.LinkAttrs{Name: s.bridge(), MTU: l.options.MTU, TxQLen: -1, HardwareAddr: mac[:]},
			MulticastSnooping: &no,
		}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	})
	if err == nil {
		// 0 is possible only without spanning tree, which is off by default.
		err = os.WriteFile(h.Path("/sys/class/net/"+s.bridge()+"/bridge/forward_delay"), []byte("0"), 0)
	}
	if err != nil {
		return fmt.Errorf("host %s: %s: %w", h.Name, s.bridge(), err)
	}
	return nil
}

// plug makes an interface of the switch a port of the segment's bridge.
func plug(h *Host, port string, s segment) error {
	err := h.Do(func() error {
		bridge, err := netlink.LinkByName(s.bridge())
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(link, bridge)
	})
	if err != nil {
		return fmt.Errorf("host %s: port %s: %w", h.Name, port, err)
	}
	return nil
}

// FaceXDP readies an interface for a wire whose other end runs native XDP:
// veth delivers what XDP_TX or a redirect sends back only to an end that runs
// a native XDP program itself. It has to take fragments, or the other end's
// MTU could not pass 3506. Attached without a link, it stays for the
// interface's life.
func (h *Host) FaceXDP(interfaceName string) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "lab_pass", Type: ebpf.XDP, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
		Flags:        unix.BPF_F_XDP_HAS_FRAGS,
	})
	if err != nil {
		return fmt.Errorf("host %s: load the pass program: %w", h.Name, err)
	}
	defer program.Close()
	err = h.Do(func() error {
		link, err := netlink.LinkByName(interfaceName)
		if err != nil {
			return err
		}
		return netlink.LinkSetXdpFdWithFlags(link, program.FD(), unix.XDP_FLAGS_DRV_MODE)
	})
	if err != nil {
		return fmt.Errorf("host %s: attach the pass program to %s: %w", h.Name, interfaceName, err)
	}
	return nil
}

// meet has the host learn a neighbour's MAC address, at most 5 s.
func (h *Host) meet(ctx context.Context, interfaceName string, neighbour netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		known := false
		err := h.Do(func() (err error) {
			known, err = seek(interfaceName, neighbour)
			return err
		})
		if err != nil || known {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host %s: %s does not tell its MAC address", h.Name, neighbour)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// seek tells whether the MAC address of a neighbour is known, and if not has the
// kernel ask for it.
func seek(interfaceName string, neighbour netip.Addr) (known bool, err error) {
	link, err := netlink.LinkByName(interfaceName)
	if err != nil {
		return false, err
	}
	index, family := link.Attrs().Index, netlink.FAMILY_V4
	if neighbour.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.NeighList(index, family)
	if err != nil {
		return false, fmt.Errorf("list neighbours: %w", err)
	}
	const valid = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT
	for _, n := range list {
		if n.IP.Equal(neighbour.AsSlice()) && n.State&valid != 0 {
			return true, nil
		}
	}
	err = netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: family, IP: neighbour.AsSlice(), Flags: netlink.NTF_USE})
	if err != nil {
		return false, fmt.Errorf("ask for neighbour %s: %w", neighbour, err)
	}
	return false, nil
}
