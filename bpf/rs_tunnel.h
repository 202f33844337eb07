/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * rs_tunnel.h, stage 2: the header between the two IP headers.
 *
 * Reads the frame. Writes struct frame, and `scratch`. Leaves with UNKNOWN_TUNNEL,
 * BAD_OUTER or BAD_CHECKSUM; or goes on with the cursor at the inner IP header and
 * its family in f->type.
 */
#pragma once

#include "rs_outer.h"

/* Flags of the first 16 bits of GRE (RFC 2784, RFC 2890); all others have to be 0. */
enum { GRE_CHECKSUM = 0x8000 };

struct gre {
	__be16 flags;
	__be16 type;
};

/* The first 4 bytes of GUE (draft-ietf-intarea-gue-09). */
struct gue {
	__u8 head; /* version, control, words of options */
	__u8 protocol;
	__be16 flags;
};

enum {
	GUE_VERSION_SHIFT = 6, /* 1: no header at all, an IP packet begins here */
	SUM_CHUNK = 512,       /* bpf_csum_diff takes no more at once */
	SUM_CHUNKS = 65536 / SUM_CHUNK,
};

/* Where a packet is summed up: its buffers may be several. */
struct chunk {
	__u8 bytes[SUM_CHUNK + 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chunk);
} scratch SEC(".maps");

/*
 * The sum of all that is left of the packet, from the cursor on, added to one that
 * there is; ~0 if it cannot be read.
 */
static __always_inline __u32 tunnel_sum(struct frame *f, __u32 sum)
{
	__u32 offset = f->link_bytes + f->headers, left = f->left, zero = 0;
	struct chunk *c = bpf_map_lookup_elem(&scratch, &zero);

	if (!c)
		return ~0;
	for (int i = 0; i < SUM_CHUNKS && left >= SUM_CHUNK; i++) {
		if (bpf_xdp_load_bytes(f->ctx, offset, c->bytes, SUM_CHUNK))
			return ~0;
		sum = sum_fold((__u64)bpf_csum_diff(0, 0, (void *)c->bytes, SUM_CHUNK, sum));
		offset += SUM_CHUNK;
		left -= SUM_CHUNK;
	}
	if (left == 0)
		return sum;
	/*
	 * Neither 0 nor too many; 6.1 does not believe the first from a comparison ("R3
	 * min value is outside of the allowed memory range"), but from a sum.
	 */
	left--;
	asm volatile("" : "+r"(left));
	left = (left & (SUM_CHUNK - 1)) + 1;
	if (bpf_xdp_load_bytes(f->ctx, offset, c->bytes, left))
		return ~0;
	*(__u32 *)(c->bytes + left) = 0; /* the sum is over whole words */
	return sum_fold((__u64)bpf_csum_diff(0, 0, (void *)c->bytes, (left + 3) & ~3U, sum));
}

static __always_inline enum outcome tunnel_inner(struct frame *f, __u8 protocol)
{
	if (protocol != IPPROTO_IPIP && protocol != IPPROTO_IPV6)
		return OUTCOME_UNKNOWN_TUNNEL;
	f->type = protocol == IPPROTO_IPIP ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	return OUTCOME_GOES_ON;
}

/* A key or a sequence number is not ours: it means something to somebody else. */
static __always_inline enum outcome tunnel_gre(struct frame *f)
{
	struct gre *gre = f->pos;
	__u32 bytes = sizeof(*gre);

	if ((void *)(gre + 1) > f->end || f->left < sizeof(*gre) + 4)
		return OUTCOME_BAD_OUTER;
	if (gre->flags & ~bpf_htons(GRE_CHECKSUM))
		return OUTCOME_UNKNOWN_TUNNEL;
	if (gre->type != bpf_htons(ETH_P_IP) && gre->type != bpf_htons(ETH_P_IPV6))
		return OUTCOME_UNKNOWN_TUNNEL;
	f->type = gre->type;
	if (gre->flags) {
		bytes += 4;
		if (tunnel_sum(f, 0) != 0xffff)
			return OUTCOME_BAD_CHECKSUM;
	}
	frame_skip(f, bytes);
	return OUTCOME_GOES_ON;
}

/*
 * Is the checksum of UDP right? 0 says that there is none: allowed for IPv4, and
 * for tunnels over IPv6 as well (RFC 6935).
 */
static __always_inline bool tunnel_udp_right(struct frame *f, struct udphdr *udp)
{
	if (!udp->check)
		return true;
	return tunnel_sum(f, f->pseudo + bpf_htons(IPPROTO_UDP) + udp->len) == 0xffff;
}

static __always_inline enum outcome tunnel_gue(struct frame *f)
{
	struct udphdr *udp = f->pos;
	struct gue *gue = (void *)(udp + 1);
	__u32 length;

	if ((void *)(gue + 1) > f->end)
		return OUTCOME_BAD_OUTER;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) + sizeof(*gue) || length > f->left)
		return OUTCOME_BAD_OUTER;
	f->left = length;
	if (!tunnel_udp_right(f, udp))
		return OUTCOME_BAD_CHECKSUM;
	frame_skip(f, sizeof(*udp));
	if (gue->head >> GUE_VERSION_SHIFT == 1)
		return tunnel_inner(f, gue->head >> 4 == 4   ? IPPROTO_IPIP
				       : gue->head >> 4 == 6 ? IPPROTO_IPV6
							     : IPPROTO_NONE);
	if (gue->head || gue->flags)
		return OUTCOME_UNKNOWN_TUNNEL;
	frame_skip(f, sizeof(*gue));
	return tunnel_inner(f, gue->protocol);
}

static __always_inline enum outcome tunnel_parse(struct frame *f)
{
	if (!frame_forget(f))
		return OUTCOME_BAD_OUTER;
	switch (f->protocol) {
	case IPPROTO_GRE:
		return tunnel_gre(f);
	case IPPROTO_UDP:
		return tunnel_gue(f);
	default:
		return tunnel_inner(f, f->protocol);
	}
}

/* What a packet that was taken out counts as. */
static __always_inline enum outcome tunnel_taken(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_GRE:
		return OUTCOME_GRE;
	case IPPROTO_UDP:
		return OUTCOME_GUE;
	default:
		return OUTCOME_IPIP;
	}
}
