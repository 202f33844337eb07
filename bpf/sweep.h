/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * sweep.h: what the daemon's sweep does, set by set. Reads `real_servers` and
 * `secrets`, writes `connections4`, `connections6`, `counts` and `crowds`.
 *
 * conn_expire ends connections whose time is up, or all, and moves others out of the
 *             front if it is not their place any more.
 */
#pragma once

#include "conn.h"

/*
 * Moves the connection at `from`, which had the word `seen`, to the slot of f->place.
 * Nobody finds it for a moment, but it is never in two places, and what a packet
 * makes of it meanwhile is not lost.
 */
static __always_inline bool conn_carry(struct flow *f, bool six, struct slot *from, __u64 seen)
{
	__u64 moving = conn_coming(f, STATE_MOVING);
	struct slot *to = conn_at(f, six);
	struct crowd *crowd = conn_crowd(six);

	if (!to || !crowd || !conn_claim(f, six, to, moving))
		return false;
	__sync_fetch_and_add(&crowd->moved, 1);
	for (int i = 0; i < CONN_TRIES; i++) {
		__u64 found = __sync_val_compare_and_swap(&from->word, seen, conn_free(seen));

		if (found == seen) {
			__sync_lock_test_and_set(&to->word,
						 conn_pack(seen, f->server_id, conn_state(seen),
							   conn_version(moving)));
			return true;
		}
		if (!conn_same(found, seen))
			break;
		seen = flow_any(f, found);
	}
	__sync_lock_test_and_set(&to->word, conn_free(moving));
	return false;
}

enum settled {
	SETTLED_STAYS,
	SETTLED_MOVED,
	SETTLED_ENDED,
};

/* The flow whose connection a slot holds, but for the place. Its service is the real server's. */
static __always_inline bool conn_flow(struct flow *f, bool six, struct slot *slot)
{
	__u64 key = *(volatile __u64 *)&slot->key;
	struct real_server *server;

	f->server_id = conn_server(f->seen);
	f->generation = (__u8)(key >> CONN_GENERATION_SHIFT);
	server = bpf_map_lookup_elem(&real_servers, &f->server_id);
	if (!server || (__u8)key != conn_version(f->seen) ||
	    (__u8)server->generation != f->generation)
		return false;
	if (six) {
		((__u64 *)&f->key.client)[0] = conn_client(slot)[0];
		((__u64 *)&f->key.client)[1] = conn_client(slot)[1];
	} else {
		addr_from_v4(&f->key.client, key >> CONN_CLIENT_SHIFT);
	}
	f->key.client_port = key >> CONN_PORT_SHIFT;
	f->key.vip = server->service.vip;
	f->key.port = server->service.port;
	f->key.protocol = server->service.protocol;
	f->six = six;
	f->hash = hash_flow(&f->key, six);
	return true;
}

/*
 * Moves a connection out of the front to one of its other sets. In a flood the older
 * goes of those that may be replaced, as it does in the other sets.
 */
static __always_inline int conn_settle_slot(__u64 now, struct slot *slot, bool six, __u64 most)
{
	struct flow f = { .now = now, .seen = *(volatile __u64 *)&slot->word };
	__u64 seen = f.seen, best = most;

	if (!conn_lives(seen) || conn_expired(seen, now) || !conn_flow(&f, six, slot))
		return SETTLED_STAYS;
	best = conn_best(&f, six, 1, best);
	if (!conn_spare(best))
		best = conn_best(&f, six, 2, best);
	if (best == most)
		return SETTLED_STAYS;
	if (best >= RANK_EMBRYO && conn_rank(seen, now) < best)
		return conn_end(slot, seen) ? SETTLED_ENDED : SETTLED_STAYS;
	return conn_carry(&f, six, slot, seen) ? SETTLED_MOVED : SETTLED_STAYS;
}

/*
 * The same, of a way of a set of the front. Global, so that the verifier looks at it
 * once: inlined, it is too much for it on 6.1 (more than 1,000,000 instructions).
 */
__noinline int conn_settle(__u64 now, __u32 index, __u32 way, __u64 six, __u64 most)
{
	void *set = six ? bpf_map_lookup_elem(&connections6, &index)
			: bpf_map_lookup_elem(&connections4, &index);

	if (!set || way >= CONN_WAYS)
		return SETTLED_STAYS;
	return six ? conn_settle_slot(now, conn_slot(set, way), true, most)
		   : conn_settle_slot(now, conn_slot(set, way), false, most);
}

struct conn_sweep {
	__u64 now;
	__u64 seen4;
	__u64 seen6;
	__u64 ended;
	__u64 moved;
	__u64 inside4;
	__u64 inside6;
	__u32 first;
	__u32 all;
	__u32 settle;
};

static __always_inline void conn_expire_slot(struct conn_sweep *sweep, struct slot *slot,
					     __u64 *seen)
{
	__u64 word = *(volatile __u64 *)&slot->word;

	if (!conn_lives(word))
		return;
	*seen += 1;
	if ((sweep->all || conn_expired(word, sweep->now)) && conn_end(slot, word))
		sweep->ended++;
}

/* A set of the front, after its slots. */
static __always_inline void conn_leave(struct conn_sweep *sweep, __u32 index, void *set, bool six,
				       __u64 *inside)
{
	__u64 fill = conn_fill(conn_crowd(six)), most = RANK_EMBRYO;
	bool settle = sweep->settle != SETTLE_NOT && fill != FILL_FRONT;

	if (sweep->settle == SETTLE_REPLACE && fill == FILL_TIGHT)
		most = RANK_KEPT;

	for (__u32 way = 0; way < CONN_WAYS; way++) {
		volatile __u64 *word = &conn_slot(set, way)->word;

		if (settle && conn_lives(*word)) {
			int settled = conn_settle(sweep->now, index, way, six, most);

			sweep->moved += settled == SETTLED_MOVED;
			sweep->ended += settled == SETTLED_ENDED;
		}
		*inside += conn_state(*word) != STATE_NONE;
	}
}

static __always_inline void conn_expire_set(struct conn_sweep *sweep, void *set, __u64 *seen)
{
	for (__u32 way = 0; way < CONN_WAYS; way++)
		conn_expire_slot(sweep, conn_slot(set, way), seen);
}

static long conn_expire_both(__u32 i, struct conn_sweep *sweep)
{
	__u32 index = sweep->first + i;
	void *four = bpf_map_lookup_elem(&connections4, &index);
	void *six = bpf_map_lookup_elem(&connections6, &index);

	if (!four || !six)
		return 1;
	conn_expire_set(sweep, four, &sweep->seen4);
	conn_expire_set(sweep, six, &sweep->seen6);
	if (index >= conn_sets) {
		conn_leave(sweep, index, four, false, &sweep->inside4);
		conn_leave(sweep, index, six, true, &sweep->inside6);
	}
	return 0;
}

/*
 * The answer's counts are 0, but the verifier does not know it: with constants it
 * follows each way to count to each number (more than 1,000,000 instructions on 6.1).
 */
static __always_inline void conn_expire(struct sweep *result)
{
	struct conn_sweep sweep = {
		.now = conn_ticks(result->now_ns),
		.first = result->first,
		.all = result->all,
		.settle = result->settle,
		.seen4 = result->seen4,
		.seen6 = result->seen6,
		.ended = result->ended,
		.moved = result->moved,
		.inside4 = result->inside4,
		.inside6 = result->inside6,
	};

	bpf_loop(result->sets, conn_expire_both, &sweep, 0);
	result->seen4 = sweep.seen4;
	result->seen6 = sweep.seen6;
	result->ended = sweep.ended;
	result->moved = sweep.moved;
	result->inside4 = sweep.inside4;
	result->inside6 = sweep.inside6;
}
