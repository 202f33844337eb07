// SPDX-License-Identifier: Apache-2.0

package sched

// shTable is the size of sh's lookup table, the kernel's (IP_VS_SH_TAB_SIZE).
const shTable = 256

// shTurns fills sh's table as the kernel does (ip_vs_sh_reassign): round the list,
// each server as many times in a row as its weight says. One of weight 0 takes a
// turn too: its clients go nowhere else unless they are asked to.
func shTurns(seats []Seat) []uint32 {
	if len(seats) == 0 {
		return nil
	}
	turns := make([]uint32, shTable)
	var seat, row uint32
	for i := range turns {
		turns[i] = seat
		if row++; row >= seats[seat].Weight {
			row, seat = 0, (seat+1)%uint32(len(seats))
		}
	}
	return turns
}

// fallBack gives the turns of servers that take nobody to others. The kernel goes
// on from such a turn to the first that is usable, and begins at twice its place
// (ip_vs_sh_get_fallback adds the place to itself): where it ends depends on the
// turn alone, so that it is found here once, and not for each client.
func fallBack(turns []uint32, seats []Seat) {
	n := len(turns)
	behind := make([]uint32, n) // of the first usable turn from here on
	found := None
	for i := 2*n - 1; i >= 0; i-- {
		if seat := turns[i%n]; seats[seat].Weight > 0 {
			found = seat
		}
		behind[i%n] = found
	}
	if found == None {
		return
	}
	for i, seat := range turns {
		if seats[seat].Weight == 0 {
			turns[i] = behind[2*i%n]
		}
	}
}
