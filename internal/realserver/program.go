// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The program that takes tunnels off is pinned with its maps, and so are its links
// to the interfaces: it outlives the command. Each network namespace has its own.

// programABI is the version of what is pinned. Raise it with every change of
// bpf/rs_types.h that an older lvx would misread.
const programABI = 1

// programPin is the name of the pinned program, beside its maps.
const programPin = "program"

// pins is the directory of this namespace's program, in all versions.
func (h *host) pins() string {
	return filepath.Join(h.BPFFS, "lvx/realserver", fmt.Sprint(h.namespace.Cookie))
}

// pin is the path of something that this version has pinned.
func (h *host) pin(name string) string {
	return filepath.Join(h.pins(), fmt.Sprintf("v%d", programABI), name)
}

func (h *host) linkPin(index int) string { return h.pin(fmt.Sprintf("link_%d", index)) }

// loaded tells whether the program is pinned.
func (h *host) loaded() bool {
	_, err := os.Lstat(h.pin(programPin))
	return err == nil
}

// running tells whether the program is there, and ours by the state.
func (h *host) running() bool { return h.state.Tunnels != nil && h.loaded() }

// checkBPFFS tells why nothing can be pinned, or returns nil.
func (h *host) checkBPFFS() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(h.BPFFS, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("no BPF file system at %s: mount one with: mount -t bpf bpf %s", h.BPFFS, h.BPFFS)
	}
	versions, _ := filepath.Glob(filepath.Join(h.pins(), "v*")) // the pattern is sound
	for _, path := range versions {
		if path != filepath.Dir(h.pin(programPin)) {
			return fmt.Errorf("the program of another lvx is at work here (%s); take it away first: lvx realserver leave", path)
		}
	}
	return nil
}

// loadChange is the change that loads the program and pins it.
func (h *host) loadChange() change {
	const object = "tunnel program"
	if h.running() {
		return already(object, "loaded", object+": already loaded")
	}
	return change{
		step: Step{Object: object, Before: "absent", After: "loaded", Changed: true, Text: object + " loaded"},
		do: func() error {
			if err := h.unload(); err != nil { // what somebody left behind
				return err
			}
			if err := h.load(); err != nil {
				return errors.Join(err, h.unload())
			}
			return nil
		},
		undo: h.unload,
	}
}

func (h *host) load() error {
	spec, err := loadDecap()
	if err != nil {
		return fmt.Errorf("read the tunnel program: %w", err)
	}
	dir := filepath.Dir(h.pin(programPin))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	for name, m := range spec.Maps {
		if name != decapMapScratch {
			m.Pinning = ebpf.PinByName
		}
	}
	var objects decapObjects
	if err := spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: dir}}); err != nil {
		return fmt.Errorf("load the tunnel program: %w", err)
	}
	defer objects.Close()
	if err := objects.RsDecap.Pin(h.pin(programPin)); err != nil {
		return fmt.Errorf("pin the tunnel program: %w", err)
	}
	return nil
}

// unload detaches the program everywhere and removes its pins, of any version. It
// is no error if there is none.
func (h *host) unload() error {
	links, _ := filepath.Glob(filepath.Join(h.pins(), "v*", "link_*")) // the pattern is sound
	var err error
	for _, path := range links {
		err = errors.Join(err, detach(path))
	}
	if err = errors.Join(err, os.RemoveAll(h.pins())); err != nil {
		return fmt.Errorf("take the tunnel program away: %w", err)
	}
	os.Remove(filepath.Dir(h.pins())) // stays while other namespaces have theirs
	os.Remove(filepath.Dir(filepath.Dir(h.pins())))
	return nil
}

func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return err
	}
	_ = l.Detach() // of an interface that is gone there is nothing to detach
	return errors.Join(l.Unpin(), l.Close())
}

// encode is an address as the maps have it.
func encode(a netip.Addr) decapAddress { return decapAddress{Bytes: a.As16()} }

// withMap calls f with a pinned map.
func (h *host) withMap(name string, f func(*ebpf.Map) error) error {
	m, err := ebpf.LoadPinnedMap(h.pin(name), nil)
	if err != nil {
		return fmt.Errorf("open the map %s: %w", name, err)
	}
	defer m.Close()
	return f(m)
}

// has tells whether a pinned map has a key. Without the map it has not.
func (h *host) has(name string, key any) bool {
	var value uint32
	return h.withMap(name, func(m *ebpf.Map) error { return m.Lookup(key, &value) }) == nil
}

func (h *host) put(name string, key, value any) error {
	return h.withMap(name, func(m *ebpf.Map) error {
		if err := m.Put(key, value); err != nil {
			return fmt.Errorf("write the map %s: %w", name, err)
		}
		return nil
	})
}

func (h *host) drop(name string, key any) error {
	return h.withMap(name, func(m *ebpf.Map) error {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("write the map %s: %w", name, err)
		}
		return nil
	})
}

// keyChange is the change that puts a key into a map, unless it is there.
func (h *host) keyChange(name, object string, key any) change {
	if h.running() && h.has(name, key) {
		return already(object, "known", object+": already known to the program")
	}
	return change{
		step: Step{Object: object, Before: "unknown", After: "known", Changed: true, Text: object + ": made known to the program"},
		do:   func() error { return h.put(name, key, uint32(1)) },
		undo: func() error { return h.drop(name, key) },
	}
}

// macOf is the MAC address of an interface as the program has it.
func macOf(l netlink.Link) uint64 {
	var b [8]byte
	copy(b[:6], l.Attrs().HardwareAddr)
	return binary.LittleEndian.Uint64(b[:]) // the object is of a little-endian machine
}

// mac returns the MAC address that the program takes for an interface's.
func (h *host) mac(index int) (mac uint64) {
	_ = h.withMap(decapMapInterfaces, func(m *ebpf.Map) error { return m.Lookup(uint32(index), &mac) }) // none is 0
	return mac
}

// tunnelLinks returns the interfaces that tunnels come in by: those that were
// named, or each Ethernet interface that is up, is nobody's member, and is not a
// part of another.
func (h *host) tunnelLinks(names []string) (list []netlink.Link, err error) {
	links, err := whole(h.netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, name := range names {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name }) {
			return nil, fmt.Errorf("there is no interface %s; see: ip link", name)
		}
	}
	for _, l := range links {
		a := l.Attrs()
		part := l.Type() == "vlan" || l.Type() == "macvlan" || l.Type() == "ipvlan"
		wanted := a.EncapType == "ether" && a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && a.MasterIndex == 0 && !part
		if len(names) > 0 {
			wanted = slices.Contains(names, a.Name)
		}
		if wanted {
			list = append(list, l)
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no Ethernet interface is up to take tunnels off at: bring one up (ip link set eth0 up), or name one: --interface")
	}
	return list, nil
}

// attached tells whether the program is at work at an interface.
func (h *host) attached(index int) bool {
	l, err := link.LoadPinnedLink(h.linkPin(index), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	info, err := l.Info()
	return err == nil && info.XDP() != nil && int(info.XDP().Ifindex) == index
}

// attachChange is the change that puts the program on an interface and tells it
// the interface's MAC address.
func (h *host) attachChange(l netlink.Link) change {
	index, name, mac := l.Attrs().Index, l.Attrs().Name, macOf(l)
	object := "tunnel program on " + name
	if h.running() && h.attached(index) {
		before := h.mac(index)
		if before == mac {
			return already(object, "attached", object+": already attached")
		}
		return change{
			step: Step{Object: object, Before: "other MAC address", After: "attached", Changed: true, Text: object + " told the new MAC address"},
			do:   func() error { return h.put(decapMapInterfaces, uint32(index), mac) },
			undo: func() error { return h.put(decapMapInterfaces, uint32(index), before) },
		}
	}
	return change{
		step: Step{Object: object, Before: "absent", After: "attached", Changed: true, Text: object + ": attached"},
		do:   func() error { return h.attach(index, name, mac) },
		undo: func() error { return h.letGo(index) },
	}
}

// attach puts the program on an interface: in its driver if it can, else behind it.
func (h *host) attach(index int, name string, mac uint64) error {
	if err := h.put(decapMapInterfaces, uint32(index), mac); err != nil {
		return err
	}
	program, err := ebpf.LoadPinnedProgram(h.pin(programPin), nil)
	if err != nil {
		return fmt.Errorf("open the tunnel program: %w", err)
	}
	defer program.Close()
	_ = detach(h.linkPin(index)) // left over from an interface that had this number
	l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPDriverMode})
	if err != nil && !taken(err) {
		l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPGenericMode})
	}
	if err == nil {
		defer l.Close()
		err = l.Pin(h.linkPin(index))
	}
	if err != nil {
		return errors.Join(explainAttach(name, err), h.drop(decapMapInterfaces, uint32(index)))
	}
	return nil
}

// taken tells whether somebody else's program is in the way.
func taken(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) }

func explainAttach(name string, err error) error {
	if taken(err) {
		return fmt.Errorf("another XDP program is attached to %s (ip link show dev %s); take it off, or name other interfaces: --interface", name, name)
	}
	return fmt.Errorf("attach the tunnel program to %s: %w", name, err)
}

// letGo takes the program from an interface.
func (h *host) letGo(index int) error {
	if err := detach(h.linkPin(index)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("detach the tunnel program: %w", err)
	}
	return h.drop(decapMapInterfaces, uint32(index))
}

// attachedLinks lists the interfaces that have a pinned link, by number.
func (h *host) attachedLinks() (indexes []int) {
	paths, _ := filepath.Glob(h.pin("link_*")) // the pattern is sound
	for _, path := range paths {
		var index int
		if _, err := fmt.Sscanf(filepath.Base(path), "link_%d", &index); err == nil {
			indexes = append(indexes, index)
		}
	}
	slices.Sort(indexes)
	return indexes
}

// counts returns how many packets had each outcome.
func (h *host) counts() (map[decapOutcome]uint64, error) {
	counts := map[decapOutcome]uint64{}
	err := h.withMap(decapMapOutcomes, func(m *ebpf.Map) error {
		for _, o := range outcomes {
			var perCPU []uint64
			if err := m.Lookup(uint32(o.outcome), &perCPU); err != nil {
				return fmt.Errorf("read the map outcomes: %w", err)
			}
			for _, n := range perCPU {
				counts[o.outcome] += n
			}
		}
		return nil
	})
	return counts, err
}
