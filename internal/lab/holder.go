// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A holder is the process that a host's namespaces live by. In order:
//
//  1. the builder starts it in new network, mount and process namespaces
//  2. it furnishes them: its own /proc, /sys, bpffs and /run, and lo up
//  3. it reports "ready" and waits at the pipe to its builder
//  4. the pipe ends, be it that the builder was killed with SIGKILL: it exits.
//     As it is process 1 of its namespace, the kernel then kills all others in
//     it, and the last reference to wires, mounts and pins is gone
//
// A byte on the pipe before that detaches it: from then on it waits for ever.

// HolderCommand is the hidden command that a holder runs as.
const HolderCommand = "lab-host"

// Where things lie in a host.
const (
	binDir = "/run/lvx-bin" // lvx under all its names
	logDir = "/run/lvx-log" // what daemons print
)

// programNames are the names that lvx is called by.
var programNames = []string{"lvx", "ipvsadm", "ipvsadm-save", "ipvsadm-restore"}

const holderReady = "ready"

// holder is the builder's side of the process.
type holder struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startHolder starts a holder and waits until it is ready, at most 10 s.
func startHolder(ctx context.Context, name, lvx string) (*holder, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.Command("/proc/self/exe", HolderCommand, name, lvx)
	cmd.Args[0] = "lvx"
	cmd.Dir = "/"
	// A session of its own: Ctrl-C reaches the builder only, which then ends
	// the lab in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Setsid:     true,
	}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start its process: %w", err)
	}
	err = awaitReady(ctx, out)
	if err != nil {
		_ = cmd.Process.Kill() // unless it has ended already
	}
	go func() { _ = cmd.Wait() }() // ends with the process; that it was killed is the usual end
	return &holder{cmd: cmd, pipe: pipe}, err
}

// awaitReady reads the holder's one line.
func awaitReady(ctx context.Context, out io.Reader) error {
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n')
		line <- strings.TrimSpace(s)
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for its process: %w", ctx.Err())
	case s := <-line:
		switch s {
		case holderReady:
			return nil
		case "":
			return errors.New("its process ended without a word")
		}
		return errors.New(s)
	}
}

// detach lets the holder live on without this process.
func (h *holder) detach() error {
	if _, err := h.pipe.Write([]byte{'d'}); err != nil {
		return err
	}
	return h.pipe.Close()
}

// Main runs this process as a host's holder or as its web server if it was
// started as one, and then does not return. Tests that build a lab call it
// first in TestMain, since their holders are the test program itself.
func Main() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case HolderCommand:
		err = RunHolder(os.Args[2:], os.Stdin, os.Stdout)
	case ServerCommand:
		err = RunServer(os.Args[2:])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// RunHolder is the life of a holder; args are the host's name and the path of
// lvx. It returns when in ends, unless it read a byte before. It refuses to
// run anywhere but as process 1 of its own namespaces.
func RunHolder(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 || os.Getpid() != 1 {
		return errors.New("lab-host is started by lvx lab alone")
	}
	if err := furnish(args[1]); err != nil {
		fmt.Fprintln(out, err)
		return err
	}
	go reap()
	fmt.Fprintln(out, holderReady)
	if n, _ := in.Read(make([]byte, 1)); n > 0 {
		select {}
	}
	return nil
}

// furnish makes the namespaces that the process sits in a host's own.
func furnish(lvx string) error {
	for _, m := range []struct {
		what, where, kind string
		flags             uintptr
		data              string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""}, // nothing below may reach the machine's own mounts
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.where, err)
		}
	}
	if err := linkPrograms(lvx); err != nil {
		return err
	}
	if err := setSysctls(quiet); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	return netlink.LinkSetUp(lo)
}

// linkPrograms makes lvx callable by its names.
func linkPrograms(lvx string) error {
	for _, dir := range []string{binDir, logDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range programNames {
		if err := os.Symlink(lvx, filepath.Join(binDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// quiet is every host's start: an address works the moment it is set, nothing
// but what a scenario sends is on the wire, and no reverse path filter eats a
// reply unless a scenario turns it on.
var quiet = []sysctl{
	{"ipv4/conf/all/rp_filter", "0"},
	{"ipv4/conf/default/rp_filter", "0"},
	{"ipv6/conf/all/disable_ipv6", "0"},
	{"ipv6/conf/default/disable_ipv6", "0"},
	{"ipv6/conf/all/accept_dad", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/default/router_solicitations", "0"},
}

// sysctl is a path below /proc/sys/net and its value.
type sysctl struct{ path, value string }

// setSysctls writes to the namespace of the calling thread.
func setSysctls(list []sysctl) error {
	for _, s := range list {
		if err := os.WriteFile("/proc/sys/net/"+s.path, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set %s: %w", s.path, err)
		}
	}
	return nil
}

// reap waits for orphans, as a process 1 has to.
func reap() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGCHLD)
	for range c {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 || err != nil {
				break
			}
		}
	}
}
