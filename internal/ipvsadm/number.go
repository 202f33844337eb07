// SPDX-License-Identifier: Apache-2.0

package ipvsadm

import (
	"fmt"
	"math"
	"strings"

	"lvx/internal/lvs"
)

// counted returns the five columns of --stats.
func counted(s lvs.Stats) [5]uint64 {
	return [5]uint64{s.Connections, s.InPackets, s.OutPackets, s.InBytes, s.OutBytes}
}

// rounded returns the five columns of --rate: the nearest whole numbers, and of
// two that are as near the smaller, as the kernel gives them to ipvsadm
// (ip_vs_read_estimator in net/netfilter/ipvs/ip_vs_est.c).
func rounded(r lvs.Rates) (whole [5]uint64) {
	for i, rate := range []float64{r.Connections, r.InPackets, r.OutPackets, r.InBytes, r.OutBytes} {
		whole[i] = uint64(max(0, math.Ceil(rate-0.5)))
	}
	return whole
}

// numbers returns five columns, each led by a blank unless it fills its column.
func numbers(columns [5]uint64, exact bool) string {
	var text strings.Builder
	for _, n := range columns {
		if exact {
			fmt.Fprintf(&text, " %8d", n)
		} else {
			text.WriteString(short(n))
		}
	}
	return text.String()
}

// short returns a number in nine columns, in thousands (not 1024) from 10^8 on.
func short(n uint64) string {
	switch {
	case n < 100_000_000:
		return fmt.Sprintf("%9d", n)
	case n < 1_000_000_000:
		return fmt.Sprintf("%8dK", n/1000)
	case n < 100_000_000_000:
		return fmt.Sprintf("%8dM", n/1_000_000)
	case n < 100_000_000_000_000:
		return fmt.Sprintf("%8dG", n/1_000_000_000)
	}
	return fmt.Sprintf("%8dT", n/1_000_000_000_000)
}
