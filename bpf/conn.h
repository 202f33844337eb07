/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * conn.h, stage 2: the connection that a packet belongs to.
 *
 * conn_find   reads `connections4`, `connections6` and `real_servers`; leaves
 *             with SERVER_REMOVED, or goes on, knowing the connection or not.
 * conn_touch  writes a known connection's next state and expiry.
 * conn_make   writes a new connection; leaves with TABLE_FULL.
 * conn_expire ends connections whose time is up (the sweep program).
 * conn_end    ends one.
 *
 * conn_find and conn_make leave with AGAIN if another CPU was faster.
 *
 * Only this file writes the tables, and `counts` through state.h, always by the
 * transition that wins a compare-and-swap, so that counts are exact without a
 * lock. This is the seam behind which the table can be replaced: test/bench does.
 *
 * A hit costs one memory latency: all of an IPv4 set is one cache line, and
 * another set is read only if the first that is looked at has not the connection:
 * the front's while there are few connections, else the first of the other two.
 *
 * How a slot lives, in the words of types.h:
 *
 *   free ─► BUSY: its maker alone writes the key
 *        ─► TENTATIVE: it can be seen; its maker looks through all sets for
 *           another of its key, made by another CPU meanwhile
 *        ─► alive: swapped by packets
 *        ─► free, by the sweep; or BUSY, by the maker of another connection
 *
 * Of two that make a connection of one key, the one whose slot comes first in
 * the order of the sets takes the other away (TENTATIVE → free), before it
 * stays itself; the other one looks again. One that is alive always stays. So
 * there are never two alive, and one that was used is never taken away.
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

static __always_inline bool conn_spread(struct crowd *crowd)
{
	return crowd && *(volatile __u64 *)&crowd->spread;
}

/*
 * A set of the front is full: if many are, new connections go elsewhere. Not
 * counted exactly, which would have CPUs wait for each other.
 */
static __always_inline void conn_crowded(struct crowd *crowd)
{
	if (!crowd)
		return;
	if (crowd->missed++ > conn_front / 4)
		crowd->spread = 1;
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

/* Is it a real server of the flow's service? Else the slot is another flow's. */
static __always_inline bool conn_serves(struct flow *f, bool six, __u64 key, __u32 id)
{
	struct real_server *server = bpf_map_lookup_elem(&real_servers, &id);

	return server && (__u8)server->generation == (__u8)(key >> CONN_GENERATION_SHIFT) &&
	       flow_asks(f, six, &server->service);
}

/*
 * The word of a slot that holds the flow's connection, TENTATIVE or alive; else 0.
 * The key is read first and the word last: if they are of one version, so is what
 * was read between them on x86; where a CPU may read in another order, the hash in
 * the key tells an IPv6 client. If they are not, the slot is another connection's
 * by now, or written: who sees TENTATIVE looks again. (That word may happen to be
 * that of a connection which is not alive yet: if it is taken away, its maker looks
 * again.)
 */
static __always_inline __u64 conn_match(struct flow *f, bool six, struct slot *slot)
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
	return conn_serves(f, six, key, conn_server(word)) ? word : 0;
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

/* Looks at some ways of a set. Is the flow's connection there? */
static __always_inline bool conn_try(struct flow *f, bool six, void *set, __u64 ways, __u32 choice)
{
	for (__u32 i = 0; i < CONN_WAYS && ways; i++) {
		__u32 way = conn_first(ways) % CONN_WAYS;
		__u64 word = conn_match(f, six, conn_slot(set, way));

		if (word) {
			f->seen = flow_any(f, word);
			f->place = choice * CONN_WAYS + way;
			return true;
		}
		ways &= ways - 1;
	}
	return false;
}

/*
 * The front is small and its lines come fast: before the other sets while most
 * connections are there; later beside the first, so that nobody waits for both.
 */
static __always_inline void conn_look(struct flow *f, bool six)
{
	void *front = NULL, *first, *second;
	__u64 ways = 0, others;

	if (conn_front) {
		bool dense = !conn_spread(conn_crowd(six));

		front = conn_set(f, six, 0);
		if (!front)
			return; /* never: there are so many sets */
		if (six && dense)
			conn_ahead(front);
		ways = conn_ways(f, six, front);
		if (dense && conn_try(f, six, front, ways, 0))
			return;
	}
	first = conn_set(f, six, 1);
	if (!first)
		return;
	if (six)
		conn_ahead(first);
	others = conn_ways(f, six, first);
	if (conn_try(f, six, first, others, 1))
		return;
	if (front && conn_try(f, six, front, ways, 0))
		return;
	second = conn_set(f, six, 2);
	if (second)
		conn_try(f, six, second, conn_ways(f, six, second), 2);
}

/* What of the connection that was found: go on with it, or make it anew? */
static __always_inline enum reason conn_judge(struct packet *p)
{
	enum conn_state state = conn_state(p->flow.seen);

	if (state == STATE_TENTATIVE)
		return REASON_AGAIN;
	if (conn_expired(p->flow.seen, p->flow.now))
		return REASON_UNDECIDED;
	if (p->flow.key.protocol == IPPROTO_TCP && conn_opens(p) && conn_ended(state))
		return REASON_UNDECIDED;
	if (p->refuse)
		return p->refuse;
	p->flow.server_id = conn_server(p->flow.seen);
	p->server = bpf_map_lookup_elem(&real_servers, &p->flow.server_id);
	if (!p->server)
		return REASON_INTERNAL;
	if (p->server->state != SERVER_LISTED)
		return REASON_SERVER_REMOVED;
	p->service_id = p->server->service_id;
	p->known = 1;
	return REASON_UNDECIDED;
}

static __always_inline enum reason conn_find(struct packet *p)
{
	struct flow *f = &p->flow;

	p->known = 0;
	f->place = CONN_NOWHERE;
	f->hash = hash_flow(&f->key, f->six);
	if (f->six)
		conn_look(f, true);
	else
		conn_look(f, false);
	return f->place == CONN_NOWHERE ? REASON_UNDECIDED : conn_judge(p);
}

/* Swaps the word of a connection for its next, and counts it. Returns what was found. */
static __always_inline __u64 conn_swap(struct slot *slot, __u64 seen, __u64 word)
{
	__u64 was = conn_unit(conn_state(seen)), is = conn_unit(conn_state(word));
	__u64 found;

	/* Before the swap: after it, another CPU may take it off at once. */
	if (is != was)
		conn_count(conn_server(word), is);
	found = __sync_val_compare_and_swap(&slot->word, seen, word);
	if (is != was)
		conn_count(conn_server(word), found == seen ? -was : -is);
	return found;
}

/*
 * Swaps the word of f->place. Who loses the swap to another packet of the flow goes
 * on from that one's state: a FIN or RST is never lost. The loop ends early when the
 * slot is another connection's.
 *
 * Global, so that the verifier looks at it once, whatever the packet.
 */
__noinline int conn_move(struct flow *f)
{
	struct slot *slot;
	__u64 seen;

	if (!f)
		return REASON_INTERNAL;
	slot = conn_here(f);
	seen = f->seen;
	for (int i = 0; slot && i < CONN_TRIES; i++) {
		__u64 word = conn_after(f, seen), found;

		if (word == seen)
			break;
		found = conn_swap(slot, seen, word);
		if (found == seen || !conn_lives(found) ||
		    conn_version(found) != conn_version(seen))
			break;
		seen = flow_any(f, found);
	}
	return REASON_UNDECIDED;
}

/*
 * Moves a known connection to its next state. One that keeps its state is written
 * seldom (conn_after), so that the packets of a busy one do not fight for a line.
 */
static __always_inline void conn_touch(struct packet *p)
{
	if (conn_after(&p->flow, p->flow.seen) != p->flow.seen)
		conn_move(&p->flow);
}

/*
 * Whose place a new connection may take, the least first; ~0 nobody may. What is
 * established is never replaced, so that no flood of new ones touches it.
 */
static __always_inline __u64 conn_rank(__u64 word, __u64 now)
{
	enum conn_state state = conn_state(word);
	__u32 left = (__u32)word - (__u32)now;

	if (state == STATE_NONE)
		return 0;
	if (state == STATE_BUSY || state == STATE_TENTATIVE)
		return ~0ULL;
	if (conn_expired(word, now))
		return 1;
	if (state == STATE_SYN_RECV)
		return 1ULL << 32 | left;
	if (state == STATE_UDP_NEW)
		return 2ULL << 32 | left;
	return ~0ULL;
}

/* Chooses the slot for a new connection: its own, if an old one of its key has one. */
static __always_inline void conn_place(struct flow *f, bool six)
{
	struct crowd *crowd = conn_crowd(six);
	__u64 best = ~0ULL, frees = 0;

	for (__u32 choice = !conn_front || conn_spread(crowd); choice < CONN_SETS && best;
	     choice++) {
		void *set = conn_set(f, six, choice);

		if (!set)
			return;
		for (__u32 way = 0; way < CONN_WAYS; way++) {
			__u64 word = *(volatile __u64 *)&conn_slot(set, way)->word;
			__u64 rank = conn_rank(word, f->now);

			frees = flow_any(f, frees + (rank == 0));
			if (rank >= best)
				continue;
			best = flow_any(f, rank);
			f->seen = flow_any(f, word);
			f->place = flow_any(f, choice * CONN_WAYS + way);
		}
		if (choice == 0 && best)
			conn_crowded(crowd);
		/* The last free one only if the second set has none: full sets are few so. */
		if (choice == 1 && frees == 1)
			best = 1;
	}
}

/* A slot that was given back. The version stays, for the next one to raise. */
static __always_inline __u64 conn_free(__u64 word)
{
	return conn_pack(0, 0, STATE_NONE, conn_version(word));
}

/*
 * Is there another of the flow's connection but that at f->place? One that is not
 * alive yet and comes later is taken away.
 */
static __always_inline bool conn_elsewhere(struct flow *f, bool six)
{
	for (__u32 choice = !conn_front; choice < CONN_SETS; choice++) {
		void *set = conn_set(f, six, choice);

		if (!set)
			return true;
		for (__u32 way = 0; way < CONN_WAYS; way++) {
			struct slot *slot = conn_slot(set, way);
			__u32 place = choice * CONN_WAYS + way;
			__u64 word;

			if (place == f->place)
				continue;
			word = conn_match(f, six, slot);
			if (!word)
				continue;
			if (conn_state(word) != STATE_TENTATIVE || place < f->place)
				return true;
			if (__sync_val_compare_and_swap(&slot->word, word, conn_free(word)) != word)
				return true;
		}
	}
	return false;
}

/*
 * Makes the connection in the slot of f->place. It is counted before it is alive,
 * so that nobody takes it off before it was added.
 */
static __always_inline enum reason conn_write(struct flow *f, bool six)
{
	__u32 version = (__u8)(conn_version(f->seen) + 1);
	__u64 busy = conn_pack(0, 0, STATE_BUSY, version);
	__u64 tentative = conn_pack(0, f->server_id, STATE_TENTATIVE, version);
	__u64 word = conn_pack(conn_expires(f->now, conn_timeout(f->state)), f->server_id, f->state,
			       version);
	struct slot *slot = conn_at(f, six);

	if (!slot)
		return REASON_INTERNAL;
	if (__sync_val_compare_and_swap(&slot->word, f->seen, busy) != f->seen)
		return REASON_AGAIN;
	if (conn_lives(f->seen))
		conn_uncount(f->seen);
	if (six) {
		volatile __u64 *client = conn_client(slot);

		client[0] = ((__u64 *)&f->key.client)[0];
		client[1] = ((__u64 *)&f->key.client)[1];
	}
	*(volatile __u64 *)&slot->key =
		conn_key(f, six) | version | (__u64)(__u8)f->generation << CONN_GENERATION_SHIFT;
	/* A full barrier: what follows reads later. */
	__sync_lock_test_and_set(&slot->word, tentative);

	if (conn_elsewhere(f, six)) {
		__sync_val_compare_and_swap(&slot->word, tentative, conn_free(tentative));
		return REASON_AGAIN;
	}
	conn_count(f->server_id, conn_unit(f->state));
	if (__sync_val_compare_and_swap(&slot->word, tentative, word) == tentative)
		return REASON_UNDECIDED;
	conn_count(f->server_id, -conn_unit(f->state));
	return REASON_AGAIN;
}

static __always_inline enum reason conn_new(struct flow *f, bool six)
{
	if (f->place == CONN_NOWHERE)
		conn_place(f, six);
	if (f->place == CONN_NOWHERE)
		return REASON_TABLE_FULL;
	return conn_write(f, six);
}

/*
 * Global, so that the verifier looks at it once, whatever the packet; with it
 * inlined it gave up (see flow_any).
 */
__noinline int conn_create(struct flow *f)
{
	if (!f)
		return REASON_INTERNAL;
	return f->six ? conn_new(f, true) : conn_new(f, false);
}

static __always_inline enum reason conn_make(struct packet *p, enum conn_state state)
{
	p->flow.state = state;
	p->flow.generation = p->server->generation;
	return conn_create(&p->flow);
}

/* Ends a connection. False if it is another by now, or has changed. */
static __always_inline bool conn_end(struct slot *slot, __u64 seen)
{
	if (__sync_val_compare_and_swap(&slot->word, seen, conn_free(seen)) != seen)
		return false;
	conn_uncount(seen);
	return true;
}

struct conn_sweep {
	__u64 now;
	__u64 seen4;
	__u64 seen6;
	__u64 ended;
	__u32 first;
	__u32 all;
};

static __always_inline void conn_expire_set(struct conn_sweep *sweep, void *set, __u64 *seen)
{
	for (__u32 way = 0; way < CONN_WAYS; way++) {
		struct slot *slot = conn_slot(set, way);
		__u64 word = *(volatile __u64 *)&slot->word;

		if (!conn_lives(word))
			continue;
		*seen += 1;
		if ((sweep->all || conn_expired(word, sweep->now)) && conn_end(slot, word))
			sweep->ended++;
	}
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
	return 0;
}

static __always_inline void conn_expire(struct sweep *result)
{
	struct conn_sweep sweep = {
		.now = conn_ticks(result->now_ns),
		.first = result->first,
		.all = result->all,
	};

	bpf_loop(result->sets, conn_expire_both, &sweep, 0);
	result->seen4 = sweep.seen4;
	result->seen6 = sweep.seen6;
	result->ended = sweep.ended;
}
