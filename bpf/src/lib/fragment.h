/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "packet.h"

/* Only the first fragment of a datagram has ports. Once it was let through, what
 * it said is kept for those that follow; what comes before it, or would overwrite
 * it, is dropped. */

#define SECOND 1000000000ULL
#define FRAGMENT_LIFETIME (30 * SECOND) /* as long as Linux waits to reassemble */

struct fragment_key {
	struct addr source;
	struct addr destination;
	__u32 id;
	__u8 proto;             /* IPv6 numbers its datagrams regardless of it: 0 */
	__u8 pad[3];
};

struct fragment_entry {
	__u64 expires;          /* CLOCK_MONOTONIC, ns */
	__u16 end;              /* of the first fragment, in the datagram */
	__u16 source_port;
	__u16 destination_port;
	__u16 policy_port;
	__u8 proto;
	__u8 icmp_type;
	__u8 pad[6];
};

/* The gate writes, eviction collects. As many as Cilium keeps. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct fragment_key);
	__type(value, struct fragment_entry);
} hg_fragment_1 SEC(".maps");

inline void fragment_key_of(const struct packet *p, struct fragment_key *k)
{
	k->source = p->source;
	k->destination = p->destination;
	k->id = p->fragment_id;
	k->proto = p->v6 ? 0 : p->proto;
}

/* Keeps what a first fragment says. Each hook calls it for those it lets through,
 * with the addresses that are on the wire there. */
global int remember_fragment(const struct packet *p)
{
	struct fragment_key k = {};
	struct fragment_entry e = {};

	if (!p || p->fragment != FRAGMENT_FIRST)
		return 0;
	fragment_key_of(p, &k);
	e.expires = bpf_ktime_get_ns() + FRAGMENT_LIFETIME;
	e.end = p->edge;
	e.source_port = p->source_port;
	e.destination_port = p->destination_port;
	e.policy_port = p->policy_port;
	e.proto = p->proto;
	e.icmp_type = p->icmp_type;
	return bpf_map_update_elem(&hg_fragment_1, &k, &e, BPF_ANY);
}

/* Gives a later fragment the ports of its first; 0 or a reason. */
global int follow_fragment(struct packet *p)
{
	struct fragment_key k = {};
	struct fragment_entry *e;

	if (!p)
		return REASON_INVALID;
	fragment_key_of(p, &k);
	e = bpf_map_lookup_elem(&hg_fragment_1, &k);
	if (!e || e->expires < bpf_ktime_get_ns())
		return REASON_FRAGMENT_FIRST;
	if (p->edge < e->end)
		return REASON_FRAGMENT;
	p->proto = e->proto;
	p->source_port = e->source_port;
	p->destination_port = e->destination_port;
	p->policy_port = e->policy_port;
	p->icmp_type = e->icmp_type;
	return 0;
}
