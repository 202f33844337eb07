/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * maps.h: every map, with who writes it and who reads it. Sizes marked SIZED
 * are set by the daemon at load. All are pinned per instance and outlive the
 * daemon. Arrays that the daemon changes while packets read them are mapped
 * into its memory, so that a field changes by one aligned store.
 */
#pragma once

#include "include/bpf/bpf_helpers.h"
#include "types.h"

enum { SIZED = 1 };

/* Packets by why they left. Written by finish(); read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_MAX);
	__type(key, enum reason);
	__type(value, __u64);
} reasons SEC(".maps");

/*
 * The program itself: to begin anew with a packet that lost to another CPU is a
 * tail call, which the kernel allows 33 times. A loop instead has the verifier look
 * at everything once for each time. Written by the daemon, at load; used by
 * lvs.bpf.c.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} again SEC(".maps");

/*
 * Addresses that concern us: as destination, or as source. Written by the daemon; read by packet.h
 * where `vips` does not know.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct addr);
	__type(value, __u32); /* VIP_DESTINATION, VIP_SOURCE */
} addresses SEC(".maps");

/*
 * The same for one look: asked first, so that foreign traffic costs one read. Each
 * address has a place; there is the number of the one address that has it,
 * VIP_NONE or VIP_SEVERAL. Written by the daemon; read by packet.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} vips SEC(".maps");

/*
 * Interfaces that packets come in through or leave by. Written by the daemon;
 * read by packet.h (is the frame for us?) and forward.h (our own MAC address).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32); /* ifindex */
	__type(value, struct interface);
} interfaces SEC(".maps");

/* The same for one look. Written by the daemon; read by packet.h, before `interfaces`. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/*
 * Connections, see types.h. Written by conn.h and sweep.h only: counts never depend
 * on a daemon; the daemon maps them into its memory, to read. Not hash maps:
 * those read three cache lines and more where a set is one, and lock a bucket
 * to insert. Not LRU maps: those evict live entries (a fresh one first, when full).
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct set4);
} connections4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct set6);
} connections6 SEC(".maps");

/*
 * Where new connections go, of IPv4 and of IPv6, and whether anybody is in the front.
 * Written by conn.h and, after a pass of the sweep, by the daemon; read by table.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32); /* 1: IPv6 */
	__type(value, struct crowd);
} crowds SEC(".maps");

/*
 * Until when a service's new flows go by its ring, in ticks; 0 is never. Written
 * by sched.h when a connection had no room; read by service.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32); /* service id */
	__type(value, __u64);
} stateless SEC(".maps");

/* Idle time of a connection by state, in ticks. Written by the daemon; read by state.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STATE_MAX);
	__type(key, enum conn_state);
	__type(value, __u32);
} timeouts SEC(".maps");

/* Connections of each real server: active in the low half, inactive in the high. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32); /* real server id */
	__type(value, __u64);
} counts SEC(".maps");

/* Which service a packet opens. Written by the daemon; read by service.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct service_key);
	__type(value, __u32); /* service id */
} service_ids SEC(".maps");

/* Services by id. Written by the daemon; read by service.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32); /* service id */
	__type(value, struct service);
} services SEC(".maps");

/* Pools. Written by the daemon; read by sched.h, which also moves the cursor. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct pool);
} pools SEC(".maps");

/* Seats of all pools. Written by the daemon; read by sched.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct seat);
} seats SEC(".maps");

/*
 * What hashes are keyed with, so that clients cannot choose a real server or a
 * place in a table. Written by the daemon, once for the life of the instance;
 * read by hash.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SECRET_MAX);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, enum secret_use);
	__type(value, struct secret);
} secrets SEC(".maps");

/* Real servers by id. Written by the daemon; read by table.h, sweep.h, sched.h, forward.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32); /* real server id */
	__type(value, struct real_server);
} real_servers SEC(".maps");

/* Next hops, one per real server address; 0 is never resolved. Written by the daemon; read by forward.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

/* Whose replies come from an address and port: of method nat. Written by the daemon; read by reply.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SIZED);
	__type(key, struct service_key);
	__type(value, struct backend);
} backends SEC(".maps");

/* How frames leave by each interface. Written by the daemon; read by forward.h, for replies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32); /* ifindex */
	__type(value, struct exit);
} exits SEC(".maps");

/* Written by the daemon; read by packet.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct uses);
} uses SEC(".maps");

/*
 * Clients and routers whose MAC address the kernel does not know: the daemon has it
 * find out. Full, or without a daemon, it takes no more. Written by forward.h.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} sought SEC(".maps");

/* Statistics of services and real servers. Written by forward.h; read by the daemon. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32); /* service id */
	__type(value, struct stats);
} service_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32); /* real server id */
	__type(value, struct stats);
} server_stats SEC(".maps");

/*
 * What the statistics stood at when they were last set to zero: the daemon
 * subtracts it when it reads. Written and read by the daemon alone.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32); /* service id */
	__type(value, struct stats);
} service_zeros SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIZED);
	__type(key, __u32); /* real server id */
	__type(value, struct stats);
} server_zeros SEC(".maps");
