// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * plain.bpf.c: (c), a balancer for direct routing as everybody writes it: the
 * VIP from a hash, the connection from an LRU hash, the real server from an
 * array, a ring for new connections, two per-CPU counters. It knows neither TCP
 * states nor counts nor time-outs: the LRU forgets.
 */
#include "parse.h"

struct vip_meta {
	__u32 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct vip4);
	__type(value, struct vip_meta);
} plain_vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct vip6);
	__type(value, struct vip_meta);
} plain_vips6 SEC(".maps");

/* Of whole words: the hash reads words, and a load waits for stores of parts of it. */
struct flow4 {
	__be32 client;
	__be32 vip;
	__u32 ports;
	__u32 protocol;
};

struct flow6 {
	struct in6_addr client;
	struct in6_addr vip;
	__u32 ports;
	__u32 protocol;
};

struct connection {
	__u32 real;
	__u32 zero;
	__u64 seen_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct flow4);
	__type(value, struct connection);
} plain_flows4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct flow6);
	__type(value, struct connection);
} plain_flows6 SEC(".maps");

struct real {
	__u8 mac[6];
	__u8 zero[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32);
	__type(value, struct real);
} plain_reals SEC(".maps");

/* A ring for each VIP, one behind the other. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32);
	__type(value, __u32); /* index into plain_reals */
} plain_rings SEC(".maps");

volatile const __u32 plain_ring_size = SIZED;

struct stats {
	__u64 packets;
	__u64 bytes;
	__u64 connections;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32);
	__type(value, struct stats);
} plain_vip_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32);
	__type(value, struct stats);
} plain_real_stats SEC(".maps");

static __always_inline void plain_count(void *map, __u32 id, __u64 bytes, bool new)
{
	struct stats *s = bpf_map_lookup_elem(map, &id);

	if (!s)
		return;
	s->packets++;
	s->bytes += bytes;
	s->connections += new;
}

/* Finds the real server of a flow; a new one gets that of its place in the ring. */
static __always_inline bool plain_pick(void *flows, void *flow, struct parsed *p, __u32 vip,
				       struct connection *c)
{
	struct connection *known = bpf_map_lookup_elem(flows, flow);
	__u32 at, *real;

	if (known) {
		known->seen_ns = bpf_ktime_get_coarse_ns();
		c->real = known->real;
		return true;
	}
	at = vip * plain_ring_size + mix(p) % plain_ring_size;
	real = bpf_map_lookup_elem(&plain_rings, &at);
	if (real) {
		c->real = *real;
		c->zero = 0;
		c->seen_ns = bpf_ktime_get_coarse_ns();
		bpf_map_update_elem(flows, flow, c, BPF_ANY);
	}
	return false;
}

/* From the VIP and the real server to the frame that leaves. */
static __always_inline int plain_send(struct parsed *p, __u32 vip, struct connection *c, bool known)
{
	struct real *real = bpf_map_lookup_elem(&plain_reals, &c->real);

	if (!real)
		return XDP_DROP;
	plain_count(&plain_vip_stats, vip, p->bytes, !known);
	plain_count(&plain_real_stats, c->real, p->bytes, !known);
	rewrite(p->eth, *(__u64 *)real);
	return XDP_TX;
}

SEC("xdp.frags")
int plain_balance4(struct xdp_md *ctx)
{
	struct parsed p = {};
	struct connection c = {};
	struct vip_meta *vip;

	if (!parse(ctx, &p, false))
		return XDP_PASS;
	vip = vip_find4(&plain_vips4, &p);
	if (!vip)
		return XDP_PASS;
	struct flow4 flow = { p.ip4->saddr, p.ip4->daddr, *(__u32 *)p.ports, p.protocol };

	return plain_send(&p, vip->id, &c, plain_pick(&plain_flows4, &flow, &p, vip->id, &c));
}

SEC("xdp.frags")
int plain_balance6(struct xdp_md *ctx)
{
	struct parsed p = {};
	struct connection c = {};
	struct vip_meta *vip;

	if (!parse(ctx, &p, true))
		return XDP_PASS;
	vip = vip_find6(&plain_vips6, &p);
	if (!vip)
		return XDP_PASS;
	struct flow6 flow = { p.ip6->saddr, p.ip6->daddr, *(__u32 *)p.ports, p.protocol };

	return plain_send(&p, vip->id, &c, plain_pick(&plain_flows6, &flow, &p, vip->id, &c));
}

char _license[] SEC("license") = "Dual BSD/GPL";
