// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// loopback is the interface that holds the VIPs of a real server.
const loopback = "lo"

// ParseVIP reads A, A/32 or, for IPv6, A/128. Returns lvs.ErrInvalid for a
// shorter prefix: on lo it makes every address of the subnet local, so that
// the host answers ARP for its neighbours and can no longer reach them.
func ParseVIP(text string) (netip.Addr, error) {
	if !strings.Contains(text, "/") {
		vip, err := netip.ParseAddr(text)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("VIP %q is %w: no IP address", text, lvs.ErrInvalid)
		}
		return vip, checkVIP(vip)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("VIP %q is %w: no IP address", text, lvs.ErrInvalid)
	}
	if vip := prefix.Addr(); !prefix.IsSingleIP() {
		return netip.Addr{}, fmt.Errorf("VIP %s is %w: on lo it makes the whole subnet %s local, and this host can reach none of its neighbours there any more; write %s",
			text, lvs.ErrInvalid, prefix.Masked(), host32(vip))
	}
	return prefix.Addr(), checkVIP(prefix.Addr())
}

// host32 returns the VIP as the one-address prefix that lo holds.
func host32(vip netip.Addr) netip.Prefix { return netip.PrefixFrom(vip, vip.BitLen()) }

func checkVIP(vip netip.Addr) error {
	if err := checkUnicast(vip); err != nil {
		return fmt.Errorf("VIP %s: %w", vip, err)
	}
	return nil
}

func checkUnicast(a netip.Addr) error {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	switch {
	case !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == broadcast:
		return fmt.Errorf("%w: it has to be the address of one host", lvs.ErrInvalid)
	case a.IsLoopback():
		return fmt.Errorf("%w: a loopback address cannot be reached from elsewhere", lvs.ErrInvalid)
	case a.Is4In6() || a.Zone() != "" || a.IsLinkLocalUnicast() && a.Is6():
		return fmt.Errorf("%w: write it as plain IPv4 or global IPv6", lvs.ErrInvalid)
	}
	return nil
}

// placed is an address as an interface of this host has it.
type placed struct {
	prefix netip.Prefix
	link   string
}

// where returns each place on this host that has the VIP.
func (h *host) where(vip netip.Addr) ([]placed, error) {
	all, err := h.addresses()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(p placed) bool { return p.prefix.Addr() != vip }), nil
}

// addresses returns every address of this host.
func (h *host) addresses() ([]placed, error) {
	list, err := whole(func() ([]netlink.Addr, error) { return h.netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []placed
	for _, a := range list {
		if a.IPNet == nil {
			continue
		}
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			bits, _ := a.Mask.Size()
			all = append(all, placed{prefix: netip.PrefixFrom(ip.Unmap(), bits), link: h.links[a.LinkIndex]})
		}
	}
	return all, nil
}

// onLo tells whether lo has the VIP as it should, and returns an error that
// says how to mend it if the VIP is anywhere else on this host.
func (h *host) onLo(vip netip.Addr) (bool, error) {
	places, err := h.where(vip)
	if err != nil {
		return false, err
	}
	found := false
	for _, p := range places {
		switch {
		case p.link != loopback:
			return false, fmt.Errorf("VIP %s is an address of %s, which answers ARP for it, so clients would bypass the director; if it is a VIP take it away: ip addr del %s dev %s",
				vip, p.link, p.prefix, p.link)
		case !p.prefix.IsSingleIP():
			return false, fmt.Errorf("lo has %s, which makes the whole subnet %s local; take it away first: ip addr del %s dev lo",
				p.prefix, p.prefix.Masked(), p.prefix)
		}
		found = true
	}
	return found, nil
}

// checkFree returns an error if the VIP is an address that this host's own
// network uses: on lo it would be taken from there.
func (h *host) checkFree(vip netip.Addr) error {
	all, err := h.addresses()
	if err != nil {
		return err
	}
	for _, p := range all {
		if what := reserved(vip, p.prefix); what != "" && p.link != loopback {
			return fmt.Errorf("VIP %s is %s of %s on %s: it has to be the address of one host", vip, what, p.prefix.Masked(), p.link)
		}
	}
	link, err := h.gatewayOn(vip)
	if err == nil && link != "" {
		err = fmt.Errorf("VIP %s is this host's default gateway on %s: on lo it would cut this host off", vip, link)
	}
	return err
}

// reserved says what the VIP is in a subnet if no host can have it, else "".
// The two addresses of an IPv4 /31 (RFC 3021) and of an IPv6 /127 (RFC 6164) are
// hosts' both.
func reserved(vip netip.Addr, subnet netip.Prefix) string {
	if !subnet.Contains(vip) || subnet.Bits() > vip.BitLen()-2 {
		return ""
	}
	switch {
	case vip == subnet.Masked().Addr() && vip.Is6():
		return "the subnet-router anycast address" // RFC 4291, 2.6.1
	case vip == subnet.Masked().Addr():
		return "the network address"
	case vip.Is4() && !subnet.Contains(vip.Next()):
		return "the broadcast address"
	}
	return ""
}

// gatewayOn returns the interface on which the VIP is a default gateway, or "".
func (h *host) gatewayOn(vip netip.Addr) (string, error) {
	list, err := whole(func() ([]netlink.Route, error) { return h.netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	for _, r := range list {
		if r.Dst != nil {
			if bits, _ := r.Dst.Mask.Size(); bits != 0 {
				continue
			}
		}
		hops := append([]*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}}, r.MultiPath...)
		for _, hop := range hops {
			if gateway(hop) == vip {
				return h.links[hop.LinkIndex], nil
			}
		}
	}
	return "", nil
}

// gateway returns the address of a next hop, which may be of the other family
// (RFC 8950), or the zero Addr.
func gateway(hop *netlink.NexthopInfo) netip.Addr {
	ip := hop.Gw
	if via, is := hop.Via.(*netlink.Via); is {
		ip = via.Addr
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// add puts the VIP on lo.
func (h *host) add(vip netip.Addr) error {
	if err := h.netlink.AddrAdd(h.lo, address(vip)); err != nil {
		return fmt.Errorf("add VIP %s to lo: %w", host32(vip), err)
	}
	return nil
}

// remove takes the VIP from lo.
func (h *host) remove(vip netip.Addr) error {
	if err := h.netlink.AddrDel(h.lo, address(vip)); err != nil {
		return fmt.Errorf("remove VIP %s from lo: %w", host32(vip), err)
	}
	return nil
}

func address(vip netip.Addr) *netlink.Addr {
	ip := vip.AsSlice()
	a := &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(vip.BitLen(), vip.BitLen())}}
	if vip.Is6() {
		// The director and the other real servers have the same address:
		// duplicate address detection has nothing to find out here.
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// checkIPv6 tells why lo cannot hold an IPv6 address, or returns nil.
func checkIPv6() error {
	const path = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("this kernel runs without IPv6; boot it without ipv6.disable=1")
	case err != nil:
		return fmt.Errorf("read whether lo has IPv6: %w", err)
	case strings.TrimSpace(string(text)) != "0":
		return errors.New("IPv6 is off on lo; turn it on first: sysctl -w net.ipv6.conf.lo.disable_ipv6=0")
	}
	return nil
}
