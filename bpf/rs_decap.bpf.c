// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * rs_decap.bpf.c: the program of a real server that is reached through tunnels. It
 * takes the headers off what a director sent for one of the VIPs, and lets all else
 * pass as it is: it is not a firewall. Every packet has one outcome, counted once.
 */
#include "rs_outer.h"  /* 1 from a director, for us? */
#include "rs_tunnel.h" /* 2 what is between the two IP headers? */
#include "rs_inner.h"  /* 3 for a VIP? 4 out of the tunnel */

static __always_inline enum outcome decap(struct frame *f)
{
	enum outcome o = outer_parse(f);

	if (!o)
		o = tunnel_parse(f);
	if (!o)
		o = inner_parse(f);
	return o ? o : inner_take(f);
}

SEC("xdp.frags")
int rs_decap(struct xdp_md *ctx)
{
	struct frame f = {
		.ctx = ctx,
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	enum outcome o = decap(&f);
	bool damaged = o == OUTCOME_MAX;
	__u64 *count;

	if (damaged)
		o = OUTCOME_INTERNAL;
	count = bpf_map_lookup_elem(&outcomes, &o);
	if (count)
		(*count)++;
	/* Marked by a router, and the receiver cannot be told: such a packet is dropped. */
	if (damaged || o == OUTCOME_CONGESTED)
		return XDP_DROP;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
