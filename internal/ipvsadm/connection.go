// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"fmt"
	"io"
	"time"

	"lvx/internal/lvs"
)

// connectionLine has the columns of a connection listing.
const connectionLine = "%-3s %-6s %-11s %-18s %-18s %s\n"

// ConnectionHeader returns the lines above a connection listing.
func (l List) ConnectionHeader() string {
	last := "destination"
	if l.PersistentConn {
		last = "destination        pe name          pe_data"
	}
	return "IPVS connection entries\n" + fmt.Sprintf(connectionLine, "pro", "expire", "state", "source", "virtual", last)
}

// PrintConnection prints one connection. It returns w's error.
func (l List) PrintConnection(w io.Writer, c lvs.Connection, names Names) error {
	left := time.Duration(c.Expires) / time.Second
	_, err := fmt.Fprintf(w, connectionLine,
		protocolNames[c.Protocol],
		fmt.Sprintf("%02d:%02d", left/60, left%60),
		c.State,
		names.format(c.Protocol, c.Client, l.Numeric),
		names.format(c.Protocol, c.Virtual, l.Numeric),
		names.format(c.Protocol, c.RealServer, l.Numeric))
	return err
}

// TimeoutLine returns the listing of the timeouts.
func TimeoutLine(t lvs.Timeouts) string {
	return fmt.Sprintf("Timeout (tcp tcpfin udp): %.0f %.0f %.0f\n", t.TCP.Seconds(), t.TCPFin.Seconds(), t.UDP.Seconds())
}
