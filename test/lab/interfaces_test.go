// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/safchain/ethtool"

	"lvx/internal/lab"
	"lvx/internal/lvs"
)

// TestTwoInterfaces has a real server in a segment of its own, at a second
// interface of the director: requests come in through one and leave through the
// other. The director attaches to the first alone, or to both.
func TestTwoInterfaces(t *testing.T) {
	for _, args := range [][]string{{"--interface", "eth0"}, nil} {
		b := newBed(t, lab.Options{})
		far := b.addFarServer()
		b.start(b.Host(lab.Director), args...)
		for _, family := range families {
			v := tcp(family, 80)
			b.join(family)
			b.typeAt(far, "lvx realserver join --vip "+v.Addr().String()+" --method dr")
			b.add(v, "rr", 1)
			serve(t, far, v)
			b.do("ipvsadm -a %s -r %s -g", v.option(), v.on(far))
			byName := map[string]int{}
			for range 6 {
				k := b.call(v)
				b.must("through the other interface", k.say("hello"))
				b.must("much of it", k.exchange(noise(1<<18)))
				byName[k.server]++
			}
			if byName["rs1"] != 3 || byName[far.Name] != 3 {
				t.Errorf("director %v, family %d: %v", args, family, byName)
			}
		}
		for _, s := range ask[lvs.ServiceStatus](b, "services") {
			for _, r := range s.RealServers {
				if hop := r.NextHop; (hop.Interface == "eth1") != (r.Address.Addr() == far.Addr(4) || r.Address.Addr() == far.Addr(6)) {
					t.Errorf("%s is reached through %s", r.Address, hop.Interface)
				}
			}
		}
	}
}

// addFarServer makes a host that is joined to the director's eth1 and, for its
// replies, to the router.
func (b *bed) addFarServer() *lab.Host {
	b.t.Helper()
	prefixes := func(list ...string) (p []netip.Prefix) {
		for _, s := range list {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	far, err := b.AddHost(b.t.Context(), "far")
	b.must("add a host", err)
	b.must("join it to the director", b.Connect(
		lab.End{Host: far, Name: "eth0", MAC: lab.MAC{2, 0, 0, 0, 0x30, 11}, Addresses: prefixes("192.168.30.11/24", "fd00:30::11/64")},
		lab.End{Host: b.Host(lab.Director), Name: "eth1", MAC: lab.MAC{2, 0, 0, 0, 0x30, 1}, Addresses: prefixes("192.168.30.1/24", "fd00:30::1/64")}))
	b.must("face XDP", far.FaceXDP("eth0"))
	b.must("join it to the router", b.Connect(
		lab.End{Host: far, Name: "eth1", MAC: lab.MAC{2, 0, 0, 0, 0x40, 11}, Addresses: prefixes("192.168.40.11/24", "fd00:40::11/64")},
		lab.End{Host: b.Host(lab.Router), Name: "eth2", MAC: lab.MAC{2, 0, 0, 0, 0x40, 1}, Addresses: prefixes("192.168.40.1/24", "fd00:40::1/64")}))
	b.typeAt(far, "ip route add default via 192.168.40.1")
	b.typeAt(far, "ip -6 route add default via fd00:40::1")
	return far
}

// TestEveryPacketHasItsReason compares the packets that the driver gave to XDP
// with the sum of all reasons, after traffic of every kind.
func TestEveryPacketHasItsReason(t *testing.T) {
	b := newBed(t, lab.Options{})
	b.start(b.Host(lab.Director), "--interface", "eth0")
	driver, reasons := b.settled()
	for _, family := range families {
		b.join(family)
		for _, v := range []virtual{tcp(family, 80), udp(family, 80)} {
			b.add(v, "rr", 1, 1)
			for range 5 {
				b.must("forwarded", b.call(v).say("hello"))
			}
		}
		b.must("passed", ping(b.Host(lab.Client), lab.VIP(family)))
		b.do("ipvsadm -A %s -s rr", tcp(family, 81).option())
		for range 2 {
			if k, err := callWithin(b, tcp(family, 81), patience/50); err == nil {
				t.Errorf("%s answers for a service without real servers", k.server)
			}
		}
	}
	driverAfter, reasonsAfter := b.settled()
	for _, name := range []string{"FORWARDED", "NOT_OURS", "NOT_IP", "NO_REAL_SERVER"} {
		if reasonsAfter[name] == reasons[name] {
			t.Errorf("no packet was %s", name)
		}
	}
	if seen, counted := driverAfter-driver, sum(reasonsAfter)-sum(reasons); seen != counted {
		t.Errorf("XDP got %d packets, %d have a reason: %v", seen, counted, reasonsAfter)
	}
	status := b.status()
	if total := status.Packets.Forwarded + status.Packets.Passed + status.Packets.Dropped; total < sum(reasonsAfter) {
		t.Errorf("lvx status knows of %d packets, lvx reasons of %d", total, sum(reasonsAfter))
	}
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}

// settled reads the driver's count and the reasons at a moment without packets.
func (b *bed) settled() (driver uint64, reasons map[string]uint64) {
	b.t.Helper()
	eventually(b.t, patience, "no packet comes", func() bool {
		driver = b.xdpPackets()
		reasons = b.reasons()
		return driver == b.xdpPackets()
	})
	return driver, reasons
}

// xdpPackets is how many packets the driver of the director's eth0 gave to XDP.
func (b *bed) xdpPackets() (total uint64) {
	b.t.Helper()
	for name, n := range b.driverStats() {
		if strings.HasPrefix(name, "rx_queue_") && strings.HasSuffix(name, "_xdp_packets") {
			total += n
		}
	}
	return total
}

// driverStats is what the driver of the director's eth0 counts, by ethtool's names.
func (b *bed) driverStats() (stats map[string]uint64) {
	b.t.Helper()
	b.must("read the driver's statistics", b.Host(lab.Director).Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		stats, err = tool.Stats("eth0")
		return err
	}))
	return stats
}
