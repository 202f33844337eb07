// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvx/internal/lvs"
)

// golden compares with a file that LVX_UPDATE=1 writes anew.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv("LVX_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale: run LVX_UPDATE=1 go test ./internal/config, and read the difference\n%s", path, diff)
	}
}

func write(d Diagnostics) string {
	var b bytes.Buffer
	_ = d.Write(&b, nil)
	return b.String()
}

// One file per mistake, with what is said of it.
func TestMistakes(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 100 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, found := Parse("lvx.yaml", text)
			if isWarning := strings.HasPrefix(name, "warn-"); (c != nil) != isWarning || len(found) == 0 {
				t.Errorf("taken: %t, found: %v", c != nil, found)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".txt", write(found))
		})
	}
}

func TestCodesInUse(t *testing.T) {
	var used []string
	files, _ := filepath.Glob("testdata/bad/*.txt")
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, string(text))
	}
	all := strings.Join(used, "\n")
	for _, topic := range Topics() {
		if topic.Code != codeRefused && !strings.Contains(all, "["+topic.Code+"]") {
			t.Errorf("no file in testdata/bad causes %s, %s", topic.Code, topic.Title)
		}
	}
}

const whole = `# Everything that a file can say.
director:
  interfaces: [eth0, "eth1"]
  xdp: native
  capacity: { connections: 2000000, services: 10, real_servers: 20 }
  mh_table: 131071
  timeouts: { tcp: 20m, tcp_fin: 1m30s, udp: 300s }
services:
  - name: web
    address: 192.168.20.100:80
    protocol: tcp
    scheduler: mh
    scheduler_flags: [mh-fallback, mh-port]
    method: dr
    real_servers:
      - { address: "192.168.20.11:80", weight: 2 }
      - address: 192.168.20.12:80   # weight 1
        method: dr
  - { "address": "[fd00::100]:53", "protocol": "udp",
      "real_servers": [ {"address":"[FD00::11]:53","weight":0} , ] }
  - address: 192.168.20.100:443
    protocol: tcp
    method: nat
    real_servers:
      - { address: "192.168.20.11:8443" }
      - { address: "10.1.0.1:443", method: tun }
      - { address: "10.1.0.2:443", method: tun, tunnel: { type: gre } }
      - { address: "[fd00::12]:443", method: tun, weight: 3, tunnel: { type: gue, port: 6080, checksum: csum } }
api:
  listen: 192.168.20.1:8443
  tls: { cert: /etc/lvx/cert.pem, key: /etc/lvx/key.pem, client_ca: /etc/lvx/ca.pem }
metrics: { listen: "[::1]:9380", node_ipvs: true }
`

func TestWholeFile(t *testing.T) {
	got, found := Parse("lvx.yaml", []byte(whole))
	if err := found.Err(); err != nil {
		t.Fatal(write(found))
	}
	address := netip.MustParseAddrPort
	want := lvs.Configuration{
		Settings: lvs.Settings{
			Interfaces: []string{"eth0", "eth1"}, XDP: "native", MHTable: 131071,
			Capacity: lvs.Capacity{Connections: 2000000, Services: 10, RealServers: 20},
			API:      lvs.APISettings{Listen: "192.168.20.1:8443", TLS: lvs.TLSSettings{Cert: "/etc/lvx/cert.pem", Key: "/etc/lvx/key.pem", ClientCA: "/etc/lvx/ca.pem"}},
			Metrics:  lvs.MetricsListen{Listen: "[::1]:9380", NodeIPVS: true},
		},
		Timeouts: lvs.Timeouts{TCP: lvs.Duration(20 * time.Minute), TCPFin: lvs.Duration(90 * time.Second), UDP: lvs.Duration(5 * time.Minute)},
		Services: []lvs.Service{{
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: address("192.168.20.100:80")},
			Name:       "web", Scheduler: lvs.MH, Flags: "mh-fallback,mh-port",
			RealServers: []lvs.RealServer{
				{Address: address("192.168.20.11:80"), Method: lvs.DR, Weight: 2},
				{Address: address("192.168.20.12:80"), Method: lvs.DR, Weight: 1},
			},
		}, {
			ServiceKey:  lvs.ServiceKey{Protocol: lvs.UDP, Address: address("[fd00::100]:53")},
			Scheduler:   lvs.WLC, // ipvsadm's default
			RealServers: []lvs.RealServer{{Address: address("[fd00::11]:53"), Method: lvs.DR}},
		}, {
			ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: address("192.168.20.100:443")},
			Scheduler:  lvs.WLC,
			RealServers: []lvs.RealServer{
				{Address: address("192.168.20.11:8443"), Method: lvs.NAT, Weight: 1},
				{Address: address("10.1.0.1:443"), Method: lvs.Tun, Weight: 1, Tunnel: lvs.Tunnel{Type: lvs.IPIP}},
				{Address: address("10.1.0.2:443"), Method: lvs.Tun, Weight: 1, Tunnel: lvs.Tunnel{Type: lvs.GRE}},
				{Address: address("[fd00::12]:443"), Method: lvs.Tun, Weight: 3, Tunnel: lvs.Tunnel{Type: lvs.GUE, Port: 6080, Checksum: lvs.HeaderChecksum}},
			},
		}},
	}
	if diff := cmp.Diff(want, *got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// The file of the product contract asks for what this version does not have, and
// is right otherwise.
func TestContractExample(t *testing.T) {
	text, err := os.ReadFile("testdata/bad/later-keys.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, found := Parse("lvx.yaml", text)
	for _, d := range found {
		if !strings.HasPrefix(d.Code, "LVX11") {
			t.Errorf("%+v", d)
		}
	}
}

func TestEmptyStringsAreNothing(t *testing.T) {
	const text = "services: []\napi: { listen: \"\", tls: { cert: \"\", key: \"\", client_ca: \"\" } }\nmetrics: { listen: \"\" }\n"
	got, found := Parse("lvx.yaml", []byte(text))
	if got == nil || !got.Settings.Equal(lvs.Settings{}) || len(found.Without(codeNoServices)) > 0 {
		t.Error(got, write(found))
	}
}

func TestSizeOfAFile(t *testing.T) {
	text := append([]byte("services: []\n#"), bytes.Repeat([]byte("x"), 32<<20)...)
	if _, found := Parse("lvx.yaml", text); len(found) != 1 || found[0].Code != codeTooMuch {
		t.Error(found)
	}
	if c, found := Parse("lvx.yaml", text[:32<<20]); c == nil {
		t.Error(found)
	}
}

// What is written by the million is answered with a thousand errors at most.
func TestNumberOfErrors(t *testing.T) {
	text := "services: []\n" + strings.Repeat("x: 1\n", 1<<16)
	_, found := Parse("lvx.yaml", []byte(text))
	found = found.Errors()
	if n := len(found); n != maxErrors+1 || found[n-1].Code != codeTooMuch {
		t.Error(n, found[n-1])
	}
}

func TestDiagnostics(t *testing.T) {
	_, found := Parse("lvx.yaml", []byte("director: { xdp: x }\nservices: []\n"))
	if len(found.Errors()) != 1 || len(found.Warnings()) != 1 {
		t.Fatal(found)
	}
	rest := found.Without(codeWord, codeNoServices)
	if len(rest) != 1 || rest[0].Code != codeWord {
		t.Error("an error was silenced, or a warning not:", rest)
	}
	if err := found.Err(); err == nil || err.Error() != `lvx.yaml:1:18: xdp cannot be "x"` {
		t.Error(err)
	}
	if err := append(found, found...).Err(); !strings.HasSuffix(err.Error(), " (and 1 more)") {
		t.Error(err)
	}
	if found.Warnings().Err() != nil {
		t.Error("a warning is an error")
	}
	var painted bytes.Buffer
	_ = found.Errors().Write(&painted, func(s Severity, text string) string { return fmt.Sprintf("<%s %s>", s, text) })
	want := "lvx.yaml:1:18: <error error:> xdp cannot be \"x\" [LVX1009]\n    1 | director: { xdp: x }\n      |                  <error ^>\n  = help: write one of auto, native, generic\n"
	if painted.String() != want {
		t.Errorf("%s", painted.String())
	}
	if err := found.Write(broken{}, nil); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, os.ErrClosed }

// A mark stands below what it means, whatever is before it.
func TestMarkBelowTabs(t *testing.T) {
	found := Diagnostics{{Severity: Error, Line: 1, Column: 4, Length: 2, Source: "\t网\tab"}}
	if got := write(found); !strings.Contains(got, "\n      | \t  \t^~\n") {
		t.Errorf("%q", got)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"address", "weight", "method", "xdp"}
	for word, want := range map[string]string{
		"weigth": "weight", "addresz": "address", "Method": "method", "xpd": "xdp", "wieght": "weight",
		"zzz": "", "": "", strings.Repeat("weight", 1000): "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("%.20q: %q, want %q", word, got, want)
		}
	}
}

func TestDiagnosticsAreInOrder(t *testing.T) {
	text, err := os.ReadFile("testdata/bad/mistakes-of-all-sorts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, found := Parse("lvx.yaml", text)
	if len(found) < 5 || !slices.IsSortedFunc(found, func(a, b Diagnostic) int { return a.Line - b.Line }) {
		t.Error(found)
	}
}
