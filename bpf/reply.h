/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * reply.h, stage 2 of what comes from a real server: the connection that it answers.
 *
 * reply_find  reads `backends`, `real_servers` and the connection tables; leaves with
 *             NOT_OURS (passed to the kernel), or goes on with a known connection.
 * reply_free  for stage 4: leaves with TUPLE_TAKEN if replies could not be told apart.
 *
 * A reply has no key of its own: what its real server's services are says which flows
 * it may belong to, nearly always one. So there is one table to keep right, and one
 * read of memory to wait for (docs/decisions/012-replies.md).
 */
#pragma once

#include "conn.h"

/*
 * Is there a connection of the flow's client with this real server? Then the key is its
 * key; f->place is CONN_NOWHERE if there is none.
 */
static __always_inline enum reason reply_try(struct flow *f, __u32 id, __u32 not)
{
	struct real_server *server = bpf_map_lookup_elem(&real_servers, &id);
	enum reason r;

	f->place = CONN_NOWHERE;
	if (!server || id == not|| server->state == SERVER_FREE)
		return REASON_UNDECIDED;
	f->key.vip = server->service.vip;
	f->key.port = server->service.port;
	r = conn_seek(f);
	if (f->place != CONN_NOWHERE &&
	    (conn_server(f->seen) != id || conn_expired(f->seen, f->now)))
		f->place = CONN_NOWHERE;
	return r;
}

/* The same for all real servers of an address and port, but for `not`. */
static __always_inline enum reason reply_search(struct flow *f, struct service_key *from, __u32 not)
{
	struct backend *backend = bpf_map_lookup_elem(&backends, from);
	enum reason r = REASON_UNDECIDED;

	f->place = CONN_NOWHERE;
	for (__u32 i = 0; backend && i < BACKENDS && i < backend->count; i++) {
		r = reply_try(f, *(volatile __u32 *)&backend->servers[i], not);
		if (r || f->place != CONN_NOWHERE)
			break;
	}
	return r;
}

/*
 * Turns a reply's key around, to that of its connection. Global, so that the verifier
 * looks at it once.
 */
__noinline int reply_turn(struct flow *f)
{
	struct service_key from = {};
	enum reason r;

	if (!f)
		return REASON_INTERNAL;
	from.vip = f->key.client;
	from.port = f->key.client_port;
	from.protocol = f->key.protocol;
	f->key.client = f->key.vip;
	f->key.client_port = f->key.port;
	r = reply_search(f, &from, CONN_SERVER_MASK + 1);
	return r || f->place != CONN_NOWHERE ? r : REASON_NOT_OURS;
}

static __always_inline enum reason reply_find(struct packet *p)
{
	enum reason r = reply_turn(&p->flow);
	__u32 id;

	p->known = 0;
	if (r)
		return r;
	id = conn_server(p->flow.seen);
	p->server = bpf_map_lookup_elem(&real_servers, &id);
	r = conn_judge(p);
	if (!r && (!p->known || p->method != METHOD_NAT))
		return REASON_NOT_OURS;
	return r;
}

/*
 * Does a new flow come from where replies do, or from a service? Nobody asks from there:
 * whoever forged it has two servers answer each other for ever. Global as above.
 */
__noinline int reply_forged(struct flow *f)
{
	struct service_key from = {};

	if (!f)
		return true;
	from.vip = f->key.client;
	from.port = f->key.client_port;
	from.protocol = f->key.protocol;
	return bpf_map_lookup_elem(&backends, &from) || bpf_map_lookup_elem(&service_ids, &from);
}

/*
 * Has a new flow's client a connection that its replies would be taken for? Global as
 * above.
 */
__noinline int reply_taken(struct flow *f)
{
	struct service_key from = {};
	struct real_server *server;
	enum reason r;
	__u32 id;

	if (!f)
		return REASON_INTERNAL;
	id = f->server_id;
	server = bpf_map_lookup_elem(&real_servers, &id);
	if (!server)
		return REASON_INTERNAL;
	from.vip = server->addr;
	from.port = server->port;
	from.protocol = f->key.protocol;
	r = reply_search(f, &from, id);
	if (!r && f->place != CONN_NOWHERE)
		r = REASON_TUPLE_TAKEN;
	f->key.vip = server->service.vip; /* as it was asked for */
	f->key.port = server->service.port;
	return r;
}

/*
 * May the packet open a connection with its real server? Not if its client has one
 * with it from the same port, by another service: replies of both would look alike; nor
 * if it is forged.
 */
static __always_inline enum reason reply_free(struct packet *p)
{
	__u64 hash = p->flow.hash, seen = p->flow.seen;
	__u32 place = p->flow.place;
	enum reason r;

	if (p->method != METHOD_NAT)
		return REASON_UNDECIDED;
	if (reply_forged(&p->flow))
		return REASON_TUPLE_TAKEN;
	r = reply_taken(&p->flow);
	p->flow.hash = hash; /* what conn_find left for conn_make */
	p->flow.seen = seen;
	p->flow.place = place;
	return r;
}
