// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// abi is the version of what is pinned: the maps' layout and meaning. Raise it
// with every change of bpf/types.h or bpf/maps.h that an older program or daemon
// would misread.
const abi = 1

// pins are the files of one instance in the BPF file system.
type pins struct {
	bpffs    string
	instance string
	fresh    bool // there were none before
}

func newPins(bpffs, instance string) pins { return pins{bpffs: bpffs, instance: instance} }

var instancePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

func validInstance(name string) error {
	if !instancePattern.MatchString(name) {
		return fmt.Errorf("instance name %q: use up to 32 letters, digits, - and _", name)
	}
	return nil
}

// root is the directory of the instance, all versions.
func (p pins) root() string { return filepath.Join(p.bpffs, "lvx", p.instance) }

// dir is the directory of this version.
func (p pins) dir() string { return filepath.Join(p.root(), fmt.Sprintf("v%d", abi)) }

func (p pins) link(ifindex int) string {
	return filepath.Join(p.dir(), fmt.Sprintf("link_%d", ifindex))
}

// prepare makes the directory, or says why there cannot be one.
func (p *pins) prepare() error {
	if err := p.mounted(); err != nil {
		return err
	}
	versions, err := filepath.Glob(filepath.Join(p.root(), "v*"))
	if err != nil {
		return err
	}
	for _, path := range versions {
		if path != p.dir() {
			return fmt.Errorf("a data plane of another version (%s) is pinned; this one is v%d: take it away with: lvx director unload --instance %s",
				filepath.Base(path), abi, p.instance)
		}
	}
	p.fresh = len(versions) == 0
	if err := os.MkdirAll(p.dir(), 0o700); err != nil {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	return nil
}

func (p pins) mounted() error {
	var fs unix.Statfs_t
	if err := unix.Statfs(p.bpffs, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("no BPF file system at %s: mount one with: mount -t bpf bpf %s", p.bpffs, p.bpffs)
	}
	return nil
}

// size returns the capacity of a pinned map, or 0 if it is not pinned.
func (p pins) size(name string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(p.dir(), name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, explainLoad(fmt.Errorf("open the pinned map %s: %w", name, err), p.instance)
	}
	defer m.Close()
	return m.MaxEntries(), nil
}

// Unload takes an instance's data plane away, whatever its version: it detaches
// every program, turns offloads on again and removes every pin. Forwarding ends.
// It is no error if there is nothing.
func Unload(bpffs, instance string) error {
	if bpffs == "" {
		bpffs = "/sys/fs/bpf"
	}
	if err := validInstance(instance); err != nil {
		return err
	}
	p := newPins(bpffs, instance)
	if err := p.mounted(); err != nil {
		return err
	}
	if _, err := os.Stat(p.root()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	restoreErr := p.restoreHost()
	if err := p.detach(); err != nil {
		return err
	}
	if err := os.RemoveAll(p.root()); err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	if err := os.Remove(filepath.Dir(p.root())); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove the pins: %w", err)
	}
	return restoreErr
}

// detach ends every pinned link of every version.
func (p pins) detach() error {
	paths, err := filepath.Glob(filepath.Join(p.root(), "v*", "link_*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("open the pinned link %s: %w", filepath.Base(path), err)
		}
		// A link whose interface is gone has nothing to detach from (ENOLINK).
		_ = l.Detach()
		if err := errors.Join(l.Unpin(), l.Close()); err != nil {
			return fmt.Errorf("detach %s: %w", strings.TrimPrefix(filepath.Base(path), "link_"), err)
		}
	}
	return nil
}

// restoreHost undoes what the data plane changed at the host besides its pins:
// offloads and managed neighbours. It can do so for this version's pins only.
func (p pins) restoreHost() error {
	interfaces, err := ebpf.LoadPinnedMap(filepath.Join(p.dir(), "interfaces"), nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return nil // another version's: nothing we can read
	}
	defer interfaces.Close()
	return errors.Join(restoreOffloads(interfaces), forgetNeighbours(p))
}
