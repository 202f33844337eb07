/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet.h, stage 1: what is this frame?
 *
 * Reads the frame, `addresses` and `interfaces`. Writes struct packet only.
 * Leaves with NOT_IP, BAD_IP, NOT_OURS, OTHER_HOST, FRAGMENT_TAIL (all passed
 * to the kernel), MALFORMED or V4_MAPPED (dropped); or goes on with a packet
 * whose addresses, ports and flags are known.
 *
 * A packet that can be told to be for one of our VIPs but cannot be forwarded
 * may still belong to the host itself (a port without a service): such a packet
 * goes on with `refuse` set, and is refused once it is known to be ours.
 */
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>

#include "include/bpf/bpf_endian.h"
#include "maps.h"

enum {
	VLAN_TAGS = 2,	    /* 802.1Q, or 802.1ad with 802.1Q inside */
	IP6_EXTENSIONS = 6, /* headers walked; nobody sends more */
	IP_MORE_FRAGMENTS = 0x2000,
	IP_OFFSET = 0x1fff,
	IP6_OFFSET = 0xfff8,
	IP6_MORE_FRAGMENTS = 0x0001,
};

struct vlan_tag {
	__be16 tci;
	__be16 type; /* of what follows */
};

enum tcp_flag { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

struct packet {
	struct xdp_md *ctx;
	void *pos; /* the cursor */
	void *end;
	void *ip; /* the IP header */

	__u64 now;	/* ticks, see types.h */
	__u32 ip_bytes; /* length of the IP packet */
	__u16 vlan;	/* id of the outer tag, 0 if none */
	__u8 tags;
	__u8 tcp_flags;
	enum reason refuse; /* what to leave with, should the packet be ours */
	struct conn_key key;

	struct interface *in; /* where it came in */

	/* Stage 2 and 4 fill in: */
	__u64 *conn;	 /* the connection's word, if its key is in the table */
	__u64 conn_seen; /* the word as it was read */
	bool known;	 /* a live connection */
	struct real_server *server;
	__u32 server_id;

	/* Stage 3: */
	__u32 service_id;
	struct pool *pool;

	/* Stage 5: */
	__u64 out_mac;
	__u32 out_ifindex;
	__u16 out_vlan;
	struct interface *out;
};

/*
 * The distance between two places of the packet. The empty asm keeps the
 * subtraction at 64 bits: clang 19 narrows it where the result is used as 32,
 * and the verifier says "32-bit pointer arithmetic prohibited" (6.1, 6.18).
 */
static __always_inline __u64 packet_distance(void *from, void *to)
{
	__u64 d = to - from;

	asm volatile("" : "+r"(d));
	return d;
}

/* Length of the frame from the cursor on, all buffers counted. */
static __always_inline __u64 packet_left(struct packet *p)
{
	return bpf_xdp_get_buff_len(p->ctx) - packet_distance((void *)(long)p->ctx->data, p->pos);
}

static __always_inline enum reason packet_ethernet(struct packet *p, __be16 *type)
{
	struct ethhdr *eth = p->pos;

	if ((void *)(eth + 1) > p->end)
		return REASON_NOT_IP;
	*type = eth->h_proto;
	p->pos = eth + 1;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS; i++) {
		struct vlan_tag *tag = p->pos;

		if (*type != bpf_htons(ETH_P_8021Q) && *type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > p->end)
			return REASON_NOT_IP;
		if (p->tags == 0)
			p->vlan = bpf_ntohs(tag->tci) & 0xfff;
		p->tags++;
		*type = tag->type;
		p->pos = tag + 1;
	}
	return REASON_UNDECIDED;
}

/* Is the frame for this machine? XDP also sees what a switch floods. */
static __always_inline bool packet_for_us(struct packet *p)
{
	struct ethhdr *eth = (void *)(long)p->ctx->data;
	__u32 ifindex = p->ctx->ingress_ifindex;

	if ((void *)(eth + 1) > p->end)
		return false;
	p->in = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!p->in)
		return false;
	return *(__u32 *)p->in->mac == *(__u32 *)eth->h_dest &&
	       *(__u16 *)(p->in->mac + 4) == *(__u16 *)(eth->h_dest + 4);
}

/* The addresses are in the key: do they concern us? */
static __always_inline enum reason packet_ours(struct packet *p)
{
	if (!bpf_map_lookup_elem(&addresses, &p->key.vip))
		return REASON_NOT_OURS;
	if (!packet_for_us(p))
		return REASON_OTHER_HOST;
	return REASON_UNDECIDED;
}

static __always_inline void addr_from_v4(struct addr *a, __be32 v4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = bpf_htonl(0xffff);
	a->word[3] = v4;
}

static __always_inline bool addr_is_mapped(const struct addr *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == bpf_htonl(0xffff);
}

/* The sum over a header of `words` 32-bit words, 0xffff if its checksum is right. */
static __always_inline bool ip_checksum_right(struct packet *p, struct iphdr *ip, __u32 words)
{
	__u32 *word = (void *)ip;
	__u64 sum = 0;

	for (__u32 i = 0; i < 15; i++) {
		if (i >= words)
			break;
		if ((void *)(word + i + 1) > p->end)
			return false;
		sum += word[i];
	}
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

static __always_inline enum reason packet_ipv4(struct packet *p)
{
	struct iphdr *ip = p->pos;
	__u32 header, total;
	enum reason r;

	if ((void *)(ip + 1) > p->end)
		return REASON_BAD_IP;
	addr_from_v4(&p->key.client, ip->saddr);
	addr_from_v4(&p->key.vip, ip->daddr);
	r = packet_ours(p);
	if (r)
		return r;

	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header || total > packet_left(p) ||
	    !ip_checksum_right(p, ip, ip->ihl))
		return REASON_BAD_IP;
	p->ip_bytes = total;
	p->key.protocol = ip->protocol;
	if (ip->frag_off & bpf_htons(IP_OFFSET))
		return REASON_FRAGMENT_TAIL;
	if (ip->frag_off & bpf_htons(IP_MORE_FRAGMENTS))
		p->refuse = REASON_FRAGMENT;
	p->pos += header;
	return REASON_UNDECIDED;
}

struct ip6_extension {
	__u8 next;
	__u8 length;   /* in 8 bytes, the first 8 not counted */
	__be16 offset; /* fragment header: offset and flags */
	__u8 rest[4];
};

/*
 * Walks the extension headers to the transport header. What the kernel would
 * have to act on first (a routing header with segments left, AH, ESP) is not
 * for us.
 */
static __always_inline enum reason packet_ipv6_extensions(struct packet *p, __u8 next)
{
	for (int i = 0; i < IP6_EXTENSIONS; i++) {
		struct ip6_extension *ext = p->pos;
		__u32 length;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_ROUTING &&
		    next != IPPROTO_FRAGMENT)
			break;
		if ((void *)(ext + 1) > p->end)
			return REASON_BAD_IP;
		length = (ext->length + 1) * 8;
		if (next == IPPROTO_ROUTING && (bpf_ntohs(ext->offset) & 0xff))
			return REASON_NOT_OURS;
		if (next == IPPROTO_FRAGMENT) {
			length = 8;
			if (ext->offset & bpf_htons(IP6_OFFSET))
				return REASON_FRAGMENT_TAIL;
			if (ext->offset & bpf_htons(IP6_MORE_FRAGMENTS))
				p->refuse = REASON_FRAGMENT;
		}
		next = ext->next;
		p->pos += length;
	}
	p->key.protocol = next;
	return REASON_UNDECIDED;
}

static __always_inline enum reason packet_ipv6(struct packet *p)
{
	struct ipv6hdr *ip = p->pos;
	__u32 total;
	enum reason r;

	if ((void *)(ip + 1) > p->end)
		return REASON_BAD_IP;
	__builtin_memcpy(&p->key.client, &ip->saddr, sizeof(struct addr));
	__builtin_memcpy(&p->key.vip, &ip->daddr, sizeof(struct addr));
	r = packet_ours(p);
	if (r)
		return r;
	if (addr_is_mapped(&p->key.vip) || addr_is_mapped(&p->key.client))
		return REASON_V4_MAPPED;

	total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || total > packet_left(p))
		return REASON_BAD_IP;
	p->ip_bytes = total;
	p->pos = ip + 1;
	return packet_ipv6_extensions(p, ip->nexthdr);
}

/*
 * What is left of the IP packet at the cursor. The extension headers may claim
 * more than the packet has: then 0.
 */
static __always_inline __u64 packet_payload(struct packet *p)
{
	__u64 headers = packet_distance(p->ip, p->pos);

	return headers < p->ip_bytes ? p->ip_bytes - headers : 0;
}

static __always_inline enum reason packet_tcp(struct packet *p)
{
	__u64 payload = packet_payload(p);
	struct tcphdr *tcp = p->pos;

	if ((void *)(tcp + 1) > p->end || payload < sizeof(*tcp))
		return REASON_MALFORMED;
	p->key.client_port = tcp->source;
	p->key.port = tcp->dest;
	p->tcp_flags = ((__u8 *)tcp)[13];
	if (tcp->doff * 4 < sizeof(*tcp) || (tcp->doff * 4 > payload && !p->refuse))
		p->refuse = REASON_MALFORMED;
	return REASON_UNDECIDED;
}

static __always_inline enum reason packet_udp(struct packet *p)
{
	__u64 payload = packet_payload(p);
	struct udphdr *udp = p->pos;
	__u32 length;

	if ((void *)(udp + 1) > p->end || payload < sizeof(*udp))
		return REASON_MALFORMED;
	p->key.client_port = udp->source;
	p->key.port = udp->dest;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || (length > payload && !p->refuse))
		p->refuse = REASON_MALFORMED;
	return REASON_UNDECIDED;
}

static __always_inline enum reason packet_parse(struct packet *p)
{
	enum reason r;
	__be16 type;

	r = packet_ethernet(p, &type);
	if (r)
		return r;
	p->ip = p->pos;
	if (type == bpf_htons(ETH_P_IP))
		r = packet_ipv4(p);
	else if (type == bpf_htons(ETH_P_IPV6))
		r = packet_ipv6(p);
	else
		r = REASON_NOT_IP;
	if (r)
		return r;

	if (p->key.protocol == IPPROTO_TCP)
		return packet_tcp(p);
	if (p->key.protocol == IPPROTO_UDP)
		return packet_udp(p);
	return REASON_NOT_OURS;
}
