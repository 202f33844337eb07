// SPDX-License-Identifier: Apache-2.0

package lvs

import "net/netip"

// Counts are the connections that a real server has at one moment.
type Counts struct {
	Active   uint32 `json:"active"`
	Inactive uint32 `json:"inactive"`
}

// Add returns the sum.
func (c Counts) Add(o Counts) Counts {
	return Counts{Active: c.Active + o.Active, Inactive: c.Inactive + o.Inactive}
}

// Stats are counted from a service's creation, or from its last Zero. Packets
// and bytes are those forwarded; bytes are of the IP packet, without the
// Ethernet header, as kernel IPVS counts. With dr and tun nothing comes back
// through the director, so the out fields stay 0.
type Stats struct {
	Connections uint64 `json:"connections"`
	InPackets   uint64 `json:"in_packets"`
	OutPackets  uint64 `json:"out_packets"`
	InBytes     uint64 `json:"in_bytes"`
	OutBytes    uint64 `json:"out_bytes"`
}

// Rates are Stats by time, as averages over some seconds: every two seconds an
// average moves a quarter of the way to what was counted since, as in the kernel
// (net/netfilter/ipvs/ip_vs_est.c).
type Rates struct {
	Connections float64 `json:"connections_per_second"`
	InPackets   float64 `json:"in_packets_per_second"`
	OutPackets  float64 `json:"out_packets_per_second"`
	InBytes     float64 `json:"in_bytes_per_second"`
	OutBytes    float64 `json:"out_bytes_per_second"`
}

// ServiceStatus is a service as the data plane has it now.
type ServiceStatus struct {
	ServiceKey
	Name        string             `json:"name,omitempty"`
	Scheduler   Scheduler          `json:"scheduler"`
	Flags       SchedulerFlags     `json:"scheduler_flags"`
	Stats       Stats              `json:"stats"`
	Rates       Rates              `json:"rates"`
	RealServers []RealServerStatus `json:"real_servers"` // in scheduling order
}

// RealServerStatus is a real server as the data plane has it now.
type RealServerStatus struct {
	RealServer
	Counts  Counts  `json:"connections"`
	Stats   Stats   `json:"stats"`
	Rates   Rates   `json:"rates"`
	NextHop NextHop `json:"next_hop"`
}

// NextHopState tells whether frames can be sent to a real server.
type NextHopState string

// The states of a next hop.
const (
	NextHopReady      NextHopState = "ready"      // the MAC address is known
	NextHopUnresolved NextHopState = "unresolved" // it does not answer ARP or neighbour solicitation
	NextHopOffLink    NextHopState = "off-link"   // behind a router: dr cannot reach it
	NextHopNoRoute    NextHopState = "no-route"   // the director has no route to it
	NextHopLocal      NextHopState = "local"      // the director itself
)

// Neighbour is a next hop with the real servers behind it.
type Neighbour struct {
	Address netip.Addr `json:"address"`
	NextHop
	MTU         uint16 `json:"mtu,omitempty"` // of an IP packet, in bytes
	RealServers int    `json:"real_servers"`  // how many stand at this address
}

// NextHop is where frames for a real server go.
type NextHop struct {
	State     NextHopState `json:"state"`
	Interface string       `json:"interface,omitempty"`
	MAC       string       `json:"mac,omitempty"`
	VLAN      uint16       `json:"vlan,omitempty"` // 802.1Q tag of the outgoing frame, 0 for none
}

// Reaches tells whether packets of this method find the real server there. What is
// off-link is so for dr alone.
func (n NextHop) Reaches(m Method) bool {
	return n.State == NextHopReady || n.State == NextHopLocal || n.State == NextHopOffLink && m != DR
}

// Verdict is what became of a packet.
type Verdict string

// The verdicts.
const (
	Forwarded Verdict = "forwarded" // sent to a real server
	Passed    Verdict = "passed"    // left to the kernel, untouched
	Dropped   Verdict = "dropped"
)

// Reason is why packets left the data plane as they did, and how many.
type Reason struct {
	Name    string  `json:"reason"` // for instance "NO_NEIGHBOUR"
	Verdict Verdict `json:"verdict"`
	Packets uint64  `json:"packets"`
	Help    string  `json:"help"` // one sentence: what it means and what to do
}
