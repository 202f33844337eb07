/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * conn.h, stage 2: the connection that a packet belongs to.
 *
 * conn_find   reads `connections4`, `connections6` and `real_servers`; leaves
 *             with SERVER_REMOVED, or goes on, knowing the connection or not.
 * conn_seek   only looks whether there is one.
 * conn_touch  writes a known connection's next state and expiry.
 * conn_make   writes a new connection; leaves with TABLE_FULL.
 * conn_end    ends one.
 *
 * conn_find, conn_touch and conn_make leave with AGAIN if another CPU was faster.
 *
 * Only this file and sweep.h write the tables, and `counts` through state.h, always
 * by the transition that wins a compare-and-swap, so that counts are exact without a
 * lock. They are the seam behind which the table can be replaced: test/bench does.
 */
#pragma once

#include "table.h"

/* Looks at a set. Is the flow's connection there? */
static __always_inline bool conn_try(struct flow *f, bool six, __u32 choice,
				     struct real_server **server)
{
	void *set = conn_set(f, six, choice);
	__u64 ways;

	if (!set)
		return false; /* never: there are so many sets */
	if (six)
		conn_ahead(set);
	ways = conn_ways(f, six, set);
	for (__u32 i = 0; i < CONN_WAYS && ways; i++) {
		__u32 way = conn_first(ways) % CONN_WAYS;
		__u64 word = conn_match(f, six, conn_slot(set, way), server);

		if (word) {
			f->seen = flow_any(f, word);
			f->place = choice * CONN_WAYS + way;
			return true;
		}
		ways &= ways - 1;
	}
	return false;
}

/* Has the lines of a set come while something else is looked at. */
static __always_inline void conn_ask(struct flow *f, bool six, __u32 choice)
{
	struct slot *set = conn_set(f, six, choice);
	__u64 key;

	if (!set)
		return;
	key = *(volatile __u64 *)&set->key;
	asm volatile("" : : "r"(key));
	if (six)
		conn_ahead(set);
}

/*
 * The front comes first while most connections are there, else last, if at all. A
 * new connection has to wait for all sets, so it waits for all at once.
 */
static __always_inline bool conn_look(struct flow *f, bool six, struct crowd *crowd,
				      struct real_server **server)
{
	bool inside = conn_inside(crowd), first = conn_fill(crowd) == FILL_FRONT;

	if (f->tcp_flags & TCP_SYN) {
		if (inside)
			conn_ask(f, six, 0);
		conn_ask(f, six, 1);
		conn_ask(f, six, 2);
	}
	if (inside && first && conn_try(f, six, 0, server))
		return true;
	if (conn_try(f, six, 1, server) || conn_try(f, six, 2, server))
		return true;
	return inside && !first && conn_try(f, six, 0, server);
}

/* What of the connection that was found: go on with it, or make it anew? */
static __always_inline enum reason conn_judge(struct packet *p)
{
	enum conn_state state = conn_state(p->flow.seen);

	if (!conn_lives(p->flow.seen))
		return REASON_AGAIN;
	if (conn_expired(p->flow.seen, p->flow.now))
		return REASON_UNDECIDED;
	if (p->flow.key.protocol == IPPROTO_TCP && conn_opens(p) && conn_ended(state))
		return REASON_UNDECIDED;
	if (p->refuse)
		return p->refuse;
	if (!p->server)
		return REASON_INTERNAL; /* never: conn_match found it */
	p->flow.server_id = conn_server(p->flow.seen);
	if (p->server->state != SERVER_LISTED && !p->flow.reply)
		return REASON_SERVER_REMOVED;
	p->service_id = p->server->service_id;
	p->method = *(volatile enum method *)&p->server->method;
	p->flow.direction = conn_direction(p);
	p->known = 1;
	return REASON_UNDECIDED;
}

/* How many connections were moved out of the front. */
static __always_inline __u64 conn_moved(struct crowd *crowd)
{
	return conn_front && crowd ? *(volatile __u64 *)&crowd->moved : 0;
}

/*
 * Looks for a flow's connection: f->place is CONN_NOWHERE if there is none. One that is
 * moved out of the front while we look may be in no place when we look there: AGAIN.
 */
static __always_inline enum reason conn_locate(struct flow *f, struct real_server **server)
{
	struct crowd *crowd = conn_crowd(f->six);
	__u64 moved = conn_moved(crowd);
	bool found;

	*server = NULL;
	f->place = CONN_NOWHERE;
	f->hash = hash_flow(&f->key, f->six);
	found = f->six ? conn_look(f, true, crowd, server) : conn_look(f, false, crowd, server);
	return found || conn_moved(crowd) == moved ? REASON_UNDECIDED : REASON_AGAIN;
}

static __always_inline enum reason conn_find(struct packet *p)
{
	enum reason r;

	p->known = 0;
	r = conn_locate(&p->flow, &p->server);
	return r || p->flow.place == CONN_NOWHERE ? r : conn_judge(p);
}

/*
 * Is there a connection of this flow? Global, so that the verifier looks at it once,
 * however many flows a packet may be of.
 */
__noinline int conn_seek(struct flow *f)
{
	struct real_server *server;

	return f ? conn_locate(f, &server) : REASON_INTERNAL;
}

/* Does a slot still hold the connection that it held? */
static __always_inline bool conn_same(__u64 found, __u64 seen)
{
	return conn_lives(found) && conn_version(found) == conn_version(seen);
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
 * on from that one's state: a FIN or RST is never lost. The connection may have been
 * moved away meanwhile: AGAIN.
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
		if (found == seen)
			break;
		if (!conn_same(found, seen))
			return REASON_AGAIN;
		seen = flow_any(f, found);
	}
	return REASON_UNDECIDED;
}

/*
 * Moves a known connection to its next state. One that keeps its state is written
 * seldom (conn_after), so that the packets of a busy one do not fight for a line.
 */
static __always_inline enum reason conn_touch(struct packet *p)
{
	if (conn_after(&p->flow, p->flow.seen) == p->flow.seen)
		return REASON_UNDECIDED;
	return conn_move(&p->flow);
}

/*
 * Whose place a new connection may take, the least first. What is established is
 * never replaced, so that no flood of new ones touches it.
 */
enum conn_class {
	CLASS_FREE,
	CLASS_OVER, /* its time is up */
	CLASS_EMBRYO,
	CLASS_DATAGRAM,
	CLASS_KEPT,
	CLASS_COMING, /* no connection yet */
	CLASS_SHIFT = 32,
};

/* Before these ranks are: what is free, what is nobody's any more, all that may be replaced. */
#define RANK_OVER   ((__u64)CLASS_OVER << CLASS_SHIFT)
#define RANK_EMBRYO ((__u64)CLASS_EMBRYO << CLASS_SHIFT)
#define RANK_KEPT   ((__u64)CLASS_KEPT << CLASS_SHIFT)

static const __u8 conn_classes[STATE_MAX] = {
	[STATE_NONE] = CLASS_FREE,	  [STATE_ESTABLISHED] = CLASS_KEPT,
	[STATE_SYN_SENT] = CLASS_KEPT,	  [STATE_SYN_RECV] = CLASS_EMBRYO,
	[STATE_FIN_WAIT] = CLASS_KEPT,	  [STATE_TIME_WAIT] = CLASS_KEPT,
	[STATE_CLOSE] = CLASS_KEPT,	  [STATE_CLOSE_WAIT] = CLASS_KEPT,
	[STATE_LAST_ACK] = CLASS_KEPT,	  [STATE_LISTEN] = CLASS_KEPT,
	[STATE_SYNACK] = CLASS_KEPT,	  [STATE_UDP] = CLASS_KEPT,
	[STATE_UDP_NEW] = CLASS_DATAGRAM, [STATE_BUSY] = CLASS_COMING,
	[STATE_TENTATIVE] = CLASS_COMING, [STATE_MOVING] = CLASS_COMING,
};

/* Its class, and in a class who ends first. */
static __always_inline __u64 conn_rank(__u64 word, __u64 now)
{
	__u64 class = conn_classes[conn_state(word)], left = (__u32)word - (__u32)now;

	if (conn_lives(word) && conn_expired(word, now))
		class = CLASS_OVER;
	return class << CLASS_SHIFT | left;
}

static __always_inline bool conn_spare(__u64 rank)
{
	return rank < RANK_OVER;
}

/*
 * Chooses among the slots of a set who is better than the best so far. Without a
 * branch: which is the best is anybody's guess, and so the CPU's is wrong.
 */
static __always_inline __u64 conn_best(struct flow *f, bool six, __u32 choice, __u64 best)
{
	void *set = conn_set(f, six, choice);
	__u64 seen = f->seen, place = f->place;

	if (!set)
		return best;
#pragma unroll
	for (__u32 way = 0; way < CONN_WAYS; way++) {
		__u64 word = *(volatile __u64 *)&conn_slot(set, way)->word;
		__s64 better = conn_rank(word, f->now) - best;
		__u64 mask = better >> 63;

		best += better & mask;
		seen ^= (seen ^ word) & mask;
		place ^= (place ^ (choice * CONN_WAYS + way)) & mask;
	}
	f->seen = seen;
	f->place = place;
	return best;
}

/* How many slots of a set are free. */
static __always_inline __u32 conn_spares(struct flow *f, bool six, __u32 choice)
{
	void *set = conn_set(f, six, choice);
	__u32 spares = 0;

	for (__u32 way = 0; set && way < CONN_WAYS; way++)
		spares += conn_state(*(volatile __u64 *)&conn_slot(set, way)->word) == STATE_NONE;
	return spares;
}

/*
 * Chooses the slot for a new connection. Its first set is filled before the second
 * is used, so that few packets have to look further; what finds both full goes to the
 * front. Where there is no room in the front, the last free slot of the first set is
 * for those that find the second full, and who may be replaced is.
 */
static __always_inline void conn_place(struct flow *f, bool six)
{
	struct crowd *crowd = conn_crowd(six);
	__u64 best = RANK_KEPT, fill = conn_fill(crowd);

	if (fill == FILL_FRONT) {
		best = conn_best(f, six, 0, best);
		if (conn_spare(best))
			return;
		conn_crowded(crowd, fill);
	}
	best = conn_best(f, six, 1, best);
	if (conn_spare(best)) {
		if ((conn_front && fill == FILL_SETS) || conn_spares(f, six, 1) > 1)
			return;
		best = RANK_OVER;
	}
	best = conn_best(f, six, 2, best);
	if (!conn_front || fill == FILL_FRONT || conn_spare(best) ||
	    (fill == FILL_TIGHT && best < RANK_KEPT))
		return;
	best = conn_best(f, six, 0, best);
	if (!conn_spare(best))
		conn_crowded(crowd, fill);
}

/* A slot that was given back. The version stays, for the next one to raise. */
static __always_inline __u64 conn_free(__u64 word)
{
	return conn_pack(0, 0, STATE_NONE, conn_version(word));
}

/*
 * Does what is in this slot stand in the way of the flow's new connection? One that is
 * not alive yet and comes later is taken away.
 */
static __always_inline bool conn_stays(struct flow *f, bool six, struct slot *slot, __u32 place)
{
	struct real_server *server;
	__u64 word;

	if (place == f->place)
		return false;
	word = conn_match(f, six, slot, &server);
	if (!word)
		return false;
	if (conn_state(word) != STATE_TENTATIVE || place < f->place)
		return true;
	return __sync_val_compare_and_swap(&slot->word, word, conn_free(word)) != word;
}

/*
 * Is there another of the flow's connection but that at f->place? What goes into
 * the front says so before it looks here, so that of two one sees the other.
 */
static __always_inline bool conn_elsewhere(struct flow *f, bool six)
{
	struct crowd *crowd = conn_crowd(six);

	if (f->place < CONN_WAYS)
		conn_enter(crowd);
	for (__u32 choice = !conn_inside(crowd); choice < CONN_SETS; choice++) {
		void *set = conn_set(f, six, choice);
		__u64 ways;

		if (!set)
			return true;
		ways = conn_ways(f, six, set);
		for (__u32 i = 0; i < CONN_WAYS && ways; i++) {
			__u32 way = conn_first(ways) % CONN_WAYS;

			if (conn_stays(f, six, conn_slot(set, way), choice * CONN_WAYS + way))
				return true;
			ways &= ways - 1;
		}
	}
	return false;
}

/* A word that says of a slot what it is to become. */
static __always_inline __u64 conn_coming(struct flow *f, enum conn_state state)
{
	return conn_pack(0, f->server_id, state, (__u8)(conn_version(f->seen) + 1));
}

/*
 * Takes the slot of f->place, in which f->seen was, and writes the flow's key. The
 * word is the one that others see then.
 */
static __always_inline bool conn_claim(struct flow *f, bool six, struct slot *slot, __u64 word)
{
	__u64 busy = conn_pack(0, 0, STATE_BUSY, conn_version(word));

	if (__sync_val_compare_and_swap(&slot->word, f->seen, busy) != f->seen)
		return false;
	if (conn_lives(f->seen))
		conn_uncount(f->seen);
	if (six) {
		volatile __u64 *client = conn_client(slot);

		client[0] = ((__u64 *)&f->key.client)[0];
		client[1] = ((__u64 *)&f->key.client)[1];
	}
	*(volatile __u64 *)&slot->key = conn_key(f, six) | conn_version(word) |
					(__u64)(__u8)f->generation << CONN_GENERATION_SHIFT;
	/* A full barrier: what follows reads later. */
	__sync_lock_test_and_set(&slot->word, word);
	return true;
}

/*
 * Makes the connection in the slot of f->place. It is counted before it is alive,
 * so that nobody takes it off before it was added.
 */
static __always_inline enum reason conn_write(struct flow *f, bool six)
{
	__u64 tentative = conn_coming(f, STATE_TENTATIVE);
	__u64 word = conn_pack(conn_expires(f->now, conn_timeout(f->state)), f->server_id, f->state,
			       conn_version(tentative));
	struct slot *slot = conn_at(f, six);

	if (!slot)
		return REASON_INTERNAL;
	if (!conn_claim(f, six, slot, tentative))
		return REASON_AGAIN;
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
