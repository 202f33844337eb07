// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

func TestMarshal(t *testing.T) {
	c, found := Parse("lvx.yaml", []byte(whole))
	if c == nil {
		t.Fatal(write(found))
	}
	text, err := Marshal(*c)
	if err != nil {
		t.Fatal(err)
	}
	const want = `director:
  interfaces: [eth0, eth1]
  xdp: native
  capacity: { connections: 2000000, services: 10, real_servers: 20 }
  mh_table: 131071
  timeouts: { tcp: 20m, tcp_fin: 1m30s, udp: 5m }
services:
  - name: web
    address: 192.168.20.100:80
    protocol: tcp
    scheduler: mh
    scheduler_flags: [mh-fallback, mh-port]
    real_servers:
      - { address: "192.168.20.11:80", weight: 2 }
      - { address: "192.168.20.12:80" }
  - address: "[fd00::100]:53"
    protocol: udp
    scheduler: wlc
    real_servers:
      - { address: "[fd00::11]:53", weight: 0 }
  - address: 192.168.20.100:443
    protocol: tcp
    scheduler: wlc
    real_servers:
      - { address: "192.168.20.11:8443", method: nat }
      - { address: "10.1.0.1:443", method: tun }
      - { address: "10.1.0.2:443", method: tun, tunnel: { type: gre } }
      - { address: "[fd00::12]:443", weight: 3, method: tun, tunnel: { type: gue, port: 6080, checksum: csum } }
api:
  listen: "192.168.20.1:8443"
  tls: { cert: "/etc/lvx/cert.pem", key: "/etc/lvx/key.pem", client_ca: "/etc/lvx/ca.pem" }
metrics:
  listen: "[::1]:9380"
  node_ipvs: true
`
	if string(text) != want {
		t.Errorf("%s", text)
	}
	if text, err = Marshal(lvs.Configuration{}); err != nil || string(text) != "services: []\n" {
		t.Errorf("%s %v", text, err)
	}
}

// Whatever configuration the director takes is written, and read back as it was.
func TestMarshalAndParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawConfiguration(t)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		text, err := Marshal(c)
		if err != nil {
			t.Fatalf("%v\n%+v", err, c)
		}
		back, found := Parse("lvx.yaml", text)
		if back == nil || !equal(c, *back) {
			t.Fatalf("%+v\n%+v\n%s%s", c, back, text, write(found))
		}
		again, err := Marshal(*back)
		if err != nil || string(again) != string(text) {
			t.Fatalf("%s\n%s\n%v", text, again, err)
		}
	})
}

func drawConfiguration(t *rapid.T) (c lvs.Configuration) {
	period := rapid.Map(rapid.OneOf(rapid.Just(int64(0)), rapid.Map(rapid.Int64Range(1, int64(lvs.MaxTimeout/lvs.TimeoutStep)), func(n int64) int64 { return n * int64(lvs.TimeoutStep) }), rapid.Map(rapid.Int64Range(1, 9999), func(s int64) int64 { return s * int64(time.Second) })),
		func(ns int64) lvs.Duration { return lvs.Duration(ns) })
	c.Timeouts = lvs.Timeouts{TCP: period.Draw(t, "tcp"), TCPFin: period.Draw(t, "tcp_fin"), UDP: period.Draw(t, "udp")}
	s := &c.Settings
	s.Interfaces = rapid.SliceOfNDistinct(rapid.StringMatching(`[!-.0-9;-~]{1,15}`), 0, 3, rapid.ID).Draw(t, "interfaces")
	s.XDP = rapid.SampledFrom([]string{"", "auto", "native", "generic"}).Draw(t, "xdp")
	s.Capacity = lvs.Capacity{Connections: rapid.Uint32Range(0, lvs.MaxConnections).Draw(t, "connections"), Services: rapid.Uint32Range(0, lvs.MaxServices).Draw(t, "services"), RealServers: rapid.Uint32Range(0, lvs.MaxRealServers).Draw(t, "real_servers")}
	s.MHTable = rapid.SampledFrom([]uint32{0, 3, 251, 65537, maxMHTable}).Draw(t, "mh_table")
	path := rapid.StringMatching(`/[a-zA-Z0-9 "'#:{},é网\\-]{0,20}`)
	if rapid.Bool().Draw(t, "api") {
		s.API = lvs.APISettings{Listen: drawAddress(t, 0).String(), TLS: lvs.TLSSettings{Cert: path.Draw(t, "cert"), Key: path.Draw(t, "key"), ClientCA: path.Draw(t, "ca")}}
		s.Metrics = lvs.MetricsListen{Listen: drawAddress(t, 0).String(), NodeIPVS: rapid.Bool().Draw(t, "node_ipvs")}
	}
	seen := map[string]bool{"": true}
	for range rapid.IntRange(0, 5).Draw(t, "services") {
		service := drawService(t)
		if seen[service.Name] {
			service.Name = ""
		}
		if seen[service.String()] {
			continue
		}
		seen[service.Name], seen[service.String()] = true, true
		c.Services = append(c.Services, service)
	}
	return c
}

func drawAddress(t *rapid.T, port uint16) netip.AddrPort {
	if port == 0 {
		port = rapid.Uint16Range(1, 65535).Draw(t, "port")
	}
	host := netip.AddrFrom4([4]byte{10, 0, 0, rapid.ByteRange(1, 254).Draw(t, "host")})
	if rapid.Bool().Draw(t, "is IPv6") {
		host = netip.AddrFrom16([16]byte{0: 0xfd, 8: rapid.Byte().Draw(t, "middle"), 15: 1})
	}
	return netip.AddrPortFrom(host, port)
}

func drawService(t *rapid.T) (s lvs.Service) {
	s.Name = rapid.OneOf(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,62}`), rapid.SampledFrom([]string{"", "on", "null", "1e3", "0x1f", "2026-11-21", "~"[:0], "Y"})).Draw(t, "name")
	s.Protocol = rapid.SampledFrom([]lvs.Protocol{lvs.TCP, lvs.UDP}).Draw(t, "protocol")
	s.Address = drawAddress(t, 0)
	s.Scheduler = rapid.SampledFrom(lvs.Schedulers()).Draw(t, "scheduler")
	s.Flags, _ = lvs.ParseSchedulerFlags(s.Scheduler, rapid.SliceOfDistinct(rapid.SampledFrom([]string{"flag-1", "flag-2", "flag-3"}), rapid.ID).Draw(t, "flags"))
	for range rapid.IntRange(0, 4).Draw(t, "real servers") {
		r := drawMethod(t)
		port := s.Address.Port()
		if r.Method.MapsPort() {
			port = 0 // any
		}
		r.Address, r.Weight = drawAddress(t, port), rapid.OneOf(rapid.Uint32Range(0, 3), rapid.Uint32Range(0, lvs.MaxWeight)).Draw(t, "weight")
		if (r.Address.Addr().Is4() == s.Address.Addr().Is4() || r.Method.MapsFamily()) && s.Find(r.Address) < 0 {
			s.RealServers = append(s.RealServers, r)
		}
	}
	return s
}

// drawMethod draws a real server's method, with its tunnel.
func drawMethod(t *rapid.T) lvs.RealServer {
	r := lvs.RealServer{Method: rapid.SampledFrom(lvs.Methods()).Draw(t, "method")}
	if r.Method != lvs.Tun {
		return r
	}
	r.Tunnel.Type = rapid.SampledFrom(lvs.TunnelTypes()).Draw(t, "tunnel")
	if r.Tunnel.Type == lvs.GUE {
		r.Tunnel.Port = rapid.Uint16Min(1).Draw(t, "tunnel port")
	}
	if r.Tunnel.Type != lvs.IPIP {
		r.Tunnel.Checksum = rapid.SampledFrom([]lvs.TunnelChecksum{lvs.NoChecksum, lvs.HeaderChecksum}).Draw(t, "checksum")
	}
	return r
}

// Parse takes what lvs.Configuration.Validate takes, and nothing else, and says
// better why.
func TestParseAgreesWithValidate(t *testing.T) {
	addresses := []string{
		"192.168.20.100:80", "192.168.20.101:80", "192.168.20.100:81", "[fd00::100]:80", "[fd00::1]:80", "[fe80::1]:80", "192.168.20.100:0",
		"127.0.0.1:80", "[::1]:80", "224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80", "0.0.0.0:80", "[::]:80", "[::ffff:192.0.2.1]:80", "[fe80::1%eth0]:80", "240.0.0.1:80",
	}
	address := rapid.Map(rapid.SampledFrom(addresses), netip.MustParseAddrPort)
	rapid.Check(t, func(t *rapid.T) {
		var c lvs.Configuration
		for range rapid.IntRange(1, 2).Draw(t, "services") {
			s := lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: rapid.SampledFrom([]lvs.Protocol{lvs.TCP, lvs.UDP, lvs.SCTP}).Draw(t, "protocol"), Address: address.Draw(t, "VIP")}}
			s.Name = rapid.SampledFrom([]string{"", "", "web", "-", "a b", strings.Repeat("n", 64)}).Draw(t, "name")
			s.Scheduler = rapid.SampledFrom(append(lvs.KernelSchedulers(), "x", lvs.MH, lvs.WLC)).Draw(t, "scheduler")
			s.Flags = rapid.SampledFrom([]lvs.SchedulerFlags{"", "", "mh-port", "sh-fallback,flag-3", "flag-3", "x"}).Draw(t, "flags")
			for range rapid.IntRange(0, 2).Draw(t, "real servers") {
				s.RealServers = append(s.RealServers, lvs.RealServer{
					Address: address.Draw(t, "RIP"), Weight: rapid.SampledFrom([]uint32{0, 1, lvs.MaxWeight, lvs.MaxWeight + 1}).Draw(t, "weight"),
					Method: rapid.SampledFrom([]lvs.Method{lvs.DR, lvs.NAT, lvs.Tun, lvs.Local, "masq"}).Draw(t, "method"), Tunnel: drawAnyTunnel(t),
				})
				if r := &s.RealServers[len(s.RealServers)-1]; r.Method == lvs.Tun && r.Tunnel.Type == "" {
					r.Tunnel.Type = lvs.IPIP // which the file does without
				}
			}
			c.Services = append(c.Services, s)
		}
		var w writer
		w.services(c.Services)
		back, found := Parse("lvx.yaml", w.Bytes())
		if err := c.Validate(); (err == nil) != (back != nil) {
			t.Fatalf("%s\nlvs: %v\nParse: %s", w.Bytes(), err, write(found))
		}
		if hasCode(found, codeRefused) {
			t.Fatalf("%s\n%s", w.Bytes(), write(found))
		}
	})
}

// drawAnyTunnel draws a tunnel, right or wrong, or none.
func drawAnyTunnel(t *rapid.T) (tunnel lvs.Tunnel) {
	if rapid.Bool().Draw(t, "tunnel?") {
		tunnel.Type = rapid.SampledFrom(append(lvs.TunnelTypes(), "vxlan")).Draw(t, "type")
		tunnel.Port = rapid.SampledFrom([]uint16{0, 1, 6080}).Draw(t, "tunnel port")
		tunnel.Checksum = rapid.SampledFrom([]lvs.TunnelChecksum{lvs.NoChecksum, lvs.HeaderChecksum, lvs.RemoteChecksum, "crc"}).Draw(t, "checksum")
	}
	return tunnel
}

// What no file can say is not written as something else.
func TestMarshalRefuses(t *testing.T) {
	service := lvs.Service{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.168.20.100:80")}, Scheduler: lvs.RR}
	for name, spoil := range map[string]func(*lvs.Configuration){
		"a twin": func(c *lvs.Configuration) { c.Services = append(c.Services, c.Services[0]) },
		"a name": func(c *lvs.Configuration) { c.Services[0].Name = "a b" },
		"a method": func(c *lvs.Configuration) {
			c.Services[0].RealServers = []lvs.RealServer{{Address: service.Address, Method: lvs.FullNAT}}
		},
		"a tunnel": func(c *lvs.Configuration) {
			c.Services[0].RealServers = []lvs.RealServer{{Address: service.Address, Method: lvs.NAT, Tunnel: lvs.Tunnel{Type: lvs.IPIP}}}
		},
		"no tunnel": func(c *lvs.Configuration) {
			c.Services[0].RealServers = []lvs.RealServer{{Address: service.Address, Method: lvs.Tun}}
		},
		"an interface": func(c *lvs.Configuration) { c.Settings.Interfaces = []string{"eth0\nservices: []"} },
		"a path": func(c *lvs.Configuration) {
			c.Settings.API = lvs.APISettings{Listen: "192.168.20.1:1", TLS: lvs.TLSSettings{Cert: "/\x00", Key: "/k", ClientCA: "/c"}}
		},
		"an address": func(c *lvs.Configuration) { c.Settings.Metrics.Listen = "[0:0::1]:80" },
	} {
		c := lvs.Configuration{Services: []lvs.Service{service}}
		spoil(&c)
		if text, err := Marshal(c); err == nil || !strings.HasPrefix(err.Error(), "write the configuration as a file: ") {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

// large is a file of so many services with ten real servers each.
func large(services int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "director:\n  capacity: { services: %d, real_servers: %d }\nservices:\n", services, 10*services)
	for i := range services {
		fmt.Fprintf(&b, "  - name: service-%d\n    address: 172.%d.%d.%d:80\n    protocol: tcp\n    scheduler: wlc\n    real_servers:\n", i, 16+i>>16, i>>8&255, i&255)
		for j := range 10 {
			fmt.Fprintf(&b, "      - { address: \"10.%d.%d.%d:80\", weight: %d }\n", j, i>>8&255, i&255, j+1)
		}
	}
	return []byte(b.String())
}

func TestLargeFile(t *testing.T) {
	c, found := Parse("lvx.yaml", large(10_000))
	if c == nil || len(found) > 0 || len(c.Services) != 10_000 || len(c.Services[9_999].RealServers) != 10 {
		t.Fatal(found.Err())
	}
	if _, err := Marshal(*c); err != nil {
		t.Error(err)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		text := large(n)
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if c, found := Parse("lvx.yaml", text); c == nil {
					b.Fatal(found)
				}
			}
		})
	}
}
