// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"fmt"
	"strings"
)

// Drawing is the lab as a picture; addresses are of the given family.
func (l *Lab) Drawing(family int) string {
	var s strings.Builder
	fmt.Fprintf(&s, "   %-12s %s\n      |\n   %-12s %s, on the LAN %s\n      |\n", Client, ofFamily(clientIP, family),
		Router, ofFamily(outsideIP, family), ofFamily(front.router(), family))
	if l.Name == NATTwoArm {
		fmt.Fprintf(&s, "   %s, segment outside\n      |\n", Switch)
		fmt.Fprintf(&s, "   %-12s %s and VIP %s on eth0: answers ARP and ND for it\n", Director, ofFamily(front.director(), family), VIP(family))
		fmt.Fprintf(&s, "   %-12s %s on eth1\n      |\n   %s, segment inside\n", "", ofFamily(inside.director(), family), Switch)
	} else {
		fmt.Fprintf(&s, "   %s\n      +-- %-9s%-15s VIP %s on eth0: answers ARP and ND for it\n",
			Switch, Director, ofFamily(front.director(), family), VIP(family))
	}
	for i, h := range l.RealServers() {
		fmt.Fprintf(&s, "      +-- %-9s%-15s %s\n", h.Name, h.Addr(family), l.drawRealServer(i+1, family))
	}
	return s.String()
}

// drawRealServer says what makes the i-th real server one.
func (l *Lab) drawRealServer(i, family int) string {
	switch l.Name {
	case NATTwoArm, NATOneArm:
		return fmt.Sprintf("default gateway %s: the director", l.DirectorAddress(family))
	case TunRouted:
		return fmt.Sprintf("VIP %s on lo; default gateway %s: the router", VIP(family), ofFamily(l.segmentOf(i).router(), family))
	}
	return fmt.Sprintf("VIP %s on lo: accepts it, stays silent", VIP(family))
}
