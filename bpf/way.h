/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * way.h, for stage 5: the way of a reply to its client, by the kernel's routes, which
 * know more than where the request came from.
 *
 * way_back  reads the routes, the neighbours and `exits`; writes `sought`; leaves with
 *           NOT_OURS (to the director itself), NO_NEIGHBOUR, NO_ROUTE, TOO_BIG or
 *           NOT_FORWARDING.
 * way_seek_early  the same for a flow that opens, so that the MAC address is known when
 *           its first reply comes. Leaves with nothing.
 */
#pragma once

#include "packet.h"

/* The kernel's numbers of address families (linux/socket.h), which no header for programs has. */
enum { WAY_INET = 2, WAY_INET6 = 10 };

/* Has the daemon find out an address's MAC address. If it has no time, the next packet asks again. */
static __always_inline void way_seek(const struct addr *to, __u32 ifindex)
{
	struct sought_addr *ask = bpf_ringbuf_reserve(&sought, sizeof(*ask), 0);

	if (!ask)
		return;
	ask->addr = *to;
	ask->ifindex = ifindex;
	ask->zero = 0;
	bpf_ringbuf_submit(ask, 0);
}

/* Asks for the way from the VIP to the client; the kernel writes the answer over the question. */
static __always_inline long way_ask(struct xdp_md *ctx, struct flow *f, struct bpf_fib_lookup *way,
				    __u64 bytes)
{
	way->tot_len = bytes; /* for a route's MTU; 0: not asked for */
	way->ifindex = ctx->ingress_ifindex;
	way->l4_protocol = f->key.protocol;
	if (f->six) {
		way->family = WAY_INET6;
		__builtin_memcpy(way->ipv6_src, &f->key.vip, sizeof(struct addr));
		__builtin_memcpy(way->ipv6_dst, &f->key.client, sizeof(struct addr));
	} else {
		way->family = WAY_INET;
		way->ipv4_src = f->key.vip.word[3];
		way->ipv4_dst = f->key.client.word[3];
	}
	return bpf_fib_lookup(ctx, way, sizeof(*way), 0);
}

/* Whose MAC address lacks is in the answer: the client's, or a router's, of either family. */
static __always_inline void way_missing(struct bpf_fib_lookup *way)
{
	struct addr to;

	if (way->family == WAY_INET6)
		__builtin_memcpy(&to, way->ipv6_dst, sizeof(to));
	else
		addr_from_v4(&to, way->ipv4_dst);
	way_seek(&to, way->ifindex);
}

static __always_inline __u64 way_mac(const __u8 *mac)
{
	const __u16 *half = (void *)mac;

	return half[0] | (__u64)half[1] << 16 | (__u64)half[2] << 32;
}

static __always_inline enum reason way_reason(long answer)
{
	switch (answer) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return REASON_UNDECIDED;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return REASON_NOT_FORWARDING;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return REASON_NO_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return REASON_TOO_BIG;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
		return REASON_NOT_OURS; /* to the director itself, or to no single host */
	default:
		return REASON_NO_ROUTE;
	}
}

/* Global, so that the verifier looks at it once, and for the stack. */
__noinline int way_back(struct xdp_md *ctx, struct flow *f, struct way *out, __u64 bytes)
{
	struct bpf_fib_lookup way = {};
	struct exit *exit;
	enum reason r;
	__u32 index;

	if (!f || !out)
		return REASON_INTERNAL;
	r = way_reason(way_ask(ctx, f, &way, bytes));
	if (r == REASON_NO_NEIGHBOUR)
		way_missing(&way);
	if (r)
		return r;
	index = way.ifindex;
	exit = bpf_map_lookup_elem(&exits, &index);
	if (!exit)
		return REASON_NO_ROUTE;
	out->out_mac = way_mac(way.dmac);
	out->own_mac = way_mac(way.smac);
	out->out_ifindex = exit->ifindex;
	out->out_vlan = exit->vlan;
	out->out_mtu = exit->mtu;
	return REASON_UNDECIDED;
}

/* Its own stack, not the stages'. */
__noinline int way_seek_early(struct xdp_md *ctx, struct flow *f)
{
	struct way unused = {};

	return f ? way_back(ctx, f, &unused, 0) : REASON_INTERNAL;
}
