/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * service.h, stage 3: the virtual service that a packet opens.
 *
 * Reads `service_ids`, `services`, `stateless` and `pools`. Writes struct packet
 * only. Leaves with NOT_OURS or NO_CONNECTION (passed to the kernel), with what
 * the packet is refused for, or goes on with the service's pool.
 */
#pragma once

#include "state.h"

/*
 * Does the service go by its ring? It did not have room for a connection a short
 * time ago: flows may be under way of which nothing is known.
 */
static __always_inline bool service_stateless(struct packet *p)
{
	__u64 *until = bpf_map_lookup_elem(&stateless, &p->service_id);

	return until && p->flow.now < *(volatile __u64 *)until;
}

static __always_inline enum reason service_find(struct packet *p)
{
	struct service_key key = { .vip = p->flow.key.vip,
				   .port = p->flow.key.port,
				   .protocol = p->flow.key.protocol };
	struct service *service;
	__u32 *id, pool;

	id = bpf_map_lookup_elem(&service_ids, &key);
	if (!id)
		return REASON_NOT_OURS;
	p->service_id = *(volatile __u32 *)id;
	service = bpf_map_lookup_elem(&services, &p->service_id);
	/* An entry that is deleted while we hold it may become another service's. */
	if (!service || !flow_asks(&p->flow, true, &service->key))
		return REASON_NOT_OURS;
	if (p->refuse)
		return p->refuse;
	p->ring = service_stateless(p) ? RING_SERVICE : RING_NOT;
	if (!conn_opens(p) && !p->ring)
		return REASON_NO_CONNECTION;
	pool = *(volatile __u32 *)&service->pool;
	p->pool = bpf_map_lookup_elem(&pools, &pool);
	return p->pool ? REASON_UNDECIDED : REASON_INTERNAL;
}
