/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * table.h: where connections lie. Reads `connections4`, `connections6`, `crowds` and
 * `real_servers`; conn.h and sweep.h write them by what is here.
 *
 * A hit costs one memory latency: all of an IPv4 set is one cache line, and
 * another set is read only if the first that is looked at has not the connection:
 * the front's while there are few connections, else the first of the other two,
 * which has nearly all.
 *
 * How a slot lives, in the words of types.h:
 *
 *   free ─► BUSY: its maker alone writes the key
 *        ─► TENTATIVE: it can be seen; its maker looks through all sets for
 *           another of its key, made by another CPU meanwhile
 *        ─► alive: swapped by packets
 *        ─► free, by the sweep; or BUSY, by the maker of another connection
 *
 * or, if the sweep moves a connection out of the front:
 *
 *   free ─► BUSY ─► MOVING: it can be seen, and nobody takes it away
 *        ─► alive, when the slot in the front is free
 *
 * Of two that make a connection of one key, the one whose slot comes first in
 * the order of the sets takes the other away (TENTATIVE → free), before it
 * stays itself; the other one looks again. One that is alive or MOVING always
 * stays. So there are never two alive, and one that was used is never taken away.
 * test/protocol walks through every interleaving.
 */
#pragma once

#include "hash.h"
#include "state.h"

enum {
	CONN_SETS = 3,	/* that a connection may be in: front, first, second */
	CONN_TRIES = 8, /* swaps that a packet tries before it gives up */
	CONN_NOWHERE = CONN_SETS * CONN_WAYS, /* no place in any of them */
};

/* Sets of each table but for the front, at least 2, and of the front; set by the daemon at load. */
const volatile __u32 conn_sets = 2;
const volatile __u32 conn_front = 0;

/*
 * The code is the same for both families: `six` is known wherever a function is
 * inlined. A set of IPv6 begins as one of IPv4. The three sets are never the same.
 */
static __always_inline void *conn_set(struct flow *f, bool six, __u32 choice)
{
	__u32 first = (f->hash >> 32) * conn_sets >> 32, index = first;

	if (choice == 0) {
		index = conn_sets + ((f->hash >> 16 & 0xffffffff) * conn_front >> 32);
	} else if (choice == 2) {
		index = (__u64)(__u32)f->hash * (conn_sets - 1) >> 32;
		index += index >= first;
	}
	return six ? bpf_map_lookup_elem(&connections6, &index)
		   : bpf_map_lookup_elem(&connections4, &index);
}

static __always_inline struct crowd *conn_crowd(bool six)
{
	__u32 key = six;

	return bpf_map_lookup_elem(&crowds, &key);
}

static __always_inline struct slot *conn_slot(void *set, __u32 way)
{
	return set + way * sizeof(struct slot);
}

/* enum fill. Without a front, as after it was given up. */
static __always_inline __u64 conn_fill(struct crowd *crowd)
{
	return conn_front && crowd ? *(volatile __u64 *)&crowd->fill : FILL_SETS;
}

/*
 * The front had no place for a new connection: after many such, it counts as full.
 * Not counted exactly, which would have CPUs wait for each other.
 */
static __always_inline void conn_crowded(struct crowd *crowd, __u64 fill)
{
	if (crowd && fill != FILL_TIGHT && crowd->missed++ > conn_front / 4)
		crowd->fill = FILL_TIGHT;
}

/*
 * May anybody be in the front? A maker asks after the barrier of its publication; a
 * packet of a connection that is there came after who made it had said so.
 */
static __always_inline bool conn_inside(struct crowd *crowd)
{
	return conn_front && crowd && *(volatile __u64 *)&crowd->inside != INSIDE_NOBODY;
}

/* Says that somebody is in the front; a full barrier if it was not known. */
static __always_inline void conn_enter(struct crowd *crowd)
{
	if (crowd && *(volatile __u64 *)&crowd->inside != INSIDE_SOMEBODY)
		__sync_lock_test_and_set(&crowd->inside, INSIDE_SOMEBODY);
}

/* The slot of f->place. */
static __always_inline struct slot *conn_at(struct flow *f, bool six)
{
	void *set = conn_set(f, six, f->place / CONN_WAYS);

	return set ? conn_slot(set, f->place % CONN_WAYS) : NULL;
}

static __always_inline struct slot *conn_here(struct flow *f)
{
	return f->six ? conn_at(f, true) : conn_at(f, false);
}

/* The key of the flow's connection, without version and generation. */
static __always_inline __u64 conn_key(struct flow *f, bool six)
{
	__u32 client = six ? (__u32)(f->hash >> 16) : f->key.client.word[3];

	return (__u64)client << CONN_CLIENT_SHIFT | (__u64)f->key.client_port << CONN_PORT_SHIFT;
}

/* The client of a slot of IPv6: as far behind it as all slots are long. */
static __always_inline volatile __u64 *conn_client(struct slot *slot)
{
	return (void *)slot + sizeof(struct slot[CONN_WAYS]);
}

/* Has the line with a set's clients come while that with its slots does. */
static __always_inline void conn_ahead(void *set)
{
	__u64 client = *conn_client(set);

	asm volatile("" : : "r"(client));
}

static __always_inline bool conn_client_equal(struct flow *f, struct slot *slot)
{
	volatile __u64 *client = conn_client(slot);
	__u64 *want = (__u64 *)&f->key.client;

	return client[0] == want[0] && client[1] == want[1];
}

/* The real server, if it is one of the flow's service. Else the slot is another flow's. */
static __always_inline struct real_server *conn_serves(struct flow *f, bool six, __u64 key,
						       __u32 id)
{
	struct real_server *server = bpf_map_lookup_elem(&real_servers, &id);

	if (!server || (__u8)server->generation != (__u8)(key >> CONN_GENERATION_SHIFT) ||
	    !flow_asks(f, six, &server->service))
		return NULL;
	return server;
}

/*
 * The word of a slot that holds the flow's connection, alive or to be; else 0. The
 * server is set if the word says whose it is.
 *
 * The key is read first and the word last: if they are of one version, so is what
 * was read between them on x86; where a CPU may read in another order, the hash in
 * the key tells an IPv6 client. If they are not, the slot is another connection's
 * by now, or written: who sees TENTATIVE looks again. (That word may happen to be
 * that of a connection which is not alive yet: if it is taken away, its maker looks
 * again.)
 */
static __always_inline __u64 conn_match(struct flow *f, bool six, struct slot *slot,
					struct real_server **server)
{
	__u64 key = *(volatile __u64 *)&slot->key, word;

	if ((key ^ conn_key(f, six)) >> CONN_PORT_SHIFT)
		return 0;
	if (six && !conn_client_equal(f, slot))
		return 0;
	word = *(volatile __u64 *)&slot->word;
	if (conn_state(word) == STATE_NONE || conn_state(word) == STATE_BUSY)
		return 0;
	if ((__u8)key != conn_version(word))
		return conn_pack(0, 0, STATE_TENTATIVE, 0);
	*server = conn_serves(f, six, key, conn_server(word));
	return *server ? word : 0;
}

/*
 * Which ways of a set have the flow's key: a bit for each. Without a branch: the
 * CPU would guess the way, and be wrong after it has waited for the memory.
 */
static __always_inline __u64 conn_ways(struct flow *f, bool six, void *set)
{
	__u64 want = conn_key(f, six), ways = 0;

#pragma unroll
	for (__u32 way = 0; way < CONN_WAYS; way++) {
		__u64 key = *(volatile __u64 *)&conn_slot(set, way)->key;

		ways |= ((((key ^ want) >> CONN_PORT_SHIFT) - 1) >> 63) << way;
	}
	return ways;
}

/* The first way of some, that is the place of the lowest bit. */
static __always_inline __u32 conn_first(__u64 ways)
{
	__u64 lowest = ways & -ways;

	return (lowest >> 1) - (lowest >> 3); /* 1, 2, 4, 8 are 0, 1, 2, 3 */
}
