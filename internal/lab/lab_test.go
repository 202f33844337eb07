// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// buildAndWait makes the test program a builder that is there to be killed.
const buildAndWait = "lab-test-build"

func TestMain(m *testing.M) {
	Main()
	runStub()
	if len(os.Args) > 1 && os.Args[1] == buildAndWait {
		if err := runBuilder(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// runBuilder builds a lab, prints the networks of its hosts and waits.
func runBuilder() error {
	l, err := BuildDR(context.Background(), Options{})
	if err != nil {
		return err
	}
	if _, err := l.StartDaemon(l.Host(Director), "sleep", "1000"); err != nil {
		return err
	}
	for _, h := range l.Hosts() {
		network, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.PID()))
		if err != nil {
			return err
		}
		fmt.Println(network)
	}
	fmt.Println("built")
	time.Sleep(time.Minute)
	return l.Close()
}

func needRoot(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: leaves out labs")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
}

func build(t *testing.T, o Options) *Lab {
	t.Helper()
	needRoot(t)
	l, err := BuildDR(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// eventually fails the test unless what holds within 10 s.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestKilledBuilderLeavesNothing(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("/proc/self/exe", buildAndWait)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	networks := map[string]bool{}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "built" {
		networks[lines.Text()] = true
	}
	if len(networks) != 6 {
		t.Fatalf("the builder named the networks %v", networks)
	}
	if n := len(processesIn(networks)); n != 7 {
		t.Errorf("%d processes in the lab, want 6 holders and a sleep", n)
	}
	cmd.Process.Kill() // SIGKILL: no code of ours runs
	eventually(t, "all processes of the lab are gone", func() bool { return len(processesIn(networks)) == 0 })
}

func TestHostIsItsOwn(t *testing.T) {
	l := build(t, Options{})
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if mac := link.Attrs().HardwareAddr; len(mac) == 6 && bytes.HasPrefix(mac, []byte{2, 0, 0, 0}) {
			t.Errorf("interface %s of the lab is in this machine's network", link.Attrs().Name)
		}
	}
	h := l.Host(Director)
	if _, err := h.Run(t.Context(), "sh", "-c", "mkdir /sys/fs/bpf/mine && touch /run/mine"); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"/sys/fs/bpf/mine", "/run/mine", l.Host("rs1").Path("/run/mine"), l.Host("rs1").Path("/sys/fs/bpf/mine")} {
		if _, err := os.Stat(other); err == nil {
			t.Errorf("what the director made is seen at %s", other)
		}
	}
	if _, err := os.Stat(h.Path("/run/mine")); err != nil {
		t.Error(err)
	}
}

func TestCommandInHost(t *testing.T) {
	l := build(t, Options{})
	h := l.Host("rs2")
	out, err := h.Run(t.Context(), "sh", "-c", "cat /sys/class/net/eth0/address; readlink $(command -v ipvsadm); echo $LVX_LAB_HOST; echo $LVX_SOCKET")
	if err != nil {
		t.Fatal(err)
	}
	self, _ := os.Executable()
	if want := fmt.Sprintf("02:00:00:00:20:0c\n%s\nrs2\n\n", self); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	stdout, err := h.Command(t.Context(), "sh", "-c", "echo $LVX_LAB_HOST; readlink /proc/self/ns/net").Output()
	network, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", h.PID()))
	if want := "rs2\n" + network + "\n"; err != nil || string(stdout) != want {
		t.Errorf("Output ran it elsewhere: %q, want %q, %v", stdout, want, err)
	}
	_, err = h.Run(t.Context(), "sh", "-c", "echo one; echo two >&2; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3: two") {
		t.Errorf("error of a command: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := h.Run(ctx, "sleep", "100"); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("a command outlived its context: %v", err)
	}
}

// TestEveryoneReachesEveryone echoes over TCP between all hosts with an
// address, through switch and router, in both families.
func TestEveryoneReachesEveryone(t *testing.T) {
	for _, mtu := range []int{1500, 9000} {
		l := build(t, Options{MTU: mtu})
		for _, to := range append(l.RealServers(), l.Host(Director), l.Host(Client), l.Host(Router)) {
			for _, family := range []int{4, 6} {
				address := netip.AddrPortFrom(to.Addr(family), 7).String()
				echo(t, to, address)
				for _, from := range append(l.RealServers(), l.Host(Director), l.Host(Client)) {
					if err := exchange(t.Context(), from, address); err != nil {
						t.Errorf("MTU %d: %s to %s: %v", mtu, from.Name, to.Name, err)
					}
				}
			}
		}
	}
}

func echo(t *testing.T, h *Host, address string) {
	t.Helper()
	listener, err := h.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// exchange sends enough to fill frames and reads it back.
func exchange(ctx context.Context, from *Host, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	sent := bytes.Repeat([]byte("lvx"), 10000)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, sent) {
		err = fmt.Errorf("%d bytes came back of %d", len(got), len(sent))
	}
	return err
}

// TestVIPIsTheDirectors asks the director's LAN for the VIP.
func TestVIPIsTheDirectors(t *testing.T) {
	l := build(t, Options{})
	for _, family := range []int{4, 6} {
		l.Family = family
		address := l.Service().String()
		echo(t, l.Host(Director), address)
		if err := exchange(t.Context(), l.Host(Client), address); err != nil {
			t.Errorf("family %d: %v", family, err)
		}
	}
}

func TestDaemonThatEnds(t *testing.T) {
	l := build(t, Options{})
	d, err := l.StartDaemon(l.Host(Director), "sh", "-c", "echo starting; echo no such thing >&2; exit 1")
	if err != nil {
		t.Fatal(err)
	}
	err = d.Await(t.Context(), 5*time.Second, func(context.Context) bool { return false })
	if err == nil || !strings.Contains(err.Error(), "ended (exit status 1): no such thing") {
		t.Errorf("error of a daemon that ended: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{MTU: 100}, {MTU: 9001}, {RealServers: -1}, {RealServers: 10}, {Self: "/run/lvx-bin/lvx"}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
