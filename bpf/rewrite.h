/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rewrite.h, for stage 5: addresses, ports and checksums.
 *
 * rewrite_check   leaves with TTL_EXPIRED, before anything is written.
 * rewrite_packet  makes the real server the packet's destination, or the VIP a reply's
 *                 source.
 *
 * Checksums change by what changes of what they are over (RFC 1624, equation 3), so a
 * packet that came in damaged leaves as damaged. A UDP checksum of 0 says that there is
 * none, and stays (RFC 768).
 */
#pragma once

#include "packet.h"

enum {
	IP4_CHECK = 10,	 /* where the checksum is in an IPv4 header */
	IP4_SOURCE = 12, /* where the addresses begin */
	IP6_SOURCE = 8,
	TCP_CHECK = 16,
	UDP_CHECK = 6,
};

/* Whoever forwards by address is a router, and counts (RFC 1812, 5.3.1). */
static __always_inline enum reason rewrite_check(struct packet *p)
{
	void *ip = packet_place(p->ctx, p->ip_at);
	struct ipv6hdr *six = ip;
	struct iphdr *four = ip;
	__u8 ttl;

	if (p->flow.six && (void *)(six + 1) <= p->end)
		ttl = six->hop_limit;
	else if (!p->flow.six && (void *)(four + 1) <= p->end)
		ttl = four->ttl;
	else
		return REASON_INTERNAL;
	return ttl > 1 ? REASON_UNDECIDED : REASON_TTL_EXPIRED;
}

/* What a checksum changes by when a word of what it is over does; not folded. */
static __always_inline __u64 rewrite_change(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

/* What it changes by when an address does. */
static __always_inline __u64 rewrite_addr_change(const __be32 *old, const struct addr *new,
						 bool six)
{
	if (!six)
		return rewrite_change(old[0], new->word[3]);
	return rewrite_change(old[0], new->word[0]) + rewrite_change(old[1], new->word[1]) +
	       rewrite_change(old[2], new->word[2]) + rewrite_change(old[3], new->word[3]);
}

/* A sum of many 32-bit words, which may be a little more than 32 bits, as ip_fold has it. */
static __always_inline __u16 rewrite_fold(__u16 check, __u64 change)
{
	return ~ip_fold((__u64)(__u16)~check + change);
}

/*
 * How far behind the beginning of TCP or UDP the checksum is. The empty asm keeps clang
 * from making two pointers of it, of which the verifier loses one.
 */
static __always_inline __u64 rewrite_check_at(struct flow *f)
{
	__u64 at = f->key.protocol == IPPROTO_TCP ? TCP_CHECK : UDP_CHECK;

	asm volatile("" : "+r"(at));
	return at & 31;
}

/* Of UDP, 0 is written as 0xffff. */
static __always_inline void rewrite_transport(struct flow *f, __u16 *check, __u64 change)
{
	bool udp = f->key.protocol == IPPROTO_UDP;

	if (udp && !*check)
		return;
	*check = rewrite_fold(*check, change);
	if (udp && !*check)
		*check = 0xffff;
}

/* One hop less. The IPv4 checksum is over the word that has TTL and protocol. */
static __always_inline void rewrite_hop(void *ip, bool six, __u64 *change)
{
	struct iphdr *four = ip;
	__u16 *word = (__u16 *)&four->ttl;
	__u16 old = *word;

	if (six) {
		((struct ipv6hdr *)ip)->hop_limit--;
		return;
	}
	four->ttl--;
	*change += rewrite_change(old, *word);
}

/* Writes an address and a port: a reply's source, or else the destination. */
static __always_inline enum reason rewrite_end(struct xdp_md *ctx, struct flow *f, bool six,
					       void *ip, void *transport, const struct addr *to,
					       __be16 to_port)
{
	void *end = (void *)(long)ctx->data_end, *check = transport + rewrite_check_at(f);
	__be16 *port = transport;
	__u64 change, header = 0;
	__be32 *addr;

	if (ip + (six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end ||
	    check + sizeof(__u16) > end || (void *)(port + 2) > end)
		return REASON_INTERNAL;
	addr = ip + (six ? IP6_SOURCE : IP4_SOURCE);
	if (!f->reply) {
		addr += six ? 4 : 1;
		port++;
	}
	change = rewrite_addr_change(addr, to, six);
	rewrite_hop(ip, six, &header);
	if (six) {
		addr[0] = to->word[0];
		addr[1] = to->word[1];
		addr[2] = to->word[2];
	} else {
		__u16 *sum = ip + IP4_CHECK;

		*sum = rewrite_fold(*sum, header + change);
	}
	addr[six ? 3 : 0] = to->word[3];
	rewrite_transport(f, check, change + rewrite_change(*port, to_port));
	*port = to_port;
	return REASON_UNDECIDED;
}

/* Global, so that the verifier looks at it once. The places are those of struct packet. */
__noinline int rewrite_frame(struct xdp_md *ctx, struct flow *f, __u64 ip_at, __u64 transport_at)
{
	void *ip = packet_place(ctx, ip_at), *transport = packet_place(ctx, transport_at);
	struct real_server *server;
	__u32 id;

	if (!f)
		return REASON_INTERNAL;
	id = f->server_id;
	server = bpf_map_lookup_elem(&real_servers, &id);
	if (!server)
		return REASON_INTERNAL;
	if (f->six)
		return rewrite_end(ctx, f, true, ip, transport,
				   f->reply ? &server->service.vip : &server->addr,
				   f->reply ? server->service.port : server->port);
	return rewrite_end(ctx, f, false, ip, transport,
			   f->reply ? &server->service.vip : &server->addr,
			   f->reply ? server->service.port : server->port);
}

static __always_inline enum reason rewrite_packet(struct packet *p)
{
	return rewrite_frame(p->ctx, &p->flow, p->ip_at, p->transport_at);
}
