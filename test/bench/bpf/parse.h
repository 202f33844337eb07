/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * parse.h: what every XDP balancer does first. Ethernet without tags, IPv4
 * without options or fragments or IPv6 without extension headers, TCP or UDP.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>

#include "../../../bpf/include/bpf/bpf_endian.h"
#include "../../../bpf/include/bpf/bpf_helpers.h"

enum { SIZED = 1 }; /* sizes so marked are set at load */

#define MAC_MASK 0xffffffffffffULL

struct ports {
	__be16 source;
	__be16 destination;
};

struct parsed {
	struct ethhdr *eth;
	struct iphdr *ip4; /* one of the two */
	struct ipv6hdr *ip6;
	struct ports *ports;
	__u64 bytes;   /* of the IP packet */
	__be32 client; /* of IPv6 all words in one */
	__u8 protocol;
};

static __always_inline bool parse4(struct parsed *p, void *end)
{
	struct iphdr *ip = (void *)(p->eth + 1);

	if (p->eth->h_proto != bpf_htons(ETH_P_IP) || (void *)(ip + 1) + sizeof(struct ports) > end)
		return false;
	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return false;
	p->ip4 = ip;
	p->ports = (void *)(ip + 1);
	p->protocol = ip->protocol;
	p->bytes = bpf_ntohs(ip->tot_len);
	p->client = ip->saddr;
	return true;
}

static __always_inline bool parse6(struct parsed *p, void *end)
{
	struct ipv6hdr *ip = (void *)(p->eth + 1);

	if (p->eth->h_proto != bpf_htons(ETH_P_IPV6) ||
	    (void *)(ip + 1) + sizeof(struct ports) > end || ip->version != 6)
		return false;
	p->ip6 = ip;
	p->ports = (void *)(ip + 1);
	p->protocol = ip->nexthdr;
	p->bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	p->client = ip->saddr.s6_addr32[0] ^ ip->saddr.s6_addr32[1] ^ ip->saddr.s6_addr32[2] ^
		    ip->saddr.s6_addr32[3];
	return true;
}

/*
 * A program is for one family, known where this is inlined: else clang makes one
 * look-up in a map of either family out of two, which the kernel does not know
 * when it loads the program, and so calls indirectly (seen: 20 ns more).
 */
static __always_inline bool parse(struct xdp_md *ctx, struct parsed *p, bool six)
{
	void *end = (void *)(long)ctx->data_end;

	p->eth = (void *)(long)ctx->data;
	if ((void *)(p->eth + 1) > end || !(six ? parse6(p, end) : parse4(p, end)))
		return false;
	return p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP;
}

/*
 * The frame goes back where it came in, to another machine. In words: of packed
 * structs clang copies byte by byte.
 */
static __always_inline void rewrite(struct ethhdr *eth, __u64 mac)
{
	void *frame = eth;
	__u64 own = *(__u64 *)frame & MAC_MASK;

	*(__u64 *)frame = (mac & MAC_MASK) | own << 48;
	*(__u32 *)(frame + 8) = own >> 16;
}

/* What a client's packets have in common, mixed: murmur3's last step. */
static __always_inline __u32 mix(struct parsed *p)
{
	__u32 h = (*(__u32 *)p->ports * 0x9e3779b1U) ^ p->client;

	h ^= h >> 16;
	h *= 0x85ebca6bU;
	h ^= h >> 13;
	h *= 0xc2b2ae35U;
	return h ^ h >> 16;
}

struct vip4 {
	__be32 addr;
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

struct vip6 {
	struct in6_addr addr;
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

static __always_inline void *vip_find4(void *vips, struct parsed *p)
{
	struct vip4 key = { p->ip4->daddr, p->ports->destination, p->protocol, 0 };

	return bpf_map_lookup_elem(vips, &key);
}

static __always_inline void *vip_find6(void *vips, struct parsed *p)
{
	struct vip6 key = { p->ip6->daddr, p->ports->destination, p->protocol, 0 };

	return bpf_map_lookup_elem(vips, &key);
}
