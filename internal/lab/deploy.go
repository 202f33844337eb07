// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lvx/internal/lvs"
)

// Typed is a command as it was typed at a host.
type Typed struct {
	Host    string `json:"host"`
	Command string `json:"command"`
}

// The ports of the service that Deploy makes. MappedPort is that of the real
// servers where the forwarding method can map ports.
const (
	ServicePort = 80
	MappedPort  = 8080
)

// Service returns the address of the service that Deploy makes.
func (l *Lab) Service() netip.AddrPort { return netip.AddrPortFrom(VIP(l.Family), ServicePort) }

// listener returns where a real server listens: at the VIP, save with nat,
// which makes it an address of its own.
func (l *Lab) listener(h *Host) netip.AddrPort {
	if l.Method() == lvs.NAT {
		return netip.AddrPortFrom(h.Addr(l.Family), MappedPort)
	}
	return l.Service()
}

// served returns how the service's packets look.
func (l *Lab) served() Served {
	s := Served{Service: l.Service()}
	for _, h := range l.RealServers() {
		if at := l.listener(h); at != s.Service {
			s.RealServers = append(s.RealServers, at)
		}
	}
	return s
}

// RealServers returns the hosts that are real servers.
func (l *Lab) RealServers() []*Host {
	var list []*Host
	for i := 1; l.Host(RealServerName(i)) != nil; i++ {
		list = append(list, l.Host(RealServerName(i)))
	}
	return list
}

// Deploy makes the lab a virtual server of family 4 or 6, as a person would:
// it starts the director, joins the real servers and starts a web server in
// each, and adds the service with ipvsadm. It returns what was typed where.
func (l *Lab) Deploy(ctx context.Context, family int) ([]Typed, error) {
	l.Family = family
	typed, err := l.startDirector(ctx)
	if err != nil {
		return typed, err
	}
	joined, err := l.Join(ctx, family)
	typed = append(typed, joined...)
	for _, h := range l.RealServers() {
		if err == nil {
			err = l.startWebServer(ctx, h)
		}
	}
	for _, line := range l.serviceCommands() {
		if err == nil {
			typed, err = typeAt(ctx, l.Host(Director), line, typed)
		}
	}
	return typed, err
}

// Join does in all hosts what the lab's forwarding method needs in a family
// besides a director that runs: the director forwards and knows its router, as one
// that has been up for a while, and the real servers join.
// It returns what was typed where.
func (l *Lab) Join(ctx context.Context, family int) (typed []Typed, err error) {
	for _, line := range l.forwardCommands(family) {
		if err == nil {
			typed, err = typeAt(ctx, l.Host(Director), line, typed)
		}
	}
	for _, h := range l.RealServers() {
		if err == nil {
			typed, err = typeAt(ctx, h, l.joinCommand(family), typed)
		}
	}
	if err == nil && l.Method() == lvs.NAT {
		err = l.Host(Director).meet(ctx, "eth0", ofFamily(front.router(), family))
	}
	return typed, err
}

// startDirector starts the daemon at all interfaces and waits until it answers.
func (l *Lab) startDirector(ctx context.Context) ([]Typed, error) {
	h := l.Host(Director)
	args := []string{"director"}
	for _, i := range h.Interfaces {
		args = append(args, "--interface", i.Name)
	}
	d, err := l.StartDaemon(h, "lvx", args...)
	if err != nil {
		return nil, err
	}
	err = d.Await(ctx, 10*time.Second, func(ctx context.Context) bool {
		_, err := h.Run(ctx, "lvx", "status")
		return err == nil
	})
	return []Typed{{Director, "lvx " + strings.Join(args, " ") + " &"}}, err
}

// forwardCommands make the director a router of that family, which method nat
// needs: its answers to clients and the real servers' own traffic are routed.
func (l *Lab) forwardCommands(family int) []string {
	switch {
	case l.Method() != lvs.NAT:
		return nil
	case family == 6:
		return []string{"echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"}
	}
	return []string{"echo 1 > /proc/sys/net/ipv4/ip_forward"}
}

// joinCommand makes a host a real server of the lab's forwarding method.
func (l *Lab) joinCommand(family int) string {
	vip, director := VIP(family), l.DirectorAddress(family)
	switch method := l.Method(); method {
	case lvs.NAT:
		return fmt.Sprintf("lvx realserver join --method %s --director %s", method, director)
	case lvs.Tun:
		return fmt.Sprintf("lvx realserver join --vip %s --method %s --director %s", vip, method, director)
	default:
		return fmt.Sprintf("lvx realserver join --vip %s --method %s", vip, method)
	}
}

// startWebServer starts one in a real server and waits until it listens.
func (l *Lab) startWebServer(ctx context.Context, h *Host) error {
	address := l.listener(h).String()
	d, err := l.StartDaemon(h, "lvx", ServerCommand, h.Name, address)
	if err != nil {
		return err
	}
	return d.Await(ctx, 5*time.Second, func(ctx context.Context) bool {
		c, err := h.Dial(ctx, "tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// serviceCommands are the classic ones, round robin over all real servers.
func (l *Lab) serviceCommands() []string {
	lines := []string{fmt.Sprintf("ipvsadm -A -t %s -s rr", l.Service())}
	method := map[lvs.Method]string{lvs.DR: "-g", lvs.NAT: "-m", lvs.Tun: "-i"}[l.Method()]
	for _, h := range l.RealServers() {
		rip := netip.AddrPortFrom(h.Addr(l.Family), l.listener(h).Port())
		lines = append(lines, fmt.Sprintf("ipvsadm -a -t %s -r %s %s -w 1", l.Service(), rip, method))
	}
	return lines
}

// typeAt runs a command line in the host, at most 10 s: plain words, or with a
// redirection what the shell makes of it.
func typeAt(ctx context.Context, h *Host, line string, typed []Typed) ([]Typed, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	words := strings.Fields(line)
	if slices.Contains(words, ">") {
		words = []string{"sh", "-c", line}
	}
	_, err := h.Run(ctx, words[0], words[1:]...)
	return append(typed, Typed{h.Name, line}), err
}
