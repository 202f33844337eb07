/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * hash.h: a client as a number, for the schedulers sh and mh.
 *
 * hash_kernel  sh's of kernel IPVS, so that clients stay where it sent them.
 * hash_keyed   SipHash-1-3: clients cannot choose it.
 *
 * Both read their arguments alone. internal/sched has both in Go.
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

/* Of the 16 bytes of the address, and the two of the port behind it if it counts. */
static __always_inline __u64 hash_keyed(const struct secret *secret, const struct addr *client,
					__be16 port, bool with_port)
{
	struct hash_state s = {
		.a = secret->key[0] ^ 0x736f6d6570736575,
		.b = secret->key[1] ^ 0x646f72616e646f6d,
		.c = secret->key[0] ^ 0x6c7967656e657261,
		.d = secret->key[1] ^ 0x7465646279746573,
	};

	hash_word(&s, client->word[0] | (__u64)client->word[1] << 32);
	hash_word(&s, client->word[2] | (__u64)client->word[3] << 32);
	hash_word(&s, with_port ? 18ULL << 56 | port : 16ULL << 56); /* length, and the rest */
	s.c ^= 0xff;
	hash_round(&s);
	hash_round(&s);
	hash_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}
