// SPDX-License-Identifier: Apache-2.0

package lvs

import (
	"fmt"
	"slices"
	"strings"
)

// TunnelType is what a packet is put into.
type TunnelType string

// The types of tunnel.
const (
	IPIP TunnelType = "ipip" // IP in IP, of either family in either: RFC 2003, 2473, 4213
	GUE  TunnelType = "gue"  // generic UDP encapsulation, whose port can be chosen
	GRE  TunnelType = "gre"  // RFC 2784
)

// TunnelTypes lists the types of tunnel, that of a tunnel of which nothing is said first.
func TunnelTypes() []TunnelType { return []TunnelType{IPIP, GUE, GRE} }

// TunnelChecksum is how a tunnel's own header is checked.
type TunnelChecksum string

// The checksums of a tunnel.
const (
	NoChecksum     TunnelChecksum = ""        // none
	HeaderChecksum TunnelChecksum = "csum"    // over header and packet
	RemoteChecksum TunnelChecksum = "remcsum" // the packet's own, left to the far end: not built
)

// TunnelChecksums lists the checksums that a tunnel of this type can have, as words.
func TunnelChecksums(t TunnelType) []TunnelChecksum {
	switch t {
	case GUE:
		return []TunnelChecksum{NoChecksum, HeaderChecksum, RemoteChecksum}
	case GRE:
		return []TunnelChecksum{NoChecksum, HeaderChecksum}
	}
	return []TunnelChecksum{NoChecksum}
}

// Tunnel is how packets reach a real server of the method tun.
type Tunnel struct {
	Type TunnelType `json:"type"`
	// Port is the UDP port that the real server takes gue at, 1 to 65535. Other types have none.
	Port     uint16         `json:"port,omitempty"`
	Checksum TunnelChecksum `json:"checksum,omitempty"`
}

// Validate returns ErrInvalid if there can be no such tunnel, and ErrUnsupported if this
// version cannot make it.
func (t Tunnel) Validate() error {
	switch {
	case !slices.Contains(TunnelTypes(), t.Type):
		return fmt.Errorf("tunnel type %q is not one of %s: %w", t.Type, list(TunnelTypes()), ErrInvalid)
	case t.Type == GUE && t.Port == 0:
		return fmt.Errorf("a gue tunnel needs a port: %w", ErrInvalid)
	case t.Type != GUE && t.Port != 0:
		return fmt.Errorf("a tunnel of type %s has no port: %w", t.Type, ErrInvalid)
	case !slices.Contains(TunnelChecksums(t.Type), t.Checksum):
		return fmt.Errorf("a tunnel of type %s has no checksum %q: %w", t.Type, t.Checksum, ErrInvalid)
	case t.Checksum == RemoteChecksum:
		return fmt.Errorf("tunnel checksum %s: %w", t.Checksum, ErrUnsupported)
	}
	return nil
}

// String returns for instance "gue 6080 csum", or "" if there is no tunnel.
func (t Tunnel) String() string {
	text := string(t.Type)
	if t.Port != 0 {
		text += fmt.Sprintf(" %d", t.Port)
	}
	if t.Checksum != NoChecksum {
		text += " " + string(t.Checksum)
	}
	return text
}

// list joins words for a message.
func list[T ~string](words []T) string {
	text := make([]string, len(words))
	for i, w := range words {
		text[i] = string(w)
	}
	return strings.Join(text, ", ")
}
