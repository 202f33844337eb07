/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * icmp.h: ICMP errors, which take the way of the packet that they are about.
 *
 * icmp_parse    stage 1: whose packet is it? Leaves with NOT_OURS (passed to the kernel:
 *               what is no error, and about no packet of ours), or goes on with the flow
 *               of the packet in it, and `icmp` set.
 * icmp_rewrite  stage 5, for nat: the error, and the packet in it.
 *
 * An error changes nothing of its connection, neither state nor expiry: anybody can send
 * one. Its own checksum is not looked at; a wrong one stays wrong.
 */
#pragma once

#include "rewrite.h"

enum {
	ICMP_HEADER = 8, /* of both families; the packet follows */
	ICMP_CHECK = 2,
	ICMP4_UNREACHABLE = 3,
	ICMP4_TIME_EXCEEDED = 11,
	ICMP4_PARAMETER = 12,
	ICMP6_UNREACHABLE = 1,
	ICMP6_PARAMETER = 4, /* 2 and 3: too big, time exceeded */
};

static __always_inline bool icmp_error(__u8 type, bool six)
{
	if (six)
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER;
	return type == ICMP4_UNREACHABLE || type == ICMP4_TIME_EXCEEDED || type == ICMP4_PARAMETER;
}

/*
 * How long the IP header of the packet inside is, or 0 if no TCP or UDP follows it, as in
 * a fragment but the first, and in an error: there is none about errors (RFC 1122,
 * 3.2.2). The empty asm: see rewrite_check_at.
 */
static __always_inline __u64 icmp_header(void *ip, void *end, bool six, __u8 *protocol)
{
	struct ipv6hdr *ip6 = ip;
	struct iphdr *ip4 = ip;
	__u64 header;

	if (ip + (six ? sizeof(*ip6) : sizeof(*ip4)) > end)
		return 0;
	*protocol = six ? ip6->nexthdr : ip4->protocol;
	header = six ? sizeof(*ip6) : ip4->ihl * 4;
	if ((six ? ip6->version != 6 : ip4->version != 4) || header < sizeof(*ip4) ||
	    (!six && ip4->frag_off & bpf_htons(IP_OFFSET)) ||
	    (*protocol != IPPROTO_TCP && *protocol != IPPROTO_UDP))
		return 0;
	asm volatile("" : "+r"(header));
	return header & 63;
}

/* An address of the packet inside. */
static __always_inline void icmp_addr(struct addr *to, void *ip, bool six, bool source)
{
	if (six)
		addr_copy(to, ip + IP6_SOURCE + (source ? 0 : sizeof(struct addr)));
	else
		addr_from_v4(to, *(__be32 *)(ip + IP4_SOURCE + (source ? 0 : sizeof(__be32))));
}

/*
 * The packet inside went the other way. Who sent it gets the error; and of nat's real
 * servers those alone are heard that the packet went to.
 */
static __always_inline enum reason icmp_inside(struct flow *f, bool six, void *icmp, void *end,
					       __u64 bytes)
{
	void *ip = icmp + ICMP_HEADER;
	struct addr sender;
	__u8 protocol = 0;
	__be16 *ports;
	__u64 header;

	if (ip > end || !icmp_error(*(__u8 *)icmp, six))
		return REASON_NOT_OURS;
	header = icmp_header(ip, end, six, &protocol);
	ports = ip + header;
	if (!header || (void *)(ports + 2) > end ||
	    ICMP_HEADER + header + 2 * sizeof(*ports) > bytes)
		return REASON_NOT_OURS;
	icmp_addr(&sender, ip, six, true);
	if (!addr_equal(&sender, &f->key.vip))
		return REASON_NOT_OURS;
	icmp_addr(&sender, ip, six, false);
	if (f->reply && !addr_equal(&sender, &f->key.client))
		return REASON_NOT_OURS;
	f->key.client = sender;
	f->key.client_port = ports[1];
	f->key.port = ports[0];
	f->key.protocol = protocol;
	return REASON_UNDECIDED;
}

/*
 * The message has so many bytes, and the frame perhaps more. Global, so that the verifier
 * looks at it once.
 */
__noinline int icmp_turn(struct xdp_md *ctx, struct flow *f, __u64 at, __u64 bytes)
{
	void *icmp = packet_place(ctx, at), *end = (void *)(long)ctx->data_end;

	if (!f)
		return REASON_INTERNAL;
	return f->six ? icmp_inside(f, true, icmp, end, bytes)
		      : icmp_inside(f, false, icmp, end, bytes);
}

static __always_inline enum reason icmp_parse(struct packet *p)
{
	__u64 end = p->ip_at + p->ip_bytes;

	if (!p->flow.icmp)
		return REASON_UNDECIDED;
	return icmp_turn(p->ctx, &p->flow, p->transport_at,
			 end > p->transport_at ? end - p->transport_at : 0);
}

/* Swaps a checksum for its next, and returns what a sum over it changes by. */
static __always_inline __u64 icmp_sum(__u16 *check, __u64 change)
{
	__u16 old = *check;

	*check = rewrite_fold(old, change);
	return rewrite_change(old, *check);
}

/*
 * The checksum of TCP or UDP in the packet inside, if that is not cut off before it: so
 * many bytes of it are there. A frame may be longer than its packet.
 */
static __always_inline __u64 icmp_inner_sum(struct flow *f, void *transport, __u64 bytes, void *end,
					    __u64 change)
{
	__u64 at = rewrite_check_at(f);
	__u16 *check, old;

	if (at + sizeof(*check) > bytes)
		return 0;
	check = transport + at;
	if ((void *)(check + 1) > end)
		return 0;
	old = *check;
	rewrite_transport(f, check, change);
	return rewrite_change(old, *check);
}

/* Where an address is: the source's, or the destination's. */
static __always_inline __be32 *icmp_end(void *ip, bool six, bool source)
{
	__be32 *addr = ip + (six ? IP6_SOURCE : IP4_SOURCE);

	return source ? addr : addr + (six ? 4 : 1);
}

static __always_inline void icmp_store(__be32 *at, const struct addr *to, bool six)
{
	if (six) {
		at[0] = to->word[0];
		at[1] = to->word[1];
		at[2] = to->word[2];
		at[3] = to->word[3];
	} else {
		at[0] = to->word[3];
	}
}

/* Writes the port, and adds to `change` what it changes. */
static __always_inline __u64 icmp_port(struct flow *f, __be16 *ports, __be16 to, __u64 *change)
{
	__be16 *port = f->reply ? ports + 1 : ports;
	__u64 change_of_port = rewrite_change(*port, to);

	*port = to;
	*change += change_of_port;
	return change_of_port;
}

/* Bytes of a packet. */
static __always_inline __u64 icmp_bytes(void *ip, bool six)
{
	if (six)
		return sizeof(struct ipv6hdr) + bpf_ntohs(((struct ipv6hdr *)ip)->payload_len);
	return bpf_ntohs(((struct iphdr *)ip)->tot_len);
}

/*
 * Makes the real server the error's destination and the sender of the packet inside; of
 * an error that goes back, the VIP its source and the receiver of the packet inside.
 */
static __always_inline enum reason icmp_change(struct xdp_md *ctx, struct flow *f, bool six,
					       void *ip, void *icmp, const struct addr *to,
					       __be16 to_port)
{
	void *end = (void *)(long)ctx->data_end, *inside = icmp + ICMP_HEADER;
	__u64 change, sum, hop = 0, bytes, at;
	__be32 *addr;
	__u8 protocol = 0;
	__be16 *port;

	if (ip + (six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) > end || inside > end)
		return REASON_INTERNAL;
	at = icmp_header(inside, end, six, &protocol);
	port = inside + at;
	if (!at || (void *)(port + 2) > end)
		return REASON_INTERNAL;
	bytes = icmp_bytes(ip, six);
	at = packet_distance(ip, port);
	bytes = at < bytes ? bytes - at : 0;
	addr = icmp_end(ip, six, f->reply);
	change = rewrite_addr_change(addr, to, six); /* the same one is inside */
	icmp_store(addr, to, six);
	icmp_store(icmp_end(inside, six, !f->reply), to, six);
	rewrite_hop(ip, six, &hop);
	sum = change;
	if (six)
		sum += change; /* the pseudo header has the addresses */
	else
		icmp_sum(ip + IP4_CHECK, change + hop);
	if (!six)
		sum += icmp_sum(inside + IP4_CHECK, change);
	sum += icmp_port(f, port, to_port, &change);
	sum += icmp_inner_sum(f, port, bytes, end, change);
	icmp_sum(icmp + ICMP_CHECK, sum);
	return REASON_UNDECIDED;
}

static __always_inline int icmp_nat(struct xdp_md *ctx, struct flow *f, bool six, __u64 ip_at,
				    __u64 at)
{
	struct real_server *server;
	__u32 id;

	if (!f)
		return REASON_INTERNAL;
	id = f->server_id;
	server = bpf_map_lookup_elem(&real_servers, &id);
	if (!server)
		return REASON_INTERNAL;
	return icmp_change(ctx, f, six, packet_place(ctx, ip_at), packet_place(ctx, at),
			   f->reply ? &server->service.vip : &server->addr,
			   f->reply ? server->service.port : server->port);
}

/* Global as above, and one for each family: in one they need more stack than there is. */
__noinline int icmp_nat4(struct xdp_md *ctx, struct flow *f, __u64 ip_at, __u64 at)
{
	return icmp_nat(ctx, f, false, ip_at, at);
}

__noinline int icmp_nat6(struct xdp_md *ctx, struct flow *f, __u64 ip_at, __u64 at)
{
	return icmp_nat(ctx, f, true, ip_at, at);
}

/* The places are those of struct packet. */
static __always_inline enum reason icmp_rewrite(struct packet *p)
{
	return p->flow.six ? icmp_nat6(p->ctx, &p->flow, p->ip_at, p->transport_at)
			   : icmp_nat4(p->ctx, &p->flow, p->ip_at, p->transport_at);
}
