// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Leave undoes what Join did for the VIPs, and only that: a VIP that was on lo
// before stays, a sysctl gets back the value it had, unless somebody has
// changed it since. The sysctls stay while another VIP needs them; lo stays
// up, since everything on a host may have come to need it. Without VIPs in the
// options it undoes everything: then the default routes come back too. It returns
// what it did, in order; a step with Warning tells what it could not.
//
// If anything fails, what had been done is taken back. Returns ErrNoPrivilege
// without CAP_NET_ADMIN. It blocks while another Join or Leave runs.
func Leave(o Options) ([]Step, error) {
	h, err := openToChange(o)
	if err != nil {
		return nil, err
	}
	defer h.close()
	everything := len(h.VIPs) == 0
	if everything {
		h.VIPs = h.state.addresses()
	}
	changes, err := h.planLeave(everything)
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed", err)
	}
	return run(changes)
}

// planLeave is planJoin backwards: the VIPs go before the sysctls that keep
// this host silent about them, and the state goes last, so that after a crash
// Leave can be run again.
func (h *host) planLeave(everything bool) ([]change, error) {
	if len(h.VIPs) == 0 && h.state.empty() {
		return []change{already("real server", "not joined", "nothing has joined: nothing to undo")}, nil
	}
	next := h.state.clone()
	changes, err := h.planRemovals(next)
	if err != nil {
		return nil, err
	}
	list, last, err := h.planTunBack(next)
	if err != nil {
		return nil, err
	}
	changes = append(changes, list...)
	if everything {
		if list, err = h.planGatewaysBack(next); err != nil {
			return nil, err
		}
		changes = append(changes, list...)
	}
	if list, err = h.planRestore(next); err != nil {
		return nil, err
	}
	changes = append(changes, list...)
	if list, err = h.persistentChanges(next); err != nil {
		return nil, err
	}
	changes = append(changes, list...)
	save, err := h.stateChange(next)
	if err != nil {
		return nil, err
	}
	return append(append(changes, save), last...), nil
}

// planRemovals plans what leaves lo, and forgets it in next.
func (h *host) planRemovals(next *state) ([]change, error) {
	var changes []change
	for _, vip := range slices.Compact(slices.SortedFunc(slices.Values(h.VIPs), netip.Addr.Compare)) {
		there, err := h.holds(vip)
		if err != nil {
			return nil, err
		}
		record := next.vip(vip)
		switch {
		case !there:
			changes = append(changes, already(vipObject(vip), "absent", vipObject(vip)+": already gone"))
		case record == nil && h.known:
			return nil, fmt.Errorf("VIP %s is on lo, but lvx did not put it there; if nobody needs it: ip addr del %s dev lo", vip, host32(vip))
		case record != nil && !record.Added:
			changes = append(changes, already(vipObject(vip), "present", vipObject(vip)+": stays, it was there before join"))
		default:
			changes = append(changes, h.removeChange(vip))
		}
		next.VIPs = slices.DeleteFunc(next.VIPs, func(v vipRecord) bool { return v.Address == vip })
	}
	return changes, nil
}

// holds tells whether lo has exactly the VIP, whatever else does.
func (h *host) holds(vip netip.Addr) (bool, error) {
	places, err := h.where(vip)
	return slices.Contains(places, placed{prefix: host32(vip), link: loopback}), err
}

func (h *host) removeChange(vip netip.Addr) change {
	return change{
		step: Step{
			Object: vipObject(vip), Before: "present", After: "absent", Changed: true,
			Text: fmt.Sprintf("VIP %s removed from lo", host32(vip)),
		},
		do:   func() error { return h.remove(vip) },
		undo: func() error { return h.add(vip) },
	}
}

// planRestore plans the way back for the sysctls that nothing in next needs.
func (h *host) planRestore(next *state) ([]change, error) {
	if !h.known && has4(h.VIPs) {
		return h.unknownSysctls()
	}
	var changes []change
	var kept []sysctlRecord
	for _, r := range slices.Backward(next.Sysctls) {
		if next.needs(r.sysctl) {
			kept = append(kept, r)
			continue
		}
		c, err := r.restore()
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	slices.Reverse(kept)
	next.Sysctls = kept
	return changes, nil
}

// needs tells whether a sysctl has to stay as Join set it.
func (s *state) needs(name sysctl) bool {
	if name.Key == reversePathKey {
		return has4(s.tunnelled())
	}
	if name.Key == redirectKey {
		family := unix.AF_INET
		if name.Six {
			family = unix.AF_INET6
		}
		return s.gateway(family) != nil
	}
	return has4(s.addresses())
}

// restore is the change back to what a sysctl was before Join.
func (r sysctlRecord) restore() (change, error) {
	now, err := r.read()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return already(r.String(), "absent", fmt.Sprintf("%s: the interface is gone", r.sysctl)), nil
	case err != nil:
		return change{}, err
	case now == r.Before:
		return already(r.String(), strconv.Itoa(now), fmt.Sprintf("%s = %d: already so", r.sysctl, now)), nil
	case now != r.After:
		c := warning(r.String(), "%s stays %d: join set it to %d, somebody has changed it since; before join it was %d, to go back to that: sysctl -w %s=%d",
			r.sysctl, now, r.After, r.Before, r.sysctl, r.Before)
		c.step.Before, c.step.After = strconv.Itoa(now), strconv.Itoa(now)
		return c, nil
	}
	return r.set(now, r.Before), nil
}

// unknownSysctls says of which sysctls there is no record to go back to.
func (h *host) unknownSysctls() ([]change, error) {
	var changes []change
	for _, r := range rules() {
		s := sysctl{Interface: all, Key: r.key}
		now, err := s.read()
		if err != nil {
			return nil, err
		}
		if now == 0 {
			continue
		}
		c := warning(s.String(), "%s stays %d: there is no %s to tell what it was before; the kernel's own is 0: sysctl -w %s=0", s, now, h.StatePath, s)
		c.step.Before, c.step.After = strconv.Itoa(now), strconv.Itoa(now)
		changes = append(changes, c)
	}
	return changes, nil
}
