// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The files that bring the VIPs back, by what configures this host's network.
const (
	// 05: the first file that matches lo is the only one that counts for it.
	networkdFile = "/etc/systemd/network/05-lvx-realserver.network"
	ifupdownFile = "/etc/network/interfaces.d/lvx-realserver"
)

// interfacesFile is ifupdown's own; it is read, never written.
const interfacesFile = "/etc/network/interfaces"

// bootConfig returns the file that brings the VIPs back after a reboot, and
// warnings about what the operator has to do himself. Without a file the path
// is empty.
func (h *host) bootConfig(vips []netip.Addr) (string, string, []change, error) {
	switch {
	case h.enabled("systemd-networkd"):
		return h.networkdConfig(vips)
	case h.exists(interfacesFile):
		return h.path(ifupdownFile), ifupdownText(vips), h.ifupdownWarnings(), nil
	case h.enabled("NetworkManager"):
		return "", "", networkManagerWarnings(vips), nil
	}
	return "", "", []change{warning("VIPs after a reboot",
		"neither systemd-networkd nor ifupdown configures this host: the VIPs will not come back after a reboot; have it run: lvx realserver join --vip %s",
		joinAddresses(vips))}, nil
}

// enabled tells whether systemd starts a service at boot.
func (h *host) enabled(service string) bool {
	for _, target := range []string{"multi-user", "sysinit", "network-online", "sockets"} {
		for _, unit := range []string{".service", ".socket"} {
			if h.exists(filepath.Join("/etc/systemd/system", target+".target.wants", service+unit)) {
				return true
			}
		}
	}
	return false
}

// exists tells whether a path is there, also as a link that leads out of Root.
func (h *host) exists(p string) bool {
	_, err := os.Lstat(h.path(p))
	return err == nil
}

// networkdConfig returns a .network file for lo. If another file configures
// lo already ours would hide it or be hidden: then the operator adds a line.
func (h *host) networkdConfig(vips []netip.Addr) (string, string, []change, error) {
	var lines []string
	for _, vip := range vips {
		lines = append(lines, "Address="+host32(vip).String())
	}
	foreign, err := h.networkFileOfLo()
	if err != nil {
		return "", "", nil, err
	}
	if foreign != "" {
		return "", "", []change{warning(foreign,
			"%s configures lo already: the VIPs will not come back after a reboot until its section [Network] has: %s",
			foreign, strings.Join(lines, " and "))}, nil
	}
	text := header + "[Match]\nName=lo\n\n[Network]\n" + strings.Join(lines, "\n") + "\n"
	return h.path(networkdFile), text, nil, nil
}

// networkFileOfLo returns the .network file that names lo and is not ours, or
// one for every interface that is read before ours.
func (h *host) networkFileOfLo() (string, error) {
	for _, dir := range []string{"/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network"} {
		files, err := filepath.Glob(h.path(filepath.Join(dir, "*.network")))
		if err != nil {
			return "", err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil || strings.HasPrefix(string(text), header) {
				continue // a link to /dev/null is a file that is switched off
			}
			before := filepath.Base(f) < filepath.Base(networkdFile)
			if exact, wild := matchesLo(string(text)); exact || wild && before {
				return f, nil
			}
		}
	}
	return "", nil
}

// matchesLo tells whether a .network file names lo, or covers it by a pattern.
func matchesLo(text string) (exact, wild bool) {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = line
		}
		names, ok := strings.CutPrefix(strings.ReplaceAll(line, " =", "="), "Name=")
		if section != "[Match]" || !ok {
			continue
		}
		if strings.HasPrefix(strings.TrimSpace(names), "!") {
			continue
		}
		for _, name := range strings.Fields(names) {
			match, err := path.Match(name, loopback)
			exact = exact || name == loopback
			wild = wild || err == nil && match
		}
	}
	return exact, wild
}

// ifupdownText returns a second stanza for lo: ifupdown applies all of them.
func ifupdownText(vips []netip.Addr) string {
	var b strings.Builder
	b.WriteString(header + "auto lo\n")
	for _, v := range []struct {
		family, ip string
		of         func(netip.Addr) bool
	}{{"inet", "ip", netip.Addr.Is4}, {"inet6", "ip -6", netip.Addr.Is6}} {
		list := slices.DeleteFunc(slices.Clone(vips), func(a netip.Addr) bool { return !v.of(a) })
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(&b, "iface lo %s manual\n", v.family)
		for _, vip := range list {
			fmt.Fprintf(&b, "\tup %s addr replace %s dev lo\n\tdown %s addr del %s dev lo || true\n", v.ip, host32(vip), v.ip, host32(vip))
		}
	}
	return b.String()
}

// ifupdownWarnings tells if ifupdown does not read our file.
func (h *host) ifupdownWarnings() []change {
	text, _ := os.ReadFile(h.path(interfacesFile)) // unreadable is as good as without the line
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "source" && words[0] != "source-directory" {
			continue
		}
		for _, pattern := range words[1:] {
			if !path.IsAbs(pattern) {
				pattern = path.Join("/etc/network", pattern)
			}
			if words[0] == "source-directory" {
				pattern = path.Join(pattern, "*")
			}
			if ok, err := path.Match(pattern, ifupdownFile); err == nil && ok {
				return nil
			}
		}
	}
	return []change{warning(interfacesFile,
		"%s does not read %s: the VIPs will not come back after a reboot until it has the line: source /etc/network/interfaces.d/*",
		interfacesFile, ifupdownFile)}
}

// networkManagerWarnings tells what the operator has to type: a profile of
// NetworkManager is not a file for others to write.
func networkManagerWarnings(vips []netip.Addr) []change {
	var words []string
	for _, v := range []struct {
		key string
		of  func(netip.Addr) bool
	}{{"ipv4", netip.Addr.Is4}, {"ipv6", netip.Addr.Is6}} {
		var list []string
		for _, vip := range vips {
			if v.of(vip) {
				list = append(list, host32(vip).String())
			}
		}
		if len(list) > 0 {
			words = append(words, fmt.Sprintf("%s.method manual %s.addresses %s", v.key, v.key, strings.Join(list, ",")))
		}
	}
	return []change{warning("VIPs after a reboot",
		"NetworkManager configures this host: the VIPs will not come back after a reboot until it knows them (1.42 or newer): nmcli connection add type loopback con-name lvx-realserver ifname lo %s",
		strings.Join(words, " "))}
}

// gatewayWarnings tells what the operator has to write himself: the default
// route is a line in the middle of a file that is his.
func (h *host) gatewayWarnings(gateways []defaultGateway) (list []change) {
	for _, g := range gateways {
		var advice string
		switch {
		case h.enabled("systemd-networkd"):
			advice = fmt.Sprintf("the .network file of %s (networkctl status %s names it) has this, and no other gateway, in its section [Network]: Gateway=%s", g.Link, g.Link, g.Director)
		case h.exists(interfacesFile):
			advice = fmt.Sprintf("the stanza of %s in %s has this, and no other gateway: gateway %s", g.Link, interfacesFile, g.Director)
		case h.enabled("NetworkManager"):
			advice = fmt.Sprintf("it is in the connection of %s: nmcli connection modify CONNECTION %s.gateway %s", g.Link, strings.ToLower(familyName(g.Director)), g.Director)
		default:
			advice = "this runs at boot: lvx realserver join --method nat --director " + g.Director.String()
		}
		list = append(list, warning(g.object(), "the default route will not come back after a reboot until %s", advice))
	}
	return list
}

// tunnelWarnings tells that files alone do not bring a program back.
func (s *state) tunnelWarnings() []change {
	var vips []netip.Addr
	for _, v := range s.VIPs {
		if v.Persist && v.Tunnel {
			vips = append(vips, v.Address)
		}
	}
	if len(vips) == 0 {
		return nil
	}
	return []change{warning("tunnel program",
		"the program that takes tunnels off, and the routes of its table, will not come back after a reboot until this runs at boot, when the network is up: %s",
		s.joinTunnels())}
}
