// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Daemon is a program that runs in a host until the host ends or it does.
type Daemon struct {
	Host *Host

	cmd  *Command
	log  string
	done chan struct{}
}

// StartDaemon starts a program in the host and does not wait. What it prints
// goes to a file in the host's /run/lvx-log, so that nothing of this process
// keeps it when the lab is detached.
func (l *Lab) StartDaemon(h *Host, name string, args ...string) (*Daemon, error) {
	d := &Daemon{Host: h, done: make(chan struct{})}
	d.log = h.Path(filepath.Join(logDir, strings.Join(append([]string{name}, args[:min(1, len(args))]...), "-")+".log"))
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", h.Name, err)
	}
	defer out.Close()
	d.cmd = h.Command(context.Background(), name, args...)
	d.cmd.Dir = "/"
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is in ProcessState
		close(d.done)
	}()
	l.daemons = append(l.daemons, d)
	return d, nil
}

// Done is closed when the program has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

// PID returns the program's process, as this machine numbers it.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal to the program.
func (d *Daemon) Signal(s os.Signal) error { return d.cmd.Process.Signal(s) }

// Log returns what the program has printed so far. It is empty once the host
// has ended.
func (d *Daemon) Log() string {
	text, _ := os.ReadFile(d.log)
	return string(text)
}

// Await calls ready until it returns true, at most for the given time. The
// error tells what the program printed last.
func (d *Daemon) Await(ctx context.Context, limit time.Duration, ready func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	line := strings.Join(d.cmd.Args, " ")
	for !ready(ctx) {
		select {
		case <-d.done:
			return fmt.Errorf("%s: %s ended (%s): %s", d.Host.Name, line, d.cmd.ProcessState, lastLine(d.Log()))
		case <-ctx.Done():
			return fmt.Errorf("%s: %s is not ready after %s: %s", d.Host.Name, line, limit, lastLine(d.Log()))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}
