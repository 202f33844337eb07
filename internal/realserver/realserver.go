// SPDX-License-Identifier: Apache-2.0

// Package realserver makes this host a correct real server, and undoes exactly
// that. For forwarding method dr: the VIP on lo, and no answer to ARP for it. For
// tun besides: a program that takes the tunnel header off, and an MSS that leaves
// room for it. For nat: the default route by way of the director. It needs no daemon.
//
// It is not for the director, and not for finding out what is wrong on other
// hosts (package diagnose). Its one outside thing is this host: its addresses,
// routes and sysctls, its program, and the files that bring some of it back after
// a reboot.
//
// Every function works on the network namespace of the calling thread.
package realserver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

// ErrNoPrivilege is returned by Join and Leave without CAP_NET_ADMIN.
var ErrNoPrivilege = errors.New("this needs CAP_NET_ADMIN: run it as root")

// Options say what Join, Leave and Status work on.
type Options struct {
	// VIPs are the addresses that clients ask for. Join needs at least one; for
	// Leave and Status none means all that have joined.
	VIPs []netip.Addr
	// Method is the forwarding method of Join, by default dr. fullnat is refused.
	Method lvs.Method
	// Directors are the directors' addresses. nat makes them the default
	// gateways, at most one of each family; tun takes tunnels from nobody else. dr
	// does not use them; they are only checked, so that a command line serves
	// every method.
	Directors []netip.Addr
	// Interfaces are where tun takes tunnels off, by default all Ethernet
	// interfaces that are up.
	Interfaces []string
	// TunnelPorts are UDP ports of GUE, besides DefaultTunnelPort; only for tun.
	TunnelPorts []uint16
	// Persist makes Join write files that bring the VIPs and sysctls back after
	// a reboot. Leave takes them away whether it is set or not.
	Persist bool
	// Root is put before every path of /etc, /run and /usr, by default "/".
	// Sysctls and addresses are always those of the running kernel.
	Root string
	// StatePath is the file that remembers what there was before, by default
	// DefaultStatePath below Root. Each network namespace needs its own.
	StatePath string
	// BPFFS is where a BPF file system is mounted, by default /sys/fs/bpf.
	BPFFS string
}

// Step is one thing that Join or Leave did, or found done.
type Step struct {
	// Object is what it is about: "VIP 192.0.2.1/32 on lo",
	// "net.ipv4.conf.all.arp_ignore", the path of a file.
	Object string `json:"object"`
	// Before and After are the object's state; equal if nothing changed.
	Before string `json:"before"`
	After  string `json:"after"`
	// Changed tells whether this call changed the object.
	Changed bool `json:"changed"`
	// Text says it all in one line for people.
	Text string `json:"text"`
	// Warning marks what the operator has to look at.
	Warning bool `json:"warning"`
}

// warning is a step that changes nothing and asks to be read.
func warning(object, format string, a ...any) change {
	return change{step: Step{Object: object, Text: fmt.Sprintf(format, a...), Warning: true}}
}

// already is a step that found its object as it should be.
func already(object, state, text string) change {
	return change{step: Step{Object: object, Before: state, After: state, Text: text}}
}

// change is a step together with how to make it and how to take it back.
type change struct {
	step Step
	do   func() error // nil if there is nothing to do
	undo func() error // nil if there is nothing to take back
}

// run makes the changes in order. If one fails, those before it are taken back
// in reverse order, so that a refused change leaves everything as it was.
func run(changes []change) ([]Step, error) {
	steps := []Step{}
	for i, c := range changes {
		if c.do != nil {
			if err := c.do(); err != nil {
				return nil, undo(changes[:i], err)
			}
		}
		if c.step.Text != "" {
			steps = append(steps, c.step)
		}
	}
	return steps, nil
}

func undo(made []change, cause error) error {
	for _, c := range slices.Backward(made) {
		if c.undo == nil {
			continue
		}
		if err := c.undo(); err != nil {
			cause = fmt.Errorf("%w; taking back %s: %w", cause, c.step.Object, err)
		}
	}
	return fmt.Errorf("%w; what had been changed was taken back", cause)
}

// host is this host in one network namespace, while one call looks at it.
type host struct {
	Options
	netlink   *netlink.Handle
	lo        netlink.Link
	links     map[int]string // interface names by index
	mtus      map[int]int    // by index
	namespace namespace
	state     *state // never nil; without VIPs if none has joined
	known     bool   // whether a state was found
	lock      *os.File
}

// open looks at the host, without changing anything.
func open(o Options) (*host, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	ns, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	h := &host{Options: o.withDefaults(), namespace: ns}
	if h.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := h.look(); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// openToChange is open for those who will change something: it asks for the
// privilege first and keeps a second lvx out until close.
func openToChange(o Options) (*host, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := checkPrivilege(); err != nil {
		return nil, err
	}
	lock, err := lockDirectory(filepath.Dir(o.withDefaults().StatePath))
	if err != nil {
		return nil, err
	}
	h, err := open(o)
	if err != nil {
		lock.Close()
		return nil, err
	}
	h.lock = lock
	return h, nil
}

func (h *host) close() {
	h.netlink.Close()
	if h.lock != nil {
		h.lock.Close()
	}
}

// path returns where a path of the host is, below Root.
func (h *host) path(p string) string { return filepath.Join(h.Root, p) }

// look reads the interfaces and the state.
func (h *host) look() error {
	links, err := whole(h.netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	h.links, h.mtus = map[int]string{}, map[int]int{}
	for _, link := range links {
		h.links[link.Attrs().Index], h.mtus[link.Attrs().Index] = link.Attrs().Name, link.Attrs().MTU
		if link.Attrs().Name == loopback {
			h.lo = link
		}
	}
	if h.lo == nil {
		return errors.New("this network namespace has no interface lo")
	}
	return h.loadState()
}

// withDefaults returns the options with Root and StatePath filled in.
func (o Options) withDefaults() Options {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.StatePath == "" {
		o.StatePath = filepath.Join(o.Root, DefaultStatePath())
	}
	if o.BPFFS == "" {
		o.BPFFS = "/sys/fs/bpf"
	}
	return o
}

// whole lists again if something changed meanwhile: then the kernel may have
// left out an entry.
func whole[T any](list func() (T, error)) (T, error) {
	for range 3 {
		if got, err := list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return list()
}

// validate tells why the options cannot be meant, or returns nil. Returns
// lvs.ErrUnsupported for a method that is not built, else lvs.ErrInvalid.
func (o Options) validate() error {
	switch o.Method {
	case "", lvs.DR, lvs.NAT, lvs.Tun:
	case lvs.FullNAT:
		return fmt.Errorf("method %s: %w (only dr, nat and tun)", o.Method, lvs.ErrUnsupported)
	default:
		return fmt.Errorf("method %q is %w: it is not one of dr, tun, nat, fullnat", o.Method, lvs.ErrInvalid)
	}
	for _, vip := range o.VIPs {
		if err := checkVIP(vip); err != nil {
			return err
		}
	}
	for _, d := range o.Directors {
		if err := checkUnicast(d); err != nil {
			return fmt.Errorf("director %s: %w", d, err)
		}
		if slices.Contains(o.VIPs, d) {
			return fmt.Errorf("director %s is %w: it is one of the VIPs; give the director's own address (DIP)", d, lvs.ErrInvalid)
		}
	}
	return o.checkTunnels()
}

// checkPrivilege returns ErrNoPrivilege unless this thread may change the
// network configuration.
func checkPrivilege() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return ErrNoPrivilege
	}
	return nil
}
