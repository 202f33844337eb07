// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"fmt"
	"net"
	"net/netip"

	"lvx/internal/lvs"
)

// Join makes this host a real server for the VIPs: for IPv4 no interface
// answers ARP for an address of lo or asks with one, then each VIP is put on
// lo. What is so already stays as it is. It returns what it did, in order.
//
// If anything fails, what had been done is taken back. Returns lvs.ErrInvalid
// or lvs.ErrUnsupported for options that cannot be meant, ErrNoPrivilege
// without CAP_NET_ADMIN. It blocks while another Join or Leave runs.
func Join(o Options) ([]Step, error) {
	if len(o.VIPs) == 0 {
		return nil, fmt.Errorf("%w: no VIP given", lvs.ErrInvalid)
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

// planJoin puts the changes in the order in which no packet sees half of them:
// the state first, so that a crash can be mended by Leave; then lo and the
// sysctls; then the VIPs, which nobody answers ARP for any more; then what is
// for after the reboot.
func (h *host) planJoin() ([]change, error) {
	if err := h.checkPersistent(); err != nil {
		return nil, err
	}
	next := h.state.clone()
	var changes []change
	if c, needed := h.loUp(); needed {
		changes = append(changes, c)
	}
	if has4(h.VIPs) {
		list, err := planSysctls(next)
		if err != nil {
			return nil, err
		}
		changes = append(changes, list...)
	}
	list, err := h.planVIPs(next)
	if err != nil {
		return nil, err
	}
	changes = append(changes, list...)
	if has4(h.VIPs) {
		changes = append(changes, change{do: checkEffective})
	}
	if list, err = h.persistentChanges(next); err != nil {
		return nil, err
	}
	save, err := h.stateChange(next)
	if err != nil {
		return nil, err
	}
	return append(append([]change{save}, changes...), list...), nil
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
