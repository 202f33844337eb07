// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"lvx/internal/lvs"
)

// replay makes the changes of a script as the daemon does, and returns the
// table, the messages and the last exit code.
func replay(t interface{ Fatal(...any) }, text string) (table []lvs.ServiceStatus, messages []string, exit int) {
	for script := NewScript(strings.NewReader(text), Names{}); ; {
		c, err := script.Next()
		wrong := (*Error)(nil)
		switch {
		case errors.Is(err, io.EOF):
			return table, messages, exit
		case errors.As(err, &wrong):
			messages, exit = append(messages, wrong.Message), wrong.Exit
			if wrong.EndsRestore {
				return table, messages, exit
			}
			continue
		case err != nil:
			t.Fatal(err)
		}
		exit = 0
		switch c.Change.Operation {
		case lvs.AddService:
			table = append(table, lvs.ServiceStatus{ServiceKey: c.Change.Service, Scheduler: c.Change.Scheduler, Flags: c.Change.Flags})
		case lvs.AddServer:
			last := &table[len(table)-1]
			last.RealServers = append(last.RealServers, lvs.RealServerStatus{RealServer: c.Change.RealServer})
		}
	}
}

func TestRestore(t *testing.T) {
	const a, b = "-A -t 192.0.2.1:80", "-A -t 192.0.2.2:80"
	try := "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
	for _, c := range []struct {
		script   string
		services int
		messages []string
		exit     int
	}{
		{"", 0, nil, 0},
		{a + "\n\n  \n\tipvsadm " + b, 2, nil, 0},
		{"ipvsadm\n" + a + "\r\n", 1, nil, 0},
		{a + " ipvsadm\n", 1, nil, 0},
		{"# x\n" + a, 0, []string{try}, 255},
		{"# " + a, 0, []string{"unexpected argument #"}, 2},
		{a + " # x\n" + b, 0, []string{"unexpected argument #"}, 2},
		{a + "\n-R\n" + b, 1, []string{try}, 255},
		{"-A --bogus\n" + a, 1, []string{"--bogus: unknown option"}, 0},
		{a + "\n-A --bogus\n", 1, []string{"--bogus: unknown option"}, 255},
		{"-A -s\n" + a, 1, []string{"-s: missing argument"}, 0},
		{"-A -t \"192.0.2.1:80\"\n" + a, 0, []string{"illegal virtual server address[:port] specified"}, 2},
		{a + " -p\n" + b, 1, []string{"lvx: persistence (-p) is not in this version"}, 0},
		{a + "\n-C --dry-run\n" + b, 1, []string{"'dry-run' is an option of the whole restore: ipvsadm -R --dry-run"}, 2},
		{a + "\v-s rr", 0, []string{"illegal virtual server address[:port] specified"}, 2},
		{a + "\x00 -s rr", 1, nil, 0},
	} {
		table, messages, exit := replay(t, c.script)
		if len(table) != c.services || exit != c.exit || !cmp.Equal(messages, c.messages) {
			t.Errorf("%q: %d services, %q, exit %d", c.script, len(table), messages, exit)
		}
	}
}

func TestRestoreBoundsLines(t *testing.T) {
	_, err := NewScript(strings.NewReader(strings.Repeat("x", 2*maxRule)), Names{}).Next()
	if wrong := (*Error)(nil); err == nil || errors.Is(err, io.EOF) || errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
}

func drawAddress(t *rapid.T, v4 bool, port uint16) netip.AddrPort {
	bytes := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
	if a := netip.AddrFrom4([4]byte(bytes)); v4 {
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(bytes)), port)
}

func drawFlags(t *rapid.T, s lvs.Scheduler) lvs.SchedulerFlags {
	names := rapid.SliceOf(rapid.SampledFrom([]string{"flag-1", "flag-2", "flag-3"})).Draw(t, "flags")
	flags, err := lvs.ParseSchedulerFlags(s, names)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// drawServer draws a real server for a service of a family and port, as its method lets
// it be.
func drawServer(t *rapid.T, v4 bool, port uint16) lvs.RealServer {
	r := lvs.RealServer{
		Method: rapid.SampledFrom(lvs.Methods()).Draw(t, "method"),
		Weight: rapid.Uint32Range(0, lvs.MaxWeight).Draw(t, "weight"),
	}
	if r.Method.MapsPort() {
		port = rapid.Uint16Min(1).Draw(t, "mapped port")
	}
	if r.Method == lvs.Tun {
		v4, r.Tunnel = rapid.Bool().Draw(t, "outer v4"), drawTunnel(t)
	}
	r.Address = drawAddress(t, v4, port)
	return r
}

func drawTunnel(t *rapid.T) lvs.Tunnel {
	kind := rapid.SampledFrom(lvs.TunnelTypes()).Draw(t, "tunnel")
	tunnel := lvs.Tunnel{Type: kind}
	if kind == lvs.GUE {
		tunnel.Port = rapid.Uint16Min(1).Draw(t, "tunnel port")
	}
	if kind != lvs.IPIP {
		tunnel.Checksum = rapid.SampledFrom([]lvs.TunnelChecksum{lvs.NoChecksum, lvs.HeaderChecksum}).Draw(t, "checksum")
	}
	return tunnel
}

// TestSaveAndRestore: any table comes back from its save as it was, sorted.
func TestSaveAndRestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []lvs.ServiceStatus
		for range rapid.IntRange(0, 5).Draw(t, "services") {
			v4, port := rapid.Bool().Draw(t, "v4"), rapid.Uint16Min(1).Draw(t, "port")
			s := lvs.ServiceStatus{
				ServiceKey: lvs.ServiceKey{Protocol: rapid.SampledFrom([]lvs.Protocol{lvs.TCP, lvs.UDP}).Draw(t, "protocol"), Address: drawAddress(t, v4, port)},
				Scheduler:  rapid.SampledFrom(lvs.Schedulers()).Draw(t, "scheduler"),
			}
			s.Flags = drawFlags(t, s.Scheduler)
			for range rapid.IntRange(0, 5).Draw(t, "servers") {
				s.RealServers = append(s.RealServers, lvs.RealServerStatus{RealServer: drawServer(t, v4, port)})
			}
			want = append(want, s)
		}
		var rules strings.Builder
		if err := (List{Numeric: true}).PrintRules(&rules, want, Names{}); err != nil {
			t.Fatal(err)
		}
		got, messages, _ := replay(t, rules.String())
		same := []cmp.Option{cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(List{}.order(want), got, same...); diff != "" || messages != nil {
			t.Fatalf("%s%q\n%s", rules.String(), messages, diff)
		}
		var again strings.Builder
		if err := (List{Numeric: true}).PrintRules(&again, got, Names{}); err != nil || again.String() != rules.String() {
			t.Fatalf("saved %q, then %q, %v", rules.String(), again.String(), err)
		}
	})
}

// FuzzParse: whatever comes, no panic; and a rule that is understood is saved as
// a line that means the same.
func FuzzParse(f *testing.F) {
	f.Add("-A\n-t\n192.0.2.1:80\n-s\nrr")
	f.Add("-a\n-t\n[2001:db8::1]:80\n-r\n[2001:db8::2]:80\n-w5")
	f.Add("-a\n-t\n[2001:db8::1]:80\n-r\n[2001:db8::2]:8080\n-m")
	f.Add("-e\n-t\n[2001:db8::1]:80\n-i\n-r\n192.0.2.1\n--tun-type\ngue\n--tun-port=6080\n--tun-csum")
	f.Add("--set\n1\n2\n3")
	f.Add("-E\n-u\n192.0.2.1:53\n-b\nflag-3,mh-port\n-s\nmh\n--dry-run")
	f.Add("-Lcn\n--tcp-service=1:2\n-b\nsh-port,,x\n-p=5\n--mcast-group\nff02::1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.Split(text, "\n"), sample)
		if err != nil {
			if wrong := (*Error)(nil); !errors.As(err, &wrong) || wrong.Exit == 0 || wrong.Message == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		rule, ok := asRule(c.Change)
		if c.Action != Change || !ok {
			return
		}
		var rules strings.Builder
		if err := (List{Numeric: true}).PrintRules(&rules, []lvs.ServiceStatus{rule}, Names{}); err != nil {
			t.Fatal(err)
		}
		got, messages, _ := replay(t, rules.String())
		if len(got) != 1 || !cmp.Equal(got[0], rule, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()) {
			t.Fatalf("%+v\n%s%q", rule, rules.String(), messages)
		}
	})
}

// asRule returns the table of one service that a change speaks of, if a save
// can hold it.
func asRule(c lvs.Change) (lvs.ServiceStatus, bool) {
	s := lvs.ServiceStatus{ServiceKey: c.Service, Scheduler: c.Scheduler, Flags: c.Flags}
	switch c.Operation {
	case lvs.AddService, lvs.EditService:
		for _, known := range lvs.Schedulers() {
			if c.Scheduler == known {
				return s, true
			}
		}
	case lvs.AddServer, lvs.EditServer:
		s.Scheduler = lvs.RR
		s.RealServers = []lvs.RealServerStatus{{RealServer: c.RealServer}}
		return s, c.Service.Address.Port() != 0 // port 0 needs -p
	}
	return s, false
}

// FuzzRestore: any text ends, without a panic.
func FuzzRestore(f *testing.F) {
	f.Add("-A -t 192.0.2.1:80\nipvsadm -a -t 192.0.2.1:80 -r 192.0.2.2\n# x\n")
	f.Add("-C\r\n-S\x00\n\n-R")
	f.Fuzz(func(t *testing.T, text string) {
		lines := 0
		for script := NewScript(strings.NewReader(text), Names{}); ; lines++ {
			_, err := script.Next()
			if wrong := (*Error)(nil); err != nil && !errors.As(err, &wrong) {
				break
			}
		}
		if lines > strings.Count(text, "\n")+1 {
			t.Fatalf("%d commands", lines)
		}
	})
}
