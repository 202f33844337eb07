/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * state.h: the states of a connection and what they count as. Reads `timeouts`,
 * writes `counts`. What is here holds for any table of connections; conn.h is one.
 */
#pragma once

#include "packet.h"

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

/* Does the word hold a connection, be its time up or not? */
static __always_inline bool conn_lives(__u64 word)
{
	enum conn_state s = conn_state(word);

	return s != STATE_NONE && s < STATE_BUSY;
}

static __always_inline __u32 conn_version(__u64 word)
{
	return word >> CONN_VERSION_SHIFT;
}

static __always_inline __u64 conn_pack(__u32 expires, __u32 server, enum conn_state state,
				       __u32 version)
{
	return expires | (__u64)server << CONN_SERVER_SHIFT |
	       (__u64)(state & CONN_STATE_MASK) << CONN_STATE_SHIFT |
	       (__u64)version << CONN_VERSION_SHIFT;
}

/* How long a connection of this state may be idle, in ticks. */
static __always_inline __u32 conn_timeout(enum conn_state state)
{
	__u32 key = (state == STATE_UDP_NEW ? STATE_UDP : state) & CONN_STATE_MASK;
	__u32 *ticks = bpf_map_lookup_elem(&timeouts, &key);

	return ticks ? *ticks : 0;
}

/*
 * The next state of a TCP connection: kernel IPVS's tables
 * (net/netfilter/ipvs/ip_vs_proto_tcp.c), by which packets of it pass us, the flag that
 * counts and the state it finds. A packet with none of the four flags is no TCP that
 * anybody sends: it changes nothing (the kernel goes to CLOSE, so that anybody could
 * end a connection).
 */
/* clang-format off */
#define S(state) STATE_##state
static const __u8 tcp_next[3][4][STATE_MAX] = {
	[DIRECTION_ONLY] = {
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
	},
	[DIRECTION_THERE] = {
	/* SYN */ { S(SYN_RECV),    S(ESTABLISHED), S(ESTABLISHED), S(SYN_RECV), S(SYN_RECV), S(SYN_RECV),
		    S(SYN_RECV),    S(SYN_RECV),    S(SYN_RECV),    S(SYN_RECV), S(SYN_RECV) },
	/* FIN */ { S(CLOSE),       S(CLOSE_WAIT),  S(SYN_SENT),    S(TIME_WAIT), S(TIME_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE_WAIT),  S(LAST_ACK),    S(LISTEN),   S(TIME_WAIT) },
	/* ACK */ { S(ESTABLISHED), S(ESTABLISHED), S(SYN_SENT),    S(ESTABLISHED), S(FIN_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE_WAIT),  S(CLOSE),       S(LISTEN),   S(ESTABLISHED) },
	/* RST */ { S(CLOSE),       S(CLOSE),       S(CLOSE),       S(SYN_RECV), S(CLOSE),    S(CLOSE),
		    S(CLOSE),       S(CLOSE),       S(LAST_ACK),    S(LISTEN),   S(SYN_RECV) },
	},
	[DIRECTION_BACK] = {
	/* SYN */ { S(SYN_SENT),    S(ESTABLISHED), S(SYN_SENT),    S(SYN_RECV), S(SYN_SENT), S(SYN_SENT),
		    S(SYN_SENT),    S(SYN_SENT),    S(SYN_SENT),    S(LISTEN),   S(SYN_RECV) },
	/* FIN */ { S(TIME_WAIT),   S(FIN_WAIT),    S(SYN_SENT),    S(TIME_WAIT), S(FIN_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(TIME_WAIT),   S(LAST_ACK),    S(LISTEN),   S(TIME_WAIT) },
	/* ACK */ { S(ESTABLISHED), S(ESTABLISHED), S(SYN_SENT),    S(ESTABLISHED), S(FIN_WAIT), S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE_WAIT),  S(LAST_ACK),    S(ESTABLISHED), S(ESTABLISHED) },
	/* RST */ { S(CLOSE),       S(CLOSE),       S(SYN_SENT),    S(CLOSE),    S(CLOSE),    S(TIME_WAIT),
		    S(CLOSE),       S(CLOSE),       S(CLOSE),       S(CLOSE),    S(CLOSE) },
	},
};
#undef S
/* clang-format on */

/* Which packets of its connection pass us: all if its replies do. */
static __always_inline enum direction conn_direction(struct packet *p)
{
	if (p->flow.reply)
		return DIRECTION_BACK;
	return p->method == METHOD_NAT ? DIRECTION_THERE : DIRECTION_ONLY;
}

/* UDP: what a real server says does not tell that its client is there. */
static __always_inline enum conn_state conn_next_udp(struct flow *f, enum conn_state found)
{
	if (found == STATE_NONE || f->reply)
		return found == STATE_NONE ? STATE_UDP_NEW : found;
	return STATE_UDP;
}

static __always_inline enum conn_state conn_next(struct flow *f, enum conn_state found)
{
	__u32 row = f->direction, column = found & CONN_STATE_MASK;

	if (f->key.protocol == IPPROTO_UDP)
		return conn_next_udp(f, found);
	if (row > DIRECTION_BACK)
		return found; /* never */
	if (f->tcp_flags & TCP_RST)
		return tcp_next[row][3][column];
	if (f->tcp_flags & TCP_SYN)
		return tcp_next[row][0][column];
	if (f->tcp_flags & TCP_FIN)
		return tcp_next[row][1][column];
	if (f->tcp_flags & TCP_ACK)
		return tcp_next[row][2][column];
	return found;
}

/* Active as kernel 6.1 counts: a bit for each state. A UDP connection never is. */
enum {
	CONN_ACTIVE = 1 << STATE_ESTABLISHED | 1 << STATE_SYN_SENT | 1 << STATE_SYN_RECV |
		      1 << STATE_SYNACK,
};

/*
 * One connection in this state, as it is added to or taken from `counts`. Without a
 * branch, of which the verifier would follow both sides each time.
 */
static __always_inline __u64 conn_unit(enum conn_state s)
{
	return 1ULL << (32 * (~(__u64)CONN_ACTIVE >> (s & CONN_STATE_MASK) & 1));
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
	return p->flow.key.protocol == IPPROTO_UDP ||
	       (p->flow.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN;
}

/* May a SYN open the connection anew? (conn_reuse_mode 1, DR included) */
static __always_inline bool conn_ended(enum conn_state s)
{
	return s == STATE_FIN_WAIT || s == STATE_TIME_WAIT || s == STATE_CLOSE;
}

/* Takes a connection that is over off its server's count. */
static __always_inline void conn_uncount(__u64 word)
{
	conn_count(conn_server(word), -conn_unit(conn_state(word)));
}

/* The part of its timeout that a connection may live longer. */
static __always_inline __u32 conn_slack(__u32 timeout)
{
	return timeout / CONN_SLACK;
}

/*
 * When a connection ends that nobody hears of any more: up to a 256th later than its
 * timeout says, so that one which is heard of all the time is not written all the
 * time.
 */
static __always_inline __u32 conn_expires(__u64 now, __u32 timeout)
{
	return now + timeout + conn_slack(timeout);
}

/*
 * Does a UDP flow that is new stay as it is? By when it ends one knows in which tick its
 * client was heard of; so a reply puts that off only if half of the time is over.
 */
static __always_inline bool conn_waits(struct flow *f, __u32 later, __u32 timeout)
{
	return f->reply ? later < timeout / 2 : later == 0;
}

/*
 * The word of a connection after the packet: seen is the word before. A UDP flow
 * that is heard of in a second tick is no longer new.
 */
static __always_inline __u64 conn_after(struct flow *f, __u64 seen)
{
	enum conn_state was = conn_state(seen), is = conn_next(f, was);
	__u32 timeout = conn_timeout(is);
	__u32 expires = conn_expires(f->now, timeout);

	if (was == STATE_UDP_NEW && conn_waits(f, expires - (__u32)seen, timeout))
		return seen;
	if (is == was && expires - (__u32)seen <= conn_slack(timeout))
		return seen;
	return conn_pack(expires, conn_server(seen), is, conn_version(seen));
}
