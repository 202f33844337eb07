// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain runs the tests in network and mount namespaces of their own, with a
// BPF file system that nobody else sees: nothing is left behind, even after
// kill -9, and the host's network is out of reach.
func TestMain(m *testing.M) {
	const inside = "LVX_TEST_INSIDE"
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // the tests that need root skip themselves
	}
	if os.Getenv(inside) != "" {
		if fuzzWorker() { // started by a process that is inside already
			os.Exit(m.Run())
		}
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, "enter the test's namespaces:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inside+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := again.Run(); err != nil {
		os.Exit(1)
	}
}

func fuzzWorker() bool { return slices.Contains(os.Args, "-test.fuzzworker") }

func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return nil
}

// needRoot skips a test that loads BPF programs.
func needRoot(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("loads BPF programs: not in -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("loads BPF programs: needs root")
	}
}
