/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rs_outer.h, stage 1: is it a packet in a tunnel, from a director, for us?
 *
 * Reads the frame, `directors` and `interfaces`. Writes struct frame only. Leaves
 * with NO_TUNNEL, NOT_DIRECTOR, OTHER_HOST, BAD_OUTER or FRAGMENT; or goes on with
 * the cursor behind the outer IP header.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>

#include "include/bpf/bpf_endian.h"
#include "rs_types.h"

enum {
	RS_TAGS = 2,	   /* 802.1Q, or 802.1ad with 802.1Q inside */
	RS_EXTENSIONS = 3, /* headers of options that are walked */
	RS_MORE_FRAGMENTS = 0x2000,
	RS_OFFSET = 0x1fff,
	RS_LINK_BYTES = ETH_HLEN + RS_TAGS * 4,
	RS_OUTER_BYTES = 512, /* Ethernet and outer IP header are less than that */
	RS_AF_INET = 2,	      /* AF_INET and AF_INET6, of a header that the C library has */
	RS_AF_INET6 = 10,
};

struct frame {
	struct xdp_md *ctx;
	void *pos; /* the cursor */
	void *end;
	__u32 link_bytes; /* Ethernet header with its tags */
	__u32 headers;	  /* from there to the cursor */
	__u32 left;	  /* bytes of the IP packet from the cursor on */
	__u32 pseudo;	  /* sum of the outer addresses, for the checksum of UDP */
	__be16 type;	  /* of what is in the frame */
	__u8 protocol;	  /* of what is at the cursor */
	bool fragment;
	bool congested; /* a router on the way marked the outer header */
	__u64 any;	/* of which the verifier knows nothing */
};

/* The same value, of which the verifier does not know what it is. */
static __always_inline __u64 frame_any(struct frame *f, __u64 value)
{
	asm volatile("%0 += %1\n\t%0 -= %1" : "+r"(value) : "r"(f->any));
	return value;
}

/*
 * What follows does not depend on the way that the packet was parsed: else the
 * verifier walks through it once for each way (more than 500,000 instructions, half
 * of what it allows; seen on 6.18).
 */
static __always_inline bool frame_forget(struct frame *f)
{
	__u64 place = f->link_bytes + f->headers;

	if (place >= RS_OUTER_BYTES)
		return false;
	place = frame_any(f, place) & (RS_OUTER_BYTES - 1);
	f->pos = (void *)(long)f->ctx->data + place;
	f->end = (void *)(long)f->ctx->data_end;
	f->link_bytes = frame_any(f, f->link_bytes);
	f->headers = frame_any(f, f->headers);
	f->left = frame_any(f, f->left);
	f->pseudo = frame_any(f, f->pseudo);
	f->type = frame_any(f, f->type);
	f->protocol = frame_any(f, f->protocol);
	f->congested = frame_any(f, f->congested) & 1;
	return true;
}

static __always_inline void frame_skip(struct frame *f, __u32 bytes)
{
	f->pos += bytes;
	f->headers += bytes;
	f->left -= bytes;
}

static __always_inline __u32 sum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline void address_from_v4(struct address *a, __be32 v4)
{
	__u32 *word = (__u32 *)a;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = v4;
}

static __always_inline void address_copy(struct address *a, const struct in6_addr *v6)
{
	*a = *(const struct address *)v6;
}

/* Else an IPv6 packet could pass for one of an IPv4 director, or for an IPv4 VIP. */
static __always_inline bool address_is_mapped(const struct in6_addr *v6)
{
	const __be32 *word = v6->in6_u.u6_addr32;

	return !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
}

static __always_inline enum outcome outer_ethernet(struct frame *f)
{
	struct ethhdr *eth = f->pos;

	if ((void *)(eth + 1) > f->end)
		return OUTCOME_NO_TUNNEL;
	f->type = eth->h_proto;
	f->link_bytes = ETH_HLEN;
	f->pos += ETH_HLEN;
#pragma unroll
	for (int i = 0; i < RS_TAGS; i++) {
		__be16 *tag = f->pos; /* number, then the type of what follows */

		if (f->type != bpf_htons(ETH_P_8021Q) && f->type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 2) > f->end)
			return OUTCOME_NO_TUNNEL;
		f->type = tag[1];
		f->link_bytes += 4;
		f->pos += 4;
	}
	return OUTCOME_GOES_ON;
}

/* Is the frame for this machine? XDP also sees what a switch floods. */
static __always_inline bool outer_mac(struct frame *f)
{
	__u32 ifindex = f->ctx->ingress_ifindex;
	__u16 *half = (void *)(long)f->ctx->data;
	__u64 *own = bpf_map_lookup_elem(&interfaces, &ifindex);

	if (!own || (void *)half + ETH_HLEN > f->end)
		return false;
	f->any = *(volatile __u64 *)own;
	return (half[0] | (__u64)half[1] << 16 | (__u64)half[2] << 32) == f->any;
}

/*
 * A router hands on what is not for itself: it would be wrong to take that. The
 * lookup says so; it refuses where nothing is forwarded, and everything is for us.
 */
static __always_inline bool outer_forwarded(struct frame *f, struct bpf_fib_lookup *route)
{
	long answer;

	route->ifindex = f->ctx->ingress_ifindex;
	answer = bpf_fib_lookup(f->ctx, route, sizeof(*route), 0);
	return answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH ||
	       answer == BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

static __always_inline bool outer_is_tunnel(__u8 protocol)
{
	return protocol == IPPROTO_IPIP || protocol == IPPROTO_IPV6 || protocol == IPPROTO_GRE ||
	       protocol == IPPROTO_UDP;
}

/* GUE has a port; every other UDP packet is none of ours. */
static __always_inline bool outer_is_gue(struct frame *f)
{
	struct udphdr *udp = f->pos;
	__be16 port;

	if ((void *)(udp + 1) > f->end || f->left < sizeof(*udp))
		return false;
	port = udp->dest;
	return bpf_map_lookup_elem(&gue_ports, &port);
}

/* An IPv4 header is 5 to 15 words; the first 5 are there. */
static __always_inline bool header_right(struct frame *f, struct iphdr *ip)
{
	__u32 *word = (void *)ip, words = ip->ihl;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];

	for (__u32 i = 5; i < 15; i++) {
		if (i >= words)
			break;
		if ((void *)(word + i + 1) > f->end)
			return false;
		sum += word[i];
	}
	return sum_fold(sum) == 0xffff;
}

/* It is a director's. Is it for us, and can it be taken? */
static __always_inline enum outcome outer_ours(struct frame *f, struct bpf_fib_lookup *route)
{
	if (!outer_mac(f) || outer_forwarded(f, route))
		return OUTCOME_OTHER_HOST;
	return f->fragment ? OUTCOME_FRAGMENT : OUTCOME_GOES_ON;
}

static __always_inline enum outcome outer_ipv4(struct frame *f)
{
	__u64 room = bpf_xdp_get_buff_len(f->ctx) - f->link_bytes;
	struct bpf_fib_lookup route = { .family = RS_AF_INET };
	struct iphdr *ip = f->pos;
	struct address source;
	__u32 header;

	if ((void *)(ip + 1) > f->end || !outer_is_tunnel(ip->protocol))
		return OUTCOME_NO_TUNNEL;
	header = ip->ihl * 4;
	f->left = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || f->left < header || f->left > room)
		return OUTCOME_BAD_OUTER;
	address_from_v4(&source, ip->saddr);
	f->protocol = ip->protocol;
	f->fragment = ip->frag_off & bpf_htons(RS_OFFSET | RS_MORE_FRAGMENTS);
	f->congested = (ip->tos & 3) == 3;
	f->pseudo = sum_fold((__u64)ip->saddr + ip->daddr);
	route.ipv4_src = ip->saddr;
	route.ipv4_dst = ip->daddr;
	frame_skip(f, header);
	if (f->protocol == IPPROTO_UDP && !outer_is_gue(f))
		return OUTCOME_NO_TUNNEL;
	if (!bpf_map_lookup_elem(&directors, &source))
		return OUTCOME_NOT_DIRECTOR;
	if (!header_right(f, ip))
		return OUTCOME_BAD_OUTER;
	return outer_ours(f, &route);
}

/* Walks headers of options; the sender of a tunnel may have put a limit there. */
static __always_inline enum outcome outer_extensions(struct frame *f)
{
	for (int i = 0; i < RS_EXTENSIONS; i++) {
		struct ipv6_opt_hdr *option = f->pos;
		__u32 bytes;

		if (f->protocol == IPPROTO_FRAGMENT)
			f->fragment = true;
		else if (f->protocol != IPPROTO_HOPOPTS && f->protocol != IPPROTO_DSTOPTS)
			break;
		if ((void *)(option + 1) > f->end)
			return OUTCOME_NO_TUNNEL;
		bytes = f->protocol == IPPROTO_FRAGMENT ? 8 : (option->hdrlen + 1) * 8;
		if (bytes > f->left)
			return OUTCOME_NO_TUNNEL;
		f->protocol = option->nexthdr;
		frame_skip(f, bytes);
	}
	return OUTCOME_GOES_ON;
}

static __always_inline enum outcome outer_ipv6(struct frame *f)
{
	__u64 room = bpf_xdp_get_buff_len(f->ctx) - f->link_bytes;
	struct bpf_fib_lookup route = { .family = RS_AF_INET6 };
	struct ipv6hdr *ip = f->pos;
	struct address source;
	enum outcome o;
	__u32 *word;
	__u64 sum = 0;

	if ((void *)(ip + 1) > f->end)
		return OUTCOME_NO_TUNNEL;
	f->left = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || address_is_mapped(&ip->saddr))
		return OUTCOME_NO_TUNNEL;
	if (f->left > room)
		return outer_is_tunnel(ip->nexthdr) ? OUTCOME_BAD_OUTER : OUTCOME_NO_TUNNEL;
	address_copy(&source, &ip->saddr);
	__builtin_memcpy(route.ipv6_src, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(route.ipv6_dst, &ip->daddr, sizeof(ip->daddr));
	word = ip->saddr.in6_u.u6_addr32;
	for (int i = 0; i < 8; i++) /* both addresses */
		sum += word[i];
	f->pseudo = sum_fold(sum);
	f->protocol = ip->nexthdr;
	f->congested = (ip->flow_lbl[0] & 0x30) == 0x30;
	frame_skip(f, sizeof(*ip));
	o = outer_extensions(f);
	if (o)
		return o;
	if (!outer_is_tunnel(f->protocol) || (f->protocol == IPPROTO_UDP && !outer_is_gue(f)))
		return OUTCOME_NO_TUNNEL;
	if (!bpf_map_lookup_elem(&directors, &source))
		return OUTCOME_NOT_DIRECTOR;
	return outer_ours(f, &route);
}

static __always_inline enum outcome outer_parse(struct frame *f)
{
	enum outcome o = outer_ethernet(f);

	if (o)
		return o;
	if (f->type == bpf_htons(ETH_P_IP))
		return outer_ipv4(f);
	if (f->type == bpf_htons(ETH_P_IPV6))
		return outer_ipv6(f);
	return OUTCOME_NO_TUNNEL;
}
