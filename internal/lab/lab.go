// SPDX-License-Identifier: Apache-2.0

// Package lab builds small networks out of namespaces on this machine: a
// client, a router, a director and real servers, joined by a switch. It runs
// lvx itself in them as a child process, captures frames at the switch and
// tells what they show. `lvx lab` and the tests of whole scenarios stand on it.
//
// It is not for the host's own network, which it never touches, and knows
// nothing of how a director works inside: it types the commands a person types.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Options are what a lab is made of. The zero value works.
type Options struct {
	// Self is the lvx binary that the hosts run as lvx, ipvsadm, ipvsadm-save
	// and ipvsadm-restore; default: the running program. Tests have to set it,
	// since there the running program is the test.
	Self string
	// MTU of every wire in bytes, default 1500; up to 9000 is tried.
	MTU int
	// RealServers is how many real servers there are, default 2, at most 9.
	RealServers int
	// XDPHosts are the hosts that run native XDP on their interface, default
	// the director. Without an entry here frames that XDP sends back are lost
	// in the wire; one too many costs a little time per frame.
	XDPHosts []string
}

func (o Options) withDefaults() (Options, error) {
	if o.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("find the lvx binary: %w", err)
		}
		o.Self = self
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.RealServers == 0 {
		o.RealServers = 2
	}
	if o.XDPHosts == nil {
		o.XDPHosts = []string{Director}
	}
	return o, o.validate()
}

func (o Options) validate() error {
	switch {
	case strings.HasPrefix(o.Self, "/run/"):
		// Each host has a /run of its own, which hides this one.
		return fmt.Errorf("the lvx binary %s is below /run, where a lab cannot see it", o.Self)
	case o.MTU < 1280 || o.MTU > 9000:
		return fmt.Errorf("MTU %d is not between 1280 and 9000", o.MTU)
	case o.RealServers < 1 || o.RealServers > 9:
		return fmt.Errorf("%d real servers are not between 1 and 9", o.RealServers)
	}
	return nil
}

// Lab is a network of hosts on this machine. It is not safe for use by
// several goroutines, except its hosts, which are.
type Lab struct {
	Name    string    // the topology's
	Family  int       // of the service that is deployed in it, 4 or 6
	Created time.Time // when it was built

	options Options
	hosts   []*Host
	daemons []*Daemon
	// owned is true while the lab ends with this process: until Detach, and
	// never for a lab that another process built.
	owned bool
}

// ErrNotRoot says that the caller may not make namespaces.
var ErrNotRoot = errors.New("a lab needs root, since it makes network namespaces; run it with sudo")

// New returns a lab without hosts. Returns ErrNotRoot if it could not have any.
// It and all that runs in it end with Close, and with this process.
func New(options Options) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Lab{options: options, Created: time.Now(), owned: true}, nil
}

// AddHost starts a host with no interface but lo. It blocks until the host is
// ready, some 20 ms.
func (l *Lab) AddHost(ctx context.Context, name string) (*Host, error) {
	if l.Host(name) != nil {
		return nil, fmt.Errorf("host %s: there is one already", name)
	}
	h, err := startHost(ctx, name, l.options.Self)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	i := slices.IndexFunc(l.hosts, func(h *Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return l.hosts[i]
}

// Hosts returns all hosts in the order in which they were made.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// Close ends the lab if this process built it and it was not detached: every
// process in it, and with them namespaces, wires and pins. Otherwise it only
// lets go of it. Closing twice is harmless.
func (l *Lab) Close() error {
	var errs []error
	if l.owned {
		errs = append(errs, l.end())
		for _, d := range l.daemons {
			<-d.done
		}
	}
	for _, h := range l.hosts {
		h.release()
	}
	l.hosts, l.daemons, l.owned = nil, nil, false
	return errors.Join(errs...)
}

// end kills what lives in the lab's namespaces.
func (l *Lab) end() error {
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.kill())
	}
	return errors.Join(append(errs, l.killStragglers())...)
}
