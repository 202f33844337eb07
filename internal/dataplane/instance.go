// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// abi is the version of what is pinned: the maps' layout and meaning. Raise it
// with every change of bpf/types.h or bpf/maps.h that an older program or daemon
// would misread.
const abi = 5

// DefaultBPFFS is where a BPF file system is mounted on most machines.
const DefaultBPFFS = "/sys/fs/bpf"

// ErrRunning is returned when another process has the instance.
var ErrRunning = errors.New("already running")

// Instance is the right to a data plane of one name, which one process has at a
// time: it opens it or takes it away. The kernel takes the right back when the
// process dies, however it dies.
type Instance struct {
	bpffs string
	name  string
	lock  *os.File
}

var instancePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Acquire takes the right to an instance, whose pins are in the BPF file system
// mounted at bpffs.
//
// Returns ErrRunning if another process has it, and says what to do if there is
// no BPF file system.
func Acquire(bpffs, name string) (*Instance, error) {
	if !instancePattern.MatchString(name) {
		return nil, fmt.Errorf("instance name %q: use up to 32 letters, digits, - and _", name)
	}
	if err := checkPrivileges(); err != nil {
		return nil, err
	}
	i := &Instance{bpffs: bpffs, name: name}
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("no BPF file system at %s: mount one with: mount -t bpf bpf %s", bpffs, bpffs)
	}
	for i.lock == nil {
		if err := i.tryLock(); err != nil {
			return nil, err
		}
	}
	return i, nil
}

// checkPrivileges names what the process lacks, before half of the work is done.
func checkPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	has := func(c uint) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var lacking []string
	if !has(unix.CAP_NET_ADMIN) {
		lacking = append(lacking, "CAP_NET_ADMIN")
	}
	for c, name := range map[uint]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON"} {
		if !has(c) && !has(unix.CAP_SYS_ADMIN) {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	slices.Sort(lacking)
	return fmt.Errorf("the director lacks %s: run it as root", strings.Join(lacking, " and "))
}

// tryLock locks the instance's directory. If it was removed meanwhile there is no
// lock, and no error: the next try makes it anew.
func (i *Instance) tryLock() error {
	err := os.MkdirAll(i.root(), 0o700)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	lock, err := os.Open(i.root())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("open the directory of pins: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("instance %s is %w: stop its daemon first, or name another with --instance", i.name, ErrRunning)
		}
		return fmt.Errorf("lock the directory of pins: %w", err)
	}
	locked, lockedErr := lock.Stat()
	named, namedErr := os.Stat(i.root())
	if lockedErr != nil || namedErr != nil || !os.SameFile(locked, named) {
		return lock.Close()
	}
	i.lock = lock
	return nil
}

// Loaded tells whether anything is pinned.
func (i *Instance) Loaded() bool {
	versions, err := filepath.Glob(filepath.Join(i.root(), "v*"))
	return err != nil || len(versions) > 0
}

// Release gives the right back. What is pinned goes on forwarding; where nothing
// is, nothing is left.
func (i *Instance) Release() {
	_ = os.Remove(i.root())               // fails while something is pinned
	_ = os.Remove(filepath.Dir(i.root())) // fails while there are other instances
	_ = i.lock.Close()
}

// root is the directory of the instance, all versions.
func (i *Instance) root() string { return filepath.Join(i.bpffs, "lvx", i.name) }

// dir is the directory of this version.
func (i *Instance) dir() string { return filepath.Join(i.root(), fmt.Sprintf("v%d", abi)) }

func (i *Instance) link(ifindex int) string {
	return filepath.Join(i.dir(), fmt.Sprintf("link_%d", ifindex))
}

// links returns the interfaces that have a pinned link.
func (i *Instance) links() (indexes []int) {
	paths, _ := filepath.Glob(filepath.Join(i.dir(), "link_*")) // the pattern is sound
	for _, path := range paths {
		var index int
		if _, err := fmt.Sscanf(filepath.Base(path), "link_%d", &index); err == nil {
			indexes = append(indexes, index)
		}
	}
	return indexes
}

// prepare makes the directory of this version, or says why there cannot be one.
func (i *Instance) prepare() error {
	versions, err := filepath.Glob(filepath.Join(i.root(), "v*"))
	if err != nil {
		return err
	}
	for _, path := range versions {
		if path != i.dir() {
			return fmt.Errorf("a data plane of another version (%s) is pinned; this one is v%d: take it away with: lvx director unload --instance %s",
				filepath.Base(path), abi, i.name)
		}
	}
	if err := os.MkdirAll(i.dir(), 0o700); err != nil {
		return fmt.Errorf("make the directory of pins: %w", err)
	}
	return nil
}

// size returns the capacity of a pinned map, or 0 if it is not pinned.
func (i *Instance) size(name string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(i.dir(), name), nil)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, explainLoad(fmt.Errorf("open the pinned map %s: %w", name, err), i.name)
	}
	defer m.Close()
	return m.MaxEntries(), nil
}

// Unload takes the data plane away: it detaches every program and removes every
// pin, whatever their version, turns on again the offloads that this version
// turned off, and ends the managing of neighbours. Forwarding ends. It is no error
// if there is nothing.
func (i *Instance) Unload() error {
	restoreErr := i.restoreHost()
	paths, err := filepath.Glob(filepath.Join(i.root(), "v*", "link_*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		err = errors.Join(err, detach(path)) // one that cannot be opened keeps no other
	}
	if err != nil {
		return errors.Join(err, restoreErr)
	}
	versions, err := filepath.Glob(filepath.Join(i.root(), "v*"))
	if err != nil {
		return err
	}
	for _, path := range versions {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove the pins: %w", err)
		}
	}
	return restoreErr
}

// detach ends a pinned link.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("open the pinned %s: %w", filepath.Base(path), err)
	}
	_ = l.Detach() // a link whose interface is gone has nothing to detach from (ENOLINK)
	if err := errors.Join(l.Unpin(), l.Close()); err != nil {
		return fmt.Errorf("detach %s: %w", filepath.Base(path), err)
	}
	return nil
}

// restoreHost undoes what the data plane changed at the host besides its pins.
// Another version's notes cannot be read.
func (i *Instance) restoreHost() error {
	interfaces, err := ebpf.LoadPinnedMap(filepath.Join(i.dir(), "interfaces"), nil)
	if err != nil {
		return nil //nolint:nilerr // nothing is pinned, or it is another version's
	}
	defer interfaces.Close()
	return errors.Join(restoreOffloads(interfaces), forgetNeighbours(i))
}
