// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysctlFile brings the sysctls back after a reboot.
const sysctlFile = "/etc/sysctl.d/60-lvx-realserver.conf"

// header opens every file that is ours. A file without it is never touched.
const header = "# Written by: lvx realserver join --persist. Taken away by: lvx realserver leave.\n"

// stateMark opens the line of sysctlFile that holds the state: /run is empty
// after a reboot, and Leave still has to know what there was before.
const stateMark = "# lvx-state: "

// persistent returns the VIPs that are to come back after a reboot.
func (s *state) persistent() []netip.Addr {
	var list []netip.Addr
	for _, v := range s.VIPs {
		if v.Persist {
			list = append(list, v.Address)
		}
	}
	return list
}

// persistentGateways returns the default gateways that are to come back.
func (s *state) persistentGateways() []defaultGateway {
	return slices.DeleteFunc(slices.Clone(s.Gateways), func(g defaultGateway) bool { return !g.Persist })
}

// persists tells whether anything is to come back after a reboot.
func (s *state) persists() bool { return len(s.persistent()) > 0 || len(s.persistentGateways()) > 0 }

// persistentFiles returns the files that bring a state back after a reboot, by
// path, and warnings about what they cannot do.
func (h *host) persistentFiles(s *state) (map[string]string, []change, error) {
	if !s.persists() {
		return nil, nil, nil
	}
	files := map[string]string{}
	text, err := sysctlText(s)
	if err != nil {
		return nil, nil, err
	}
	files[h.path(sysctlFile)] = text
	warnings := h.gatewayWarnings(s.persistentGateways())
	if vips := s.persistent(); len(vips) > 0 {
		path, text, list, err := h.bootConfig(vips)
		if err != nil {
			return nil, nil, err
		}
		if path != "" {
			files[path] = text
		}
		warnings = append(append(warnings, list...), s.tunnelWarnings()...)
		if has4(vips) {
			warnings = append(warnings, h.overridden()...)
		}
	}
	return files, warnings, nil
}

// sysctlText returns the text of sysctlFile.
func sysctlText(s *state) (string, error) {
	kept := s.clone()
	kept.VIPs = slices.DeleteFunc(kept.VIPs, func(v vipRecord) bool { return !v.Persist })
	kept.Gateways = s.persistentGateways()
	if len(kept.tunnelled()) == 0 {
		kept.Tunnels = nil
	}
	memory, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("write the state: %w", err)
	}
	var b strings.Builder
	b.WriteString(header + stateMark + string(memory) + "\n")
	switch {
	case has4(kept.addresses()):
		writeRules(&b, s)
	case len(kept.VIPs) > 0:
		b.WriteString("# IPv6 VIPs need no sysctl.\n")
	}
	for _, c := range s.Sysctls {
		if c.Key == reversePathKey && has4(kept.tunnelled()) {
			fmt.Fprintf(&b, "# What was in a tunnel has the client's address.\n-%s = %d\n", c.sysctl, c.After)
		}
	}
	for _, g := range kept.Gateways {
		fmt.Fprintf(&b, "# Replies have to pass the director %s: no redirect is to lead them past it.\n", g.Director)
		for _, name := range redirects(g.Director, g.Link) {
			fmt.Fprintf(&b, "-%s = 0\n", name)
		}
	}
	return b.String(), nil
}

// writeRules writes the sysctls that keep this host silent about IPv4 VIPs.
func writeRules(b *strings.Builder, s *state) {
	b.WriteString("# ARP for the VIPs on lo is the director's to answer. The larger of conf/all and\n# conf/IF counts, so all is enough.\n")
	for _, r := range rules() {
		fmt.Fprintf(b, "%s = %d\n", sysctl{Interface: all, Key: r.key}, r.persistentValue(s))
	}
	for _, c := range s.Sysctls {
		ours := slices.ContainsFunc(rules(), func(r rule) bool { return r.key == c.Key })
		if ours && c.Interface != all {
			// The dash: no error if the interface is not there yet.
			fmt.Fprintf(b, "-%s = %d\n", c.sysctl, c.After)
		}
	}
}

// persistentValue returns what conf/all is to be after a reboot: what it is
// now if that does, so that a stricter value of the operator's stays.
func (r rule) persistentValue(s *state) int {
	name := sysctl{Interface: all, Key: r.key}
	if record := s.sysctl(name); record != nil {
		return record.After
	}
	if now, err := name.read(); err == nil && r.holds(now) {
		return now
	}
	return r.wanted
}

// checkPersistent refuses to write files over those of another network
// namespace: a host boots into one, and its files are of that one.
func (h *host) checkPersistent() error {
	if !h.Persist {
		return nil
	}
	s, err := h.readPersistentState()
	if err == nil && s != nil && !h.owns(s) {
		err = fmt.Errorf("%s is of another network namespace; join without --persist in this one", h.path(sysctlFile))
	}
	return err
}

// persistentChanges are the changes from the files there are to those of next.
func (h *host) persistentChanges(next *state) ([]change, error) {
	wanted, warnings, err := h.persistentFiles(next)
	if err != nil {
		return nil, err
	}
	var changes []change
	for _, path := range sortedKeys(wanted) {
		c, err := ownFileChange(path, []byte(wanted[path]))
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	// A namespace that never asked for files leaves those of the host alone.
	if h.state.persists() {
		for _, pattern := range []string{sysctlFile, networkdFile, ifupdownFile} {
			path := h.path(pattern)
			if _, kept := wanted[path]; kept {
				continue
			}
			c, err := ownFileChange(path, nil)
			if err != nil {
				return nil, err
			}
			changes = append(changes, c)
		}
	}
	if !h.Persist {
		return changes, nil // Leave, or a Join that did not ask: no advice
	}
	return append(changes, warnings...), nil
}

// ownFileChange is fileChange for a file that has to be ours.
func ownFileChange(path string, text []byte) (change, error) {
	if before, err := os.ReadFile(path); err == nil && !strings.HasPrefix(string(before), header) {
		if text == nil {
			return warning(path, "%s stays: its first line is not lvx's any more", path), nil
		}
		return change{}, fmt.Errorf("%s exists and is not lvx's; move it away: mv %s %s.old", path, path, path)
	}
	c, err := fileChange(path, text)
	switch {
	case err != nil:
		return change{}, err
	case c.step.Changed && text != nil:
		c.step.Text = path + " written"
	case c.step.Changed:
		c.step.Text = path + " removed"
	case text != nil:
		c.step.Text = path + ": already so"
	}
	return c, nil
}

// readPersistentState returns the state that sysctlFile carries, or nil.
func (h *host) readPersistentState() (*state, error) {
	path := h.path(sysctlFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	rest, ours := strings.CutPrefix(string(text), header)
	if !ours {
		return nil, nil
	}
	line, _, _ := strings.Cut(rest, "\n")
	memory, ok := strings.CutPrefix(line, stateMark)
	if !ok {
		return nil, fmt.Errorf("%s has lost its line %q; remove it: rm %s", path, strings.TrimSpace(stateMark), path)
	}
	return parseState(path, []byte(memory))
}

// overridden warns of files that are read after ours and undo it.
func (h *host) overridden() []change {
	var warnings []change
	for _, file := range h.laterSysctlFiles() {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // what cannot be read by root is not there
		}
		for i, line := range strings.Split(string(text), "\n") {
			if name, bad := undoes(line); bad {
				warnings = append(warnings, warning(file, "%s:%d sets %s after %s and undoes it at the next boot; take that line out",
					file, i+1, name, sysctlFile))
			}
		}
	}
	return warnings
}

// laterSysctlFiles lists what is read after sysctlFile: files of all four
// directories sorted by name, then /etc/sysctl.conf.
func (h *host) laterSysctlFiles() []string {
	var later []string
	for _, dir := range []string{"/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"} {
		files, _ := filepath.Glob(h.path(filepath.Join(dir, "*.conf")))
		for _, f := range files {
			if filepath.Base(f) > filepath.Base(sysctlFile) {
				later = append(later, f)
			}
		}
	}
	conf := h.path("/etc/sysctl.conf")
	linked := slices.ContainsFunc(later, func(f string) bool {
		target, err := filepath.EvalSymlinks(f)
		return err == nil && target == conf
	})
	if linked {
		return later // as Debian has it: 99-sysctl.conf
	}
	return append(later, conf)
}

// undoes tells whether a line of a sysctl file makes one of the rules fail.
func undoes(line string) (string, bool) {
	name, text, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "-"), "=")
	value, err := strconv.Atoi(strings.TrimSpace(text))
	if !ok || err != nil {
		return "", false
	}
	name = strings.TrimSpace(name)
	words := strings.Split(strings.ReplaceAll(name, "/", "."), ".")
	if len(words) < 5 || !slices.Equal(words[:3], []string{"net", "ipv4", "conf"}) || words[3] == loopback {
		return "", false
	}
	for _, r := range rules() {
		if r.key != words[len(words)-1] {
			continue
		}
		if words[3] != all {
			value = max(value, r.wanted) // the max rule
		}
		return name, !r.holds(value)
	}
	return "", false
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func joinAddresses(list []netip.Addr) string {
	var words []string
	for _, a := range list {
		words = append(words, a.String())
	}
	return strings.Join(words, ",")
}
