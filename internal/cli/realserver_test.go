// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lvx/internal/realserver"
)

// alone runs f on a thread with a network namespace of its own, which ends
// with the thread.
func alone(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread is not fit for others
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("unshare: %v", err)
	}
}

func TestRealserver(t *testing.T) {
	state := "--state=" + filepath.Join(t.TempDir(), "state.json")
	do := func(code int, args ...string) result {
		t.Helper()
		got := run("", append([]string{"realserver", args[0], state}, args[1:]...))
		if got.code != code {
			t.Errorf("%s: exit %d, want %d\n%s%s", args, got.code, code, got.out, got.err)
		}
		return got
	}
	alone(t, func() {
		for _, key := range []string{"arp_ignore", "arp_announce"} { // inherited from the host
			if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/"+key, []byte("0"), 0); err != nil {
				t.Error(err)
			}
		}
		do(ExitFailed, "status")
		got := do(ExitDone, "join", "--vip", "192.0.2.100,2001:db8::1", "--vip=192.0.2.101/32", "--director", "192.0.2.1")
		for _, want := range []string{"net.ipv4.conf.all.arp_ignore 0 → 1\n", "VIP 192.0.2.101/32 added to lo\n", "VIP 2001:db8::1/128 added to lo\n"} {
			if !strings.Contains(got.out, want) {
				t.Errorf("join does not say %q:\n%s", want, got.out)
			}
		}
		if got := do(ExitDone, "join", "--vip", "192.0.2.100"); !strings.Contains(got.out, "already so") || strings.Contains(got.out, "→") {
			t.Errorf("the second join:\n%s", got.out)
		}
		if got := do(ExitDone, "status"); !strings.HasPrefix(got.out, "STATE") || strings.Contains(got.out, "wrong") {
			t.Errorf("status after join:\n%s", got.out)
		}
		var facts []realserver.Fact
		if err := json.Unmarshal([]byte(do(ExitDone, "status", "--json").out), &facts); err != nil || len(facts) < 5 {
			t.Errorf("status --json: %v, %d facts", err, len(facts))
		}
		var steps []realserver.Step
		if err := json.Unmarshal([]byte(do(ExitDone, "leave", "--json").out), &steps); err != nil || len(steps) != 5 {
			t.Errorf("leave --json: %v, %d steps", err, len(steps))
		}
		if got := do(ExitDone, "leave"); !strings.Contains(got.out, "nothing to undo") {
			t.Errorf("the second leave:\n%s", got.out)
		}
	})
}

func TestRealserverWrongUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"join", ExitUsage, `required flag(s) "vip" not set`},
		{"join --vip 192.0.2.100/24", ExitUsage, "makes the whole subnet 192.0.2.0/24 local"},
		{"join --vip web", ExitUsage, `VIP "web" is not possible: no IP address`},
		{"join --vip 192.0.2.1 --director web", ExitUsage, `director "web" is not an IP address`},
		{"join --vip 192.0.2.1 --director 192.0.2.1", ExitUsage, "is one of the VIPs"},
		{"join --vip 192.0.2.1 --method fullnat", ExitUsage, "method fullnat: not in this version"},
		{"join --method tun --director 192.0.2.9", ExitUsage, `required flag(s) "vip" not set`},
		{"join --vip 192.0.2.1 --method tun", ExitUsage, "method tun needs the addresses that directors send from"},
		{"join --vip 192.0.2.1 --method tun --director 192.0.2.9 --tun-port 65536", ExitUsage, "--tun-port 65536 is not between 1 and 65535"},
		{"join --vip 192.0.2.1 --method tun --director 192.0.2.9 --tun-port x", ExitUsage, "tun-port"},
		{"join --vip 192.0.2.1 --interface eth0", ExitUsage, "are for method tun"},
		{"join --method nat", ExitUsage, "method nat needs the director's address"},
		{"join --method nat --director 192.0.2.1,192.0.2.2", ExitUsage, "give the address that moves between the two"},
		{"join --vip 192.0.2.1 --method magic", ExitUsage, "not one of dr, tun, nat, fullnat"},
		{"leave 192.0.2.1", ExitUsage, "192.0.2.1"},
	} {
		got := run("", append([]string{"realserver"}, strings.Fields(test.args)...))
		if got.code != test.code || !strings.Contains(got.err, test.want) || strings.Count(got.err, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d; %q, want one line with %q", test.args, got.code, test.code, got.err, test.want)
		}
	}
}
