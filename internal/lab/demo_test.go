// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lvx/internal/lvs"
)

func TestDemo(t *testing.T) {
	needRoot(t)
	for _, family := range []int{4, 6} {
		l, r, err := Demo(t.Context(), DemoOptions{Family: family, Requests: 40})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if r.OK != 40 || r.Failed != 0 || r.ByRealServer["rs1"]+r.ByRealServer["rs2"] != 40 || r.ByRealServer["rs1"] == 0 || r.ByRealServer["rs2"] == 0 {
			t.Errorf("family %d: %+v", family, r)
		}
		if !r.ClientAddressSeen || r.RepliesThroughDirector != 0 || r.RepliesToRouter < 3*40 { // SYN-ACK, answer, FIN
			t.Errorf("family %d: client seen %t, %d replies through the director, %d to the router",
				family, r.ClientAddressSeen, r.RepliesThroughDirector, r.RepliesToRouter)
		}
		checkWalk(t, r)
		checkEnd(t, r)
		var story strings.Builder
		if err := r.Tell(&story); err != nil {
			t.Error(err)
		}
		for _, line := range []string{"replies that passed the director     0\n", "requests answered                    40 of 40\n", "# ipvsadm -A -t " + r.Service} {
			if !strings.Contains(story.String(), line) {
				t.Errorf("family %d: the story lacks %q:\n%s", family, line, &story)
			}
		}
	}
}

// checkWalk checks every field of the first three hops: SYN to the director,
// SYN to the real server, SYN-ACK straight back.
func checkWalk(t *testing.T, r *DemoResult) {
	t.Helper()
	if len(r.Walk) < 8 {
		t.Fatalf("the walk has %d hops", len(r.Walk))
	}
	client, service := r.Walk[0].Source, netip.MustParseAddrPort(r.Service)
	rs := r.Walk[1].To
	router, director, real := MAC{2, 0, 0, 0, 0x20, 0xfe}, MAC{2, 0, 0, 0, 0x20, 1}, map[string]MAC{"rs1": {2, 0, 0, 0, 0x20, 11}, "rs2": {2, 0, 0, 0, 0x20, 12}}[rs]
	if client.Addr().String() != r.Client {
		t.Errorf("the walk begins at %s, the client is %s", client, r.Client)
	}
	for i, want := range []Hop{
		{Router, Director, "SYN", router, director, Router, Director, Outer{}, client, service, 63, "SYN", 0, false, false, 0},
		{Director, rs, "SYN", director, real, Director, rs, Outer{}, client, service, 63, "SYN", 0, true, false, 1},
		{rs, Router, "SYN-ACK", real, router, rs, Router, Outer{}, service, client, 64, "SYN-ACK", 0, false, true, 0},
	} {
		if r.Walk[i] != want {
			t.Errorf("hop %d:\n got %+v\nwant %+v", i+1, r.Walk[i], want)
		}
	}
}

// checkEnd checks that the walk goes to the end of the connection: both ends
// have closed, and the last frame has arrived.
func checkEnd(t *testing.T, r *DemoResult) {
	t.Helper()
	closed := map[netip.AddrPort]bool{}
	for _, h := range r.Walk {
		if strings.Contains(h.Flags, "FIN") {
			closed[h.Source] = true
		}
	}
	last := r.Walk[len(r.Walk)-1]
	if len(closed) != 2 || last.Flags != "ACK" || last.To == "" || last.To == Director {
		t.Errorf("the walk ends early: FINs from %v, the last frame is %+v", closed, last)
	}
}

// TestDemoWaitsForTheEnd makes the client's line slow: then its last FIN and ACKs
// take some 5 ms each, and the request has been answered long before.
func TestDemoWaitsForTheEnd(t *testing.T) {
	l := build(t, Options{})
	const bytesPerSecond, burst = 12500, 300 // enough for the request
	err := l.Host(Client).Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: eth0.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       bytesPerSecond, Buffer: netlink.Xmittime(bytesPerSecond, burst), Limit: 1 << 16,
		})
	})
	if errors.Is(err, unix.ENOENT) {
		t.Skip("this kernel has no sch_tbf")
	}
	if err != nil {
		t.Fatal(err)
	}
	o := DemoOptions{Requests: 1}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	r, err := l.demonstrate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.OK != 1 || r.RepliesToRouter < 4 { // SYN-ACK, answer, FIN, ACK of the client's FIN
		t.Errorf("%d answers, %d replies to the router", r.OK, r.RepliesToRouter)
	}
	checkEnd(t, r)
}

func TestDemoOptions(t *testing.T) {
	if err := (&DemoOptions{Method: lvs.FullNAT}).Validate(); !errors.Is(err, ErrMethod) {
		t.Errorf("fullnat: %v", err)
	}
	for _, o := range []DemoOptions{
		{Method: "x"}, {Family: 5}, {Requests: -1}, {Requests: 20001}, {Topology: "x"}, {Method: lvs.Tun, Topology: NATOneArm},
	} {
		if err := o.Validate(); err == nil || errors.Is(err, ErrMethod) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for o, want := range map[[2]string]string{
		{"", ""}: DR, {"nat", ""}: NATTwoArm, {"tun", ""}: TunRouted, {"", NATOneArm}: NATOneArm, {"nat", NATOneArm}: NATOneArm,
	} {
		options := DemoOptions{Method: lvs.Method(o[0]), Topology: o[1]}
		for range 2 { // it is asked by the command and by Demo
			if err := options.Validate(); err != nil || options.Topology != want {
				t.Errorf("%q: topology %s, %v", o, options.Topology, err)
			}
		}
	}
}

// TestFailedRequestsAreAResult takes the director away and asks.
func TestFailedRequestsAreAResult(t *testing.T) {
	l := build(t, Options{})
	l.Family = 4
	tally, err := l.Ask(t.Context(), 2)
	if err != nil || tally.Failed != 2 || tally.OK != 0 || len(tally.Errors) != 2 {
		t.Errorf("%+v, %v", tally, err)
	}
	// Who answered nothing is named too.
	if want := map[string]int{"rs1": 0, "rs2": 0}; !maps.Equal(tally.ByRealServer, want) {
		t.Errorf("answers by real server: %v, want %v", tally.ByRealServer, want)
	}
}

func TestStoreKeepsALab(t *testing.T) {
	l := build(t, Options{})
	store := Store(filepath.Join(t.TempDir(), "lab"))
	if _, err := store.Open(); !errors.Is(err, ErrNoLab) {
		t.Fatalf("open without a lab: %v", err)
	}
	release, err := store.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Reserve(); err == nil || !strings.Contains(err.Error(), "at work") {
		t.Errorf("second reservation: %v", err)
	}
	if _, err := l.Deploy(t.Context(), 6); err != nil {
		t.Fatal(err)
	}
	if err := store.Keep(l); err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := store.Reserve(); !errors.Is(err, ErrLabIsUp) {
		t.Errorf("reservation while it is up: %v", err)
	}
	checkFound(t, store, l)
	if err := store.Down(); err != nil {
		t.Fatal(err)
	}
	for _, h := range l.Hosts() {
		if h.Running() {
			t.Errorf("%s is still running", h.Name)
		}
	}
	if release, err = store.Reserve(); err != nil {
		t.Fatal(err)
	}
	release()
}

// checkFound opens the lab as another process would and uses it.
func checkFound(t *testing.T, store Store, built *Lab) {
	t.Helper()
	found, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	if found.Name != DR || found.Family != 6 || len(found.Hosts()) != len(built.Hosts()) {
		t.Errorf("found %+v", found)
	}
	if got := found.Host("rs1").Addr(4); got.String() != "192.168.20.11" {
		t.Errorf("rs1 has %s", got)
	}
	if tally, err := found.Ask(t.Context(), 4); err != nil || tally.OK != 4 {
		t.Errorf("asking in the found lab: %+v, %v", tally, err)
	}
	if p := found.Host(Director).Processes(); len(p) != 1 || p[0] != "lvx director --interface eth0" {
		t.Errorf("the director runs %q", p)
	}
}

func TestStoreForgetsADeadLab(t *testing.T) {
	store := Store(t.TempDir())
	// This process is no holder: it did not start at tick 1.
	text, err := json.Marshal(labRecord{Name: DR, Hosts: []hostRecord{{Name: Client, PID: os.Getpid(), Started: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.write(DR, text); err != nil {
		t.Fatal(err)
	}
	release, err := store.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := store.Open(); !errors.Is(err, ErrNoLab) {
		t.Errorf("the dead lab is still found: %v", err)
	}
}

func TestDeployTellsWhyTheDirectorEnded(t *testing.T) {
	l := build(t, Options{})
	// Without its interface the director cannot start.
	if _, err := l.Host(Director).Run(context.Background(), "sh", "-c", "rm "+binDir+"/lvx; printf '#!/bin/sh\necho no eth0 >&2; exit 1\n' > "+binDir+"/lvx; chmod +x "+binDir+"/lvx"); err != nil {
		t.Fatal(err)
	}
	_, err := l.Deploy(t.Context(), 4)
	if err == nil || !strings.Contains(err.Error(), "no eth0") {
		t.Errorf("deploy with a broken director: %v", err)
	}
}
