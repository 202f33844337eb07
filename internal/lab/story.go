// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
)

// Drawing is topology dr as a picture; addresses are of the given family.
func (l *Lab) Drawing(family int) string {
	of := func(pair []netip.Prefix) netip.Addr {
		if family == 6 {
			return pair[1].Addr()
		}
		return pair[0].Addr()
	}
	s := fmt.Sprintf("   %-12s %s\n      |\n   %-12s %s, on the LAN %s\n      |\n   %s\n",
		Client, of(clientIP), Router, of(outsideIP), of(routerIP), Switch)
	s += fmt.Sprintf("      +-- %-9s%-15s VIP %s on eth0: answers ARP and ND for it\n", Director, of(directorIP), VIP(family))
	for _, h := range l.RealServers() {
		s += fmt.Sprintf("      +-- %-9s%-15s VIP %s on lo: accepts it, stays silent\n", h.Name, h.Addr(family), VIP(family))
	}
	return s
}

// Tell writes what a demonstration showed, for people.
func (r *DemoResult) Tell(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "The network\n\n%s\nTyped\n\n", r.Drawing)
	for _, t := range r.Commands {
		fmt.Fprintf(out, "   %-9s # %s\n", t.Host, t.Command)
	}
	fmt.Fprintf(out, "\nOne request, as the switch saw it\n\n")
	r.tellWalk(out)
	fmt.Fprintf(out, "\nWho answered\n\n")
	for _, name := range slices.Sorted(maps.Keys(r.ByRealServer)) {
		fmt.Fprintf(out, "   %-9s %d of %d\n", name, r.ByRealServer[name], r.Requests)
	}
	if r.Failed > 0 {
		fmt.Fprintf(out, "   %-9s %d of %d\n", "nobody", r.Failed, r.Requests)
	}
	for _, e := range r.Errors {
		fmt.Fprintf(out, "             %s\n", e)
	}
	r.tellProof(out)
	return out.Flush() // keeps the first error of all writes
}

// tellWalk tells each hop up to the first with an answer: in full those that
// show something new, the others in a line.
func (r *DemoResult) tellWalk(out io.Writer) {
	for i, h := range r.Walk {
		fmt.Fprintf(out, "%4d  %s → %s   %s\n", i+1, h.From, h.To, h.Frame)
		if h.Frame == "SYN" || h.Frame == "SYN-ACK" || h.Frame == frameAnswer {
			fmt.Fprintf(out, "      MAC  %s (%s) → %s (%s)\n", h.SourceMAC, h.SourceMACOf, h.DestinationMAC, h.DestinationMACOf)
			fmt.Fprintf(out, "      IP   %s → %s   TTL %d\n", h.Source, h.Destination, h.TTL)
			fmt.Fprintf(out, "      %s\n", h.comment())
		}
		if h.Frame == frameAnswer {
			fmt.Fprintf(out, "      … and %d more to the end of the connection, in the same way\n", len(r.Walk)-i-1)
			return
		}
	}
}

// comment says what happened to the frame, by what was seen of it.
func (h Hop) comment() string {
	reply := h.Source.Port() == ServicePort
	switch {
	case h.From == Router:
		return "the VIP has the director's MAC address: it alone answers for it on the LAN"
	case h.From == Director && reply:
		return "a reply through the director, which direct routing does not have"
	case h.From == Director && h.Same:
		return "the director changed the two MAC addresses; the IP packet is the same, bit for bit"
	case h.From == Director:
		return "the director changed the IP packet, which direct routing does not do"
	}
	return "the real server answers as the VIP, straight to its router; the director never sees it"
}

func (r *DemoResult) tellProof(out io.Writer) {
	seen := "no"
	if r.ClientAddressSeen {
		seen = "yes"
	}
	fmt.Fprintf(out, `
Proof

   replies that passed the director     %d
   replies straight to the router       %d
   real servers saw the client's own    %s (%s)
   requests answered                    %d of %d
`, r.RepliesThroughDirector, r.RepliesToRouter, seen, r.Client, r.OK, r.Requests)
}
