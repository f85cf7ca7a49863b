/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "event.h"

/* Names in egress policy. The proxy, which sees the answers, writes both maps, and
 * goes on doing so when no agent is there; the agent only says, in a subject, which
 * table of rules about names it has. */

/* What an endpoint has learnt of an address: by which selectors of names it is
 * picked, as the number of an identity that means that and the address' prefix.
 * What one endpoint was told opens nothing to another. */
struct name_key {
	struct addr addr;
	__u32 endpoint;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, __u32);
} hg_name_1 SEC(".maps");

/* What a table of rules says of such an identity. Where it says anything it says
 * everything: the entry for every protocol is always there, and tells which port
 * prefixes are. The subject of the key is the number of the table. */
struct name_entry {
	struct policy_entry entry;
	__u32 lengths;          /* with the entry for every protocol: bit n set, entries with n port bits exist */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct name_entry);
} hg_name_rule_1 SEC(".maps");

#define IDENTITY_WORLD 2
#define IDENTITY_WORLD4 9
#define IDENTITY_WORLD6 10
#define IDENTITY_MIN_LOCAL (1 << 24)

/* Rules about names, as those about prefixes, pick nothing that is managed here. */
inline bool is_outside(__u32 identity)
{
	return identity == IDENTITY_WORLD || identity == IDENTITY_WORLD4 || identity == IDENTITY_WORLD6 ||
	       identity >= IDENTITY_MIN_LOCAL;
}

/* What the table says of the packet's destination, if the endpoint knows it by a
 * name that the table speaks of. NULL: its prefix alone counts. */
static __noinline struct policy_entry *name_find(const struct addr *to, __u32 table, __u32 endpoint,
						 __u32 proto_port)
{
	struct name_key n = { .endpoint = endpoint };
	struct policy_key k = { .subject = table, .dir_bits = DIR_EGRESS << 7 };
	struct name_entry *all, *e;
	__u32 *identity;
	__u32 lengths;

	if (!to)
		return NULL;
	n.addr = *to;
	identity = bpf_map_lookup_elem(&hg_name_1, &n);
	if (!identity)
		return NULL;
	k.peer = *identity;
	all = bpf_map_lookup_elem(&hg_name_rule_1, &k);
	if (!all)
		return NULL;
	lengths = all->lengths;
	k.proto = proto_port >> 16;
	for (int bits = 16; bits >= 0; bits--) {
		if (!(lengths & (1U << bits)))
			continue;
		k.port = (__u16)proto_port & ~((1U << (16 - bits)) - 1);
		k.dir_bits = DIR_EGRESS << 7 | bits;
		e = bpf_map_lookup_elem(&hg_name_rule_1, &k);
		if (e)
			return &e->entry;
	}
	return &all->entry;
}
