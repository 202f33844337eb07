// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"net/netip"

	"lvx/internal/lvs"
)

// build makes the Command of a line that check and unsupported let pass.
func (l *line) build() *Command {
	switch l.command {
	case list:
		return &Command{Action: l.listing(), List: l.list()}
	case save:
		return &Command{Action: Save, List: l.list()}
	case restore:
		return &Command{Action: Restore, DryRun: l.set[dryRun], Atomic: l.set[atomic]}
	}
	return &Command{Action: Change, Change: l.change(), DryRun: l.set[dryRun]}
}

var operations = map[command]lvs.Operation{
	addService: lvs.AddService, editService: lvs.EditService, deleteService: lvs.DeleteService,
	addServer: lvs.AddServer, editServer: lvs.EditServer, deleteServer: lvs.DeleteServer,
	flush: lvs.Clear, zero: lvs.Zero, setTimeouts: lvs.SetTimeouts,
}

var methods = map[byte]lvs.Method{'g': lvs.DR, 'm': lvs.NAT, 'i': lvs.Tun}

func (l *line) change() lvs.Change {
	c := lvs.Change{Operation: operations[l.command], Service: l.service, Timeouts: l.timeouts}
	switch l.command {
	case addService, editService:
		c.Scheduler, c.Flags = l.scheduler, l.flags
	case addServer, editServer:
		c.RealServer = lvs.RealServer{Address: l.serverAddress(), Method: methods[l.method], Weight: l.weight}
		if c.RealServer.Method == lvs.Tun {
			c.RealServer.Tunnel = l.tunnel
		}
	case deleteServer:
		c.RealServer.Address = l.serverAddress()
	}
	return c
}

// serverAddress returns the real server's address. Without a port it has the
// service's; dr and tun cannot change the port, so there a port that is said is
// overruled. -d does not know the method and takes the port as it is.
func (l *line) serverAddress() netip.AddrPort {
	if l.serverPort && (l.command == deleteServer || methods[l.method].MapsPort()) {
		return l.server
	}
	return netip.AddrPortFrom(l.server.Addr(), l.service.Address.Port())
}

func (l *line) listing() Action {
	switch {
	case l.set[connection]:
		return ListConnections
	case l.set[timeout]:
		return ListTimeouts
	case l.set[daemon]:
		return ListDaemons
	}
	return ListServices
}

func (l *line) list() List {
	return List{
		Service: l.service,
		Numeric: l.set[numeric], Exact: l.set[exact], NoSort: l.set[noSort], JSON: l.set[asJSON],
		Stats: l.set[stats], Rate: l.set[rate], Thresholds: l.set[thresholds],
		PersistentConn: l.set[persistentConn], TunInfo: l.set[tunInfo],
	}
}
