// SPDX-License-Identifier: Apache-2.0

package realserver

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const (
	networkdEnabled       = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
	networkManagerEnabled = "etc/systemd/system/multi-user.target.wants/NetworkManager.service"
)

func (m *machine) persist(vips ...netip.Addr) Options {
	o := m.options(vips...)
	o.Persist = true
	return o
}

// read returns the text of a file below the machine's own root, without the
// line that holds the state: that differs from run to run.
func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.dir, path))
	if err != nil {
		m.t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, stateMark) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestPersistWritesSysctls(t *testing.T) {
	server, _ := lan(t)
	server.set("eth0", "arp_ignore", 3)
	before := server.snapshot()
	server.join(server.persist(vip))
	want := header + `# ARP for the VIPs on lo is the director's to answer. The larger of conf/all and
# conf/IF counts, so all is enough.
net.ipv4.conf.all.arp_ignore = 1
net.ipv4.conf.all.arp_announce = 2
-net.ipv4.conf.eth0.arp_ignore = 1
`
	if diff := cmp.Diff(want, server.read(sysctlFile)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", sysctlFile, diff)
	}
	again := server.join(server.persist(vip))
	if changed(again) {
		t.Errorf("the second join --persist: %v", texts(again))
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave did not restore (-before +after):\n%s", diff)
	}
}

func TestPersistVIPs(t *testing.T) {
	networkd := header + "[Match]\nName=lo\n\n[Network]\nAddress=192.0.2.100/32\nAddress=2001:db8::100/128\n"
	ifupdown := header + `auto lo
iface lo inet manual
	up ip addr replace 192.0.2.100/32 dev lo
	down ip addr del 192.0.2.100/32 dev lo || true
iface lo inet6 manual
	up ip -6 addr replace 2001:db8::100/128 dev lo
	down ip -6 addr del 2001:db8::100/128 dev lo || true
`
	for _, test := range []struct {
		name    string
		has     map[string]string // files of this host
		path    string            // that join is to write, if any
		text    string
		warning string // that join is to give, if any
	}{
		{"networkd", map[string]string{networkdEnabled: ""}, networkdFile, networkd, ""},
		{"networkd with files for others", map[string]string{networkdEnabled: "", "etc/systemd/network/01-lan.network": "[Match]\nName=en* !lo\n", "run/systemd/network/80-all.network": "[Match]\nName=*\n"}, networkdFile, networkd, ""},
		{"networkd has lo", map[string]string{networkdEnabled: "", "etc/systemd/network/lo.network": "[Match]\nName = lo\n"}, "", "", "until its section [Network] has: Address=192.0.2.100/32 and Address=2001:db8::100/128"},
		{"networkd has all first", map[string]string{networkdEnabled: "", "etc/systemd/network/01-all.network": "[Match]\nName=*\n"}, "", "", "01-all.network configures lo already"},
		{"ifupdown", map[string]string{"etc/network/interfaces": "source /etc/network/interfaces.d/*\n"}, ifupdownFile, ifupdown, ""},
		{"ifupdown by directory", map[string]string{"etc/network/interfaces": "source-directory interfaces.d\n"}, ifupdownFile, ifupdown, ""},
		{"ifupdown without source", map[string]string{"etc/network/interfaces": "# source /etc/network/interfaces.d/*\n"}, ifupdownFile, ifupdown, "has the line: source /etc/network/interfaces.d/*"},
		{"NetworkManager", map[string]string{networkManagerEnabled: ""}, "", "", "ifname lo ipv4.method manual ipv4.addresses 192.0.2.100/32 ipv6.method manual ipv6.addresses 2001:db8::100/128"},
		{"nothing known", nil, "", "", "lvx realserver join --vip 192.0.2.100,2001:db8::100"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, _ := lan(t)
			for path, text := range test.has {
				server.write(path, text)
			}
			before := server.snapshot()
			var warnings []string
			for _, s := range server.join(server.persist(vip, vip6)) {
				if s.Warning {
					warnings = append(warnings, s.Text)
				}
			}
			if got := strings.Join(warnings, "\n"); (test.warning == "") != (got == "") || !strings.Contains(got, test.warning) {
				t.Errorf("warnings %q, want %q", got, test.warning)
			}
			if test.path != "" {
				if diff := cmp.Diff(test.text, server.read(test.path)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", test.path, diff)
				}
			}
			if bad := wrong(server.status(server.options())); len(bad) != 0 {
				t.Errorf("status after join: %v", bad)
			}
			server.leave(server.options())
			if diff := cmp.Diff(before, server.snapshot()); diff != "" {
				t.Errorf("leave did not restore (-before +after):\n%s", diff)
			}
		})
	}
}

func TestPersistRewritesForTheVIPsLeft(t *testing.T) {
	server, _ := lan(t)
	server.write(networkdEnabled, "")
	server.join(server.persist(vip, other))
	server.join(server.options(vip6)) // did not ask for it
	server.leave(server.options(vip))
	want := header + "[Match]\nName=lo\n\n[Network]\nAddress=192.0.2.101/32\n"
	if diff := cmp.Diff(want, server.read(networkdFile)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", networkdFile, diff)
	}
	server.leave(server.options(other))
	for _, path := range []string{networkdFile, sysctlFile} {
		if _, err := os.Stat(filepath.Join(server.dir, path)); err == nil {
			t.Errorf("%s stays, with no VIP left that asked for it", path)
		}
	}
}

func TestPersistLeavesForeignFiles(t *testing.T) {
	server, _ := lan(t)
	server.write(sysctlFile, "# the operator's\n")
	before := server.snapshot()
	err := server.try(func() error { _, err := Join(server.persist(vip)); return err })
	if err == nil || !strings.Contains(err.Error(), "is not lvx's") {
		t.Errorf("join --persist over a foreign file: %v", err)
	}
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("a refused join changed something:\n%s", diff)
	}
}

func TestPersistWarnsOfLaterFiles(t *testing.T) {
	server, _ := lan(t)
	server.write("etc/sysctl.conf", "# x\nnet/ipv4/conf/all/arp_ignore=0\nnet.ipv4.conf.lo.arp_ignore=0\n")
	server.write("etc/sysctl.d/50-early.conf", "net.ipv4.conf.all.arp_ignore=0\n")
	server.write("usr/lib/sysctl.d/70-late.conf", "-net.ipv4.conf.eth0.arp_announce = 3\nnet.ipv4.conf.eth0.arp_announce = 1\n")
	var got []string
	for _, s := range server.join(server.persist(vip)) {
		if s.Warning && s.Object != "VIPs after a reboot" {
			text, _, _ := strings.Cut(s.Text, " after ")
			got = append(got, strings.TrimPrefix(text, server.dir))
		}
	}
	want := []string{
		"/usr/lib/sysctl.d/70-late.conf:1 sets net.ipv4.conf.eth0.arp_announce",
		"/etc/sysctl.conf:2 sets net/ipv4/conf/all/arp_ignore",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// TestLeaveAfterReboot has only the files of /etc left, and the values that
// they brought back.
func TestLeaveAfterReboot(t *testing.T) {
	server, _ := lan(t)
	server.write(networkdEnabled, "")
	before := server.snapshot()
	server.join(server.persist(vip))
	if err := os.RemoveAll(filepath.Join(server.dir, "run")); err != nil {
		t.Fatal(err)
	}
	if bad := wrong(server.status(server.options())); len(bad) != 0 {
		t.Errorf("status after a reboot: %v", bad)
	}
	if steps := server.join(server.persist(vip)); len(steps) == 0 || steps[0].Changed {
		t.Errorf("join after a reboot: %v", texts(steps))
	}
	server.leave(server.options())
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("leave after a reboot did not restore (-before +after):\n%s", diff)
	}
}

// TestPersistKeepsToItsNamespace has two namespaces with one /etc.
func TestPersistKeepsToItsNamespace(t *testing.T) {
	server, _ := lan(t)
	server.join(server.persist(vip))
	guest := newMachine(t)
	before := server.snapshot()
	o := Options{Root: server.dir, StatePath: filepath.Join(guest.dir, "state.json")}
	if steps := guest.leave(o); changed(steps) {
		t.Errorf("leave in another namespace: %v", texts(steps))
	}
	o.VIPs, o.Persist = []netip.Addr{other}, true
	err := guest.try(func() error { _, err := Join(o); return err })
	if err == nil || !strings.Contains(err.Error(), "join without --persist") {
		t.Errorf("join --persist over another namespace's files: %v", err)
	}
	o.Persist = false
	guest.join(o)
	guest.leave(o)
	if diff := cmp.Diff(before, server.snapshot()); diff != "" {
		t.Errorf("another namespace changed something (-before +after):\n%s", diff)
	}
}

// TestPersistInRealPaths works on /etc and /run themselves, which are empty
// file systems in the machine's mount namespace.
func TestPersistInRealPaths(t *testing.T) {
	server, _ := lan(t)
	server.do(func() error {
		for _, dir := range []string{"/etc", "/run"} {
			if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
		}
		if err := os.MkdirAll("/etc/network", 0o755); err != nil {
			return err
		}
		return os.WriteFile(interfacesFile, []byte("source /etc/network/interfaces.d/*\n"), 0o644)
	})
	server.join(Options{VIPs: []netip.Addr{vip}, Persist: true})
	server.do(func() error {
		for _, path := range []string{sysctlFile, ifupdownFile, DefaultStatePath()} {
			if _, err := os.Stat(path); err != nil {
				t.Errorf("after join: %v", err)
			}
		}
		return nil
	})
	server.leave(Options{})
	server.do(func() error {
		for _, path := range []string{sysctlFile, ifupdownFile, DefaultStatePath()} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("after leave %s is still there", path)
			}
		}
		return nil
	})
	for _, path := range []string{sysctlFile, ifupdownFile} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("the host itself has %s", path)
		}
	}
}
