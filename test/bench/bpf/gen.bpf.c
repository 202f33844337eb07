// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * gen.bpf.c: makes the next packet out of the last one and tail-calls the
 * program under test, so that BPF_PROG_TEST_RUN's repetitions are not all of one
 * flow. It also holds the stopwatch of a round.
 *
 * The next flow is reckoned, not looked up: an array of flows would push the
 * program's own data out of the caches. Steps of a number that has no divisor in
 * common with the number of flows visit each flow once before any twice.
 *
 * It writes what a program may have changed, and what differs between flows, in
 * stores as wide as any load that follows: a load of more than was stored at once
 * waits for the stores, as it never would for a packet from a network card.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "../../../bpf/include/bpf/bpf_endian.h"
#include "../../../bpf/include/bpf/bpf_helpers.h"

enum { PORT_BITS = 14, FIRST_PORT = 1024 };

struct round {
	__u64 sent;	  /* counts packets from 0 */
	__u64 first;	  /* the number of the packet that starts the clock */
	__u64 last;	  /* … that stops it */
	__u64 started_ns; /* out */
	__u64 ended_ns;	  /* out */
	__u64 ethernet;	  /* bytes 0-7 of the frame */
	__u32 ethernet8;  /* bytes 8-11 */
	__u32 ip_sum;	  /* over the IPv4 header without check and addresses */
	__u32 at;	  /* the flow to send next */
	__u32 step;
	__u32 flows;	   /* 0: 2^32 */
	__u32 from;	   /* added to the flow: where a part of all flows begins */
	__u32 clients;	   /* the first client's address, its last 32 bits */
	__u32 destination; /* the first destination's address, its last 32 bits */
	__u32 spread;	   /* destinations, one behind the other */
	__be16 port;	   /* of all destinations */
	__u16 ttl_protocol;
};

struct round this_round;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

static __always_inline void gen_clock(void)
{
	__u64 n = this_round.sent++;

	if (n == this_round.first)
		this_round.started_ns = bpf_ktime_get_ns();
	if (n == this_round.last)
		this_round.ended_ns = bpf_ktime_get_ns();
}

static __always_inline __u32 gen_flow(void)
{
	__u32 at = this_round.at, next = at + this_round.step;

	if (this_round.flows && next >= this_round.flows)
		next -= this_round.flows;
	this_round.at = next;
	return at + this_round.from;
}

/* A flow's destination is always the same. */
static __always_inline __be32 gen_destination(__u32 flow)
{
	__u64 mixed = flow * 2654435761U;

	return bpf_htonl(this_round.destination + (__u32)(mixed * this_round.spread >> 32));
}

static __always_inline __be32 gen_client(__u32 flow)
{
	return bpf_htonl(this_round.clients + (flow >> PORT_BITS));
}

static __always_inline __u32 gen_ports(__u32 flow)
{
	__u16 port = FIRST_PORT + (flow & ((1 << PORT_BITS) - 1));

	return bpf_htons(port) | (__u32)this_round.port << 16;
}

static __always_inline __u16 gen_check(__be32 source, __be32 destination)
{
	__u64 sum = (__u64)this_round.ip_sum + source + destination;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void gen_ethernet(void *frame)
{
	*(__u64 *)frame = this_round.ethernet;
	*(__u32 *)(frame + 8) = this_round.ethernet8;
}

SEC("xdp.frags")
int gen4(struct xdp_md *ctx)
{
	void *frame = (void *)(long)ctx->data;
	struct iphdr *ip = frame + ETH_HLEN;
	__be32 source, destination;
	__u32 flow;

	if ((void *)(ip + 1) + sizeof(__u32) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	gen_clock();
	flow = gen_flow();
	source = gen_client(flow);
	destination = gen_destination(flow);
	gen_ethernet(frame);
	*(__u32 *)&ip->ttl = this_round.ttl_protocol | (__u32)gen_check(source, destination) << 16;
	ip->saddr = source;
	ip->daddr = destination;
	*(__u32 *)(ip + 1) = gen_ports(flow);
	bpf_tail_call_static(ctx, &target, 0);
	return XDP_ABORTED;
}

SEC("xdp.frags")
int gen6(struct xdp_md *ctx)
{
	void *frame = (void *)(long)ctx->data;
	struct ipv6hdr *ip = frame + ETH_HLEN;
	__u32 flow;

	if ((void *)(ip + 1) + sizeof(__u32) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	gen_clock();
	flow = gen_flow();
	gen_ethernet(frame);
	*(__u64 *)&ip->saddr.s6_addr[8] = (__u64)gen_client(flow) << 32;
	*(__u64 *)&ip->daddr.s6_addr[8] = (__u64)gen_destination(flow) << 32;
	*(__u32 *)(ip + 1) = gen_ports(flow);
	bpf_tail_call_static(ctx, &target, 0);
	return XDP_ABORTED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
