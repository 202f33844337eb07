/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hash.h: a client or a flow as a number.
 *
 * hash_kernel  a client as sh of kernel IPVS has it, so that clients stay where
 *              it sent them.
 * hash_client  a client for mh; hash_flow a flow for the connection tables and
 *              the rings: SipHash-1-3, which nobody can choose who does not know
 *              the secret. They read `secrets`.
 *
 * internal/sched has those of clients in Go.
 */
#pragma once

#include "packet.h"

/*
 * net/netfilter/ipvs/ip_vs_sh.c, ip_vs_sh_hashkey; hash_32 of linux/hash.h. The
 * port is 0 if it does not count.
 */
static __always_inline __u32 hash_kernel(const struct addr *client, __be16 port)
{
	__be32 fold = client->word[3];

	if (!addr_is_mapped(client))
		fold ^= client->word[0] ^ client->word[1] ^ client->word[2];
	return (bpf_ntohs(port) + bpf_ntohl(fold)) * 0x61c88647U >> (32 - 8);
}

struct hash_state {
	__u64 a, b, c, d;
};

static __always_inline __u64 hash_rotate(__u64 word, int bits)
{
	return word << bits | word >> (64 - bits);
}

static __always_inline void hash_round(struct hash_state *s)
{
	s->a += s->b;
	s->c += s->d;
	s->b = hash_rotate(s->b, 13) ^ s->a;
	s->d = hash_rotate(s->d, 16) ^ s->c;
	s->a = hash_rotate(s->a, 32);
	s->c += s->b;
	s->a += s->d;
	s->b = hash_rotate(s->b, 17) ^ s->c;
	s->d = hash_rotate(s->d, 21) ^ s->a;
	s->c = hash_rotate(s->c, 32);
}

static __always_inline void hash_word(struct hash_state *s, __u64 word)
{
	s->d ^= word;
	hash_round(s);
	s->a ^= word;
}

static __always_inline struct hash_state hash_begin(enum secret_use use)
{
	__u32 key = use;
	struct secret *secret = bpf_map_lookup_elem(&secrets, &key);
	__u64 low = secret ? secret->key[0] : 0, high = secret ? secret->key[1] : 0;

	return (struct hash_state){
		.a = low ^ 0x736f6d6570736575,
		.b = high ^ 0x646f72616e646f6d,
		.c = low ^ 0x6c7967656e657261,
		.d = high ^ 0x7465646279746573,
	};
}

static __always_inline __u64 hash_end(struct hash_state *s)
{
	s->c ^= 0xff;
	hash_round(s);
	hash_round(s);
	hash_round(s);
	return s->a ^ s->b ^ s->c ^ s->d;
}

static __always_inline void hash_addr(struct hash_state *s, const struct addr *a)
{
	hash_word(s, *addr_half(a, 0));
	hash_word(s, *addr_half(a, 1));
}

/* Of the 16 bytes of the address, and the two of the port behind it if it counts. */
static __always_inline __u64 hash_client(const struct addr *client, __be16 port, bool with_port)
{
	struct hash_state s = hash_begin(SECRET_CLIENT);

	hash_addr(&s, client);
	hash_word(&s, with_port ? 18ULL << 56 | port : 16ULL << 56); /* length, and the rest */
	return hash_end(&s);
}

/*
 * A flow of one of our services. What it asks for is mixed into the secret, and what
 * is left, the client, is the message: so there are two rounds less. Nobody can choose
 * among services as among clients, and the message of a family is always as long, so
 * its length need not be in it.
 */
static __always_inline __u64 hash_flow(const struct conn_key *key, bool six)
{
	struct hash_state s = hash_begin(SECRET_FLOW);
	__u64 ports = (__u64)key->client_port << 32 | (__u64)key->port << 48;

	s.b ^= key->protocol;
	if (six) {
		s.a ^= *addr_half(&key->vip, 0);
		s.c ^= *addr_half(&key->vip, 1);
		hash_addr(&s, &key->client);
		hash_word(&s, ports);
	} else {
		s.a ^= key->vip.word[3];
		hash_word(&s, key->client.word[3] | ports);
	}
	return hash_end(&s);
}
