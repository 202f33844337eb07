// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/netip"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"lvx/api"
	"lvx/internal/lvs"
)

// These describe values that write themselves into JSON in a form that their types
// do not show, and cannot tell huma of it since package lvs does not know huma.
type (
	seconds        float64  // lvs.Duration
	protocol       string   // lvs.Protocol
	flags          []string // lvs.SchedulerFlags
	address        string   // netip.Addr
	addressAndPort string   // netip.AddrPort
)

// newRegistry returns a registry that knows them.
func newRegistry() huma.Registry {
	registry := huma.NewMapRegistry("#/components/schemas/", nameOf)
	registry.RegisterTypeAlias(reflect.TypeFor[lvs.Duration](), reflect.TypeFor[seconds]())
	registry.RegisterTypeAlias(reflect.TypeFor[lvs.Protocol](), reflect.TypeFor[protocol]())
	registry.RegisterTypeAlias(reflect.TypeFor[lvs.SchedulerFlags](), reflect.TypeFor[flags]())
	registry.RegisterTypeAlias(reflect.TypeFor[netip.Addr](), reflect.TypeFor[address]())
	registry.RegisterTypeAlias(reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[addressAndPort]())
	registry.RegisterTypeAlias(reflect.TypeFor[refusal](), reflect.TypeFor[api.Error]())
	return registry
}

// nameOf names a type in openapi.yaml. Two packages have a RealServer.
func nameOf(t reflect.Type, hint string) string {
	if t == reflect.TypeFor[api.RealServer]() {
		return "ServiceRealServer"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// Schema describes a lvs.Duration.
func (seconds) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Format: "double"}
}

// Schema describes a lvs.Protocol.
func (protocol) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: []any{lvs.TCP.String(), lvs.UDP.String()}}
}

// Schema describes lvs.SchedulerFlags.
func (flags) Schema(huma.Registry) *huma.Schema {
	known := []any{"sh-fallback", "sh-port", "mh-fallback", "mh-port", "flag-1", "flag-2", "flag-3"}
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Enum: known}}
}

// Schema describes a netip.Addr.
func (address) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Examples: []any{"192.0.2.1", "2001:db8::1"}}
}

// Schema describes a netip.AddrPort.
func (addressAndPort) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: `^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]+$`,
		Examples: []any{"192.0.2.1:80", "[2001:db8::1]:80"},
	}
}
