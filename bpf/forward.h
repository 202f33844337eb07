/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * forward.h, stage 5: the way to the real server, and a reply's to its client.
 *
 * forward_route  reads `next_hops` and `interfaces` (way.h: what a reply needs); leaves
 *                with NO_NEIGHBOUR, OFF_LINK, NO_ROUTE, NOT_FORWARDING, TOO_BIG, BAD_VLAN
 *                or TTL_EXPIRED, before anything of the packet is written.
 * forward_count  writes `service_stats` and `server_stats`.
 * forward_send   writes the packet: MAC addresses, and the VLAN tag where the other
 *                side is in another VLAN. dr changes nothing else; nat an address, a
 *                port and what depends on them (rewrite.h); tun puts headers in front
 *                (encap.h), and leaves with NO_HEADROOM where there is no room for them.
 */
#pragma once

#include "encap.h"
#include "icmp.h"
#include "rewrite.h"
#include "sched.h"
#include "way.h"

static __always_inline enum reason forward_vlan(struct packet *p, __u16 want)
{
	p->out_vlan = want;
	if (want == VLAN_KEEP || p->tags < VLAN_TAGS)
		return REASON_UNDECIDED;
	return REASON_BAD_VLAN;
}

/* The way of a reply to its client. */
static __always_inline enum reason forward_back(struct packet *p)
{
	enum reason r = way_back(p->ctx, &p->flow, &p->way, p->ip_bytes);

	if (r)
		return r;
	if (p->ip_bytes > p->out_mtu)
		return REASON_TOO_BIG;
	if (p->out_vlan == VLAN_KEEP && p->out_ifindex != p->ctx->ingress_ifindex)
		return forward_vlan(p, 0);
	return forward_vlan(p, p->out_vlan);
}

static __always_inline enum reason forward_there(struct packet *p)
{
	__u32 index = *(volatile __u32 *)&p->server->next_hop;
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &index);
	struct interface *out;

	if (!hop)
		return REASON_INTERNAL;
	p->out_mac = *(volatile __u64 *)&hop->mac_state;
	switch (p->out_mac >> HOP_STATE_SHIFT) {
	case HOP_READY:
		break;
	case HOP_ROUTED:
		if (p->method != METHOD_DR)
			break;
		return REASON_OFF_LINK;
	case HOP_LOCAL:
		if (p->method == METHOD_NAT)
			return REASON_NO_ROUTE; /* its own stack would answer as somebody else */
		p->out_ifindex = 0;
		return REASON_UNDECIDED;
	case HOP_OFF_LINK:
		return REASON_OFF_LINK;
	case HOP_NO_ROUTE:
		return REASON_NO_ROUTE;
	default:
		return REASON_NO_NEIGHBOUR;
	}
	if (p->ip_bytes > hop->mtu)
		return REASON_TOO_BIG;
	if (p->method == METHOD_TUN) {
		enum reason r = encap_check(p->server, hop, p->ip_bytes);

		if (r)
			return r;
	}
	p->out_ifindex = hop->ifindex;
	if (p->out_ifindex == p->ctx->ingress_ifindex)
		return forward_vlan(p, hop->vlan);
	out = packet_interface(p->out_ifindex);
	if (!out)
		return REASON_NO_ROUTE;
	p->own_mac = *(volatile __u64 *)out;
	/* A tag means something on the port it came in by, and nowhere else. */
	return forward_vlan(p, hop->vlan == VLAN_KEEP ? 0 : hop->vlan);
}

static __always_inline enum reason forward_route(struct packet *p)
{
	enum reason r = p->flow.reply ? forward_back(p) : forward_there(p);

	if (!r && p->method == METHOD_NAT)
		r = rewrite_check(p);
	if (!r && p->method == METHOD_NAT && !p->known)
		way_seek_early(p->ctx, &p->flow);
	return r;
}

static __always_inline void forward_add(void *map, __u32 id, struct packet *p)
{
	struct stats *s = bpf_map_lookup_elem(map, &id);

	if (!s)
		return;
	if (!p->known && p->ring != RING_PACKET)
		s->connections++;
	if (p->flow.reply) {
		s->out_packets++;
		s->out_bytes += p->ip_bytes;
		return;
	}
	s->in_packets++;
	s->in_bytes += p->ip_bytes;
}

static __always_inline void forward_count(struct packet *p)
{
	if (!p->flow.reply || p->server->state == SERVER_LISTED) /* else the id may be another's */
		forward_add(&service_stats, p->service_id, p);
	forward_add(&server_stats, p->flow.server_id, p);
}

/*
 * Makes room for a tag or takes one away. Both MAC addresses are written anew
 * after it, and the type that follows them is already in its place, so that
 * moving the start of the frame is all there is to do.
 */
static __always_inline int forward_resize(struct packet *p)
{
	bool tag = p->out_vlan != 0;

	if (p->out_vlan == VLAN_KEEP || tag == (p->tags != 0))
		return 0;
	return bpf_xdp_adjust_head(p->ctx, tag ? -(int)sizeof(struct vlan_tag)
					       : (int)sizeof(struct vlan_tag));
}

/* Puts the packet into another, with room for the tags that the frame is to have. */
static __always_inline enum reason forward_tun(struct packet *p)
{
	__u64 tags = p->out_vlan == VLAN_KEEP ? p->tags : p->out_vlan != 0;

	return encap_write(p->ctx, &p->flow, p->server, p->tags, tags);
}

/* Writes what of the packet is not the frame's, and makes the frame as long as it is to be. */
static __always_inline enum reason forward_rewrite(struct packet *p)
{
	enum reason r = REASON_UNDECIDED;

	if (p->method == METHOD_TUN)
		return forward_tun(p);
	if (p->method == METHOD_NAT)
		r = p->flow.icmp ? icmp_rewrite(p) : rewrite_packet(p);
	if (r)
		return r;
	return forward_resize(p) ? REASON_NO_HEADROOM : REASON_UNDECIDED;
}

static __always_inline enum reason forward_send(struct packet *p)
{
	enum reason r;
	void *frame;

	if (!p->out_ifindex)
		return REASON_LOCAL;
	r = forward_rewrite(p);
	if (r)
		return r;
	frame = (void *)(long)p->ctx->data;
	p->end = (void *)(long)p->ctx->data_end;
	if (frame + ETH_HLEN + sizeof(struct vlan_tag) > p->end)
		return REASON_INTERNAL;

	/* From here on the frame changes: nothing below can fail. */
	*(__u64 *)frame = (p->out_mac & ((1ULL << MAC_BITS) - 1)) | p->own_mac << MAC_BITS;
	*(__u32 *)(frame + ETHERNET_REST) = p->own_mac >> (64 - MAC_BITS);
	if (p->out_vlan != VLAN_KEEP && p->out_vlan) {
		struct vlan_tag *tag = frame + ETH_HLEN;
		__be16 priority = p->tags ? tag->tci & bpf_htons(0xf000) : 0;

		*(__be16 *)(frame + ETHERNET_TYPE) = bpf_htons(ETH_P_8021Q);
		tag->tci = priority | bpf_htons(p->out_vlan);
	}
	return p->ring == RING_PACKET ? REASON_STATELESS : REASON_FORWARDED;
}
