// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// state is what there was before Join, so that Leave can restore it.
type state struct {
	Version   int              `json:"version"`
	Namespace namespace        `json:"namespace"`
	VIPs      []vipRecord      `json:"vips"`
	Sysctls   []sysctlRecord   `json:"sysctls"`
	Gateways  []defaultGateway `json:"gateways,omitempty"` // at most one per family
	Tunnels   *tunnels         `json:"tunnels,omitempty"`  // nil if no VIP is reached through one
}

// stateVersion is raised when an older lvx could misread the file. This one also
// reads version 1, which lacks what came with 2.
const stateVersion = 2

// vipRecord is a VIP that has joined.
type vipRecord struct {
	Address netip.Addr `json:"address"`
	Added   bool       `json:"added"`   // by Join; otherwise it was there before
	Persist bool       `json:"persist"` // it is to come back after a reboot
	Tunnel  bool       `json:"tunnel,omitempty"`
}

// sysctlRecord is a sysctl that Join changed.
type sysctlRecord struct {
	sysctl
	Before int `json:"before"`
	After  int `json:"after"`
}

// namespace tells network namespaces apart, also those that are gone. Cookies
// are not used twice while the kernel runs.
type namespace struct {
	Boot   string `json:"boot"`
	Cookie uint64 `json:"cookie"`
}

func currentNamespace() (namespace, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return namespace{}, fmt.Errorf("read the boot id: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return namespace{}, fmt.Errorf("ask for the network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return namespace{}, fmt.Errorf("ask for the network namespace: %w", err)
	}
	return namespace{Boot: strings.TrimSpace(string(boot)), Cookie: cookie}, nil
}

// DefaultStatePath returns where the state of this thread's network namespace
// is kept: /run/lvx/realserver.json in the namespace of process 1, a name with
// the namespace's cookie in any other, so that they do not collide.
func DefaultStatePath() string {
	const dir = "/run/lvx"
	if ns, err := currentNamespace(); err == nil && !mainNamespace() {
		return filepath.Join(dir, fmt.Sprintf("realserver-%d.json", ns.Cookie))
	}
	return filepath.Join(dir, "realserver.json")
}

// mainNamespace tells whether this thread is in the network namespace that the
// host boots into. Who may not know is told yes.
//
// Every namespace has its own file net/dev, and its inode needs no privilege:
// /proc/1/ns/net is closed even to root where process 1 has more capabilities.
func mainNamespace() bool {
	first, err := os.Stat("/proc/1/net/dev")
	if err != nil {
		return true
	}
	own, err := os.Stat("/proc/thread-self/net/dev")
	return err != nil || os.SameFile(first, own)
}

// loadState reads the state file; without one it takes the copy that the
// persistent sysctl file carries, which is all there is after a reboot.
func (h *host) loadState() error {
	h.state = &state{Version: stateVersion, Namespace: h.namespace}
	s, err := readState(h.StatePath)
	if err != nil {
		return err
	}
	if s != nil && s.Namespace.Boot == h.namespace.Boot {
		if s.Namespace != h.namespace {
			return fmt.Errorf("%s is of another network namespace; give this one its own file: --state FILE", h.StatePath)
		}
		h.state, h.known = s, true
		return nil
	}
	if s, err = h.readPersistentState(); err != nil || s == nil {
		return err
	}
	if !h.owns(s) {
		return nil
	}
	h.state, h.known = s, true
	h.state.Namespace = h.namespace
	return nil
}

// owns tells whether a state that outlived its file is of this namespace. What
// survives a reboot is of the namespace the host boots into.
func (h *host) owns(s *state) bool {
	if s.Namespace.Boot == h.namespace.Boot {
		return s.Namespace == h.namespace
	}
	return h.Root != "/" || mainNamespace()
}

func readState(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	return parseState(path, text)
}

func parseState(path string, text []byte) (*state, error) {
	s := &state{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s cannot be read (%w); look at it, then remove it: rm %s", path, err, path)
	}
	if s.Version < 1 || s.Version > stateVersion {
		return nil, fmt.Errorf("%s is of another lvx (version %d, this one reads %d); use that one", path, s.Version, stateVersion)
	}
	s.Version = stateVersion
	return s, nil
}

// empty tells whether nothing has joined.
func (s *state) empty() bool { return len(s.VIPs) == 0 && len(s.Gateways) == 0 }

// stateChange is the change of the state file from what h has to next; a next
// in which nothing has joined removes it.
func (h *host) stateChange(next *state) (change, error) {
	var text []byte
	if !next.empty() {
		var err error
		if text, err = json.MarshalIndent(next, "", "  "); err != nil {
			return change{}, fmt.Errorf("write the state: %w", err)
		}
		text = append(text, '\n')
	}
	return fileChange(h.StatePath, text)
}

// clone returns a copy that shares nothing with s.
func (s *state) clone() *state {
	c := *s
	c.VIPs, c.Sysctls, c.Gateways = slices.Clone(s.VIPs), slices.Clone(s.Sysctls), slices.Clone(s.Gateways)
	c.Tunnels = s.Tunnels.clone()
	return &c
}

// vip returns the record of a VIP, or nil.
func (s *state) vip(address netip.Addr) *vipRecord {
	for i := range s.VIPs {
		if s.VIPs[i].Address == address {
			return &s.VIPs[i]
		}
	}
	return nil
}

// sysctl returns the record of a sysctl, or nil.
func (s *state) sysctl(name sysctl) *sysctlRecord {
	for i := range s.Sysctls {
		if s.Sysctls[i].sysctl == name {
			return &s.Sysctls[i]
		}
	}
	return nil
}

// remember notes that a sysctl is being changed.
func (s *state) remember(r sysctlRecord) {
	if old := s.sysctl(r.sysctl); old != nil {
		*old = r // somebody changed it since Join did: theirs is the value to go back to
		return
	}
	s.Sysctls = append(s.Sysctls, r)
}

// addresses returns the VIPs that have joined.
func (s *state) addresses() []netip.Addr {
	var list []netip.Addr
	for _, v := range s.VIPs {
		list = append(list, v.Address)
	}
	return list
}

// has4 tells whether one of the VIPs is IPv4, so that the sysctls are needed.
func has4(vips []netip.Addr) bool { return slices.ContainsFunc(vips, netip.Addr.Is4) }
