// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// A real server of each method, with what the method lets it be and what not.
func TestValidateRealServer(t *testing.T) {
	ipip, gue := Tunnel{Type: IPIP}, Tunnel{Type: GUE, Port: 6080}
	four, six := "192.0.2.1:80", "[2001:db8::1]:80"
	for _, c := range []struct {
		name, vip, rip string
		method         Method
		tunnel         Tunnel
		kind           error // nil: it can be
		text           string
	}{
		{"dr", four, "10.0.0.1:80", DR, Tunnel{}, nil, ""},
		{"dr, another port", four, "10.0.0.1:81", DR, Tunnel{}, ErrInvalid, "dr cannot change the port (the service has 80)"},
		{"dr, another family", four, "[2001:db8::2]:80", DR, Tunnel{}, ErrInvalid, "dr cannot change the address family"},
		{"dr, a tunnel", four, "10.0.0.1:80", DR, ipip, ErrInvalid, "a tunnel is for the method tun, not for dr"},
		{"nat", four, "10.0.0.1:80", NAT, Tunnel{}, nil, ""},
		{"nat, another port", six, "[2001:db8::2]:65535", NAT, Tunnel{}, nil, ""},
		{"nat, port 0", four, "10.0.0.1:0", NAT, Tunnel{}, ErrInvalid, "needs a port"},
		{"nat, another family", four, "[2001:db8::2]:80", NAT, Tunnel{}, ErrInvalid, "nat cannot change the address family"},
		{"nat, a tunnel", four, "10.0.0.1:80", NAT, gue, ErrInvalid, "not for nat"},
		{"tun", four, "10.0.0.1:80", Tun, ipip, nil, ""},
		{"tun, 4 in 6", four, "[2001:db8::2]:80", Tun, gue, nil, ""},
		{"tun, 6 in 4", six, "10.0.0.1:80", Tun, Tunnel{Type: GRE, Checksum: HeaderChecksum}, nil, ""},
		{"tun, mapped", four, "[::ffff:10.0.0.1]:80", Tun, ipip, ErrInvalid, "plain unicast"},
		{"tun, another port", four, "10.0.0.1:81", Tun, ipip, ErrInvalid, "tun cannot change the port"},
		{"tun, no tunnel", four, "10.0.0.1:80", Tun, Tunnel{}, ErrInvalid, `tunnel type "" is not one of ipip, gue, gre`},
		{"fullnat", four, "10.0.0.1:80", FullNAT, Tunnel{}, ErrUnsupported, "method fullnat"},
		{"local", four, "10.0.0.1:80", Local, Tunnel{}, ErrUnsupported, "method local"},
		{"no method", four, "10.0.0.1:80", "", Tunnel{}, ErrInvalid, `method "" is not one of dr, nat, tun`},
	} {
		s := Service{ServiceKey: ServiceKey{TCP, netip.MustParseAddrPort(c.vip)}, Scheduler: WLC}
		err := s.ValidateRealServer(RealServer{Address: netip.MustParseAddrPort(c.rip), Method: c.method, Tunnel: c.tunnel})
		if !errors.Is(err, c.kind) || (err != nil && !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v, want %v about %q", c.name, err, c.kind, c.text)
		}
	}
}

func TestValidateTunnel(t *testing.T) {
	for _, c := range []struct {
		tunnel Tunnel
		kind   error
		said   string // of a sound one its String, else what the error is about
	}{
		{Tunnel{Type: IPIP}, nil, "ipip"},
		{Tunnel{Type: GUE, Port: 6080}, nil, "gue 6080"},
		{Tunnel{Type: GUE, Port: 1, Checksum: HeaderChecksum}, nil, "gue 1 csum"},
		{Tunnel{Type: GRE}, nil, "gre"},
		{Tunnel{Type: GRE, Checksum: HeaderChecksum}, nil, "gre csum"},
		{Tunnel{Type: "vxlan"}, ErrInvalid, `type "vxlan"`},
		{Tunnel{Type: GUE}, ErrInvalid, "needs a port"},
		{Tunnel{Type: IPIP, Port: 1}, ErrInvalid, "ipip has no port"},
		{Tunnel{Type: GRE, Port: 1}, ErrInvalid, "gre has no port"},
		{Tunnel{Type: IPIP, Checksum: HeaderChecksum}, ErrInvalid, `ipip has no checksum "csum"`},
		{Tunnel{Type: GRE, Checksum: RemoteChecksum}, ErrInvalid, `gre has no checksum "remcsum"`},
		{Tunnel{Type: GUE, Port: 1, Checksum: "crc"}, ErrInvalid, `"crc"`},
		{Tunnel{Type: GUE, Port: 1, Checksum: RemoteChecksum}, ErrUnsupported, "remcsum"},
	} {
		err := c.tunnel.Validate()
		if !errors.Is(err, c.kind) || (err != nil && !strings.Contains(err.Error(), c.said)) {
			t.Errorf("%+v: %v, want %v about %q", c.tunnel, err, c.kind, c.said)
		}
		if err == nil && c.tunnel.String() != c.said {
			t.Errorf("%+v: %q, want %q", c.tunnel, c.tunnel, c.said)
		}
	}
	if text := (Tunnel{}).String(); text != "" {
		t.Errorf("no tunnel is %q", text)
	}
}

// Behind a router a real server is reached by all methods but dr.
func TestReaches(t *testing.T) {
	for state, want := range map[NextHopState][2]bool{ // dr, the others
		NextHopReady: {true, true}, NextHopLocal: {true, true}, NextHopOffLink: {false, true},
		NextHopUnresolved: {}, NextHopNoRoute: {}, "": {},
	} {
		hop := NextHop{State: state}
		if got := [2]bool{hop.Reaches(DR), hop.Reaches(NAT)}; got != want || hop.Reaches(Tun) != want[1] {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}

// A tunnel is in JSON where there is one, and compared with the rest of a real server.
func TestTunnelJSON(t *testing.T) {
	r := RealServer{Address: netip.MustParseAddrPort("10.0.0.1:80"), Method: Tun, Weight: 1, Tunnel: Tunnel{Type: GUE, Port: 6080, Checksum: HeaderChecksum}}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"address":"10.0.0.1:80","method":"tun","weight":1,"tunnel":{"type":"gue","port":6080,"checksum":"csum"}}`; string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var back RealServer
	if err := json.Unmarshal(text, &back); err != nil || back != r {
		t.Errorf("read back %+v, %v", back, err)
	}
	other := r
	other.Tunnel.Port++
	if (Service{RealServers: []RealServer{r}}).Equal(Service{RealServers: []RealServer{other}}) {
		t.Error("another port of the tunnel makes no difference")
	}
}
