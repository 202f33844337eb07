// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"lvx/internal/ipvsadm"
	"lvx/internal/lvs"
)

// names finds the names of hosts and ports for ipvsadm. All look-ups of a run
// together take at most nameBudget: a listing must not hang on a name server
// that is behind the very director that is being looked at.
type names struct {
	lookupHost func(ctx context.Context, name string) ([]netip.Addr, error)
	lookupAddr func(ctx context.Context, address string) ([]string, error)
	file       string // of services: /etc/services

	left      time.Duration         // of the budget
	hosts     map[netip.Addr]string // asked already; empty if there is no name
	addresses map[string]netip.Addr // asked already; zero if there is no address
	read      bool                  // file was read
	ports     map[serviceName]uint16
	known     map[servicePort]string
}

type serviceName struct {
	protocol lvs.Protocol
	name     string
}

type servicePort struct {
	protocol lvs.Protocol
	port     uint16
}

const (
	nameBudget = 2 * time.Second
	// maxHosts bounds each of the two that are remembered, whatever is in the
	// connection table.
	maxHosts = 4096
)

func newNames() *names {
	return &names{
		lookupHost: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
		},
		lookupAddr: net.DefaultResolver.LookupAddr,
		file:       "/etc/services",
		left:       nameBudget,
		hosts:      map[netip.Addr]string{},
		addresses:  map[string]netip.Addr{},
	}
}

func (n *names) functions() ipvsadm.Names {
	return ipvsadm.Names{Host: n.host, Port: n.port, HostName: n.hostName, PortName: n.portName}
}

// spend calls lookUp with what is left of the budget, if anything is.
func (n *names) spend(lookUp func(context.Context)) {
	if n.left <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.left)
	defer cancel()
	start := time.Now()
	lookUp(ctx)
	n.left -= time.Since(start)
}

func (n *names) host(name string) (netip.Addr, bool) {
	a, cached := n.addresses[name]
	if cached {
		return a, a.IsValid()
	}
	n.spend(func(ctx context.Context) {
		found, err := n.lookupHost(ctx, name)
		if err == nil && len(found) > 0 && found[0].Unmap().Is4() {
			a = found[0].Unmap()
		}
	})
	if len(n.addresses) < maxHosts {
		n.addresses[name] = a
	}
	return a, a.IsValid()
}

func (n *names) hostName(a netip.Addr) (string, bool) {
	name, cached := n.hosts[a]
	if cached {
		return name, name != ""
	}
	n.spend(func(ctx context.Context) {
		found, err := n.lookupAddr(ctx, a.String())
		if err == nil && len(found) > 0 {
			name = strings.TrimSuffix(found[0], ".")
		}
	})
	if len(n.hosts) < maxHosts {
		n.hosts[a] = name
	}
	return name, name != ""
}

func (n *names) port(protocol lvs.Protocol, name string) (uint16, bool) {
	n.readServices()
	port, ok := n.ports[serviceName{protocol, name}]
	return port, ok
}

func (n *names) portName(protocol lvs.Protocol, port uint16) (string, bool) {
	n.readServices()
	name, ok := n.known[servicePort{protocol, port}]
	return name, ok
}

// readServices reads the file of services once.
func (n *names) readServices() {
	if n.read {
		return
	}
	n.read, n.ports, n.known = true, map[serviceName]uint16{}, map[servicePort]string{}
	file, err := os.Open(n.file)
	if err != nil {
		return // then ports have no names, as for any other program
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		number, protocol, _ := strings.Cut(words[1], "/")
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue
		}
		n.learn(protocol, uint16(port), append(words[:1], words[2:]...))
	}
}

// learn notes a port with its name and other names. The first in the file wins,
// as with getservbyport(3).
func (n *names) learn(protocol string, port uint16, names []string) {
	var p lvs.Protocol
	if p.UnmarshalText([]byte(protocol)) != nil {
		return // not one that is balanced
	}
	if _, known := n.known[servicePort{p, port}]; !known {
		n.known[servicePort{p, port}] = names[0]
	}
	for _, name := range names {
		if _, known := n.ports[serviceName{p, name}]; !known {
			n.ports[serviceName{p, name}] = port
		}
	}
}
