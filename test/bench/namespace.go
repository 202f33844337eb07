// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const inside = "LVX_BENCH_INSIDE"

// enter runs the process once more, in network and mount namespaces of its own with
// a BPF file system that nobody else sees, and f there: nothing is left behind, and
// a director on this machine is not met.
func enter(f func() error) error {
	if os.Geteuid() != 0 {
		return errors.New("run it as root: it loads programs into the kernel")
	}
	if os.Getenv(inside) != "" {
		if err := mountBPF(); err != nil {
			return err
		}
		return f()
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	// Go's runtime preempts threads with signals, which end a BPF_PROG_TEST_RUN.
	again.Env = append(os.Environ(), inside+"=1", "GODEBUG=asyncpreemptoff=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := again.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		os.Exit(exit.ExitCode()) // it has said why
	}
	return err
}

func mountBPF() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return nil
}
