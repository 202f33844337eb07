// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestRealServerThatComesLater adds a real server that is not there: its
// connections are dropped and the operator is told. When it comes, it works.
func TestRealServerThatComesLater(t *testing.T) {
	for family, late := range map[int]netip.Prefix{
		4: netip.MustParsePrefix("192.168.20.77/24"), 6: netip.MustParsePrefix("fd00:20::77/64"),
	} {
		b := newBed(t, lab.Options{})
		v := tcp(family, 80)
		b.deploy(v, "rr")
		rip := netip.AddrPortFrom(late.Addr(), 80)
		b.warns(fmt.Sprintf("ipvsadm -a %s -r %s -g", v.option(), rip), rip, "does not answer ARP")
		before := b.reasons()["NO_NEIGHBOUR"]
		if k, err := callWithin(b, v, 300*time.Millisecond); err == nil {
			t.Errorf("family %d: %s answers for a real server that is not there", family, k.server)
		}
		if n := b.reasons()["NO_NEIGHBOUR"]; n == before {
			t.Errorf("family %d: NO_NEIGHBOUR was not counted", family)
		}
		if n := b.numbers(v, "--stats --exact")[v.String()]; n[0] != 0 || n[1] != 0 {
			t.Errorf("family %d: a dropped packet stands in the statistics: %d", family, n)
		}
		eventually(t, 2*patience, "the kernel gives up asking", func() bool { return b.neighbour(late.Addr()) == netlink.NUD_FAILED })
		serve(t, b.Host("rs2"), v)
		b.must("give rs2 the address", b.Host("rs2").Do(func() error { return addAddress("eth0", late) }))
		begin := time.Now()
		// The kernel by itself would ask every five seconds; lvx does every second.
		eventually(t, 2500*time.Millisecond, "the real server works", func() bool {
			k, err := callWithin(b, v, 200*time.Millisecond)
			if err == nil {
				k.Close()
			}
			return err == nil
		})
		t.Logf("family %d: it worked %s after it came", family, time.Since(begin).Round(time.Millisecond))
		if w := b.status().Warnings; len(w) > 0 {
			t.Errorf("family %d: still warned: %v", family, w)
		}
	}
}

// neighbour returns the state of the director's entry for an address, 0 if there
// is none.
func (b *bed) neighbour(address netip.Addr) (state int) {
	b.t.Helper()
	b.must("list neighbours", b.Host(lab.Director).Do(func() error {
		list, err := netlink.NeighList(0, 0)
		for _, n := range list {
			if n.IP.Equal(address.AsSlice()) {
				state = n.State
			}
		}
		return err
	}))
	return state
}

func callWithin(b *bed, v virtual, limit time.Duration) (*talk, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	return call(ctx, b.Host(lab.Client), v)
}

// warns types a command that works but has to warn of a real server, as lvx
// status then does too.
func (b *bed) warns(line string, rip netip.AddrPort, text string) {
	b.t.Helper()
	out, said, err := try(b.t, b.Host(lab.Director), line, "")
	if err != nil || out != "" || !strings.Contains(said, rip.String()) || !strings.Contains(said, text) {
		b.t.Errorf("%s prints %q, warns %q, %v", line, out, said, err)
	}
	for _, w := range b.status().Warnings {
		if strings.Contains(w.Object, rip.String()) && strings.Contains(w.Text, text) {
			if page := b.do("lvx status"); !strings.Contains(page, w.Text) {
				b.t.Errorf("lvx status does not show the warning:\n%s", page)
			}
			return
		}
	}
	b.t.Errorf("lvx status does not warn of %s: %v", rip, b.status().Warnings)
}

// addAddress gives an interface of the calling thread's network an address.
func addAddress(name string, p netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	const noDAD = 0x02 // IFA_F_NODAD: it works at once
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = noDAD
	}
	return netlink.AddrAdd(link, a)
}

// TestFirstConnectionWaits has a real server that takes its time to answer ARP:
// ipvsadm -a returns when it has, so that the first SYN arrives.
func TestFirstConnectionWaits(t *testing.T) {
	const delay = 150 * time.Millisecond
	b := newBed(t, lab.Options{})
	v := tcp(4, 80)
	b.deploy(v, "rr")
	rip := netip.MustParseAddrPort("192.168.20.77:80")
	b.answerLate(b.Host("rs2"), rip.Addr(), rsMAC(2), delay)
	serve(t, b.Host("rs2"), v)
	begin := time.Now()
	_, said, err := try(t, b.Host(lab.Director), fmt.Sprintf("ipvsadm -a %s -r %s -g", v.option(), rip), "")
	if took := time.Since(begin); err != nil || said != "" || took < delay {
		t.Errorf("ipvsadm -a returns after %s, %v, and says %q", took, err, said)
	}
	b.must("the first words", b.call(v).say("at once"))
	if n := repeatedSYNs(b.frames(), v); n != 0 {
		t.Errorf("%d SYNs had to be repeated", n)
	}
}

// answerLate answers ARP for an address that the host itself does not know.
func (b *bed) answerLate(h *lab.Host, address netip.Addr, mac lab.MAC, delay time.Duration) {
	b.t.Helper()
	var socket *os.File
	b.must("open a packet socket", h.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		socket = os.NewFile(uintptr(fd), "arp")
		arp := uint16(unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8) // in network order
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: eth0.Index})
	}))
	b.t.Cleanup(func() { socket.Close() })
	go func() {
		frame := make([]byte, 1500)
		for {
			n, err := socket.Read(frame)
			if err != nil {
				return
			}
			if n >= 42 && frame[21] == 1 && netip.AddrFrom4([4]byte(frame[38:42])) == address {
				<-time.After(delay)
				_, _ = socket.Write(arpReply(frame, mac)) // lost, the asker asks again
			}
		}
	}()
}

// arpReply answers a request for an IPv4 address with a MAC address.
func arpReply(request []byte, mac lab.MAC) []byte {
	asker, askerIP, asked := request[22:28], request[28:32], request[38:42]
	reply := slices.Concat(asker, mac[:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2})
	return slices.Concat(reply, mac[:], asked, asker, askerIP)
}

// TestRealServerOffLink adds a real server behind a router, where dr cannot reach
// it: as with the real ipvsadm it can be added, but it is no secret that it will
// not work.
func TestRealServerOffLink(t *testing.T) {
	for family, far := range map[int]string{4: "198.51.100.7", 6: "2001:db8:5::7"} {
		b := newBed(t, lab.Options{})
		v := tcp(family, 80)
		b.deploy(v, "rr")
		rip := netip.AddrPortFrom(netip.MustParseAddr(far), 80)
		b.warns(fmt.Sprintf("ipvsadm -a %s -r %s -g", v.option(), rip), rip, "behind a router")
		if k, err := callWithin(b, v, 200*time.Millisecond); err == nil {
			t.Errorf("family %d: %s answers", family, k.server)
		}
		if b.reasons()["OFF_LINK"] == 0 {
			t.Errorf("family %d: OFF_LINK was not counted", family)
		}
		for _, f := range b.frames() {
			if p := f.Decode(); p.Destination == v.AddrPort && f.Port == lab.Director && !f.ToHost {
				t.Fatalf("family %d: the director sent a packet of the VIP to %s", family, p.DestinationMAC)
			}
		}
	}
}

// TestRealServerChangesItsMAC gives a real server under load another MAC address,
// of which it tells its neighbours as machines do on failover: connections and
// requests go on.
func TestRealServerChangesItsMAC(t *testing.T) {
	for family, notify := range map[int]string{4: "ipv4/conf/eth0/arp_notify", 6: "ipv6/conf/eth0/ndisc_notify"} {
		b := newBed(t, lab.Options{})
		v := tcp(family, 80)
		b.deploy(v, "rr", 1, 1)
		l := b.load(v, 4)
		b.more(l, 10)
		moved := lab.MAC{2, 0, 0, 0, 0x20, 0xaa}
		b.must("change the MAC address", b.Host("rs1").Do(func() error { return changeMAC(notify, moved) }))
		eventually(t, 3*time.Second, "the director follows the real server", func() bool {
			for _, s := range ask[lvs.ServiceStatus](b, "services") {
				for _, r := range s.RealServers {
					if r.NextHop.MAC == moved.String() {
						return true
					}
				}
			}
			return false
		})
		b.more(l, 50)
		b.check(l)
		sent := 0
		for _, f := range b.frames() {
			if p := f.Decode(); f.Port == lab.Director && !f.ToHost && p.Destination == v.AddrPort && p.DestinationMAC == moved {
				sent++
			}
		}
		if sent == 0 {
			t.Errorf("family %d: nothing was sent to the new MAC address", family)
		}
	}
}

// changeMAC does so at eth0 of the calling thread's network.
func changeMAC(notify string, mac lab.MAC) error {
	if err := os.WriteFile("/proc/sys/net/"+notify, []byte("1"), 0); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.LinkSetHardwareAddr(link, mac[:])
}
