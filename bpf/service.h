/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * service.h, stage 3: the virtual service that a packet opens.
 *
 * Reads `service_ids`, `services` and `pools`. Writes struct packet only.
 * Leaves with NOT_OURS or NO_CONNECTION (passed to the kernel), with what the
 * packet is refused for, or goes on with the service's pool.
 */
#pragma once

#include "conn.h"

static __always_inline bool service_key_equal(const struct service_key *a,
					      const struct service_key *b)
{
	return a->vip.word[0] == b->vip.word[0] && a->vip.word[1] == b->vip.word[1] &&
	       a->vip.word[2] == b->vip.word[2] && a->vip.word[3] == b->vip.word[3] &&
	       a->port == b->port && a->protocol == b->protocol;
}

static __always_inline enum reason service_find(struct packet *p)
{
	struct service_key key = { .vip = p->key.vip,
				   .port = p->key.port,
				   .protocol = p->key.protocol };
	struct service *service;
	__u32 *id, pool;

	id = bpf_map_lookup_elem(&service_ids, &key);
	if (!id)
		return REASON_NOT_OURS;
	p->service_id = *(volatile __u32 *)id;
	service = bpf_map_lookup_elem(&services, &p->service_id);
	/* An entry that is deleted while we hold it may become another service's. */
	if (!service || !service_key_equal(&service->key, &key))
		return REASON_NOT_OURS;
	if (p->refuse)
		return p->refuse;
	if (!conn_opens(p))
		return REASON_NO_CONNECTION;
	pool = *(volatile __u32 *)&service->pool;
	p->pool = bpf_map_lookup_elem(&pools, &pool);
	return p->pool ? REASON_UNDECIDED : REASON_INTERNAL;
}
