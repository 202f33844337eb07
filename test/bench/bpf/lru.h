/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * lru.h: bpf/conn.h over LRU hash maps, for (e): what lvx would be with the table
 * that others have. A map for each family, a key without a spare byte, and the
 * same 64-bit word, changed as seldom and in the same way.
 *
 * What an LRU cannot do is left out: it forgets whom it likes, established or not,
 * and tells nobody, so that counts drift; it is never full.
 *
 * The version of a word is its server's generation. The place of a connection is
 * of no use here but to say that there is one.
 */
#pragma once

#include "../../../bpf/hash.h"
#include "../../../bpf/state.h"

enum { CONN_TRIES = 8, CONN_NOWHERE = 1, CONN_SOMEWHERE = 0 };

struct lru_key4 {
	__be32 client;
	__be32 vip;
	__u32 ports; /* the client's first */
	__u32 protocol;
};

struct lru_key6 {
	struct addr client;
	struct addr vip;
	__u32 ports;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct lru_key4);
	__type(value, __u64);
} lru_flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct lru_key6);
	__type(value, __u64);
} lru_flows6 SEC(".maps");

/* Stores of whole words: the map's hash reads words. */
static __always_inline struct lru_key4 lru_key4(struct flow *f)
{
	return (struct lru_key4){
		.client = f->key.client.word[3],
		.vip = f->key.vip.word[3],
		.ports = f->key.client_port | (__u32)f->key.port << 16,
		.protocol = f->key.protocol,
	};
}

static __always_inline struct lru_key6 lru_key6(struct flow *f)
{
	return (struct lru_key6){
		.client = f->key.client,
		.vip = f->key.vip,
		.ports = f->key.client_port | (__u32)f->key.port << 16,
		.protocol = f->key.protocol,
	};
}

/*
 * The asm keeps clang from making one look-up in a map of either family out of the
 * two, which the kernel would call indirectly.
 */
static __always_inline __u64 *lru_word(struct flow *f)
{
	void *word;

	if (f->six) {
		struct lru_key6 key = lru_key6(f);

		word = bpf_map_lookup_elem(&lru_flows6, &key);
		asm volatile("" : "+r"(word) : "i"(6));
	} else {
		struct lru_key4 key = lru_key4(f);

		word = bpf_map_lookup_elem(&lru_flows4, &key);
		asm volatile("" : "+r"(word) : "i"(4));
	}
	return word;
}

/* The place of the flow's word: a slot, to the rest of lvx, of which only this file looks inside. */
static __always_inline struct slot *conn_here(struct flow *f)
{
	return (void *)lru_word(f);
}

static __always_inline int lru_insert(struct flow *f, __u64 word)
{
	int err; /* not long: see the kernel's commit d7ba4cc900bf */

	if (f->six) {
		struct lru_key6 key = lru_key6(f);

		err = bpf_map_update_elem(&lru_flows6, &key, &word, BPF_NOEXIST);
		asm volatile("" : "+r"(err) : "i"(6));
	} else {
		struct lru_key4 key = lru_key4(f);

		err = bpf_map_update_elem(&lru_flows4, &key, &word, BPF_NOEXIST);
		asm volatile("" : "+r"(err) : "i"(4));
	}
	return err;
}

/*
 * A known connection's packet opens no service, so that p->pool is free to hold
 * where the word is: to look it up again would not be fair.
 */
static __always_inline void lru_keep(struct packet *p, __u64 *word)
{
	p->pool = (void *)word;
}

static __always_inline enum reason conn_find(struct packet *p)
{
	struct flow *f = &p->flow;
	__u64 *word = lru_word(f);

	p->known = 0;
	f->place = CONN_NOWHERE;
	if (!word) {
		if (!conn_opens(p))
			f->hash = hash_flow(&f->key, f->six); /* for a ring, if it comes to that */
		return REASON_UNDECIDED;
	}
	f->place = CONN_SOMEWHERE;
	f->seen = *(volatile __u64 *)word;
	if (!conn_lives(f->seen) || conn_expired(f->seen, f->now))
		return REASON_UNDECIDED;
	if (f->key.protocol == IPPROTO_TCP && conn_opens(p) && conn_ended(conn_state(f->seen)))
		return REASON_UNDECIDED;
	f->server_id = conn_server(f->seen);
	p->server = bpf_map_lookup_elem(&real_servers, &f->server_id);
	if (!p->server || (__u8)p->server->generation != conn_version(f->seen))
		return REASON_UNDECIDED; /* its server's id has another owner: it is over */
	if (p->refuse)
		return p->refuse;
	if (p->server->state != SERVER_LISTED)
		return REASON_SERVER_REMOVED;
	p->service_id = p->server->service_id;
	p->known = 1;
	p->method = METHOD_DR;
	lru_keep(p, word);
	return REASON_UNDECIDED;
}

/* No replies pass here: dr alone is measured over this table. */
static __always_inline enum reason reply_find(struct packet *p)
{
	return REASON_NOT_OURS;
}

static __always_inline enum reason reply_free(struct packet *p)
{
	return REASON_UNDECIDED;
}

static __always_inline enum reason conn_touch(struct packet *p)
{
	__u64 seen = p->flow.seen, word = conn_after(&p->flow, seen);
	__u64 *slot = (void *)p->pool;

	for (int i = 0; i < CONN_TRIES && word != seen; i++) {
		__u64 found = __sync_val_compare_and_swap(slot, seen, word);

		if (found == seen) {
			__u64 delta = conn_unit(conn_state(word)) - conn_unit(conn_state(seen));

			if (delta)
				conn_count(p->flow.server_id, delta);
			break;
		}
		if (!conn_lives(found) || conn_server(found) != conn_server(seen) ||
		    conn_version(found) != conn_version(seen))
			break;
		seen = found;
		word = conn_after(&p->flow, seen);
	}
	return REASON_UNDECIDED;
}

/* In the place of one that is over. */
static __always_inline bool lru_replace(struct flow *f, __u64 word)
{
	__u64 *slot = lru_word(f);

	if (!slot || __sync_val_compare_and_swap(slot, f->seen, word) != f->seen)
		return false;
	if (conn_lives(f->seen))
		conn_uncount(f->seen);
	return true;
}

/* Global, as conn.h's: the verifier looks at it once. */
__noinline int lru_create(struct flow *f)
{
	__u64 word;
	int err;

	if (!f)
		return REASON_INTERNAL;
	word = conn_pack(conn_expires(f->now, conn_timeout(f->state)), f->server_id, f->state,
			 f->generation);
	conn_count(f->server_id, conn_unit(f->state));
	if (f->place == CONN_SOMEWHERE)
		err = lru_replace(f, word) ? 0 : -17; /* EEXIST */
	else
		err = lru_insert(f, word);
	if (!err)
		return REASON_UNDECIDED;
	conn_count(f->server_id, -conn_unit(f->state));
	if (err == -17)
		return REASON_AGAIN;
	f->hash = hash_flow(&f->key, f->six);
	return REASON_TABLE_FULL;
}

static __always_inline enum reason conn_make(struct packet *p, enum conn_state state)
{
	p->flow.state = state;
	p->flow.generation = (__u8)p->server->generation;
	return lru_create(&p->flow);
}

/* Ends a connection. Its entry stays, for the LRU to forget. */
static __always_inline bool conn_end(struct slot *slot, __u64 seen)
{
	if (__sync_val_compare_and_swap((__u64 *)slot, seen, 0) != seen)
		return false;
	if (conn_lives(seen))
		conn_uncount(seen);
	return true;
}

struct conn_sweep {
	__u64 now;
	__u64 seen;
	__u64 ended;
	__u32 all;
};

static long conn_expire_one(void *map, void *key, __u64 *word, struct conn_sweep *sweep)
{
	__u64 seen = *(volatile __u64 *)word;

	sweep->seen++;
	if (!sweep->all && !conn_expired(seen, sweep->now))
		return 0;
	if (conn_end((struct slot *)word, seen)) {
		bpf_map_delete_elem(map, key);
		sweep->ended++;
	}
	return 0;
}

/* All of both maps, whatever part was asked for. */
static __always_inline void conn_expire(struct sweep *result)
{
	struct conn_sweep sweep = { .now = conn_ticks(result->now_ns), .all = result->all };

	bpf_for_each_map_elem(&lru_flows4, conn_expire_one, &sweep, 0);
	bpf_for_each_map_elem(&lru_flows6, conn_expire_one, &sweep, 0);
	result->seen4 = sweep.seen;
	result->ended = sweep.ended;
}
