// SPDX-License-Identifier: Apache-2.0

package realserver

// outcomes says what the numbers in the program's map `outcomes` mean: each is
// counted, and shown by Status.
var outcomes = []struct {
	outcome decapOutcome
	text    string
}{
	{decapOutcomeOUTCOME_IPIP, "taken out of ipip"},
	{decapOutcomeOUTCOME_GRE, "taken out of gre"},
	{decapOutcomeOUTCOME_GUE, "taken out of gue"},
	{decapOutcomeOUTCOME_NOT_DIRECTOR, "passed: not from a director"},
	{decapOutcomeOUTCOME_OTHER_HOST, "passed: for another host"},
	{decapOutcomeOUTCOME_BAD_OUTER, "passed: outer header broken"},
	{decapOutcomeOUTCOME_FRAGMENT, "passed: fragment of a tunnel packet, the path's MTU is too small"},
	{decapOutcomeOUTCOME_UNKNOWN_TUNNEL, "passed: tunnel header with what lvx does not send"},
	{decapOutcomeOUTCOME_BAD_CHECKSUM, "passed: tunnel checksum wrong"},
	{decapOutcomeOUTCOME_BAD_INNER, "passed: inner header broken"},
	{decapOutcomeOUTCOME_NOT_VIP, "passed: not for a VIP that has joined"},
	{decapOutcomeOUTCOME_CONGESTED, "dropped: marked as congested, and the receiver cannot be told"},
	{decapOutcomeOUTCOME_INTERNAL, "lost: no room to take the tunnel off"},
}
