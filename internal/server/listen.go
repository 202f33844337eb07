// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Group is the group that may open the socket, if it exists.
const Group = "lvx"

// longestPath is what a unix socket's address has room for.
const longestPath = 107

// ErrRunning is returned by Listen when a daemon has the socket already.
var ErrRunning = errors.New("already running")

// Listen makes the unix socket at path, mode 0660 and of group Group, and its
// directory. A socket that a killed daemon left is replaced; one that a living
// daemon has is not: that is ErrRunning. Closing the listener removes the socket.
// Only who has the right to the instance may call it, so that two daemons that
// start together do not replace each other's.
func Listen(path string) (net.Listener, error) {
	if len(path) > longestPath {
		return nil, fmt.Errorf("listen on %s: the path is above %d bytes; choose a shorter one with --socket", path, longestPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if err := RemoveStale(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := setOwner(path); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// running names the instance by its socket, as in /run/lvx/INSTANCE.sock.
func running(path string) error {
	instance := strings.TrimSuffix(filepath.Base(path), ".sock")
	return fmt.Errorf("instance %s is %w (socket %s)", instance, ErrRunning, path)
}

// RemoveStale removes a socket on which nobody listens. It is no error if there is
// none, and ErrRunning if somebody does.
func RemoveStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: there is a file that is not a socket; move it away or choose another --socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return errors.Join(running(path), c.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("ask who listens: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// RemoveUnused removes a socket that a killed daemon left. One that somebody listens
// on stays, without being dialled: systemd, which holds it for us, would start a
// daemon. Only who has the right to the instance may call it.
func RemoveUnused(path string) error {
	table, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return fmt.Errorf("see who listens: %w", err)
	}
	const listening = "00010000" // __SO_ACCEPTCON in the column of flags
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) == 8 && fields[3] == listening && fields[7] == path {
			return nil
		}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

// setOwner opens the socket to group Group; without that group, to our own.
func setOwner(path string) error {
	if group, err := user.LookupGroup(Group); err == nil {
		id, err := strconv.Atoi(group.Gid)
		if err != nil {
			return fmt.Errorf("group %s: %w", Group, err)
		}
		if err := os.Chown(path, -1, id); err != nil {
			return fmt.Errorf("give the socket to group %s: %w", Group, err)
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("open the socket to its group: %w", err)
	}
	return nil
}
