// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * lvs_test.bpf.c: the director's program with the clock in the test's hand.
 * Never shipped: only the tests of internal/dataplane load it.
 */
#include "lvs.bpf.c"

__u64 test_now_ns;

SEC("xdp.frags")
int test_direct(struct xdp_md *ctx)
{
	return direct(ctx, test_now_ns);
}
