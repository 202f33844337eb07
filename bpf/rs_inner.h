/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rs_inner.h, stages 3 and 4: the packet inside, and how it gets out.
 *
 * inner_parse reads the frame and `vips` and writes nothing; it leaves with
 * BAD_INNER, NOT_VIP or CONGESTED. inner_take writes the frame: whatever goes wrong
 * after its first write ends the packet.
 */
#pragma once

#include "rs_tunnel.h"

static __always_inline enum outcome inner_ipv4(struct frame *f)
{
	struct iphdr *ip = f->pos;
	struct address vip;
	__u32 total;

	if ((void *)(ip + 1) > f->end)
		return OUTCOME_BAD_INNER;
	total = bpf_ntohs(ip->tot_len);
	if (ip->version != 4 || ip->ihl < 5 || total < ip->ihl * 4U || total > f->left)
		return OUTCOME_BAD_INNER;
	if (!header_right(f, ip))
		return OUTCOME_BAD_INNER;
	address_from_v4(&vip, ip->daddr);
	if (!bpf_map_lookup_elem(&vips, &vip))
		return OUTCOME_NOT_VIP;
	return f->congested && !(ip->tos & 3) ? OUTCOME_CONGESTED : OUTCOME_GOES_ON;
}

static __always_inline enum outcome inner_ipv6(struct frame *f)
{
	struct ipv6hdr *ip = f->pos;
	struct address vip;

	if ((void *)(ip + 1) > f->end)
		return OUTCOME_BAD_INNER;
	if (ip->version != 6 || sizeof(*ip) + bpf_ntohs(ip->payload_len) > f->left)
		return OUTCOME_BAD_INNER;
	address_copy(&vip, &ip->daddr);
	if (address_is_mapped(&ip->daddr) || !bpf_map_lookup_elem(&vips, &vip))
		return OUTCOME_NOT_VIP;
	return f->congested && !(ip->flow_lbl[0] & 0x30) ? OUTCOME_CONGESTED : OUTCOME_GOES_ON;
}

static __always_inline enum outcome inner_parse(struct frame *f)
{
	return f->type == bpf_htons(ETH_P_IP) ? inner_ipv4(f) : inner_ipv6(f);
}

/* The Ethernet header in words, up to both tags; the last 2 bytes of it are the type. */
struct link_header {
	__u16 half[RS_LINK_BYTES / 2];
};

static __always_inline bool link_read(struct frame *f, struct link_header *h)
{
	__u16 *half = (void *)(long)f->ctx->data;

	for (__u32 i = 0; i < RS_LINK_BYTES / 2; i++) {
		if (i * 2 >= f->link_bytes)
			break;
		if ((void *)(half + i + 1) > f->end)
			return false;
		h->half[i] = half[i];
	}
	return true;
}

/* The header as it was, but for the type. The cursor goes behind it. */
static __always_inline bool link_write(struct frame *f, const struct link_header *h)
{
	__u16 *half = (void *)(long)f->ctx->data;

	f->end = (void *)(long)f->ctx->data_end;
	for (__u32 i = 0; i < RS_LINK_BYTES / 2; i++) {
		if (i * 2 >= f->link_bytes)
			break;
		if ((void *)(half + i + 1) > f->end)
			return false;
		half[i] = (i + 1) * 2 == f->link_bytes ? f->type : h->half[i];
	}
	f->pos = (void *)half + (f->link_bytes & 31); /* it is 22 at most, which nobody remembers */
	return true;
}

/* What a router told of the outer header has to reach the receiver (RFC 6040). */
static __always_inline bool inner_mark(struct frame *f)
{
	if (f->type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = f->pos;
		__u32 before;

		if ((void *)(ip + 1) > f->end)
			return false;
		before = *(__u16 *)ip;
		ip->tos |= 3;
		/* RFC 1624: ~(~sum + ~before + after) */
		ip->check = ~sum_fold((__u64)(__u16)~ip->check + (__u16)~before + *(__u16 *)ip);
	} else {
		struct ipv6hdr *ip = f->pos;

		if ((void *)(ip + 1) > f->end)
			return false;
		ip->flow_lbl[0] |= 0x30;
	}
	return true;
}

/* Takes the headers between the Ethernet header and the inner packet out. */
static __always_inline enum outcome inner_take(struct frame *f)
{
	struct link_header h = {};

	if (!link_read(f, &h) || bpf_xdp_adjust_head(f->ctx, f->headers))
		return OUTCOME_INTERNAL;
	/* From here on the frame is not what it was. */
	if (!link_write(f, &h) || (f->congested && !inner_mark(f)))
		return OUTCOME_MAX;
	return tunnel_taken(f->protocol);
}
