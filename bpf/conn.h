/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * conn.h, stage 2: the connection that a packet belongs to.
 *
 * conn_find   reads `connections` and `real_servers`; leaves with
 *             SERVER_REMOVED, or goes on, knowing the connection or not.
 * conn_touch  writes a known connection's next state and expiry.
 * conn_make   writes a new connection; leaves with TABLE_FULL or CONTENDED.
 * conn_expire ends connections whose time is up (the sweep program).
 *
 * Only this file writes `connections` and `counts`, always by the transition
 * that wins a compare-and-swap, so that counts are exact without a lock. This
 * is the seam behind which the table can be replaced.
 *
 * How a key's word lives:  insert → swapped by packets → swapped to 0 by the
 * sweep, which alone deletes. A word whose time is up, or that a SYN may open
 * anew, is swapped for that of the new connection in place.
 */
#pragma once

#include "packet.h"

enum { CONN_TRIES = 8 }; /* swaps that a packet tries before it gives up */

static __always_inline __u64 conn_ticks(__u64 now_ns)
{
	return now_ns / (1000000000 / CONN_TICKS_PER_SECOND);
}

static __always_inline __u32 conn_server(__u64 word)
{
	return (word >> CONN_SERVER_SHIFT) & CONN_SERVER_MASK;
}

static __always_inline enum conn_state conn_state(__u64 word)
{
	return (word >> CONN_STATE_SHIFT) & CONN_STATE_MASK;
}

/* The 32-bit clock of quarter seconds wraps after 34 years: compare by difference. */
static __always_inline bool conn_expired(__u64 word, __u64 now)
{
	return (__s32)((__u32)word - (__u32)now) <= 0;
}

static __always_inline __u64 conn_word(__u64 now, enum conn_state state, __u32 server,
				       __u16 generation)
{
	__u32 key = state & CONN_STATE_MASK;
	__u32 *ticks = bpf_map_lookup_elem(&timeouts, &key);
	__u32 expires = now + (ticks ? *ticks : 0);

	return expires | (__u64)server << CONN_SERVER_SHIFT | (__u64)key << CONN_STATE_SHIFT |
	       (__u64)(generation & 0xff) << CONN_GENERATION_SHIFT;
}

/*
 * The next state of a TCP connection of which only the client's packets are
 * seen: kernel IPVS's input-only table (net/netfilter/ipvs/ip_vs_proto_tcp.c),
 * by the flag that counts and the state it finds. A packet with none of the
 * four flags is no TCP that anybody sends: it changes nothing (the kernel goes
 * to CLOSE, so that anybody could end a connection).
 */
/* clang-format off */
#define S(state) STATE_##state
static const __u8 tcp_next[4][STATE_MAX] = {
	/* found:  NONE             ESTABLISHED     SYN_SENT        SYN_RECV     FIN_WAIT     TIME_WAIT */
	/*         CLOSE            CLOSE_WAIT      LAST_ACK        LISTEN       SYNACK */
	/* SYN */ { S(SYN_RECV),    S(ESTABLISHED), S(ESTABLISHED), S(SYN_RECV), S(SYN_RECV), S(SYN_RECV),
		    S(SYN_RECV),    S(SYN_RECV),    S(SYN_RECV),    S(SYN_RECV), S(SYN_RECV) },
	/* FIN */ { S(CLOSE),       S(FIN_WAIT),    S(SYN_SENT),    S(TIME_WAIT), S(FIN_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE_WAIT),  S(LAST_ACK),    S(LISTEN),   S(TIME_WAIT) },
	/* ACK */ { S(ESTABLISHED), S(ESTABLISHED), S(SYN_SENT),    S(ESTABLISHED), S(FIN_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE_WAIT),  S(CLOSE),       S(LISTEN),   S(ESTABLISHED) },
	/* RST */ { S(CLOSE),       S(CLOSE),       S(CLOSE),       S(SYN_RECV), S(CLOSE),    S(CLOSE),
		    S(CLOSE),       S(CLOSE),       S(LAST_ACK),    S(LISTEN),   S(CLOSE) },
};
#undef S
/* clang-format on */

static __always_inline enum conn_state conn_next(struct packet *p, enum conn_state found)
{
	__u32 column = found & CONN_STATE_MASK;

	if (p->key.protocol == IPPROTO_UDP)
		return STATE_UDP;
	if (p->tcp_flags & TCP_RST)
		return tcp_next[3][column];
	if (p->tcp_flags & TCP_SYN)
		return tcp_next[0][column];
	if (p->tcp_flags & TCP_FIN)
		return tcp_next[1][column];
	if (p->tcp_flags & TCP_ACK)
		return tcp_next[2][column];
	return found;
}

/* Active as kernel 6.1 counts. A UDP connection never is. */
static __always_inline bool conn_active(enum conn_state s)
{
	return s == STATE_ESTABLISHED || s == STATE_SYN_SENT || s == STATE_SYN_RECV ||
	       s == STATE_SYNACK;
}

/* One connection in this state, as it is added to or taken from `counts`. */
static __always_inline __u64 conn_unit(enum conn_state s)
{
	return conn_active(s) ? 1 : 1ULL << 32;
}

static __always_inline void conn_count(__u32 server, __u64 delta)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &server);

	if (count)
		__sync_fetch_and_add(count, delta);
}

/*
 * Does the packet ask for a new connection? Of TCP only a plain SYN does; the
 * kernel takes a SYN with ACK too, for active FTP through NAT.
 */
static __always_inline bool conn_opens(struct packet *p)
{
	return p->key.protocol == IPPROTO_UDP ||
	       (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* May a SYN open the connection anew? (conn_reuse_mode 1, DR included) */
static __always_inline bool conn_ended(enum conn_state s)
{
	return s == STATE_FIN_WAIT || s == STATE_TIME_WAIT || s == STATE_CLOSE;
}

static __always_inline enum reason conn_find(struct packet *p)
{
	struct real_server *server;
	__u32 id;

	p->conn = bpf_map_lookup_elem(&connections, &p->key);
	if (!p->conn)
		return REASON_UNDECIDED;
	p->conn_seen = *(volatile __u64 *)p->conn;
	if (conn_expired(p->conn_seen, p->now))
		return REASON_UNDECIDED;
	if (p->key.protocol == IPPROTO_TCP && conn_opens(p) && conn_ended(conn_state(p->conn_seen)))
		return REASON_UNDECIDED;

	id = conn_server(p->conn_seen);
	server = bpf_map_lookup_elem(&real_servers, &id);
	if (!server || (server->generation & 0xff) != p->conn_seen >> CONN_GENERATION_SHIFT)
		return REASON_UNDECIDED; /* its server's id has another owner: it is over */
	if (p->refuse)
		return p->refuse;
	if (server->state != SERVER_LISTED)
		return REASON_SERVER_REMOVED;
	p->known = true;
	p->server = server;
	p->server_id = id;
	p->service_id = server->service_id;
	return REASON_UNDECIDED;
}

/* Takes a connection that is over off its server's count. */
static __always_inline void conn_uncount(__u64 word)
{
	__u32 id = conn_server(word);
	struct real_server *server = bpf_map_lookup_elem(&real_servers, &id);

	if (server && (server->generation & 0xff) == word >> CONN_GENERATION_SHIFT)
		conn_count(id, -conn_unit(conn_state(word)));
}

/*
 * Moves a known connection to its next state. A tick has one write at most
 * unless the state changes, so that busy connections do not fight for a line.
 * Who loses the swap to another packet of the flow goes on from that one's
 * state: a FIN or RST is never lost. The loop ends early when the connection is
 * over (0), or the word has become one of another real server.
 */
static __always_inline void conn_touch(struct packet *p)
{
	__u64 seen = p->conn_seen;

	for (int i = 0; i < CONN_TRIES; i++) {
		enum conn_state was = conn_state(seen);
		enum conn_state is = conn_next(p, was);
		__u64 word = conn_word(p->now, is, p->server_id, p->server->generation);
		__u64 found;

		if (word == seen)
			return;
		found = __sync_val_compare_and_swap(p->conn, seen, word);
		if (found == seen) {
			if (conn_unit(is) != conn_unit(was))
				conn_count(p->server_id, conn_unit(is) - conn_unit(was));
			return;
		}
		if (!found || conn_server(found) != p->server_id ||
		    (found ^ seen) >> CONN_GENERATION_SHIFT)
			return;
		seen = found;
	}
}

/*
 * Makes the connection that the packet opens. It is counted before it can be
 * seen, so that nobody takes it off before it was added.
 */
static __always_inline enum reason conn_make(struct packet *p)
{
	enum conn_state state = conn_next(p, STATE_NONE);
	__u64 word = conn_word(p->now, state, p->server_id, p->server->generation);
	int err; /* not long: see below */

	conn_count(p->server_id, conn_unit(state));
	if (p->conn && p->conn_seen) {
		__u64 seen = p->conn_seen;

		if (__sync_val_compare_and_swap(p->conn, seen, word) == seen) {
			conn_uncount(seen);
			return REASON_UNDECIDED;
		}
		err = 0;
	} else {
		/*
		 * Up to Linux 6.3 the helper's call is patched to a function
		 * that returns int: the upper half of the register is zero, and
		 * a long would be 4294967289 where -E2BIG was meant (seen on
		 * 6.1; mended by the kernel's commit d7ba4cc900bf).
		 */
		err = bpf_map_update_elem(&connections, &p->key, &word, BPF_NOEXIST);
		if (!err)
			return REASON_UNDECIDED;
	}
	conn_count(p->server_id, -conn_unit(state));
	return err == -7 /* E2BIG */ || err == -12 /* ENOMEM */ ? REASON_TABLE_FULL
								: REASON_CONTENDED;
}

struct conn_sweep {
	__u64 now;
	__u64 seen;
	__u64 ended;
};

static long conn_expire_one(void *map, struct conn_key *key, __u64 *word, struct conn_sweep *sweep)
{
	__u64 seen = *(volatile __u64 *)word;

	sweep->seen++;
	if (!conn_expired(seen, sweep->now))
		return 0;
	if (seen && __sync_val_compare_and_swap(word, seen, 0) != seen)
		return 0;
	if (seen) {
		conn_uncount(seen);
		sweep->ended++;
	}
	bpf_map_delete_elem(map, key);
	return 0;
}

static __always_inline void conn_expire(struct sweep *result)
{
	struct conn_sweep sweep = { .now = conn_ticks(result->now_ns) };

	bpf_for_each_map_elem(&connections, conn_expire_one, &sweep, 0);
	result->seen = sweep.seen;
	result->ended = sweep.ended;
}
