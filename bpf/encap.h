/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * encap.h, for stage 5: the headers in front of a packet that goes by a tunnel.
 *
 * encap_check  reads `real_servers` and `next_hops`; leaves with TOO_BIG or NO_ROUTE,
 *              before anything is written.
 * encap_write  makes room and writes the outer IP header, of the real server's family,
 *              and what is between it and the packet (gre, gue). Of the Ethernet header
 *              it writes the tags, as they came, and the type; the rest is its caller's.
 *              Leaves with NO_HEADROOM, nothing written.
 *
 * The packet inside stays as it is, bit for bit. The outer header has its service class
 * (with the ECN bits, RFC 6040), its time to live and its "don't fragment", which IPv6
 * packets always mean.
 *
 * Both are global functions: the verifier looks at them once, and the stages' stack is
 * not theirs.
 */
#pragma once

#include "packet.h"

enum {
	ENCAP_TAGS = 3, /* bits of a number of tags: the verifier has to see that they are few */
	ENCAP_FLAGS_SHIFT = 8, /* in a real server's tunnel, read as a word */
	ENCAP_PORT_SHIFT = 16,
	ENCAP_DF = 0x4000,	    /* IPv4: don't fragment */
	ENCAP_CLASS_SHIFT = 20,	    /* IPv6: where the traffic class is in the first word */
	ENCAP_LABEL = 0xfffff,	    /* IPv6: the flow label */
	ENCAP_PORTS = 0xc000,	    /* source ports of gue: 49152 to 65535 (RFC 6335, 6) */
	ENCAP_GRE_CHECKED = 0x8000, /* there is a checksum */
};

/* RFC 2784. Without a checksum it ends after the protocol. */
struct gre_header {
	__be16 flags;
	__be16 protocol; /* an Ethernet type */
	__u16 check;
	__u16 zero;
};

/* Generic UDP encapsulation of variant 0, without options; behind a UDP header. */
struct gue_header {
	__u8 length; /* and the variant */
	__u8 protocol;
	__be16 flags;
};

/* What the headers depend on, apart from the packet. */
struct encap {
	struct addr *source;
	struct addr *destination;
	__u32 tunnel; /* as in encap_tunnel */
	__u32 flow;   /* the same for all packets of a flow, so that they go one way */
	__u64 six;    /* 1: the outer header is of IPv6 */
	__u64 inner_six;
	__u64 summed; /* 1: the sum over the packet is known, and asked for */
};

/* What of the packet they depend on. */
struct inner {
	__u32 bytes;
	__be16 df;
	__u8 tos;
	__u8 ttl;
};

/* The tunnel of a real server in one go: the daemon changes it with one store. */
static __always_inline __u32 encap_tunnel(struct real_server *server)
{
	return *(volatile __u32 *)&server->tunnel;
}

static __always_inline bool encap_checked(__u32 tunnel)
{
	return tunnel & TUNNEL_CHECKSUM << ENCAP_FLAGS_SHIFT;
}

/* Bytes of the outer IP header. */
static __always_inline __u32 encap_outer(bool six)
{
	return six ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
}

/* Bytes between the outer IP header and the packet. */
static __always_inline __u32 encap_between(__u32 tunnel, bool checked)
{
	switch ((__u8)tunnel) {
	case TUNNEL_GUE:
		return sizeof(struct udphdr) + sizeof(struct gue_header);
	case TUNNEL_GRE:
		return checked ? sizeof(struct gre_header) : sizeof(struct gre_header) / 2;
	default:
		return 0;
	}
}

/*
 * Is there room for the packet on the way, and an address of ours to send it from? A way
 * has one MTU for all packets of a real server, also for those that go by gre without a
 * checksum where there should be one, which have 4 bytes less in front.
 */
__noinline int encap_check(struct real_server *server, struct next_hop *hop, __u64 bytes)
{
	__u32 tunnel;
	bool six;

	if (!server || !hop)
		return REASON_INTERNAL; /* never, as below: the verifier asks for it */
	tunnel = encap_tunnel(server);
	six = !addr_is_mapped(&server->addr);
	if (bytes + encap_outer(six) + encap_between(tunnel, encap_checked(tunnel)) > hop->mtu)
		return REASON_TOO_BIG;
	if (six == addr_is_mapped(&hop->source) ||
	    !(*addr_half(&hop->source, 0) | *addr_half(&hop->source, 1)))
		return REASON_NO_ROUTE;
	return REASON_UNDECIDED;
}

/* Is the sum over TCP or UDP known? See encap_sum. */
static __always_inline bool encap_sums(void *transport, void *end, __u8 protocol, __u32 bytes)
{
	struct udphdr *udp = transport;

	if (protocol != IPPROTO_UDP)
		return protocol == IPPROTO_TCP;
	return (void *)(udp + 1) <= end && udp->check && bpf_ntohs(udp->len) == bytes;
}

/*
 * Nobody knows the sum of UDP without a checksum, or with more behind it than its length
 * says. With IPv6 extension headers, which nobody sends, it is not reckoned.
 */
static __always_inline bool encap_known(void *ip, void *end, bool six)
{
	struct ipv6hdr *ip6 = ip;
	struct iphdr *ip4 = ip;

	if (six)
		return encap_sums(ip6 + 1, end, ip6->nexthdr, bpf_ntohs(ip6->payload_len));
	return encap_sums(ip + ip4->ihl * 4, end, ip4->protocol,
			  bpf_ntohs(ip4->tot_len) - ip4->ihl * 4);
}

/*
 * The sum over the packet, not folded. Over TCP or UDP whose checksum is right it is the
 * complement of that over the pseudo header, so the payload need not be read. If the
 * checksum is not right, neither is that of the outer header, as it should be.
 *
 * The sum over an IPv4 header is 0: packet_ipv4 has seen its checksum. The addresses of an
 * IPv6 header are in the pseudo header too: that is nothing.
 */
static __always_inline __u64 encap_sum(void *ip, bool six)
{
	struct ipv6hdr *ip6 = ip;
	struct iphdr *ip4 = ip;
	__u32 *word = ip;

	if (six)
		return (__u64)word[0] + word[1] +
		       (__u16)~ip_fold((__u64)bpf_htons(ip6->nexthdr) + ip6->payload_len);
	return (__u16)~ip_fold((__u64)ip4->saddr + ip4->daddr + bpf_htons(ip4->protocol) +
			       bpf_htons(bpf_ntohs(ip4->tot_len) - ip4->ihl * 4));
}

static __always_inline struct inner encap_inner(void *ip, bool six)
{
	struct ipv6hdr *ip6 = ip;
	struct iphdr *ip4 = ip;

	if (six)
		return (struct inner){
			.bytes = sizeof(*ip6) + bpf_ntohs(ip6->payload_len),
			.df = bpf_htons(ENCAP_DF),
			.tos = bpf_ntohl(*(__be32 *)ip) >> ENCAP_CLASS_SHIFT,
			.ttl = ip6->hop_limit,
		};
	return (struct inner){
		.bytes = bpf_ntohs(ip4->tot_len),
		.df = ip4->frag_off & bpf_htons(ENCAP_DF),
		.tos = ip4->tos,
		.ttl = ip4->ttl,
	};
}

static __always_inline __be16 encap_type(bool six)
{
	return six ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
}

static __always_inline __u8 encap_inner_protocol(struct encap *e)
{
	return e->inner_six ? IPPROTO_IPV6 : IPPROTO_IPIP;
}

/* What follows the outer IP header. */
static __always_inline __u8 encap_protocol(struct encap *e)
{
	switch ((__u8)e->tunnel) {
	case TUNNEL_GUE:
		return IPPROTO_UDP;
	case TUNNEL_GRE:
		return IPPROTO_GRE;
	default:
		return encap_inner_protocol(e);
	}
}

/* A packet that may be fragmented has a number of its own (RFC 6864, 4). */
static __always_inline void encap_outer4(struct encap *e, struct iphdr *ip, __u32 bytes,
					 struct inner in)
{
	__u32 *word = (__u32 *)ip;

	word[0] = bpf_htonl(0x45000000 | (__u32)in.tos << 16 | (sizeof(*ip) + bytes));
	ip->id = in.df ? 0 : bpf_get_prandom_u32();
	ip->frag_off = in.df;
	ip->ttl = in.ttl;
	ip->protocol = encap_protocol(e);
	ip->check = 0;
	ip->saddr = e->source->word[3];
	ip->daddr = e->destination->word[3];
	ip->check = ~ip_fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
}

static __always_inline void encap_outer6(struct encap *e, struct ipv6hdr *ip, __u32 bytes,
					 struct inner in)
{
	*(__be32 *)ip =
		bpf_htonl(6U << 28 | (__u32)in.tos << ENCAP_CLASS_SHIFT | (e->flow & ENCAP_LABEL));
	ip->payload_len = bpf_htons(bytes);
	ip->nexthdr = encap_protocol(e);
	ip->hop_limit = in.ttl;
	addr_copy((struct addr *)&ip->saddr, e->source);
	addr_copy((struct addr *)&ip->daddr, e->destination);
}

/* The sum over the outer addresses, not folded. */
static __always_inline __u64 encap_addresses(struct encap *e)
{
	__be32 *from = e->source->word, *to = e->destination->word;

	if (!e->six)
		return (__u64)from[3] + to[3];
	return (__u64)from[0] + from[1] + from[2] + from[3] + to[0] + to[1] + to[2] + to[3];
}

/*
 * UDP's checksum 0 says that there is none, and so it has to where the packet's sum is
 * not known. Tunnels may send it over IPv6 too (RFC 6935, 5; RFC 6936).
 */
static __always_inline void encap_gue(struct encap *e, struct udphdr *udp, __u32 bytes, __u64 sum)
{
	struct gue_header *gue = (void *)(udp + 1);

	udp->source = bpf_htons(e->flow | ENCAP_PORTS);
	udp->dest = e->tunnel >> ENCAP_PORT_SHIFT;
	udp->len = bpf_htons(bytes);
	udp->check = 0;
	*gue = (struct gue_header){ .protocol = encap_inner_protocol(e) };
	if (!e->summed)
		return;
	udp->check = ~ip_fold(sum + encap_addresses(e) + bpf_htons(IPPROTO_UDP) + udp->len +
			      udp->source + udp->dest + udp->len + bpf_htons(gue->protocol));
	if (!udp->check)
		udp->check = 0xffff;
}

/* Where the packet's sum is not known, there is no checksum. */
static __always_inline void encap_gre(struct encap *e, struct gre_header *gre, __u64 sum)
{
	gre->flags = e->summed ? bpf_htons(ENCAP_GRE_CHECKED) : 0;
	gre->protocol = encap_type(e->inner_six);
	if (!e->summed)
		return;
	gre->check = ~ip_fold(sum + gre->flags + gre->protocol);
	gre->zero = 0;
}

/* Writes the headers, from the first on: the packet is behind the last. */
static __always_inline bool encap_headers(struct encap *e, void *outer, void *end)
{
	__u32 between = encap_between(e->tunnel, e->summed);
	void *middle = outer + encap_outer(e->six), *ip = middle + between;
	struct inner in;
	__u64 sum;

	if (ip + encap_outer(e->inner_six) > end)
		return false;
	in = encap_inner(ip, e->inner_six);
	sum = e->summed ? encap_sum(ip, e->inner_six) : 0;
	if (e->six)
		encap_outer6(e, outer, between + in.bytes, in);
	else
		encap_outer4(e, outer, between + in.bytes, in);
	switch ((__u8)e->tunnel) {
	case TUNNEL_GUE:
		encap_gue(e, middle, between + in.bytes, sum);
		break;
	case TUNNEL_GRE:
		encap_gre(e, middle, sum);
		break;
	}
	return true;
}

/* The next hop is the one that encap_check saw, or a newer one. */
static __always_inline bool encap_begin(struct encap *e, struct flow *f, struct real_server *server)
{
	__u32 index = *(volatile __u32 *)&server->next_hop;
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &index);

	if (!hop)
		return false;
	e->source = &hop->source;
	e->destination = &server->addr;
	e->tunnel = encap_tunnel(server);
	e->flow = f->hash ^ f->hash >> 32;
	e->six = !addr_is_mapped(&server->addr);
	e->inner_six = f->six;
	return true;
}

/*
 * The frame has so many tags, and is to have so many. Those that it has come first in the
 * new one; what is more than its number is written over.
 */
__noinline int encap_write(struct xdp_md *ctx, struct flow *f, struct real_server *server,
			   __u64 tags, __u64 out_tags)
{
	void *frame = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end, *ip, *type;
	struct encap e;
	__u32 tag[VLAN_TAGS];
	int growth;

	tags &= ENCAP_TAGS;
	out_tags &= ENCAP_TAGS;
	if (!f || !server || !encap_begin(&e, f, server))
		return REASON_INTERNAL;
	ip = frame + ETH_HLEN + tags * sizeof(struct vlan_tag);
	if (frame + ETHERNET_TYPE + sizeof(tag) > end || ip + encap_outer(e.inner_six) > end)
		return REASON_INTERNAL;
	__builtin_memcpy(tag, frame + ETHERNET_TYPE, sizeof(tag));
	e.summed = encap_checked(e.tunnel) && encap_known(ip, end, e.inner_six);
	growth = encap_outer(e.six) + encap_between(e.tunnel, e.summed) +
		 ((int)out_tags - (int)tags) * (int)sizeof(struct vlan_tag);
	if (bpf_xdp_adjust_head(ctx, -growth))
		return REASON_NO_HEADROOM;

	/* From here on the frame changes: nothing below can fail. */
	frame = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	type = frame + ETHERNET_TYPE + out_tags * sizeof(struct vlan_tag);
	if (frame + ETHERNET_TYPE + sizeof(tag) > end || type + sizeof(__be16) > end)
		return REASON_INTERNAL;
	__builtin_memcpy(frame + ETHERNET_TYPE, tag, sizeof(tag));
	*(__be16 *)type = encap_type(e.six);
	return encap_headers(&e, type + sizeof(__be16), end) ? REASON_UNDECIDED : REASON_INTERNAL;
}
