// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"lvx/internal/lvs"
)

// Join makes this host a real server for the VIPs: for IPv4 no interface
// answers ARP for an address of lo or asks with one, then each VIP is put on
// lo. With method tun a program takes tunnels off besides. With method nat it touches
// no VIP: it makes the directors the default gateways. What is so already stays as it is. It returns what it did, in order.
//
// If anything fails, what had been done is taken back. Returns lvs.ErrInvalid
// or lvs.ErrUnsupported for options that cannot be meant, ErrNoPrivilege
// without CAP_NET_ADMIN. It blocks while another Join or Leave runs.
func Join(o Options) ([]Step, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	h, err := openToChange(o)
	if err != nil {
		return nil, err
	}
	defer h.close()
	changes, err := h.planJoin()
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	return run(changes)
}

// complete tells what Join lacks, or returns nil.
func (o Options) complete() error {
	if o.Method == lvs.NAT {
		return checkGateways(o.Directors)
	}
	if len(o.VIPs) == 0 {
		return fmt.Errorf("%w: no VIP given", lvs.ErrInvalid)
	}
	if o.Method == lvs.Tun && len(o.Directors) == 0 {
		return fmt.Errorf("%w: method tun needs the addresses that directors send from, since it takes tunnels from nobody else: --director A", lvs.ErrInvalid)
	}
	return nil
}

// planJoin puts the changes in the order in which no packet sees half of them:
// the state first, so that a crash can be mended by Leave; then what the method
// asks for; then what is for after the reboot.
func (h *host) planJoin() ([]change, error) {
	if err := h.checkPersistent(); err != nil {
		return nil, err
	}
	next := h.state.clone()
	plan := h.planDR
	switch h.Method {
	case lvs.NAT:
		plan = h.planGateways
	case lvs.Tun:
		plan = h.planTun
	}
	changes, err := plan(next)
	if err != nil {
		return nil, err
	}
	list, err := h.persistentChanges(next)
	if err != nil {
		return nil, err
	}
	save, err := h.stateChange(next)
	if err != nil {
		return nil, err
	}
	return append(append([]change{save}, changes...), list...), nil
}

// planDR plans lo and the sysctls, then the VIPs, which nobody answers ARP for
// any more.
func (h *host) planDR(next *state) ([]change, error) {
	changes, err := h.planSilence(next)
	if err != nil {
		return nil, err
	}
	list, err := h.planVIPs(next)
	if err != nil {
		return nil, err
	}
	return slices.Concat(changes, list, h.silenceCheck()), nil
}

// planSilence plans what comes before VIPs on lo.
func (h *host) planSilence(next *state) ([]change, error) {
	var changes []change
	if c, needed := h.loUp(); needed {
		changes = append(changes, c)
	}
	if !has4(h.VIPs) {
		return changes, nil
	}
	list, err := planSysctls(next)
	return append(changes, list...), err
}

// silenceCheck reads back, after all changes, whether this host is silent about
// the VIPs.
func (h *host) silenceCheck() []change {
	if !has4(h.VIPs) {
		return nil
	}
	return []change{{do: checkEffective}}
}

// loUp is the change that brings lo up, if it is down.
func (h *host) loUp() (change, bool) {
	if h.lo.Attrs().Flags&net.FlagUp != 0 {
		return change{}, false
	}
	return change{
		step: Step{Object: "lo", Before: "down", After: "up", Changed: true, Text: "lo down → up"},
		do: func() error {
			if err := h.netlink.LinkSetUp(h.lo); err != nil {
				return fmt.Errorf("set lo up: %w", err)
			}
			return nil
		},
		undo: func() error { return h.netlink.LinkSetDown(h.lo) },
	}, true
}

// planSysctls plans what makes the rules hold, and remembers it in next.
func planSysctls(next *state) ([]change, error) {
	var changes []change
	for _, r := range rules() {
		records, err := sysctlChanges(r)
		if err != nil {
			return nil, err
		}
		for _, c := range records {
			next.remember(c)
			changes = append(changes, c.set(c.Before, c.After))
		}
		if len(records) == 0 {
			changes = append(changes, r.alreadyHolds())
		}
	}
	return changes, nil
}

// alreadyHolds is the step for a rule that holds on every interface.
func (r rule) alreadyHolds() change {
	s := sysctl{Interface: all, Key: r.key}
	value, err := s.read()
	if err != nil {
		return warning(s.String(), "%v", err)
	}
	return already(s.String(), fmt.Sprint(value), fmt.Sprintf("%s = %d: already so", s, value))
}

// planVIPs plans the addresses of lo, and remembers them in next.
func (h *host) planVIPs(next *state) ([]change, error) {
	var changes []change
	seen := map[netip.Addr]bool{}
	for _, vip := range h.VIPs {
		if seen[vip] {
			continue
		}
		seen[vip] = true
		if vip.Is6() {
			if err := checkIPv6(); err != nil {
				return nil, fmt.Errorf("VIP %s: %w", vip, err)
			}
		}
		there, err := h.onLo(vip)
		if err != nil {
			return nil, err
		}
		if err := h.checkFree(vip); err != nil {
			return nil, err
		}
		record := next.vip(vip)
		if record == nil {
			next.VIPs = append(next.VIPs, vipRecord{Address: vip})
			record = next.vip(vip)
		}
		// A VIP that Join added and that is gone since is added again.
		record.Added = record.Added || !there
		record.Persist = record.Persist || h.Persist
		record.Tunnel = record.Tunnel || h.Method == lvs.Tun
		changes = append(changes, h.addChange(vip, there))
	}
	return changes, nil
}

func vipObject(vip netip.Addr) string { return "VIP " + host32(vip).String() + " on lo" }

// addChange is the change that puts a VIP on lo, unless it is there.
func (h *host) addChange(vip netip.Addr, there bool) change {
	if there {
		return already(vipObject(vip), "present", vipObject(vip)+": already so")
	}
	return change{
		step: Step{
			Object: vipObject(vip), Before: "absent", After: "present", Changed: true,
			Text: fmt.Sprintf("VIP %s added to lo", host32(vip)),
		},
		do:   func() error { return h.add(vip) },
		undo: func() error { return h.remove(vip) },
	}
}
