// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"lvx/api"
	"lvx/internal/lvs"
)

func TestReadingCommandsPrint(t *testing.T) {
	socket := daemon(t, 3)
	for _, c := range []struct{ args, want string }{
		{"services", `
SERVICE               NAME  SCHEDULER  FLAGS    METHODS  REAL SERVERS  ACTIVE  INACTIVE  CONNECTIONS  PACKETS  BYTES
tcp 192.0.2.1:80      web   mh         mh-port  dr,tun              2       9        21           30      300  30000
udp [2001:db8::1]:53  -     rr         -        -                   0       0         0            0        0      0
`},
		{"services udp/2001:db8::1", `
SERVICE               NAME  SCHEDULER  FLAGS  METHODS  REAL SERVERS  ACTIVE  INACTIVE  CONNECTIONS  PACKETS  BYTES
udp [2001:db8::1]:53  -     rr         -      -                   0       0         0            0        0      0
`},
		{"services web --rates", `
SERVICE           NAME  SCHEDULER  FLAGS    METHODS  REAL SERVERS  ACTIVE  INACTIVE  CONNECTIONS/S  PACKETS/S  BYTES/S
tcp 192.0.2.1:80  web   mh         mh-port  dr,tun              2       9        21            1.2       40.0   4096.5
`},
		{"neighbours", `
ADDRESS       STATE     INTERFACE  MAC                VLAN   MTU  REAL SERVERS
198.51.100.5  ready     eth0       02:00:00:00:00:05     7  1500             2
2001:db8::6   no-route  -          -                     -     -             1
`},
		{"neighbours --state ready", `
ADDRESS       STATE  INTERFACE  MAC                VLAN   MTU  REAL SERVERS
198.51.100.5  ready  eth0       02:00:00:00:00:05     7  1500             2
`},
		{"real-servers", `
SERVICE           REAL SERVER      METHOD  TUNNEL         WEIGHT  ACTIVE  INACTIVE  CONNECTIONS  PACKETS  BYTES  NEXT HOP
tcp 192.0.2.1:80  198.51.100.5:80  dr      -                   1       3         7           10      100  10000  ready, 02:00:00:00:00:05 on eth0 vlan 7
tcp 192.0.2.1:80  198.51.100.6:80  tun     gue 6080 csum       2       6        14           20      200  20000  unresolved on eth0
`},
		{"real-servers --service web --real-server 198.51.100.6 --rates", `
SERVICE           REAL SERVER      METHOD  TUNNEL         WEIGHT  ACTIVE  INACTIVE  CONNECTIONS/S  PACKETS/S  BYTES/S  NEXT HOP
tcp 192.0.2.1:80  198.51.100.6:80  tun     gue 6080 csum       2       6        14            0.0        0.0      0.0  unresolved on eth0
`},
		{"connections", `
PROTOCOL  CLIENT          SERVICE       REAL SERVER      STATE        EXPIRES
tcp       203.0.0.0:1024  192.0.2.1:80  198.51.100.5:80  ESTABLISHED    15m0s
tcp       203.0.0.1:1024  192.0.2.1:80  198.51.100.6:80  FIN_WAIT       15m0s
tcp       203.0.0.2:1024  192.0.2.1:80  198.51.100.5:80  ESTABLISHED    15m0s
`},
		{"reasons", `
REASON     VERDICT    PACKETS  MEANING
FORWARDED  forwarded       12  sent to a real server
NOT_OURS   passed           5  left to the kernel
`},
		{"reasons --verdict passed", `
REASON    VERDICT  PACKETS  MEANING
NOT_OURS  passed         5  left to the kernel
`},
		{"reasons --all", `
REASON        VERDICT    PACKETS  MEANING
FORWARDED     forwarded       12  sent to a real server
NOT_OURS      passed           5  left to the kernel
NO_NEIGHBOUR  dropped          0  the real server's MAC address is not known
`},
		{"status", `
lvx 1.2.3, instance default, up 1h30m0s
generation 5, revision 1 (apply /etc/lvx/lvx.yaml), changed since

Interfaces
  eth0: native XDP
    offloads turned off: rxvlan, lro
  eth1: generic XDP, slower than native: the driver e1000 has no XDP
    lost by the driver after forwarding: 4 packets

Tables
  services      2 of 1024
  real servers  3 of 4096
  connections   30; there is room for 1000000 of IPv4 and as many of IPv6
    1 real server is removed, until the last of their connections ends

Timeouts
  tcp           15m0s
  tcp fin       2m0s
  udp           5m0s

Packets
  forwarded     12
  passed        5
  dropped       0

Warnings
  service tcp 192.0.2.1:80: the VIP is on no interface
    to mend it: ip addr add 192.0.2.1/32 dev eth0
`},
	} {
		t.Run(c.args, func(t *testing.T) {
			want(t, run(socket, strings.Fields(c.args)), result{ExitDone, strings.TrimPrefix(c.want, "\n"), ""})
		})
	}
}

func TestJSONIsAnArrayOfObjects(t *testing.T) {
	socket := daemon(t, 3)
	for command, count := range map[string]int{
		"services": 2, "services 192.0.2.1:80": 1, "real-servers": 2, "connections": 3, "connections --client 192.0.2.9": 0,
		"reasons": 2, "reasons --all": 3, "status": 1, "version": 1, "services web": 1, "real-servers --real-server 198.51.100.5:80": 1,
		"neighbours": 2, "neighbours --state local": 0, "events": 3, "events --type drift,started": 2, "history": 3, "history --revisions": 1,
	} {
		got := run(socket, append(strings.Fields(command), "--json"))
		var objects []map[string]any
		if err := json.Unmarshal([]byte(got.out), &objects); err != nil || len(objects) != count || got.code != ExitDone {
			t.Errorf("%s: %v, %d objects of %d in %s", command, err, len(objects), count, got.out)
		}
	}
	want(t, run(socket, strings.Fields("connections --limit 1 --json")), result{ExitDone, `[
{"protocol":"tcp","client":"203.0.0.0:1024","virtual":"192.0.2.1:80","real_server":"198.51.100.5:80","state":"ESTABLISHED","expires_seconds":900}
]
`, ""})
}

func TestConnectionsAreFiltered(t *testing.T) {
	socket := daemon(t, 2500) // more than two pages of a table
	for args, rows := range map[string]int{
		"":                                2500,
		"--limit 7":                       7,
		"--state fin_wait":                1250,
		"--real-server 198.51.100.5":      1250,
		"--real-server 198.51.100.5:81":   0,
		"--client 203.0.1.0/24":           256,
		"--client 203.0.1.7 --limit 5":    1,
		"--service tcp/192.0.2.1:80":      2500,
		"--service udp/192.0.2.1:80":      0,
		"--service 192.0.2.1 --limit 600": 600,
		"--service web --limit 3":         3,
	} {
		got := run(socket, append([]string{"connections"}, strings.Fields(args)...))
		if n := strings.Count(got.out, "\n") - 1; n != rows || got.code != ExitDone {
			t.Errorf("%q: %d rows, want %d; exit %d, %s", args, n, rows, got.code, got.err)
		}
	}
}

func TestUnknownServiceIsAnError(t *testing.T) {
	for _, command := range []string{"services %s", "real-servers --service %s"} {
		for _, service := range []string{"192.0.2.9:80", "nosuch"} {
			want(t, run(daemon(t, 0), strings.Fields(fmt.Sprintf(command, service))),
				result{ExitFailed, "", "lvx: there is no service " + service + "; list them with: lvx services\n"})
		}
	}
	want(t, run(daemon(t, 0), strings.Fields("connections --service nosuch")),
		result{ExitFailed, "", "lvx: there is no service nosuch; list them with: lvx services\n"})
}

func TestColourOnlyOnATerminalThatWantsIt(t *testing.T) {
	socket := daemon(t, 0)
	for _, c := range []struct {
		vars []string
		want bool
	}{
		{nil, false},
		{[]string{"TERM", "xterm"}, true},
		{[]string{"TERM", "dumb"}, false},
		{[]string{"NO_COLOR", "1"}, false},
	} {
		for _, command := range []string{"real-servers", "reasons", "status"} {
			got := run(socket, []string{command}, c.vars...)
			if strings.Contains(got.out, "\x1b[") != c.want {
				t.Errorf("%s with %v: %q", command, c.vars, got.out)
			}
		}
		if got := run(socket, []string{"status", "--json"}, c.vars...); strings.Contains(got.out, "\x1b") {
			t.Errorf("colour in JSON: %q", got.out)
		}
	}
}

func TestOthersCannotMoveTheCursor(t *testing.T) {
	got := run(daemon(t, 0), []string{"history"}, "TERM", "xterm")
	if strings.Contains(got.out, "\x1b[2J") || !strings.Contains(got.out, `/tmp/\x1b[2J.yaml`) {
		t.Errorf("%q", got.out)
	}
	if text := printable("äöü → 日本\t\u202e"); text != `äöü → 日本\t\u202e` {
		t.Errorf("%q", text)
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 65536: "65,536", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// A listing is as small for a million connections as for one.
func TestConnectionsAreNotKept(t *testing.T) {
	const many = 50_000
	for _, form := range []string{"", "--json"} {
		var before, after runtime.MemStats
		env := &Env{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, socket: daemon(t, many), Getenv: func(string) string { return "" }}
		runtime.GC()
		runtime.ReadMemStats(&before)
		heap := uint64(0)
		sink := env.connectionSink(form != "")
		n := 0
		err := env.client().Connections(t.Context(), api.ConnectionQuery{}, func(c lvs.Connection) error {
			if n++; n%(many/4) == 0 {
				runtime.GC()
				runtime.ReadMemStats(&after)
				heap = max(heap, after.HeapAlloc)
			}
			return sink.add(c)
		})
		if grown := int64(heap) - int64(before.HeapAlloc); err != nil || n != many || grown > 4<<20 {
			t.Errorf("%q: %d connections, %d bytes more, %v", form, n, grown, err)
		}
	}
}
