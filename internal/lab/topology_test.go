// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lvx/internal/lvs"
)

func buildNamed(t *testing.T, name string, o Options) *Lab {
	t.Helper()
	needRoot(t)
	l, err := Build(t.Context(), name, o)
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

func join(t *testing.T, l *Lab, family int) {
	t.Helper()
	if _, err := l.Join(t.Context(), family); err != nil {
		t.Fatal(err)
	}
}

// TestEveryoneReachesEveryoneElsewhere does so in the topologies of nat and tun,
// once their real servers have joined and the director forwards.
func TestEveryoneReachesEveryoneElsewhere(t *testing.T) {
	for _, name := range []string{NATTwoArm, NATOneArm, TunRouted} {
		l := buildNamed(t, name, Options{RealServers: 3})
		for _, family := range []int{4, 6} {
			join(t, l, family)
		}
		hosts := append(l.RealServers(), l.Host(Director), l.Host(Client))
		for _, to := range append(hosts, l.Host(Router)) {
			for _, family := range []int{4, 6} {
				address := netip.AddrPortFrom(to.Addr(family), 7).String()
				echo(t, to, address)
				for _, from := range hosts {
					if err := exchange(t.Context(), from, address); err != nil {
						t.Errorf("%s: %s to %s: %v", name, from.Name, address, err)
					}
				}
			}
		}
	}
}

// TestWhichWayRepliesGo looks at the ports of the switch: which hosts see what a
// real server sends to the client, and that each frame is recorded where it
// enters and where it leaves.
func TestWhichWayRepliesGo(t *testing.T) {
	for name, want := range map[string][]string{
		DR:        {"rs1 false", "router true"},
		NATTwoArm: {"rs1 false", "director-eth1 true", "director false", "router true"},
		NATOneArm: {"rs1 false", "director true", "director false", "router true"},
		TunRouted: {"rs1 false", "router-eth2 true"},
	} {
		l := buildNamed(t, name, Options{})
		for _, l.Family = range []int{4, 6} {
			join(t, l, l.Family)
			address := netip.AddrPortFrom(l.Host(Client).Addr(l.Family), 7)
			echo(t, l.Host(Client), address.String())
			capture, err := l.Capture()
			if err != nil {
				t.Fatal(err)
			}
			if err := exchange(t.Context(), l.Host("rs1"), address.String()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			frames, err := capture.Stop()
			if err != nil {
				t.Fatal(err)
			}
			var way []string
			for _, f := range frames {
				// In a fresh lab the client's neighbour may take a second SYN to find.
				at := fmt.Sprint(f.Port, " ", f.ToHost)
				if p := f.Decode(); p.Destination == address && p.Flags == SYN && !slices.Contains(way, at) {
					way = append(way, at)
				}
			}
			if !slices.Equal(way, want) {
				t.Errorf("%s, family %d: the way is %q, want %q", name, l.Family, way, want)
			}
		}
	}
}

// TestCommands: what is typed in each topology.
func TestCommands(t *testing.T) {
	hosts := []*Host{
		{Name: "rs1", Interfaces: []Interface{{Addresses: inside.realServer(1)}}},
		{Name: "rs2", Interfaces: []Interface{{Addresses: inside.realServer(2)}}},
	}
	for name, want := range map[string]string{
		DR: `lvx realserver join --vip 192.168.20.100 --method dr
ipvsadm -A -t 192.168.20.100:80 -s rr
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.11:80 -g -w 1
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.12:80 -g -w 1`,
		NATTwoArm: `echo 1 > /proc/sys/net/ipv4/ip_forward
lvx realserver join --method nat --director 192.168.10.1
ipvsadm -A -t 192.168.20.100:80 -s rr
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.11:8080 -m -w 1
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.12:8080 -m -w 1`,
		NATOneArm: `echo 1 > /proc/sys/net/ipv4/ip_forward
lvx realserver join --method nat --director 192.168.20.1
ipvsadm -A -t 192.168.20.100:80 -s rr
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.11:8080 -m -w 1
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.12:8080 -m -w 1`,
		TunRouted: `lvx realserver join --vip 192.168.20.100 --method tun --director 192.168.20.1
ipvsadm -A -t 192.168.20.100:80 -s rr
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.11:80 -i -w 1
ipvsadm -a -t 192.168.20.100:80 -r 192.168.10.12:80 -i -w 1`,
	} {
		l := &Lab{Name: name, Family: 4, hosts: hosts}
		lines := append(append(l.forwardCommands(4), l.joinCommand(4)), l.serviceCommands()...)
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
	l := &Lab{Name: NATOneArm, Family: 6}
	if got := l.forwardCommands(6); !slices.Equal(got, []string{"echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"}) {
		t.Errorf("one arm, family 6: %q", got)
	}
}

func TestTopologies(t *testing.T) {
	for _, x := range Topologies() {
		l := &Lab{Name: x.Name}
		if l.Method() != x.Method || x.Text == "" {
			t.Errorf("%+v: method %s", x, l.Method())
		}
	}
	if m := (&Lab{}).Method(); m != lvs.DR {
		t.Errorf("a lab without a topology has method %s", m)
	}
	if _, err := Build(t.Context(), "x", Options{}); err == nil || !strings.Contains(err.Error(), `no topology "x"`) {
		t.Errorf("build x: %v", err)
	}
}

func TestDrawing(t *testing.T) {
	rs := func(i int, s segment) *Host {
		return &Host{Name: RealServerName(i), Interfaces: []Interface{{Addresses: s.realServer(i)}}}
	}
	for name, want := range map[string]string{
		DR: `   client       203.0.113.9
      |
   router       203.0.113.1, on the LAN 192.168.20.254
      |
   switch
      +-- director 192.168.20.1    VIP 192.168.20.100 on eth0: answers ARP and ND for it
      +-- rs1      192.168.20.11   VIP 192.168.20.100 on lo: accepts it, stays silent
`,
		NATOneArm: `   client       203.0.113.9
      |
   router       203.0.113.1, on the LAN 192.168.20.254
      |
   switch
      +-- director 192.168.20.1    VIP 192.168.20.100 on eth0: answers ARP and ND for it
      +-- rs1      192.168.20.11   default gateway 192.168.20.1: the director
`,
		NATTwoArm: `   client       203.0.113.9
      |
   router       203.0.113.1, on the LAN 192.168.20.254
      |
   switch, segment outside
      |
   director     192.168.20.1 and VIP 192.168.20.100 on eth0: answers ARP and ND for it
                192.168.10.1 on eth1
      |
   switch, segment inside
      +-- rs1      192.168.10.11   default gateway 192.168.10.1: the director
`,
		TunRouted: `   client       203.0.113.9
      |
   router       203.0.113.1, on the LAN 192.168.20.254
      |
   switch
      +-- director 192.168.20.1    VIP 192.168.20.100 on eth0: answers ARP and ND for it
      +-- rs1      192.168.31.11   VIP 192.168.20.100 on lo; default gateway 192.168.31.254: the router
`,
	} {
		l := &Lab{Name: name}
		l.hosts = []*Host{rs(1, l.segmentOf(1))}
		if got := l.Drawing(4); got != want {
			t.Errorf("%s:\n%swant\n%s", name, got, want)
		}
	}
}
