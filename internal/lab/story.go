// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"lvx/internal/lvs"
)

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

// tellWalk tells each hop up to the arrival of an answer at the router: in full
// those that show something new, the others in a line.
func (r *DemoResult) tellWalk(out io.Writer) {
	for i, h := range r.Walk {
		fmt.Fprintf(out, "%4d  %s → %s   %s\n", i+1, h.From, h.To, h.Frame)
		if h.Frame == "SYN" || h.Frame == "SYN-ACK" || h.Frame == frameAnswer {
			r.tellHop(out, h)
		}
		if h.Frame == frameAnswer && h.To == Router {
			fmt.Fprintf(out, "      … and %d more to the end of the connection, in the same way\n", len(r.Walk)-i-1)
			return
		}
	}
}

// tellHop tells all headers of a hop and what happened to them.
func (r *DemoResult) tellHop(out io.Writer, h Hop) {
	fmt.Fprintf(out, "      MAC  %s (%s) → %s (%s)\n", h.SourceMAC, h.SourceMACOf, h.DestinationMAC, h.DestinationMACOf)
	if o := h.Outer; o != (Outer{}) {
		fmt.Fprintf(out, "      %-4s %s → %s   TTL %d%s\n", o.Tunnel, o.Source, o.Destination, o.TTL, o.ports())
	}
	fmt.Fprintf(out, "      IP   %s → %s   TTL %d\n", h.Source, h.Destination, h.TTL)
	if r.Method == lvs.DR {
		fmt.Fprintf(out, "      %s\n", h.directRouting())
		return
	}
	if h.before > 0 {
		fmt.Fprintf(out, "      changed: %s\n", strings.Join(h.changes(r.Walk[h.before-1]), ", "))
	}
	comment := h.translation
	if r.Method == lvs.Tun {
		comment = h.tunnelling
	}
	fmt.Fprintf(out, "      %s\n", comment(r.Service))
}

// ports tells the UDP ports of a tunnel that has any.
func (o Outer) ports() string {
	if o.DestinationPort == 0 {
		return ""
	}
	return fmt.Sprintf("   UDP %d → %d", o.SourcePort, o.DestinationPort)
}

// What is said of a hop is said by what was seen of it.

const answersForVIP = "the VIP has the director's MAC address: it alone answers for it on the LAN"

func (h Hop) directRouting() string {
	switch {
	case h.From == Router:
		return answersForVIP
	case h.From == Director && h.reply:
		return "a reply through the director, which direct routing does not have"
	case h.From == Director && h.Same:
		return "the director changed the two MAC addresses; the IP packet is the same, bit for bit"
	case h.From == Director:
		return "the director changed the IP packet, which direct routing does not do"
	}
	return "the real server answers as the VIP, straight to its router; the director never sees it"
}

func (h Hop) translation(service string) string {
	toService, fromService := h.Destination.String() == service, h.Source.String() == service
	switch {
	case h.From == Router:
		return answersForVIP
	case h.From == Director && h.reply && fromService:
		return "the director put the VIP and its port back as the source: the client knows no other address"
	case h.From == Director && h.reply:
		return "the director left the source as it was, which the client does not know"
	case h.From == Director && toService:
		return "the director left the destination as it was, which NAT does not do"
	case h.From == Director:
		return "the director made the real server's address and port the destination; the client's own stay the source"
	case h.To == Director:
		return "the real server answers as itself, by its default gateway, which is the director"
	}
	return "the real server's answer goes past the director, so that nobody puts the VIP back"
}

func (h Hop) tunnelling(service string) string {
	switch tunnelled := h.Outer != (Outer{}); {
	case h.From == Router && !tunnelled:
		return answersForVIP
	case h.From == Router:
		return "the router goes by the outer header alone"
	case h.From == Director && h.reply:
		return "a reply through the director, which tunnelling does not have"
	case h.From == Director && !tunnelled:
		return "the director sends the packet without a tunnel"
	case h.From == Director && h.Same:
		return "the director put the packet, the same bit for bit, into one to the real server"
	case h.From == Director:
		return "the director put the packet into one to the real server"
	case h.Source.String() == service && h.To == Router:
		return "the real server took the packet out and answers as the VIP, straight to its router; the director never sees it"
	}
	return "the real server's answer is not the VIP's, or does not go straight to its router"
}

func (r *DemoResult) tellProof(out io.Writer) {
	fmt.Fprint(out, "\nProof\n\n")
	line := func(what, format string, a ...any) {
		fmt.Fprintf(out, "   %-36s %s\n", what, fmt.Sprintf(format, a...))
	}
	switch r.Method {
	case lvs.NAT:
		line("replies that real servers sent", "%d", r.RepliesFromRealServers)
		line("replies that left the director", "%d, with the VIP as source", r.RepliesThroughDirector)
		line("replies that reached the router", "%d with the VIP as source, %d with another", r.RepliesToRouter, r.RepliesUntranslated)
	default:
		if r.Method == lvs.Tun {
			line("requests that left in a tunnel", "%d", r.RequestsTunnelled)
		}
		line("replies that passed the director", "%d", r.RepliesThroughDirector)
		line("replies straight to the router", "%d", r.RepliesToRouter)
	}
	seen := "no"
	if r.ClientAddressSeen {
		seen = "yes"
	}
	line("real servers saw the client's own", "%s (%s)", seen, r.Client)
	line("requests answered", "%d of %d", r.OK, r.Requests)
}
