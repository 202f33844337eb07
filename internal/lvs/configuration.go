// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"slices"
	"time"
)

// Configuration is all that a file says: what `lvx apply` makes the director be.
type Configuration struct {
	Settings Settings `json:"settings,omitzero"`
	// Timeouts that are 0 are the kernel's defaults.
	Timeouts Timeouts `json:"timeouts,omitzero"`
	// Services in the order of the file, each with its real servers in scheduling order.
	Services []Service `json:"services"`
}

// Settings are read when the director starts: a change of them waits for the next start.
type Settings struct {
	Interfaces []string `json:"interfaces,omitempty"` // none is all Ethernet interfaces
	XDP        string   `json:"xdp,omitempty"`        // "auto" (also ""), "native" or "generic"
	Capacity   Capacity `json:"capacity,omitzero"`
	// MHTable is the size of mh's lookup tables, a prime; 0 is 65537.
	MHTable uint32        `json:"mh_table,omitempty"`
	API     APISettings   `json:"api,omitzero"`
	Metrics MetricsListen `json:"metrics,omitzero"`
}

// How much the tables hold if nobody says, and at most; and mh's table.
const (
	DefaultConnections = 1_000_000 // of each of IPv4 and IPv6: 96 MB
	MaxConnections     = 1 << 26   // 6.4 GB
	DefaultServices    = 4096
	MaxServices        = 1 << 20
	DefaultRealServers = 16384
	MaxRealServers     = 1 << 20 // a connection has 20 bits for its real server
	DefaultMHTable     = 65537   // as in the Maglev paper (NSDI'16)
)

// Capacity is how much the tables hold. 0 is the default.
type Capacity struct {
	// Connections of IPv4, and as many of IPv6: 32 and 64 bytes each, used or not.
	Connections uint32 `json:"connections,omitempty"`
	Services    uint32 `json:"services,omitempty"`
	RealServers uint32 `json:"real_servers,omitempty"`
}

// APISettings open the API on TCP, with certificates on both sides.
type APISettings struct {
	Listen string      `json:"listen,omitempty"` // ADDRESS:PORT; "" is the unix socket alone
	TLS    TLSSettings `json:"tls,omitzero"`
}

// TLSSettings name PEM files.
type TLSSettings struct {
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
	ClientCA string `json:"client_ca,omitempty"` // who signs the clients' certificates
}

// MetricsListen serves metrics for Prometheus over HTTP.
type MetricsListen struct {
	Listen string `json:"listen,omitempty"` // ADDRESS:PORT; "" is the unix socket alone
	// NodeIPVS adds the series of node_exporter's ipvs collector, under its names.
	NodeIPVS bool `json:"node_ipvs,omitempty"`
}

// Equal tells whether two settings ask for the same.
func (s Settings) Equal(o Settings) bool {
	return slices.Equal(s.Interfaces, o.Interfaces) && s.XDP == o.XDP && s.Capacity == o.Capacity &&
		s.MHTable == o.MHTable && s.API == o.API && s.Metrics == o.Metrics
}

// Clone returns a copy that shares nothing with c.
func (c Configuration) Clone() Configuration {
	c.Settings.Interfaces = slices.Clone(c.Settings.Interfaces)
	c.Services = slices.Clone(c.Services)
	for i, s := range c.Services {
		c.Services[i] = s.Clone()
	}
	return c
}

// Validate tells what is wrong with the first thing that cannot be, or returns nil.
func (c *Configuration) Validate() error {
	if err := c.Timeouts.Validate(); err != nil {
		return err
	}
	seen := make(map[ServiceKey]bool, len(c.Services))
	names := map[string]ServiceKey{}
	for i := range c.Services {
		s := &c.Services[i]
		if err := s.Validate(); err != nil {
			return err
		}
		if seen[s.ServiceKey] {
			return fmt.Errorf("service %s: %w", s.ServiceKey, ErrServiceExists)
		}
		seen[s.ServiceKey] = true
		if other, twice := names[s.Name]; twice && s.Name != "" {
			return fmt.Errorf("service %s: the name %q is that of %s: %w", s.ServiceKey, s.Name, other, ErrInvalid)
		}
		names[s.Name] = s.ServiceKey
	}
	return nil
}

// Revision is a configuration that was applied, to go back to.
type Revision struct {
	Number uint64 `json:"revision"` // counts up, from 1
	// Back is the revision that it replaced, to which a rollback goes; 0 for none.
	Back          uint64        `json:"back,omitempty"`
	Generation    uint64        `json:"generation"`
	Time          time.Time     `json:"time"`
	Who           string        `json:"who"`
	What          string        `json:"what"` // for instance "apply /etc/lvx/lvx.yaml"
	Configuration Configuration `json:"configuration"`
}

// Unconfirmed is a revision that goes away by itself unless it is confirmed.
type Unconfirmed struct {
	Deadline time.Time `json:"deadline"`
	Revision uint64    `json:"revision"` // the one that waits
	Back     uint64    `json:"back"`     // the one that is gone back to
	// Within is how long it waits in all: after a restart the deadline is no further
	// away, whatever became of the clock.
	Within Duration `json:"within_seconds"`
}

// Durable is what has to be known of the director after a restart of the daemon.
type Durable struct {
	Generation  uint64       `json:"generation"`
	Unconfirmed *Unconfirmed `json:"unconfirmed,omitempty"`
	// Revision is the one that was applied or gone back to last; 0 for none.
	Revision uint64 `json:"revision,omitempty"`
	// Changed tells that changes were made one by one since.
	Changed bool `json:"changed,omitempty"`
	// Settled tells that the tables were filled since they were last empty: only then
	// are they what they should be, and not what a start left that did not end.
	Settled bool `json:"settled,omitempty"`
	// File and Applied are the digests of the file that the daemon itself read last,
	// and of what anybody applied last, so that a restart does not apply either over
	// later changes.
	File    string `json:"file,omitempty"`
	Applied string `json:"applied,omitempty"`
	// Settings of the configuration that was applied last.
	Settings Settings `json:"settings,omitzero"`
	// Before is set if the process ended in the middle of a change: what to go
	// back to. Its number is that of the last revision that was kept before.
	Before *Revision `json:"-"`
}
