// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestChangeJSON(t *testing.T) {
	c := Change{
		Operation: AddServer, Service: ServiceKey{TCP, netip.MustParseAddrPort("[2001:db8::1]:80")},
		RealServer: RealServer{Address: netip.MustParseAddrPort("[2001:db8::2]:80"), Method: DR, Weight: 3},
		Timeouts:   Timeouts{TCP: Duration(1500 * time.Millisecond)},
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"operation":"add-server","service":{"protocol":"tcp","address":"[2001:db8::1]:80"},` +
		`"real_server":{"address":"[2001:db8::2]:80","method":"dr","weight":3},"timeouts":{"tcp_seconds":1.5}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var back Change
	if err := json.Unmarshal(text, &back); err != nil || back != c {
		t.Errorf("read back %+v, %v", back, err)
	}
	for _, bad := range []string{
		`{"operation":"edit-server","real_server":{"address":"10.0.0.1:80","method":"dr"}}`,
		`{"operation":"clear","everything":true}`,
	} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	for _, bad := range []string{`{"protocol":"icmp"}`, `{"protocol":6}`} {
		if err := json.Unmarshal([]byte(`{"service":`+bad+`}`), &back); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestValidate(t *testing.T) {
	sound := func() Service {
		return Service{
			ServiceKey: ServiceKey{TCP, netip.MustParseAddrPort("192.0.2.1:80")}, Scheduler: WLC,
			RealServers: []RealServer{
				{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: DR, Weight: 1},
				{Address: netip.MustParseAddrPort("10.0.0.2:80"), Method: DR},
			},
		}
	}
	if s := sound(); s.Validate() != nil {
		t.Fatalf("a sound service is refused: %v", s.Validate())
	}
	for name, c := range map[string]struct {
		spoil func(*Service)
		kind  error
		text  string
	}{
		"sctp":             {func(s *Service) { s.Protocol = SCTP }, ErrUnsupported, "protocol sctp"},
		"port 0":           {func(s *Service) { s.Address = netip.MustParseAddrPort("192.0.2.1:0") }, ErrUnsupported, "port 0"},
		"no address":       {func(s *Service) { s.Address = netip.AddrPort{} }, ErrInvalid, "unicast"},
		"multicast":        {func(s *Service) { s.Address = netip.MustParseAddrPort("224.0.0.1:80") }, ErrInvalid, "unicast"},
		"any address":      {func(s *Service) { s.Address = netip.MustParseAddrPort("0.0.0.0:80") }, ErrInvalid, "unicast"},
		"broadcast":        {func(s *Service) { s.Address = netip.MustParseAddrPort("255.255.255.255:80") }, ErrInvalid, "unicast"},
		"loopback":         {func(s *Service) { s.Address = netip.MustParseAddrPort("127.0.0.1:80") }, ErrInvalid, "loopback"},
		"mapped":           {func(s *Service) { s.Address = netip.MustParseAddrPort("[::ffff:192.0.2.1]:80") }, ErrInvalid, "plain"},
		"a zone":           {func(s *Service) { s.Address = netip.MustParseAddrPort("[fe80::1%eth0]:80") }, ErrInvalid, "plain"},
		"no scheduler":     {func(s *Service) { s.Scheduler = "x" }, ErrNoScheduler, `"x"`},
		"a later one":      {func(s *Service) { s.Scheduler = "dh" }, ErrUnsupported, "dh"},
		"a later method":   {func(s *Service) { s.RealServers[1].Method = FullNAT }, ErrUnsupported, "10.0.0.2:80: method fullnat"},
		"no method":        {func(s *Service) { s.RealServers[1].Method = "masq" }, ErrInvalid, "\"masq\" is not one of dr, nat, tun"},
		"another family":   {func(s *Service) { s.RealServers[0].Address = netip.MustParseAddrPort("[2001:db8::1]:80") }, ErrInvalid, "family"},
		"another port":     {func(s *Service) { s.RealServers[0].Address = netip.MustParseAddrPort("10.0.0.1:81") }, ErrInvalid, "port"},
		"a weight too big": {func(s *Service) { s.RealServers[0].Weight = MaxWeight + 1 }, ErrInvalid, "weight"},
		"twice":            {func(s *Service) { s.RealServers[1] = s.RealServers[0] }, ErrServerExists, "10.0.0.1:80"},
	} {
		s := sound()
		c.spoil(&s)
		if err := s.Validate(); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v about %q", name, err, c.kind, c.text)
		}
	}
}

func TestTimeoutsMerge(t *testing.T) {
	got := Timeouts{TCPFin: Duration(time.Second)}.Merge(DefaultTimeouts())
	want := Timeouts{TCP: Duration(900 * time.Second), TCPFin: Duration(time.Second), UDP: Duration(300 * time.Second)}
	if got != want {
		t.Errorf("%+v", got)
	}
	for _, bad := range []Duration{-1, Duration(MaxTimeout + 1)} {
		if err := (Timeouts{UDP: bad}).Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", time.Duration(bad), err)
		}
	}
}
