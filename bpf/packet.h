/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * packet.h, stage 1: what is this frame?
 *
 * Reads the frame, `vips`, `addresses`, `ports` and `interfaces`. Writes struct packet only.
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

/* Entries of `vips`; set by the daemon at load. */
const volatile __u32 vip_places = 1;

/*
 * An Ethernet header in words. The kernel's struct is packed: clang takes it to
 * pieces byte by byte.
 */
enum {
	MAC_BITS = 48,
	ETHERNET_REST = 8,  /* where the source address goes on after the first 8 bytes */
	ETHERNET_TYPE = 12, /* where the type is */
};

struct vlan_tag {
	__be16 tci;
	__be16 type; /* of what follows */
};

enum tcp_flag { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

/* Which packets of a connection pass us, and which one this is: a row of tcp_next. */
enum direction {
	DIRECTION_ONLY = 0,  /* from the client, whose replies we do not see */
	DIRECTION_THERE = 1, /* from the client */
	DIRECTION_BACK = 2,  /* from the real server */
};

/*
 * Whose packet it is: no pointers, so that it can be handed to a function which
 * the verifier looks at once (see conn.h).
 */
struct flow {
	__u64 now;   /* ticks, see types.h */
	__u64 six;   /* 1: IPv6. 64 bits, so that the verifier keeps track of it */
	__u32 reply; /* 1: from a real server to its client; the key is that of the way there */
	__u32 icmp;  /* 1: an error; the key is that of the packet in it, turned around */
	struct conn_key key;

	/* Stages 2 and 4 fill in: */
	__u64 hash;	 /* of the key, see hash.h */
	__u64 seen;	 /* the word of the connection's slot, as it was read */
	__u32 place;	 /* of the slot in the order of its sets, or CONN_NOWHERE */
	__u32 server_id; /* of its real server */
	__u8 generation; /* of the id, its low bits */
	__u8 state;	 /* enum conn_state, that it is made in */
	__u8 tcp_flags;
	__u8 direction; /* enum direction */
};

/*
 * The same value, of which the verifier does not know what it is: else it walks
 * through all that follows once for each value it may be (more than 1,000,000
 * instructions, which is all that it allows; seen on 6.18).
 */
static __always_inline __u64 flow_any(struct flow *f, __u64 value)
{
	asm volatile("%0 += %1\n\t%0 -= %1" : "+r"(value) : "r"(f->now));
	return value;
}

/*
 * Half of an address in one go. Not a member of struct addr, which would be aligned by
 * it: wherever programs have an address, it begins at a multiple of 8.
 */
static __always_inline __u64 *addr_half(const struct addr *a, int half)
{
	return (__u64 *)a + half;
}

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return *addr_half(a, 0) == *addr_half(b, 0) && *addr_half(a, 1) == *addr_half(b, 1);
}

/* Does the flow ask for this service? Of IPv4 the last word of an address says all. */
static __always_inline bool flow_asks(const struct flow *f, bool six, const struct service_key *key)
{
	if (six ? !addr_equal(&key->vip, &f->key.vip) : key->vip.word[3] != f->key.vip.word[3])
		return false;
	return key->port == f->key.port && key->protocol == f->key.protocol;
}

/* How a frame leaves. */
struct way {
	__u64 out_mac; /* to whom */
	__u64 own_mac; /* of the interface it leaves by: first, that it came in by */
	__u32 out_ifindex;
	__u16 out_vlan; /* as in struct next_hop */
	__u16 out_mtu;
};

/* A service that had no room for a connection goes by its ring for a while. */
enum ring {
	RING_NOT = 0,
	RING_SERVICE = 1, /* it does */
	RING_PACKET = 2,  /* and this packet is forwarded without a connection */
};

/* In an order without holes: the stack has 512 bytes, all functions that call each other. */
struct packet {
	struct xdp_md *ctx;
	void *pos; /* the cursor */
	void *end;

	struct flow flow;
	__u64 ip_at;	    /* where its header is in the frame, */
	__u64 transport_at; /* and that of TCP or UDP: packet_place */
	__u32 ip_bytes;	    /* length of the IP packet */
	enum reason refuse; /* what to leave with, should the packet be ours */
	__u8 tags;

	/* Stages 2 to 4: */
	__u8 known;  /* 1: of a live connection */
	__u8 method; /* enum method of the real server, read once: it may be changed */
	__u8 ring;   /* enum ring */
	__u32 service_id;
	struct pool *pool;
	struct real_server *server;

	/* Stages 1 and 5: */
	union {
		struct way way;
		struct {
			__u64 out_mac;
			__u64 own_mac;
			__u32 out_ifindex;
			__u16 out_vlan;
			__u16 out_mtu;
		};
	};
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

/* Are there so many bytes from the cursor on? Only a long frame has more than one buffer. */
static __always_inline bool packet_has(struct packet *p, __u64 bytes)
{
	if (bytes <= packet_distance(p->pos, p->end))
		return true;
	return bytes <=
	       bpf_xdp_get_buff_len(p->ctx) - packet_distance((void *)(long)p->ctx->data, p->pos);
}

static __always_inline enum reason packet_ethernet(struct packet *p, __be16 *type)
{
	if (p->pos + ETH_HLEN > p->end)
		return REASON_NOT_IP;
	*type = *(__be16 *)(p->pos + ETHERNET_TYPE);
	p->pos += ETH_HLEN;

#pragma unroll
	for (int i = 0; i < VLAN_TAGS; i++) {
		struct vlan_tag *tag = p->pos;

		if (*type != bpf_htons(ETH_P_8021Q) && *type != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(tag + 1) > p->end)
			return REASON_NOT_IP;
		p->tags++;
		*type = tag->type;
		p->pos = tag + 1;
	}
	return REASON_UNDECIDED;
}

static __always_inline struct interface *packet_interface(__u32 ifindex)
{
	__u32 place = ifindex % PORTS;
	struct port *port = bpf_map_lookup_elem(&ports, &place);

	if (port && *(volatile __u32 *)&port->ifindex == ifindex)
		return &port->interface;
	return bpf_map_lookup_elem(&interfaces, &ifindex);
}

/* Is the frame for this machine? XDP also sees what a switch floods. */
static __always_inline bool packet_for_us(struct packet *p)
{
	void *frame = (void *)(long)p->ctx->data;
	struct interface *in;

	if (frame + ETH_HLEN > p->end)
		return false;
	in = packet_interface(p->ctx->ingress_ifindex);
	if (!in)
		return false;
	p->own_mac = *(volatile __u64 *)in; /* and the flags */
	return (*(__u64 *)frame ^ p->own_mac) << (64 - MAC_BITS) == 0;
}

/* The number of an address in `vips`. internal/dataplane/address.go has the same. */
static __always_inline __u64 packet_number(const struct addr *a, enum glance role)
{
	__u64 number = (*addr_half(a, 0) + role) * VIP_FACTOR ^ *addr_half(a, 1);

	return number > VIP_SEVERAL ? number : number + 2; /* which VIP_NONE is neither */
}

/*
 * Is the address one that concerns us in this role? A number is one IPv4 address's,
 * but of IPv6 any two may share one: then a foreign packet costs what a stray of ours
 * does, and passes all the same, unless no host would take it (MALFORMED, V4_MAPPED).
 */
static __always_inline bool packet_concerns(const struct addr *a, enum glance role)
{
	__u64 number = packet_number(a, role), *found;
	__u32 place = (__u64)(__u32)((number >> 32 ^ number) * VIP_FACTOR) * vip_places >> 32;
	__u32 *roles;

	found = bpf_map_lookup_elem(&vips, &place);
	if (!found)
		return false;
	if (*(volatile __u64 *)found != VIP_SEVERAL)
		return *(volatile __u64 *)found == number;
	roles = bpf_map_lookup_elem(&addresses, a);
	return roles && *(volatile __u32 *)roles & role;
}

/* May the packet be a reply on its way through us? */
static __always_inline bool packet_reply(struct packet *p)
{
	__u32 key = 0;
	struct uses *use = bpf_map_lookup_elem(&uses, &key);

	return use && *(volatile __u64 *)&use->nat &&
	       packet_concerns(&p->flow.key.client, VIP_SOURCE);
}

/* The addresses are in the key, as in the packet: do they concern us? */
static __always_inline enum reason packet_ours(struct packet *p)
{
	__u64 reply = !packet_concerns(&p->flow.key.vip, VIP_DESTINATION);

	if (reply && !packet_reply(p))
		return REASON_NOT_OURS;
	p->flow.reply = flow_any(&p->flow, reply);
	if (!packet_for_us(p))
		return REASON_OTHER_HOST;
	return REASON_UNDECIDED;
}

static __always_inline void addr_from_v4(struct addr *a, __be32 v4)
{
	*addr_half(a, 0) = 0;
	*addr_half(a, 1) = bpf_htonl(0xffff) | (__u64)v4 << 32;
}

static __always_inline void addr_copy(struct addr *to, const void *from)
{
	*addr_half(to, 0) = *addr_half(from, 0);
	*addr_half(to, 1) = *addr_half(from, 1);
}

static __always_inline bool addr_is_mapped(const struct addr *a)
{
	return *addr_half(a, 0) == 0 && (__u32)*addr_half(a, 1) == bpf_htonl(0xffff);
}

/* A sum of words folded to 16 bits, as in RFC 1071. */
static __always_inline __u64 ip_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The sum over a header of `words` 32-bit words, 0xffff if its checksum is right. */
static __always_inline bool ip_checksum_right(struct packet *p, struct iphdr *ip, __u32 words)
{
	__u32 *word = (void *)ip;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];

	for (__u32 i = 5; i < 15; i++) {
		if (i >= words)
			break;
		if ((void *)(word + i + 1) > p->end)
			return false;
		sum += word[i];
	}
	return ip_fold(sum) == 0xffff;
}

static __always_inline enum reason packet_ipv4(struct packet *p)
{
	struct iphdr *ip = p->pos;
	__u32 header, total;
	enum reason r;

	if ((void *)(ip + 1) > p->end)
		return REASON_BAD_IP;
	addr_from_v4(&p->flow.key.client, ip->saddr);
	addr_from_v4(&p->flow.key.vip, ip->daddr);
	r = packet_ours(p);
	if (r)
		return r;

	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || header < sizeof(*ip) || total < header || !packet_has(p, total) ||
	    !ip_checksum_right(p, ip, ip->ihl))
		return REASON_BAD_IP;
	p->ip_bytes = total;
	p->flow.key.protocol = ip->protocol;
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
	p->flow.key.protocol = next;
	return REASON_UNDECIDED;
}

static __always_inline enum reason packet_ipv6(struct packet *p)
{
	struct ipv6hdr *ip = p->pos;
	__u32 total;
	enum reason r;

	if ((void *)(ip + 1) > p->end)
		return REASON_BAD_IP;
	addr_copy(&p->flow.key.client, &ip->saddr);
	addr_copy(&p->flow.key.vip, &ip->daddr);
	r = packet_ours(p);
	if (r)
		return r;
	if (addr_is_mapped(&p->flow.key.vip) || addr_is_mapped(&p->flow.key.client))
		return REASON_V4_MAPPED;

	p->flow.six = 1;
	total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (ip->version != 6 || !packet_has(p, total))
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
	__u64 headers = packet_distance((void *)(long)p->ctx->data, p->pos) - p->ip_at;

	return headers < p->ip_bytes ? p->ip_bytes - headers : 0;
}

static __always_inline enum reason packet_tcp(struct packet *p)
{
	__u64 payload = packet_payload(p);
	struct tcphdr *tcp = p->pos;

	if ((void *)(tcp + 1) > p->end || payload < sizeof(*tcp))
		return REASON_MALFORMED;
	p->flow.key.client_port = tcp->source;
	p->flow.key.port = tcp->dest;
	p->flow.tcp_flags = ((__u8 *)tcp)[13];
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
	p->flow.key.client_port = udp->source;
	p->flow.key.port = udp->dest;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || (length > payload && !p->refuse))
		p->refuse = REASON_MALFORMED;
	return REASON_UNDECIDED;
}

enum { PLACE_MASK = 0x3fff }; /* all extension headers of an IPv6 packet are shorter */

/* A place in the frame, as it is when the packet was parsed. */
static __always_inline void *packet_place(struct xdp_md *ctx, __u64 at)
{
	return (void *)(long)ctx->data + (at & PLACE_MASK);
}

/*
 * What follows does not depend on the way that the packet was parsed: of places it keeps
 * numbers, since of pointers the verifier remembers how they came about.
 */
static __always_inline void packet_forget(struct packet *p)
{
	void *frame = (void *)(long)p->ctx->data;

	p->ip_at = flow_any(&p->flow, p->ip_at);
	p->transport_at = flow_any(&p->flow, packet_distance(frame, p->pos));
	p->flow.icmp = flow_any(&p->flow, p->flow.icmp);
	p->refuse = flow_any(&p->flow, p->refuse);
	p->tags = flow_any(&p->flow, p->tags);
	p->flow.key.protocol = flow_any(&p->flow, p->flow.key.protocol);
	p->flow.tcp_flags = flow_any(&p->flow, p->flow.tcp_flags);
}

static __always_inline enum reason packet_parse(struct packet *p)
{
	enum reason r;
	__be16 type;

	r = packet_ethernet(p, &type);
	if (r)
		return r;
	p->ip_at = packet_distance((void *)(long)p->ctx->data, p->pos);
	if (type == bpf_htons(ETH_P_IP))
		r = packet_ipv4(p);
	else if (type == bpf_htons(ETH_P_IPV6))
		r = packet_ipv6(p);
	else
		r = REASON_NOT_IP;
	if (r)
		return r == REASON_V4_MAPPED && p->flow.reply ? REASON_NOT_OURS : r;

	if (p->flow.key.protocol == IPPROTO_TCP)
		r = packet_tcp(p);
	else if (p->flow.key.protocol == IPPROTO_UDP)
		r = packet_udp(p);
	else if (p->flow.key.protocol == (p->flow.six ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		p->flow.icmp = 1; /* see icmp.h */
	else
		r = REASON_NOT_OURS;
	packet_forget(p);
	return r && p->flow.reply ? REASON_NOT_OURS : r;
}
