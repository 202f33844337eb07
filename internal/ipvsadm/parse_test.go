// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"lvx/internal/lvs"
)

// TestMistakes compares with what the real ipvsadm 1.31 said, message, exit
// code and which of two mistakes it finds first.
func TestMistakes(t *testing.T) {
	for _, r := range read(t, "mistakes.txt") {
		_, err := Parse(strings.Fields(r.args), sample)
		wrong := (*Error)(nil)
		if !errors.As(err, &wrong) {
			t.Errorf("ipvsadm %s: no error, want %q", r.args, r.output)
			continue
		}
		got := fmt.Sprintf("%s\n[exit %d]", wrong.Message, wrong.Exit)
		if got != strings.TrimSuffix(r.output, "\n") {
			t.Errorf("ipvsadm %s\ngot:  %q\nwant: %q", r.args, got, r.output)
		}
	}
}

func TestNotInThisVersion(t *testing.T) {
	for args, what := range map[string]string{
		"-A -t 1.2.3.4:80 -p":                     "persistence (-p)",
		"-A -t 1.2.3.4 -p 300":                    "persistence (-p)",
		"-E -t 1.2.3.4:80 -p300 -M 255.255.255.0": "persistence (-p)",
		"-A -f 7":                          "the firewall mark (-f)",
		"-A -f 7 -6":                       "the firewall mark (-f)",
		"-D -f 7":                          "the firewall mark (-f)",
		"-L -f 7":                          "the firewall mark (-f)",
		"-A -u 1.2.3.4:53 -o":              "one-packet scheduling (-o)",
		"-A -u 1.2.3.4:53 --pe sip":        "the persistence engine (--pe)",
		"-A -t 1.2.3.4:80 -s dh -b flag-1": "the scheduler dh",
		"-A --sctp-service 1.2.3.4:80":     "SCTP (--sctp-service)",
		"-a -t 1.2.3.4:80 -r [::1]:80 -i --tun-type gue --tun-port 6 --tun-remcsum": "the remote checksum (--tun-remcsum)",
		"-a -t 1.2.3.4:80 -r 5.6.7.8 -x 5":                                          "the connection threshold (-x, -y)",
		"-a -t 1.2.3.4:80 -r 5.6.7.8 -y 5":                                          "the connection threshold (-x, -y)",
		"--start-daemon master":                                                     "connection synchronisation (--start-daemon)",
	} {
		_, err := Parse(strings.Fields(args), Names{})
		want := Error{Message: "lvx: " + what + " is not in this version", Exit: 255, Unbuilt: true}
		if got := (*Error)(nil); !errors.As(err, &got) || *got != want {
			t.Errorf("%s: got %v, want %q", args, err, want.Message)
		}
	}
}

func TestChanges(t *testing.T) {
	at := netip.MustParseAddrPort
	www := lvs.ServiceKey{Protocol: lvs.TCP, Address: at("192.0.2.1:80")}
	dns := lvs.ServiceKey{Protocol: lvs.UDP, Address: at("[2001:db8::1]:53")}
	dr := func(a string, weight uint32) lvs.RealServer {
		return lvs.RealServer{Address: at(a), Method: lvs.DR, Weight: weight}
	}
	nat := func(a string) lvs.RealServer {
		return lvs.RealServer{Address: at(a), Method: lvs.NAT, Weight: 1}
	}
	tun := func(a string, tunnel lvs.Tunnel) lvs.RealServer {
		return lvs.RealServer{Address: at(a), Method: lvs.Tun, Weight: 1, Tunnel: tunnel}
	}
	for args, want := range map[string]lvs.Change{
		"-A -t 192.0.2.1:80":   {Operation: lvs.AddService, Service: www, Scheduler: lvs.WLC},
		"-At192.0.2.1:80 -srr": {Operation: lvs.AddService, Service: www, Scheduler: lvs.RR},
		"--add-service --tcp-service=192.0.2.1:http --scheduler=wrr": {Operation: lvs.AddService, Service: www, Scheduler: lvs.WRR},
		"-A -t www:http -s nosuch":                                   {Operation: lvs.AddService, Service: www, Scheduler: "nosuch"},
		"-A -u [2001:db8::1]:53 -M 64 -s lc":                         {Operation: lvs.AddService, Service: dns, Scheduler: lvs.LC},
		"-A -t 192.0.2.1:80 -s sh -b sh-port,sh-fallback":            {Operation: lvs.AddService, Service: www, Scheduler: lvs.SH, Flags: "sh-fallback,sh-port"},
		"-A -t 192.0.2.1:80 -b mh-port -s mh":                        {Operation: lvs.AddService, Service: www, Scheduler: lvs.MH, Flags: "mh-port"},
		"-A -t 192.0.2.1:80 -s sh -b flag-1,,sh-port,flag-1,":        {Operation: lvs.AddService, Service: www, Scheduler: lvs.SH, Flags: "sh-fallback,sh-port"},
		"-E -t 192.0.2.1:80 -b flag-3,flag-1":                        {Operation: lvs.EditService, Service: www, Scheduler: lvs.WLC, Flags: "flag-1,flag-3"},
		"-E -t 192.0.2.1:80 -s mh --sched-flags=flag-2":              {Operation: lvs.EditService, Service: www, Scheduler: lvs.MH, Flags: "mh-port"},
		"-A -t 192.0.2.1:80 -s nosuch -b flag-1":                     {Operation: lvs.AddService, Service: www, Scheduler: "nosuch", Flags: "flag-1"},
		"-E -t 192.0.2.1:80":                                         {Operation: lvs.EditService, Service: www, Scheduler: lvs.WLC},
		"-D -t 192.0.2.1:80":                                         {Operation: lvs.DeleteService, Service: www},
		"-a -t 192.0.2.1:80 -r 192.0.2.7":                            {Operation: lvs.AddServer, Service: www, RealServer: dr("192.0.2.7:80", 1)},
		"-a -t 192.0.2.1:80 -r 192.0.2.7:99 -g -w 3":                 {Operation: lvs.AddServer, Service: www, RealServer: dr("192.0.2.7:80", 3)},
		"-a -r 192.0.2.7 -w 65536 -x 0 -t 192.0.2.1:80":              {Operation: lvs.AddServer, Service: www, RealServer: dr("192.0.2.7:80", 65536)},
		"-a -u [2001:db8::1]:53 -r [2001:db8::7]:53 -w 2147483647":   {Operation: lvs.AddServer, Service: dns, RealServer: dr("[2001:db8::7]:53", 1<<31-1)},
		"-e -t 192.0.2.1:80 -r 192.0.2.7:80":                         {Operation: lvs.EditServer, Service: www, RealServer: dr("192.0.2.7:80", 1)},
		"-d -t 192.0.2.1:80 -r 192.0.2.7":                            {Operation: lvs.DeleteServer, Service: www, RealServer: lvs.RealServer{Address: at("192.0.2.7:80")}},
		"-d -t 192.0.2.1:80 -r 192.0.2.7:99":                         {Operation: lvs.DeleteServer, Service: www, RealServer: lvs.RealServer{Address: at("192.0.2.7:99")}},
		"-a -t 192.0.2.1:80 -r 192.0.2.7 -m":                         {Operation: lvs.AddServer, Service: www, RealServer: nat("192.0.2.7:80")},
		"-a -t 192.0.2.1:80 -r 192.0.2.7:8080 --masquerading":        {Operation: lvs.AddServer, Service: www, RealServer: nat("192.0.2.7:8080")},
		"-e -u [2001:db8::1]:53 -m -r [2001:db8::7]:5353":            {Operation: lvs.EditServer, Service: dns, RealServer: nat("[2001:db8::7]:5353")},
		"-a -t 192.0.2.1:80 -r 192.0.2.7:99 -i":                      {Operation: lvs.AddServer, Service: www, RealServer: tun("192.0.2.7:80", lvs.Tunnel{Type: lvs.IPIP})},
		"-a -t 192.0.2.1:80 -r 2001:db8::7 --ipip --tun-type ipip":   {Operation: lvs.AddServer, Service: www, RealServer: tun("[2001:db8::7]:80", lvs.Tunnel{Type: lvs.IPIP})},
		"-a -u [2001:db8::1]:53 -r 192.0.2.7 -i --tun-type gre":      {Operation: lvs.AddServer, Service: dns, RealServer: tun("192.0.2.7:53", lvs.Tunnel{Type: lvs.GRE})},
		"-e -t 192.0.2.1:80 -r 192.0.2.7 -i --tun-csum --tun-type gre": {
			Operation: lvs.EditServer, Service: www, RealServer: tun("192.0.2.7:80", lvs.Tunnel{Type: lvs.GRE, Checksum: lvs.HeaderChecksum}),
		},
		"-a -t 192.0.2.1:80 -r 192.0.2.7 -i --tun-type=gue --tun-port=6080 --tun-nocsum": {
			Operation: lvs.AddServer, Service: www, RealServer: tun("192.0.2.7:80", lvs.Tunnel{Type: lvs.GUE, Port: 6080}),
		},
		"-a --tun-port 65535 --tun-type gue --tun-csum -i -r 192.0.2.7 -t 192.0.2.1:80": {
			Operation: lvs.AddServer, Service: www, RealServer: tun("192.0.2.7:80", lvs.Tunnel{Type: lvs.GUE, Port: 65535, Checksum: lvs.HeaderChecksum}),
		},
		"-C":                 {Operation: lvs.Clear},
		"-Z":                 {Operation: lvs.Zero},
		"-Z -t 192.0.2.1:80": {Operation: lvs.Zero, Service: www},
		"--set 900 0 300": {Operation: lvs.SetTimeouts, Timeouts: lvs.Timeouts{
			TCP: lvs.Duration(900 * time.Second), UDP: lvs.Duration(300 * time.Second),
		}},
	} {
		names := sample
		names.Host = func(name string) (netip.Addr, bool) { return netip.MustParseAddr("192.0.2.1"), name == "www" }
		got, err := Parse(strings.Fields(args), names)
		if err != nil || got.Action != Change || got.Change != want {
			t.Errorf("%s: got %+v, %v, want %+v", args, got, err, want)
		}
	}
}

func TestActions(t *testing.T) {
	for args, want := range map[string]Command{
		"":                               {Action: ListServices},
		"-Ln":                            {Action: ListServices, List: List{Numeric: true}},
		"-lcn":                           {Action: ListConnections, List: List{Numeric: true}},
		"-L --timeout":                   {Action: ListTimeouts},
		"-L --daemon -n":                 {Action: ListDaemons, List: List{Numeric: true}},
		"-L --stats --rate -X":           {Action: ListServices, List: List{Stats: true, Rate: true, Exact: true}},
		"-l --json":                      {Action: ListServices, List: List{JSON: true}},
		"-Lc --json":                     {Action: ListConnections, List: List{JSON: true}},
		"-R --atomic":                    {Action: Restore, Atomic: true},
		"--restore --dry-run --atomic":   {Action: Restore, DryRun: true, Atomic: true},
		"-C --dry-run":                   {Action: Change, Change: lvs.Change{Operation: lvs.Clear}, DryRun: true},
		"-L --nosort --sort --tun-info":  {Action: ListServices, List: List{NoSort: true, TunInfo: true}},
		"-L --syncid 5 --thresholds":     {Action: ListServices, List: List{Thresholds: true}},
		"-Ln -t 1.2.3.4:80":              {Action: ListServices, List: List{Numeric: true, Service: key(lvs.TCP, "1.2.3.4:80")}},
		"-S":                             {Action: Save},
		"-S -n":                          {Action: Save, List: List{Numeric: true}},
		"-R":                             {Action: Restore},
		"-h --bogus":                     {Action: Help},
		"-v foo":                         {Action: ShowVersion},
		"--list --numeric --connection ": {Action: ListConnections, List: List{Numeric: true}},
	} {
		got, err := Parse(strings.Fields(args), Names{})
		if err != nil || *got != want {
			t.Errorf("%q: got %+v, %v, want %+v", args, got, err, want)
		}
	}
}

// TestOwnOptions: where lvx's own options do not belong they are refused in
// ipvsadm's words, after everything that ipvsadm itself finds.
func TestOwnOptions(t *testing.T) {
	for args, want := range map[string]string{
		"-S --json":                            "Illegal 'json' option with the 'save' command",
		"-A -t 1.2.3.4:80 --json":              "Illegal 'json' option with the 'add-service' command",
		"-L --json --json":                     "multiple 'json' options specified",
		"-L -c --stats --json":                 "options conflicts in the list command",
		"-L --dry-run":                         "Illegal 'dry-run' option with the 'list' command",
		"-Z --dry-run":                         "Illegal 'dry-run' option with the 'zero' command",
		"--start-daemon master --dry-run":      "Illegal 'dry-run' option with the 'start-daemon' command",
		"-C --atomic":                          "Illegal 'atomic' option with the 'flush' command",
		"-R --atomic --json":                   "Illegal 'json' option with the 'restore' command",
		"-C --dry-run -n":                      "Illegal 'numeric' option with the 'flush' command",
		"-A --dry-run":                         "You need to supply the 'service-address' option for the 'add-service' command",
		"-a -t 1.2.3.4:80 --dry-run -r ::1 -g": "Different address family is allowed only for tunneling servers",
	} {
		_, err := Parse(strings.Fields(args), Names{})
		if got := (*Error)(nil); !errors.As(err, &got) || got.Message != want || got.Exit != ExitUsage {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// TestWordsWithBlanks has the arguments that a file of lines cannot hold.
func TestWordsWithBlanks(t *testing.T) {
	const illegal = "illegal virtual server address[:port] specified"
	for _, c := range []struct {
		args []string
		want string // the error, or the service's address
	}{
		{[]string{"-D", "-t", " 1.2.3.4:80"}, illegal},
		{[]string{"-D", "-t", "1.2.3.4 :80"}, "1.2.3.4:80"},
		{[]string{"-D", "-t", "1.2.3.4 x: 80"}, "1.2.3.4:80"},
		{[]string{"-D", "-t", ""}, illegal},
		{[]string{"-D", "-t", "1.2:80"}, "1.0.0.2:80"},
		{[]string{"-D", "-t", "0x7f.1:80"}, "127.0.0.1:80"},
		{[]string{"-D", "-t", "010.1.1.1:80"}, "8.1.1.1:80"},
		{[]string{"-D", "-t", "0o10.1.1.1:80"}, illegal},
		{[]string{"-D", "-t", "1_0.1.1.1:80"}, illegal},
		{[]string{"-D", "-t", "[1.2.3.4]:80"}, "1.2.3.4:0"},
		{[]string{"-D", "-t", "::1"}, "[::1]:0"},
		{[]string{"-L", ""}, "unexpected argument "},
		{[]string{""}, "Try `ipvsadm -h' or 'ipvsadm --help' for more information."},
	} {
		got, err := Parse(c.args, Names{})
		text := fmt.Sprint(err)
		if err == nil {
			text = got.Change.Service.Address.String()
		}
		if text != c.want {
			t.Errorf("%q: got %q, want %q", c.args, text, c.want)
		}
	}
}

func TestRuntimeTexts(t *testing.T) {
	for _, c := range []struct {
		operation lvs.Operation
		err       error
		want      string
	}{
		{lvs.AddService, lvs.ErrServiceExists, "Service already exists"},
		{lvs.EditService, lvs.ErrNoService, "No such service"},
		{lvs.DeleteService, lvs.ErrNoService, "No such service"},
		{lvs.Zero, lvs.ErrNoService, "No such service"},
		{lvs.AddServer, lvs.ErrNoService, "Service not defined"},
		{lvs.EditServer, lvs.ErrNoService, "Service not defined"},
		{lvs.DeleteServer, lvs.ErrNoService, "Service not defined"},
		{lvs.AddServer, lvs.ErrServerExists, "Destination already exists"},
		{lvs.EditServer, lvs.ErrNoServer, "No such destination"},
		{lvs.DeleteServer, lvs.ErrNoServer, "No such destination"},
		{lvs.AddService, lvs.ErrNoScheduler, "Scheduler or persistence engine not found"},
		{lvs.AddService, lvs.ErrFull, "Memory allocation problem"},
		{lvs.AddService, lvs.ErrInvalid, "Invalid operation.  Possibly wrong module version, address not unicast, ...\nlvx: it: not possible"},
		{lvs.AddService, lvs.ErrUnsupported, "lvx: it: not in this version"},
		{lvs.AddService, errors.New("broken"), "lvx: it: broken"},
	} {
		if got := RuntimeText(c.operation, fmt.Errorf("it: %w", c.err)); got != c.want {
			t.Errorf("%s: %v: got %q, want %q", c.operation, c.err, got, c.want)
		}
	}
}

// TestLegalityIsWhole: a column forgotten would be a panic.
func TestLegalityIsWhole(t *testing.T) {
	for o, row := range legality {
		if len(row) != int(zero) || len(commandNames) != int(zero)+1 || strings.Trim(row, ".or1") != "" || optionNames[o] == "" {
			t.Errorf("option %d %s: %q", o, optionNames[o], row)
		}
	}
}
