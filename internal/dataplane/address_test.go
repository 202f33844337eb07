// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"lvx/internal/lvs"
)

// What packets find with one look is repaired as what they look up.
func TestRepairGlances(t *testing.T) {
	r := newRig(t)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	place := r.vipPlace(asVIP(key.Address.Addr()))
	for what, damage := range map[string]func() error{
		fmt.Sprintf("place %d was changed in the map vips", place): func() error {
			return r.objects.Vips.Put(place, uint64(bpfGlanceVIP_NONE))
		},
		fmt.Sprintf("place %d was changed in the map vips", place+1): func() error {
			return r.objects.Vips.Put(place+1, uint64(77))
		},
		"the program was changed in the map again": func() error {
			return r.objects.Again.Delete(uint32(0))
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if repaired, err := r.Repair(); err != nil || !slices.Equal(repaired, []string{what}) {
			t.Errorf("repaired %q %v, want %q", repaired, err, what)
		}
	}
	if verdict, _ := r.send(frame{}.bytes(t)); verdict != xdpTX {
		t.Errorf("after all: verdict %d", verdict)
	}
}

// VIPs that share a place are all found, and what is left of them when others go.
func TestVIPsOfOnePlace(t *testing.T) {
	r := newRig(t)
	first := netip.MustParseAddr("198.51.100.1")
	same := []netip.Addr{first}
	for a := first.Next(); len(same) < 3; a = a.Next() {
		if r.vipPlace(asVIP(a)) == r.vipPlace(asVIP(first)) {
			same = append(same, a)
		}
	}
	stranger := same[2]
	sends := func(want map[netip.Addr]uint32) {
		t.Helper()
		for vip, verdict := range want {
			if got, _ := r.send(frame{vip: vip.String() + ":80"}.bytes(t)); got != verdict {
				t.Errorf("%s: verdict %d, want %d; reasons %v", vip, got, verdict, r.reasons())
			}
		}
	}
	var keys []lvs.ServiceKey
	for _, vip := range same[:2] {
		keys = append(keys, r.service("tcp "+vip.String()+":80", lvs.RR, server("10.0.0.1:80", 1)))
	}
	sends(map[netip.Addr]uint32{same[0]: xdpTX, same[1]: xdpTX, stranger: xdpPass})
	r.reopen(r.options)
	r.hop(netip.MustParseAddr("10.0.0.1"), path{state: bpfHopStateHOP_READY, mac: serverMAC, ifindex: inIfindex, vlan: uint16(bpfHopStateVLAN_KEEP), mtu: 9000})
	sends(map[netip.Addr]uint32{same[0]: xdpTX, same[1]: xdpTX, stranger: xdpPass})
	if _, err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(keys[0]); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	sends(map[netip.Addr]uint32{same[0]: xdpPass, same[1]: xdpTX, stranger: xdpPass})
	if repaired, err := r.Repair(); len(repaired) > 0 || err != nil {
		t.Errorf("repaired %q %v", repaired, err)
	}
}

// Maps of which a start that was killed made only one are not used together.
func TestMapsOfTwoSizes(t *testing.T) {
	r := newRig(t)
	r.Close()
	if err := r.objects.Connections6.Unpin(); err != nil {
		t.Fatal(err)
	}
	o := r.options
	o.Connections = 64
	plane, err := r.right.Open(o)
	if err == nil {
		plane.Close()
		t.Error("opened")
	}
	r.reopen(r.options)
}

// A service that gets the id of another whose connections had no room is not as that one was.
func TestStatelessIsNotInherited(t *testing.T) {
	r := newRig(t)
	r.again(tinyTables)
	key := r.service("tcp 198.51.100.1:80", lvs.RR, server("10.0.0.1:80", 1))
	for i := range 40 {
		for _, flags := range []string{"S", "A"} {
			r.send(frame{client: fmt.Sprintf("192.0.2.%d:1000", i), flags: flags}.bytes(t))
		}
	}
	stray := func(vip string) uint32 {
		verdict, _ := r.send(frame{client: "203.0.113.1:1", vip: vip, flags: "A"}.bytes(t))
		return verdict
	}
	if verdict := stray("198.51.100.1:80"); verdict != xdpTX {
		t.Fatalf("verdict %d, reasons %v", verdict, r.reasons())
	}
	if _, err := r.Plane.sweep(bpfSweep{NowNs: uint64(r.now), Sets: r.sets(), All: 1}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(key); err != nil {
		t.Fatal(err)
	}
	r.reclaim()
	r.service("tcp 198.51.100.2:80", lvs.RR, server("10.0.0.1:80", 1))
	if verdict := stray("198.51.100.2:80"); verdict != xdpPass {
		t.Errorf("verdict %d, reasons %v", verdict, r.reasons())
	}
}
