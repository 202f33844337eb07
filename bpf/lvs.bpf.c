// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * lvs.bpf.c: the director's program. The stages of a packet, in order, and the
 * one exit. Every packet leaves with one reason, counted once.
 */
#include "packet.h" /* 1 what is it? */
#include "icmp.h"   /* or what is it about? */
#ifdef CONN_H
#include CONN_H /* test/bench has it keep other tables */
#else
#include "conn.h"  /* 2 of a known connection? */
#include "reply.h" /* or a reply of one? */
#include "sweep.h" /* and when does it end? */
#endif
#include "service.h" /* 3 else, which service does it open? */
#include "sched.h"   /* 4 with which real server? */
#include "forward.h" /* 5 how does it get there? */

/* Goes the way of a known connection. */
static __always_inline enum reason follow(struct packet *p)
{
	enum reason r = forward_route(p);

	return r || p->flow.icmp ? r : conn_touch(p);
}

/* Opens a connection. All is checked before conn_make, the first to write. */
static __always_inline enum reason open(struct packet *p)
{
	enum reason r = p->flow.icmp ? REASON_NOT_OURS : service_find(p);

	if (!r)
		r = sched_pick(p);
	if (!r)
		r = reply_free(p);
	if (!r)
		r = forward_route(p);
	if (r)
		return r;
	p->flow.direction = conn_direction(p);
	r = conn_opens(p) ? conn_make(p, conn_next(&p->flow, STATE_NONE)) : REASON_TABLE_FULL;
	return r == REASON_TABLE_FULL ? sched_stateless(p) : r;
}

static __always_inline enum reason stages(struct packet *p)
{
	enum reason r = packet_parse(p);

	if (!r)
		r = icmp_parse(p);
	if (!r)
		r = p->flow.reply ? reply_find(p) : conn_find(p);
	if (!r)
		r = p->known ? follow(p) : open(p);
	if (r)
		return r;
	forward_count(p);
	return forward_send(p);
}

static __always_inline int finish(struct packet *p, enum reason reason)
{
	__u64 *count;

	if (reason == REASON_AGAIN) { /* nothing of the frame was written, and it was not counted */
		bpf_tail_call(p->ctx, &again, 0);
		reason = REASON_CONTENDED;
	}
	count = bpf_map_lookup_elem(&reasons, &reason);
	if (count)
		(*count)++;
	switch (reason) {
	case REASON_FORWARDED:
	case REASON_STATELESS:
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
	struct packet p; /* the stages write the rest before they read it */

	p.ctx = ctx;
	p.pos = (void *)(long)ctx->data;
	p.end = (void *)(long)ctx->data_end;
	p.flow = (struct flow){ .now = conn_ticks(now_ns) };
	p.tags = 0;
	p.refuse = REASON_UNDECIDED;
	p.ring = RING_NOT;
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

enum { ATTEMPTS = 4 }; /* of a program that has no packet to begin anew with */

static __always_inline enum reason entry_insert(struct packet *p, enum conn_state state)
{
	enum reason r = conn_find(p);

	if (r || p->known)
		return r;
	p->server = bpf_map_lookup_elem(&real_servers, &p->flow.server_id);
	return p->server ? conn_make(p, state) : REASON_INTERNAL;
}

static __always_inline enum reason entry_delete(struct packet *p)
{
	enum reason r = conn_find(p);
	struct slot *slot;

	if (r == REASON_AGAIN || p->flow.place == CONN_NOWHERE)
		return r;
	slot = conn_here(&p->flow);
	return slot && conn_end(slot, p->flow.seen) ? REASON_UNDECIDED : REASON_AGAIN;
}

static __always_inline void packet_of_entry(struct packet *p, struct conn_entry *e)
{
	p->flow.now = conn_ticks(e->now_ns);
	p->flow.key = e->key;
	p->flow.six = !addr_is_mapped(&e->key.vip);
	p->flow.server_id = e->server_id;
}

/* Run by the daemon: makes a connection, unless there is one. */
SEC("syscall")
int lvs_insert(struct conn_entry *e)
{
	struct packet p = {};
	enum reason r = REASON_AGAIN;

	packet_of_entry(&p, e);
	for (int i = 0; i < ATTEMPTS && r == REASON_AGAIN; i++)
		r = entry_insert(&p, e->state);
	e->found = p.known;
	e->reason = r == REASON_AGAIN ? REASON_CONTENDED : r;
	return 0;
}

/* Run by the daemon: ends a connection, if there is one. */
SEC("syscall")
int lvs_delete(struct conn_entry *e)
{
	struct packet p = {};
	enum reason r = REASON_AGAIN;

	packet_of_entry(&p, e);
	for (int i = 0; i < ATTEMPTS && r == REASON_AGAIN; i++)
		r = entry_delete(&p);
	e->found = !r && p.flow.place != CONN_NOWHERE;
	e->reason = r == REASON_AGAIN ? REASON_CONTENDED : r;
	return 0;
}

/* Types that no map and no function mentions get into the BTF, and so to Go, by this. */
const volatile struct {
	enum conn_bits conn_bits;
	enum hop_state hop_state;
	enum pool_flag pool_flag;
	enum glance glance;
	enum inside inside;
	enum fill fill;
	enum settle settle;
	enum tunnel_type tunnel_type;
	enum tunnel_flag tunnel_flag;
	struct sought_addr sought_addr;
} exported_types;

char _license[] SEC("license") = "Dual BSD/GPL";
