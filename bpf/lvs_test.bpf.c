// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * lvs_test.bpf.c: the director's program with the clock in the test's hand, and
 * generators of packets that go through it, so that one BPF_PROG_TEST_RUN sends
 * as many as it repeats.
 * Never shipped: only the tests of internal/dataplane load it.
 */
#include "lvs.bpf.c"

__u64 test_now_ns;

SEC("xdp.frags")
int test_direct(struct xdp_md *ctx)
{
	return direct(ctx, test_now_ns);
}

enum {
	TEST_FRAME = 80,  /* what the generators are given: bytes of IPv6 and TCP, and the thread */
	TEST_THREAD = 79, /* the byte with the number of the thread */
	TEST_THREADS = 4,
	TEST_SERVERS = 24,    /* of the stress test */
	TEST_ATTEMPTS = 34,   /* a tail call is allowed 33 times */
	TEST_SHOTS = 1 << 14, /* of a thread that are noted */
	TEST_HANDSHAKES = 1 << 16,
	TEST_KNOWN_SHIFT = 8, /* in what test_packet returns: bits 0-7 are the reason */
};

/* A packet to be made, in the order of the host. */
struct test_made {
	__u64 client; /* the address; of IPv6 its last 64 bits */
	__u32 vip;    /* the number of the VIP */
	__u16 client_port;
	__u16 port;
	__u8 protocol;
	__u8 flags;
	bool six;
};

/*
 * The director's program, looked at by the verifier once, whatever the generator.
 * Returns the reason and, of a known connection, the state that it was found in.
 */
__noinline int test_once(struct xdp_md *ctx, __u64 now_ns)
{
	struct packet p = {
		.ctx = ctx,
		.pos = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.flow.now = conn_ticks(now_ns),
	};
	enum reason r = stages(&p);

	if (r != REASON_AGAIN)
		finish(&p, r);
	return r | (p.known ? conn_state(p.flow.seen) << TEST_KNOWN_SHIFT : 0);
}

/* The same until it has an answer: a generator has to see it, and cannot tail-call. */
static __always_inline __u32 test_packet(struct xdp_md *ctx, __u64 now_ns)
{
	struct packet none = { .ctx = ctx };
	__u32 answer = REASON_AGAIN;

	for (int i = 0; i < TEST_ATTEMPTS && (__u8)answer == REASON_AGAIN; i++)
		answer = test_once(ctx, now_ns);
	if ((__u8)answer != REASON_AGAIN)
		return answer;
	finish(&none, REASON_CONTENDED);
	return REASON_CONTENDED;
}

static __always_inline void test_make4(struct iphdr *ip, const struct test_made *made)
{
	__u16 *half = (__u16 *)ip;
	__u32 sum = 0;

	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(40),
		.ttl = 64,
		.protocol = made->protocol,
		.saddr = bpf_htonl(made->client),
		.daddr = bpf_htonl(0xc6336401 + made->vip), /* 198.51.100.1 */
	};
	for (int i = 0; i < 10; i++)
		sum += half[i];
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~((sum & 0xffff) + (sum >> 16));
}

static __always_inline void test_make6(struct ipv6hdr *ip, const struct test_made *made)
{
	__u32 *source = ip->saddr.in6_u.u6_addr32, *destination = ip->daddr.in6_u.u6_addr32;

	*ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(20),
		.nexthdr = made->protocol,
		.hop_limit = 64,
	};
	source[0] = destination[0] = bpf_htonl(0x20010db8);
	source[1] = bpf_htonl(0x90000);
	source[2] = bpf_htonl(made->client >> 32);
	source[3] = bpf_htonl(made->client);
	destination[3] = bpf_htonl(1 + made->vip);
}

/* A TCP header without payload that is also a UDP header with one. */
static __always_inline void test_make_transport(struct tcphdr *tcp, const struct test_made *made)
{
	*tcp = (struct tcphdr){
		.source = bpf_htons(made->client_port),
		.dest = bpf_htons(made->port),
		.seq = bpf_htonl(20 << 16),
		.doff = 5,
	};
	((__u8 *)tcp)[13] = made->flags;
}

/* Writes the frame anew: the program has changed it. */
static __always_inline bool test_make(struct xdp_md *ctx, const struct test_made *made)
{
	static const __u8 macs[12] = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 };
	void *frame = (void *)(long)ctx->data, *ip = frame + ETH_HLEN;
	struct ethhdr *eth = frame;

	if (frame + TEST_FRAME > (void *)(long)ctx->data_end)
		return false;
	__builtin_memcpy(eth, macs, sizeof(macs));
	eth->h_proto = made->six ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (made->six) {
		test_make6(ip, made);
		test_make_transport(ip + sizeof(struct ipv6hdr), made);
	} else {
		test_make4(ip, made);
		test_make_transport(ip + sizeof(struct iphdr), made);
	}
	return true;
}

/* The last two bytes of the MAC address that the frame went to: a real server's numbers. */
static __always_inline __u16 test_went(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return 0;
	return eth->h_dest[4] << 8 | eth->h_dest[5];
}

/*
 * test_stress: random packets of few flows, each of which is noted with what
 * became of it. A flow is a service and a client; the clients of all services
 * have the same addresses and ports.
 */
__u32 stress_clients = 1;
__u32 stress_services = 1; /* see stress_make */
__u32 stress_first;	   /* flow that packets are of */
__u32 stress_flows = 1;	   /* how many flows they are of */
__u32 stress_stride = 1;   /* from one of them to the next */
__u32 stress_moves;	   /* of 65,536 packets so many move the clock */
__u32 stress_walk;	   /* 1: the flows in turn, not by chance */
__u8 stress_flags[16];	   /* of TCP packets, each as likely as the next */

__u32 stress_most; /* connections that a real server may have of a kind */
__u64 stress_odd;  /* out: counts that were beyond it */

struct test_thread {
	__u64 random;
	__u64 shots;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TEST_THREADS);
	__type(key, __u32);
	__type(value, struct test_thread);
} test_threads SEC(".maps");

/* flow | flags << 16 | where it went << 32 | answer << 48; when it began and ended */
struct test_shot {
	__u64 what;
	__u64 began_ns;
	__u64 ended_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TEST_THREADS *TEST_SHOTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct test_shot);
} test_shots SEC(".maps");

static __always_inline __u64 test_random(struct test_thread *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return t->random;
}

enum {
	STRESS_STEP_NS = 2000000000
}; /* with two steps an established connection is written again */

/* Even services are of IPv4; of eight the last two are of UDP. */
static __always_inline void stress_make(struct test_made *made, __u32 flow, __u64 chance)
{
	__u32 clients = stress_clients ?: 1;
	__u32 client = flow % clients, service = flow / clients, kind = service >> 1 & 3;

	made->six = service & 1;
	made->protocol = kind == 3 ? IPPROTO_UDP : IPPROTO_TCP;
	made->vip = service >> 3;
	made->port = 80 + kind % 3;
	made->client = 0xc0000201 + client % 8; /* 192.0.2.1 */
	made->client_port = 1000 + client / 8;
	made->flags = stress_flags[chance & 15];
}

static __always_inline __u32 stress_flow(__u64 step)
{
	__u64 all = stress_clients * stress_services ?: 1;

	return (stress_first + step % (stress_flows ?: 1) * stress_stride) % all;
}

/* Counts are right at any moment: below 0 they would be huge. */
static long stress_count(__u32 id, void *unused)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &id), now;

	now = count ? *(volatile __u64 *)count : 0;
	if ((__u32)now > stress_most || now >> 32 > stress_most)
		__sync_fetch_and_add(&stress_odd, 1);
	return 0;
}

SEC("xdp.frags")
int test_stress(struct xdp_md *ctx)
{
	__u8 *number = (void *)(long)ctx->data + TEST_THREAD;
	struct test_made made = {};
	struct test_thread *t;
	struct test_shot *shot;
	__u64 chance, began;
	__u32 thread, at, flow, answer;

	if ((void *)(number + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	thread = *number;
	t = bpf_map_lookup_elem(&test_threads, &thread);
	if (!t)
		return XDP_ABORTED;
	at = thread * TEST_SHOTS + t->shots % TEST_SHOTS;
	shot = bpf_map_lookup_elem(&test_shots, &at);
	if (!shot)
		return XDP_ABORTED;
	chance = test_random(t);
	flow = stress_flow(stress_walk ? t->shots : (__u32)chance);
	t->shots++;
	stress_make(&made, flow, chance >> 60);
	if ((chance >> 32 & 0xffff) < stress_moves)
		__sync_fetch_and_add(&test_now_ns, STRESS_STEP_NS);
	if (!test_make(ctx, &made))
		return XDP_ABORTED;
	began = bpf_ktime_get_ns();
	answer = test_packet(ctx, test_now_ns);
	shot->began_ns = began;
	shot->ended_ns = bpf_ktime_get_ns();
	bpf_loop(TEST_SERVERS, stress_count, NULL, 0);
	shot->what = flow | made.flags << 16 | (__u64)test_went(ctx) << 32 | (__u64)answer << 48;
	return XDP_DROP;
}

/*
 * test_flood: SYNs or datagrams from sources that do not come twice; among them
 * handshakes of honest clients, one in flood_honest packets, whose ACK is sent
 * flood_delay packets after the SYN. It counts those that went well: SYN and ACK
 * to one real server, and of the ACK known what was known of the SYN.
 */
__u64 flood_next;    /* the number of the next packet */
__u64 flood_end;     /* the number of the first packet that is not sent */
__u64 flood_step_ns; /* between packets */
__u32 flood_class;   /* the sources' first four bits */
__u32 flood_protocol;
__u32 flood_flags;
__u32 flood_pair; /* 1: two packets of each source, SYN and ACK */
__u32 flood_six;
__u32 flood_vips = 1; /* a client's is its address modulo this */
__u32 flood_honest;   /* 0: none */
__u32 flood_delay;
__u64 flood_opened;    /* out: honest SYNs whose ACK was sent too */
__u64 flood_succeeded; /* out: … that went well */
__u64 flood_forwarded; /* out: other packets that were forwarded */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TEST_HANDSHAKES);
	__type(key, __u32);
	__type(value, __u64); /* where the SYN went, and why */
} test_handshakes SEC(".maps");

/* The client of a number: another for each of 2^44. Multiplied by an odd number none comes twice. */
static __always_inline void flood_client(struct test_made *made, __u32 class, __u64 number)
{
	__u64 mixed = number * 0x9e3779b97f5ULL;

	mixed &= (1ULL << 44) - 1;
	mixed ^= mixed >> 22;
	mixed = mixed * 0xbf58476d1cdULL & ((1ULL << 44) - 1);
	made->client = (__u64) class << 28 | mixed >> 16;
	made->client_port = mixed;
}

enum { HONEST_CLASS = 15 };

/* Returns the number of the handshake that the packet is of, or -1. */
static __always_inline __s64 flood_choose(struct test_made *made, __u64 n)
{
	__u64 every = flood_honest;
	__s64 handshake = -1;

	if (every && n % every == 0)
		handshake = n / every;
	if (every && n % every == 1 && n > flood_delay)
		handshake = (n - flood_delay) / every;
	made->six = flood_six;
	made->port = 80;
	if (handshake >= 0) {
		made->protocol = IPPROTO_TCP;
		made->flags = n % every ? TCP_ACK : TCP_SYN;
		flood_client(made, HONEST_CLASS, handshake);
	} else {
		made->protocol = flood_protocol;
		made->flags = flood_pair && n & 1 ? TCP_ACK : flood_flags;
		flood_client(made, flood_class, flood_pair ? n >> 1 : n);
	}
	made->vip = made->client % (flood_vips ?: 1);
	return handshake;
}

static __always_inline void flood_note(__u64 handshake, bool syn, __u64 answer)
{
	__u32 at = handshake % TEST_HANDSHAKES;
	__u64 *went = bpf_map_lookup_elem(&test_handshakes, &at);

	if (!went)
		return;
	if (syn) {
		*went = answer;
		return;
	}
	flood_opened++;
	flood_succeeded += answer && *went == answer;
}

SEC("xdp.frags")
int test_flood(struct xdp_md *ctx)
{
	struct test_made made = {};
	__u64 n = __sync_fetch_and_add(&flood_next, 1), went = 0;
	__s64 handshake = flood_choose(&made, n);
	__u32 reason;

	if (n >= flood_end) /* BPF_PROG_TEST_RUN begins anew when a signal interrupts it */
		return XDP_DROP;
	if (!test_make(ctx, &made))
		return XDP_ABORTED;
	reason = (__u8)test_packet(ctx, __sync_fetch_and_add(&test_now_ns, flood_step_ns));
	if (reason == REASON_FORWARDED || reason == REASON_STATELESS)
		went = reason << 16 | test_went(ctx);
	if (handshake >= 0)
		flood_note(handshake, made.flags == TCP_SYN, went);
	else
		flood_forwarded += went != 0;
	return XDP_DROP;
}
