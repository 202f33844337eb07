// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lvx/internal/ipvsadm"
	"lvx/internal/lvs"
)

func TestNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("# names\nhttp 80/tcp www # web\ndomain 53/udp\nhttp-too 80/tcp\nodd\nbad x/tcp\nother 9/ddp\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := newNames()
	n.file = file
	for name, port := range map[string]uint16{"http": 80, "www": 80, "http-too": 80, "HTTP": 0, "domain": 0, "other": 0, "": 0} {
		if got, ok := n.port(lvs.TCP, name); got != port || ok != (port != 0) {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
	if name, ok := n.portName(lvs.TCP, 80); name != "http" || !ok {
		t.Errorf("got %q, %v", name, ok)
	}
	if name, ok := n.portName(lvs.UDP, 80); ok {
		t.Errorf("got %q", name)
	}
}

// slow is a resolver that answers each question after a while, or not at all, and
// counts them.
type slow struct {
	answers time.Duration // 0: never
	calls   int
}

func (s *slow) lookupAddr(ctx context.Context, address string) ([]string, error) {
	s.calls++
	if s.answers == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(s.answers):
		return []string{"host-" + address + ".example.net."}, nil
	}
}

func (s *slow) names(t *testing.T) *names {
	t.Helper()
	n := newNames()
	n.file = filepath.Join(t.TempDir(), "none")
	n.lookupAddr = s.lookupAddr
	return n
}

// manyServers is a service with so many real servers, each at an address of its own.
func manyServers(count int) []lvs.ServiceStatus {
	s := lvs.ServiceStatus{ServiceKey: lvs.ServiceKey{Protocol: lvs.TCP, Address: netip.MustParseAddrPort("192.0.2.1:80")}, Scheduler: lvs.RR}
	for i := range count {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		s.RealServers = append(s.RealServers, lvs.RealServerStatus{RealServer: lvs.RealServer{Address: address, Method: lvs.DR}})
	}
	return []lvs.ServiceStatus{s}
}

// took returns how long f takes on the bubble's clock.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func TestListingWithADeadNameServer(t *testing.T) {
	for name, c := range map[string]struct {
		resolver slow
		named    int // real servers that are listed by name
		calls    int
	}{
		"never answers":         {slow{}, 0, 1},
		"answers after 110 ms":  {slow{answers: 110 * time.Millisecond}, 17, 19}, // one for the VIP; the last comes too late
		"answers after an hour": {slow{answers: time.Hour}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out strings.Builder
				n := c.resolver.names(t)
				elapsed := took(func() {
					if err := (ipvsadm.List{}).PrintServices(&out, manyServers(1000), n.functions()); err != nil {
						t.Fatal(err)
					}
				})
				lines, named := strings.Count(out.String(), "  -> 10.0."), strings.Count(out.String(), "  -> host-10.0.")
				if elapsed > nameBudget || lines != 1000-c.named || named != c.named || c.resolver.calls != c.calls {
					t.Errorf("%s for %d lines with numbers and %d with names, %d questions", elapsed, lines, named, c.resolver.calls)
				}
			})
		})
	}
}

// TestConnectionsWithADeadNameServer: as many clients as connections, so that
// remembering them does not help.
func TestConnectionsWithADeadNameServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolver := slow{}
		n := resolver.names(t).functions()
		elapsed := took(func() {
			for i := range 100_000 {
				if err := (ipvsadm.List{}).PrintConnection(io.Discard, connection(i), n); err != nil {
					t.Fatal(err)
				}
			}
		})
		if elapsed > nameBudget || resolver.calls != 1 {
			t.Errorf("%s, %d questions", elapsed, resolver.calls)
		}
	})
}

// TestNameServerThatHangs asks Go's own resolver, with a name server that takes a
// question and says nothing.
func TestNameServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			return ours, nil
		}}
		n := newNames()
		n.lookupAddr = resolver.LookupAddr
		elapsed := took(func() {
			for i := range 1000 {
				if name, ok := n.hostName(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})); ok {
					t.Errorf("got %q", name)
				}
			}
		})
		if elapsed > nameBudget+time.Millisecond {
			t.Errorf("it takes %s", elapsed)
		}
	})
}

// TestNumericAsksNobody: -n is for when the name server is what is broken.
func TestNumericAsksNobody(t *testing.T) {
	n := newNames()
	n.lookupAddr = func(_ context.Context, address string) ([]string, error) {
		t.Errorf("it asks for %s", address)
		return nil, nil
	}
	n.lookupHost = func(_ context.Context, name string) ([]netip.Addr, error) {
		t.Errorf("it asks for %s", name)
		return nil, nil
	}
	list := ipvsadm.List{Numeric: true}
	for _, err := range []error{
		list.PrintServices(io.Discard, manyServers(3), n.functions()),
		list.PrintRules(io.Discard, manyServers(3), n.functions()),
		list.PrintConnection(io.Discard, connection(1), n.functions()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestNamesAreAskedOnce(t *testing.T) {
	asked := map[string]int{}
	n := newNames()
	n.lookupAddr = func(_ context.Context, address string) ([]string, error) {
		asked[address]++
		if address == "192.0.2.1" {
			return []string{"www.example.net."}, nil
		}
		return nil, fmt.Errorf("%s has no name", address)
	}
	n.lookupHost = func(_ context.Context, name string) ([]netip.Addr, error) {
		asked[name]++
		return map[string][]netip.Addr{
			"www":  {netip.MustParseAddr("::ffff:192.0.2.1")},
			"www6": {netip.MustParseAddr("2001:db8::1")},
		}[name], nil
	}
	www := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		for address, want := range map[netip.Addr]string{www: "www.example.net", netip.MustParseAddr("192.0.2.2"): ""} {
			if name, ok := n.hostName(address); name != want || ok != (want != "") {
				t.Errorf("%s: %q, %v", address, name, ok)
			}
		}
		for name, want := range map[string]netip.Addr{"www": www, "www6": {}, "nobody": {}} {
			if address, ok := n.host(name); address != want || ok != want.IsValid() {
				t.Errorf("%s: %s, %v", name, address, ok)
			}
		}
	}
	for name, times := range asked {
		if times != 1 {
			t.Errorf("%s: %d questions", name, times)
		}
	}
}
