// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * lvs.bpf.c: the director's program. The stages of a packet, in order, and the
 * one exit. Every packet leaves with one reason, counted once.
 */
#include "packet.h"  /* 1 what is it? */
#include "conn.h"    /* 2 of a known connection? */
#include "service.h" /* 3 else, which service does it open? */
#include "sched.h"   /* 4 with which real server? */
#include "forward.h" /* 5 how does it get there? */

static __always_inline enum reason stages(struct packet *p)
{
	enum reason r;

	r = packet_parse(p);
	if (!r)
		r = conn_find(p);
	if (!r && !p->known)
		r = service_find(p);
	if (!r && !p->known)
		r = sched_pick(p);
	if (!r)
		r = forward_route(p);
	if (r)
		return r;

	/* All is checked: now write. */
	if (p->known)
		conn_touch(p);
	else
		r = conn_make(p);
	if (r)
		return r;
	forward_count(p);
	return forward_dr(p);
}

static __always_inline int finish(struct packet *p, enum reason reason)
{
	__u64 *count = bpf_map_lookup_elem(&reasons, &reason);

	if (count)
		(*count)++;
	switch (reason) {
	case REASON_FORWARDED:
		if (p->out_ifindex == p->ctx->ingress_ifindex)
			return XDP_TX;
		return bpf_redirect(p->out_ifindex, 0);
	case REASON_LOCAL:
	case REASON_NOT_IP:
	case REASON_BAD_IP:
	case REASON_NOT_OURS:
	case REASON_OTHER_HOST:
	case REASON_FRAGMENT_TAIL:
	case REASON_NO_CONNECTION:
		return XDP_PASS;
	default:
		return XDP_DROP;
	}
}

static __always_inline int direct(struct xdp_md *ctx, __u64 now_ns)
{
	struct packet p = {
		.ctx = ctx,
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.now = conn_ticks(now_ns),
	};

	return finish(&p, stages(&p));
}

SEC("xdp.frags")
int lvs_direct(struct xdp_md *ctx)
{
	return direct(ctx, bpf_ktime_get_coarse_ns());
}

/* Run by the daemon, a few times a second: ends connections whose time is up. */
SEC("syscall")
int lvs_sweep(struct sweep *result)
{
	conn_expire(result);
	return 0;
}

/* Enums that no map and no function mentions get into the BTF, and so to Go, by this. */
const volatile struct {
	enum conn_word conn_word;
	enum hop_state hop_state;
	enum pool_flag pool_flag;
} exported_enums;

char _license[] SEC("license") = "Dual BSD/GPL";
