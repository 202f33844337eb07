// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a machine of the lab: its own network, mounts and processes, all on
// this one. Its methods may be called by several goroutines at the same time.
type Host struct {
	Name       string
	Interfaces []Interface

	pid     int    // of the holder
	started uint64 // when the holder started: tells it from a later process of that pid
	spaces  spaces
	holder  *holder // nil if another process built the lab
}

// Interface is a network interface of a host as the lab set it up.
type Interface struct {
	Name      string         `json:"name"`
	MAC       MAC            `json:"mac"`
	Addresses []netip.Prefix `json:"addresses"`
}

// spaces are a host's open namespaces; open, they cannot be mistaken for others.
type spaces struct{ net, mount, process *os.File }

func startHost(ctx context.Context, name, lvx string) (*Host, error) {
	holder, err := startHolder(ctx, name, lvx)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, pid: holder.cmd.Process.Pid, holder: holder}
	if h.started, err = startTime(h.pid); err == nil {
		err = h.open()
	}
	if err != nil {
		return nil, errors.Join(err, h.kill())
	}
	return h, nil
}

// open opens the holder's namespaces and makes sure that it was the holder.
func (h *Host) open() error {
	for kind, file := range map[string]**os.File{"net": &h.spaces.net, "mnt": &h.spaces.mount, "pid": &h.spaces.process} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", h.pid, kind))
		if err != nil {
			h.release()
			return fmt.Errorf("host %s: %w", h.Name, err)
		}
		*file = f
	}
	if !h.Running() {
		h.release()
		return fmt.Errorf("host %s: its process is gone", h.Name)
	}
	return nil
}

func (h *Host) release() {
	for _, f := range []*os.File{h.spaces.net, h.spaces.mount, h.spaces.process} {
		if f != nil {
			f.Close()
		}
	}
	h.spaces = spaces{}
	if h.holder != nil {
		h.holder.pipe.Close()
	}
}

// PID returns the process that the host lives by.
func (h *Host) PID() int { return h.pid }

// Running tells whether the host is alive. One that was killed is not, though
// its process may stay a while until all that ran in it was waited for.
func (h *Host) Running() bool {
	started, err := startTime(h.pid)
	if err != nil || started != h.started {
		return false
	}
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.pid))
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH)
}

// Addr returns the host's first address of that family, 4 or 6, that is not
// the VIP; the zero Addr if it has none.
func (h *Host) Addr(family int) netip.Addr {
	for _, i := range h.Interfaces {
		for _, p := range i.Addresses {
			if p.Addr().Is4() == (family == 4) && p.Addr() != VIP(family) {
				return p.Addr()
			}
		}
	}
	return netip.Addr{}
}

// Path returns where this machine sees the host's file: its /run, its /sys.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(h.pid), "root", path)
}

// Do runs f on a thread that sits in the host's network, and only there: files
// are this machine's. Sockets that f opens stay in the host's network. f must
// not start goroutines that use the network.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := setns(h.spaces.net, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("host %s: enter its network: %w", h.Name, err)
		}
		return f()
	})
}

// onThread runs f on a thread that is thrown away afterwards.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			// The main thread cannot end, and /proc/self would stay in the
			// host. Hold it while another does the work.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

func setns(f *os.File, kind int) error {
	if f == nil {
		return os.ErrClosed
	}
	return unix.Setns(int(f.Fd()), kind)
}

// Dial connects from the host; address is an IP address and a port.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = h.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens in the host; address is an IP address and a port.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket in the host.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = h.Do(func() error {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// Command is an exec.Cmd that starts in a host.
type Command struct {
	*exec.Cmd
	host *Host
}

// Command prepares a program to run in the host: its network, its mounts (so
// its own /run and bpffs), its processes. lvx and ipvsadm are found there.
// The program is killed when ctx ends, and with the host in any case.
func (h *Host) Command(ctx context.Context, name string, args ...string) *Command {
	cmd := exec.CommandContext(ctx, h.program(name), args...)
	cmd.Args[0] = name
	cmd.Env = h.environment()
	cmd.WaitDelay = 2 * time.Second
	// A host sees the same files as this machine, except below /run and /sys.
	if dir, err := os.Getwd(); err == nil {
		if _, err := os.Stat(h.Path(dir)); err == nil {
			cmd.Dir = dir
		}
	}
	return &Command{Cmd: cmd, host: h}
}

func (h *Host) program(name string) string {
	if slices.Contains(programNames, name) {
		return filepath.Join(binDir, name)
	}
	return name
}

// environment is ours without what would lead lvx to a daemon of this machine.
func (h *Host) environment() []string {
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	env := []string{"LVX_LAB_HOST=" + h.Name}
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case name == "PATH" && value != "":
			path = value
		case name == "NOTIFY_SOCKET", strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "LVX_"):
		default:
			env = append(env, v)
		}
	}
	// The state of a director is gone with its host, like everything below /run.
	return append(env, "PATH="+binDir+":"+path, "LVX_STATE=/run/lvx-state")
}

// Start starts the program and does not wait for it; Wait does.
func (c *Command) Start() error {
	return onThread(func() error {
		// The mount namespace can be changed only by a thread that shares its
		// working directory with none.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("host %s: unshare: %w", c.host.Name, err)
		}
		s := c.host.spaces
		for _, err := range []error{
			setns(s.net, unix.CLONE_NEWNET), setns(s.process, unix.CLONE_NEWPID), setns(s.mount, unix.CLONE_NEWNS),
		} {
			if err != nil {
				return fmt.Errorf("host %s: enter it: %w", c.host.Name, err)
			}
		}
		return c.Cmd.Start()
	})
}

// Run starts the program and waits for its end.
func (c *Command) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output and CombinedOutput of exec.Cmd would start the program on this
// machine, outside the host; these stand before them.

// Output runs the program and returns what it printed on standard output.
func (c *Command) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns all that it printed.
func (c *Command) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program in the host and returns all that it printed. The error
// carries the last line of it.
func (h *Host) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := h.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		line := strings.Join(append([]string{name}, args...), " ")
		err = fmt.Errorf("%s: %s: %w: %s", h.Name, line, err, lastLine(string(out)))
	}
	return string(out), err
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// Processes returns the command lines of what runs in the host.
func (h *Host) Processes() []string {
	var list []string
	files, _ := filepath.Glob(h.Path("/proc/[0-9]*/cmdline"))
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil || len(line) == 0 || strings.HasSuffix(f, "/proc/1/cmdline") {
			continue // ended meanwhile, a kernel thread's, or the holder's
		}
		list = append(list, strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")))
	}
	return list
}

// kill ends the host and waits, at most 5 s, until it is gone.
func (h *Host) kill() error {
	// FindProcess holds the process by a file descriptor, so what Running then
	// looks at is what Kill hits.
	p, err := os.FindProcess(h.pid)
	if err != nil || !h.Running() {
		return nil
	}
	defer func() { _ = p.Release() }()
	if err := p.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("host %s: %w", h.Name, err)
	}
	for deadline := time.Now().Add(5 * time.Second); h.Running(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("host %s: process %d does not end", h.Name, h.pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// startTime returns when a process started, in clock ticks since boot. A
// zombie counts as gone.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; fields are counted behind it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
