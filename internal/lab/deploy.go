// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Typed is a command as it was typed at a host.
type Typed struct {
	Host    string `json:"host"`
	Command string `json:"command"`
}

// ServicePort is the port of the service that Deploy makes.
const ServicePort = 80

// Service returns the address of the service that Deploy makes.
func (l *Lab) Service() netip.AddrPort { return netip.AddrPortFrom(VIP(l.Family), ServicePort) }

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
	for _, h := range l.RealServers() {
		if err == nil {
			typed, err = l.startRealServer(ctx, h, typed)
		}
	}
	for _, line := range l.serviceCommands() {
		if err == nil {
			typed, err = typeAt(ctx, l.Host(Director), line, typed)
		}
	}
	return typed, err
}

// startDirector starts the daemon and waits until it answers.
func (l *Lab) startDirector(ctx context.Context) ([]Typed, error) {
	h := l.Host(Director)
	d, err := l.StartDaemon(h, "lvx", "director", "--interface", "eth0")
	if err != nil {
		return nil, err
	}
	err = d.Await(ctx, 10*time.Second, func(ctx context.Context) bool {
		_, err := h.Run(ctx, "lvx", "status")
		return err == nil
	})
	return []Typed{{Director, "lvx director --interface eth0 &"}}, err
}

// startRealServer gives the host the VIP, in the way direct routing needs, and
// a web server that listens at it.
func (l *Lab) startRealServer(ctx context.Context, h *Host, typed []Typed) ([]Typed, error) {
	typed, err := typeAt(ctx, h, fmt.Sprintf("lvx realserver join --vip %s --method dr", VIP(l.Family)), typed)
	if err != nil {
		return typed, err
	}
	address := l.Service().String()
	d, err := l.StartDaemon(h, "lvx", ServerCommand, h.Name, address)
	if err != nil {
		return typed, err
	}
	return typed, d.Await(ctx, 5*time.Second, func(ctx context.Context) bool {
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
	for _, h := range l.RealServers() {
		rip := netip.AddrPortFrom(h.Addr(l.Family), ServicePort)
		lines = append(lines, fmt.Sprintf("ipvsadm -a -t %s -r %s -g -w 1", l.Service(), rip))
	}
	return lines
}

// typeAt runs a command line of plain words in the host, at most 10 s.
func typeAt(ctx context.Context, h *Host, line string, typed []Typed) ([]Typed, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	words := strings.Fields(line)
	_, err := h.Run(ctx, words[0], words[1:]...)
	return append(typed, Typed{h.Name, line}), err
}
