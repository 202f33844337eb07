/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * sched.h, stage 4: the real server of a new connection.
 *
 * Reads `seats`, `counts`, `secrets` and `real_servers`; moves a pool's cursor.
 * Leaves with NO_REAL_SERVER, or goes on with a real server. internal/sched holds
 * the oracle that this is tested against, pick for pick.
 */
#pragma once

#include "service.h"
#include "hash.h"

/* mh: the hash of the client, which nobody knows who does not know the secret. */
static __always_inline __u64 sched_keyed(struct packet *p, bool with_port)
{
	__u32 first = 0;
	struct secret *secret = bpf_map_lookup_elem(&secrets, &first);

	if (!secret)
		return 0; /* never: there is one entry */
	return hash_keyed(secret, &p->key.client, p->key.client_port, with_port);
}

/* The number of the turn to take, modulo their number. */
static __always_inline __u64 sched_number(struct packet *p)
{
	struct pool *pool = p->pool;
	bool with_port = pool->flags & POOL_PORT;

	switch (pool->scheduler) {
	case SCHEDULER_SH:
		return hash_kernel(&p->key.client, with_port ? p->key.client_port : 0);
	case SCHEDULER_MH:
		return sched_keyed(p, with_port);
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

static __always_inline enum reason sched_pick(struct packet *p)
{
	struct pool *pool = p->pool;

	if (pool->scheduler == SCHEDULER_LC || pool->scheduler == SCHEDULER_WLC) {
		/*
		 * pool->zero is 0, but the verifier does not know it. Before 6.7
		 * it walks a callback once, from the values that it finds here:
		 * with constants it takes "nobody was found yet" for granted, and
		 * removes the comparison (seen on 6.1: every server looked best).
		 */
		struct sched_scan scan = {
			.first = pool->first,
			.weighted = pool->scheduler == SCHEDULER_WLC,
			.found = pool->zero,
			.best_load = pool->zero,
			.best_weight = pool->zero,
		};

		bpf_loop(pool->servers, sched_look, &scan, 0);
		if (!scan.found)
			return REASON_NO_REAL_SERVER;
		p->server_id = scan.best;
	} else {
		struct seat *seat = sched_turn(p);

		if (!seat)
			return REASON_NO_REAL_SERVER;
		p->server_id = seat->real_server;
	}
	p->server = bpf_map_lookup_elem(&real_servers, &p->server_id);
	return p->server ? REASON_UNDECIDED : REASON_INTERNAL;
}
