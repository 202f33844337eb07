// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * base.bpf.c: what lvx is measured against from below. None of them balances.
 *
 * base_floor   nothing: the generator, a tail call, a return
 * base_swap    (a) parse, and swap the MAC addresses
 * base_lookup  (b) parse, look up the VIP, rewrite the MAC addresses
 * base_limit   (d) parse, and read one random line of an array as large as the
 *              connection table: what memory itself takes
 */
#include "parse.h"

struct machine {
	__u8 mac[6];
	__u8 zero[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct vip4);
	__type(value, struct machine);
} base_vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct vip6);
	__type(value, struct machine);
} base_vips6 SEC(".maps");

struct line {
	__u64 word[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE); /* as lvx's own: the same kind of memory */
	__type(key, __u32);
	__type(value, struct line);
} base_lines SEC(".maps");

volatile const __u32 base_line_count = SIZED;

__u64 base_last; /* what was read last: 0, but neither compiler nor CPU knows */

SEC("xdp.frags")
int base_floor(struct xdp_md *ctx)
{
	return XDP_TX;
}

static __always_inline int swap(struct xdp_md *ctx, bool six)
{
	struct parsed p = {};
	void *frame = (void *)(long)ctx->data;

	if (!parse(ctx, &p, six))
		return XDP_PASS;
	rewrite(p.eth, *(__u64 *)frame >> 48 | (__u64) * (__u32 *)(frame + 8) << 16);
	return XDP_TX;
}

static __always_inline int lookup(struct xdp_md *ctx, bool six)
{
	struct parsed p = {};
	struct machine *machine;

	if (!parse(ctx, &p, six))
		return XDP_PASS;
	machine = six ? vip_find6(&base_vips6, &p) : vip_find4(&base_vips4, &p);
	if (!machine)
		return XDP_PASS;
	rewrite(p.eth, *(__u64 *)machine);
	return XDP_TX;
}

static __always_inline int limit(struct xdp_md *ctx, bool six)
{
	struct parsed p = {};
	struct line *line;
	__u32 at;

	if (!parse(ctx, &p, six))
		return XDP_PASS;
	/*
	 * Where to read depends on what was read before. Else the CPU would begin
	 * with the next packet's read while it waits for this one's, which it cannot
	 * where the way through the program depends on what the table says.
	 */
	at = (__u64)(mix(&p) + (__u32)base_last) * base_line_count >> 32;
	line = bpf_map_lookup_elem(&base_lines, &at);
	if (!line)
		return XDP_DROP;
	base_last = *(volatile __u64 *)&line->word[0];
	return XDP_TX;
}

#define PROGRAM(name, family, six)                                                                 \
	SEC("xdp.frags") int base_##name##family(struct xdp_md *ctx)                               \
	{                                                                                          \
		return name(ctx, six);                                                             \
	}
PROGRAM(swap, 4, false)
PROGRAM(swap, 6, true)
PROGRAM(lookup, 4, false)
PROGRAM(lookup, 6, true)
PROGRAM(limit, 4, false)
PROGRAM(limit, 6, true)

char _license[] SEC("license") = "Dual BSD/GPL";
