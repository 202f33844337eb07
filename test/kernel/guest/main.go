// SPDX-License-Identifier: Apache-2.0

// Command guest is the first process of a virtual machine with an older kernel:
// it makes the few mounts that tests need, runs the test binary beside it, prints
// how that ended, and switches the machine off.
//
// It is not for a machine that does anything else.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	code := run()
	fmt.Printf("guest: exit %d\n", code)
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() int {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"bpf", "/sys/fs/bpf"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			fmt.Println("guest:", err)
		}
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Printf("guest: mount %s: %v\n", m[1], err)
			return 1
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Printf("guest: kernel %s\n", strings.TrimSpace(string(release)))
	if err := loadModule("/veth.ko"); err != nil {
		fmt.Println("guest:", err)
		return 1
	}
	args, _ := os.ReadFile("/args")
	test := exec.Command("/test", strings.Fields(string(args))...)
	test.Stdout, test.Stderr = os.Stdout, os.Stdout
	if err := test.Run(); err != nil {
		fmt.Println("guest:", err)
		return 1
	}
	return 0
}

// loadModule loads what the tests make interfaces with.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", path, err)
	}
	return nil
}
