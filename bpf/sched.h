/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * sched.h, stage 4: the real server of a new connection.
 *
 * sched_pick       reads `seats`, `counts` and `real_servers`; moves a pool's
 *                  cursor. Leaves with NO_REAL_SERVER, or goes on with a real
 *                  server.
 * sched_stateless  when there is no room for the connection: writes `stateless`.
 *                  Leaves with AGAIN, to pick by the ring, or with TABLE_FULL, or
 *                  goes on without a connection.
 *
 * internal/sched holds the oracle that this is tested against, pick for pick.
 */
#pragma once

#include "service.h"
#include "hash.h"

/* The number of the turn to take, modulo their number. */
static __always_inline __u64 sched_number(struct packet *p)
{
	struct pool *pool = p->pool;
	bool with_port = pool->flags & POOL_PORT;

	switch (pool->scheduler) {
	case SCHEDULER_SH:
		return hash_kernel(&p->flow.key.client, with_port ? p->flow.key.client_port : 0);
	case SCHEDULER_MH:
		return hash_client(&p->flow.key.client, p->flow.key.client_port, with_port);
	default:
		return __sync_fetch_and_add(&pool->cursor, 1);
	}
}

/*
 * rr, wrr, sh, mh: the daemon wrote down whose turn it is. A turn of sh or mh may
 * be that of a server that was quiesced.
 */
static __always_inline struct seat *sched_turn(struct packet *p)
{
	struct pool *pool = p->pool;
	__u32 turns = pool->turns, at;
	struct seat *seat;

	if (!turns)
		return NULL;
	at = pool->first + pool->servers + sched_number(p) % turns;
	seat = bpf_map_lookup_elem(&seats, &at);
	return seat && seat->weight > 0 ? seat : NULL;
}

/* Does the scheduler send a client by its hash anyway, with turns for a ring? */
static __always_inline bool sched_hashes(struct pool *pool)
{
	return pool->scheduler == SCHEDULER_SH || pool->scheduler == SCHEDULER_MH;
}

/* The others: a flow's place in the ring. */
static __always_inline struct seat *sched_ring(struct packet *p)
{
	struct pool *pool = p->pool;
	__u32 ring = pool->ring, at;

	if (!ring)
		return NULL;
	at = pool->first + pool->servers + pool->turns + p->flow.hash % ring;
	return bpf_map_lookup_elem(&seats, &at);
}

struct sched_scan {
	__u32 first;
	__u32 weighted;
	__u32 found;
	__u32 best; /* real server id */
	__u64 best_load;
	__u64 best_weight;
};

/* The kernel's measure: an active connection weighs as much as 256 inactive ones. */
static __always_inline __u64 sched_load(__u64 count)
{
	return ((count & 0xffffffff) << 8) + (count >> 32);
}

/* Looks at one seat; a later one is taken only if it is strictly better. */
static long sched_look(__u32 i, struct sched_scan *scan)
{
	__u32 at = scan->first + i;
	struct seat *seat = bpf_map_lookup_elem(&seats, &at);
	__u64 *count, load, weight;

	if (!seat)
		return 1;
	if (seat->weight <= 0)
		return 0;
	count = bpf_map_lookup_elem(&counts, &seat->real_server);
	if (!count)
		return 1;
	load = sched_load(*(volatile __u64 *)count);
	weight = scan->weighted ? (__u32)seat->weight : 1;
	if (scan->found && scan->best_load * weight <= load * scan->best_weight)
		return 0;
	scan->found = 1;
	scan->best = seat->real_server;
	scan->best_load = load;
	scan->best_weight = weight;
	return 0;
}

/* lc, wlc: who has the least to do. */
static __always_inline bool sched_least(struct packet *p)
{
	struct pool *pool = p->pool;
	/*
	 * pool->zero is 0, but the verifier does not know it. Before 6.7 it walks a
	 * callback once, from the values that it finds here: with constants it takes
	 * "nobody was found yet" for granted, and removes the comparison (seen on
	 * 6.1: every server looked best).
	 */
	struct sched_scan scan = {
		.first = pool->first,
		.weighted = pool->scheduler == SCHEDULER_WLC,
		.found = pool->zero,
		.best_load = pool->zero,
		.best_weight = pool->zero,
	};

	bpf_loop(pool->servers, sched_look, &scan, 0);
	p->flow.server_id = scan.best;
	return scan.found;
}

static __always_inline enum reason sched_pick(struct packet *p)
{
	enum scheduler scheduler = p->pool->scheduler;
	bool ring = p->ring && !sched_hashes(p->pool);

	if (!ring && (scheduler == SCHEDULER_LC || scheduler == SCHEDULER_WLC)) {
		if (!sched_least(p))
			return REASON_NO_REAL_SERVER;
	} else {
		struct seat *seat = ring ? sched_ring(p) : sched_turn(p);

		if (!seat)
			return REASON_NO_REAL_SERVER;
		p->flow.server_id = seat->real_server;
	}
	p->server = bpf_map_lookup_elem(&real_servers, &p->flow.server_id);
	if (!p->server)
		return REASON_INTERNAL;
	p->method = *(volatile enum method *)&p->server->method;
	return REASON_UNDECIDED;
}

/*
 * Goes on without a connection: from now on all of the service's flows that are
 * not known go by the ring, until a TCP timeout after the last one that had no
 * room. A flow that is still under way then is not known to anybody: the kernel
 * resets it. To wait for flows that say nothing new would let strays keep a service
 * on its ring for ever.
 */
static __always_inline enum reason sched_stateless(struct packet *p)
{
	__u64 until = p->flow.now + conn_timeout(STATE_ESTABLISHED);
	__u64 *stands = bpf_map_lookup_elem(&stateless, &p->service_id);

	if (!stands || (!p->pool->ring && !sched_hashes(p->pool)) ||
	    p->method == METHOD_NAT) /* whose replies need a connection */
		return REASON_TABLE_FULL;
	if (conn_opens(p) && *stands != until)
		*stands = until;
	if (!p->ring)
		return REASON_AGAIN;
	p->ring = RING_PACKET;
	return REASON_UNDECIDED;
}
