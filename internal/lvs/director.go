// SPDX-License-Identifier: Apache-2.0

package lvs

import "time"

// Status is a director at a glance.
type Status struct {
	Version  string    `json:"version"`
	Instance string    `json:"instance"`
	Started  time.Time `json:"started"`
	// Generation counts the changes of the tables; see Request.Generation.
	Generation uint64 `json:"generation"`
	// Revision is the one that was applied or gone back to last, 0 for none.
	Revision uint64 `json:"revision"`
	// Changed tells that changes were made one by one since, which are not in it.
	Changed bool `json:"changed"`
	// Unconfirmed is set while an apply waits to be confirmed.
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`
	Interfaces  []Interface  `json:"interfaces"`
	// Connections: Used are those of both families; Capacity is that of each of IPv4
	// and IPv6, which have tables of their own.
	Connections Usage     `json:"connections"`
	Services    Usage     `json:"services"`
	RealServers Usage     `json:"real_servers"`
	Timeouts    Timeouts  `json:"timeouts"`
	Packets     Packets   `json:"packets"`
	Warnings    []Warning `json:"warnings"`
}

// XDPMode is where in the network stack the data plane's program runs.
type XDPMode string

// The XDP modes.
const (
	XDPNative  XDPMode = "native"  // in the driver
	XDPGeneric XDPMode = "generic" // after the driver: any driver, but slower
)

// Interface is a network interface that the data plane is attached to.
type Interface struct {
	Name string  `json:"name"`
	Mode XDPMode `json:"mode"`
	// Why says, in generic mode, why the driver could not do native.
	Why string `json:"why,omitempty"`
	// OffloadsOff are the offloads that lvx turned off, by ethtool's names.
	OffloadsOff []string `json:"offloads_off"`
	// LostAfterVerdict counts what the driver lost of the packets that were
	// forwarded (xdp_tx and redirect errors), where the driver counts it.
	LostAfterVerdict uint64 `json:"lost_after_verdict"`
}

// Usage is how full a table is.
type Usage struct {
	Used     uint64 `json:"used"`
	Capacity uint64 `json:"capacity"`
}

// Packets are all packets seen, by verdict.
type Packets struct {
	Forwarded uint64 `json:"forwarded"`
	Passed    uint64 `json:"passed"`
	Dropped   uint64 `json:"dropped"`
}

// Warning is something that works less well than the operator may think.
type Warning struct {
	Object string `json:"object"` // what it is about, for instance "real server 192.0.2.7:80 of tcp 198.51.100.1:80"
	Text   string `json:"text"`   // what is wrong
	Fix    string `json:"fix"`    // what to do
}
