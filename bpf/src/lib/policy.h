/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "name.h"

inline __u32 identity_of(const struct addr *a)
{
	struct ipcache_key k = { .prefixlen = 128 };
	struct ipcache_entry *e;

	__builtin_memcpy(k.addr, a, sizeof(k.addr));
	e = bpf_map_lookup_elem(&hg_ipcache_1, &k);
	return e ? e->identity : 0;
}

/* The longest port prefix of one peer, then its entry for every protocol. Only
 * lengths that the subject has are tried, so the cost does not grow with rules. */
static __noinline struct policy_entry *policy_find(__u64 subject_peer, __u32 lengths, __u32 dir_proto_port)
{
	struct policy_key k = {
		.subject = subject_peer >> 32,
		.peer = (__u32)subject_peer,
		.proto = dir_proto_port >> 16,
	};
	__u16 port = dir_proto_port;
	__u8 dir = dir_proto_port >> 24;
	struct policy_entry *e;

	for (int bits = 16; bits >= 0; bits--) {
		if (!(lengths & (1U << bits)))
			continue;
		k.port = port & ~((1U << (16 - bits)) - 1);
		k.dir_bits = dir << 7 | bits;
		e = bpf_map_lookup_elem(&hg_policy_1, &k);
		if (e)
			return e;
	}
	k.port = 0;
	k.proto = 0;
	k.dir_bits = dir << 7;
	return bpf_map_lookup_elem(&hg_policy_1, &k);
}

#define PROTOCOL_DNS 4          /* policy.ProtocolDNS: the top 8 bits of a set's number */

/* What a proxy can carry: all TCP, and of UDP the DNS. */
inline bool is_carried(__u8 proto, __u32 set)
{
	return proto == IPPROTO_TCP || (proto == IPPROTO_UDP && set >> 24 == PROTOCOL_DNS);
}

/* Judges one direction of a connection; 0, or the reason it is denied. The same
 * order as policy.Table.Lookup. What is not found is denied. */
global int judge(struct packet *p, __u32 subject, struct judgement *j)
{
	struct policy_entry *e = NULL;
	struct subject *s;
	__u32 peer, what;

	if (!p || !j)
		return REASON_INVALID;
	j->verdict = VERDICT_DENY;
	j->rule = 0;
	j->set = 0;
	j->reason = REASON_POLICY;
	peer = j->direction == DIR_EGRESS ? p->destination_identity : p->source_identity;
	s = bpf_map_lookup_elem(&hg_subject_1, &subject);
	if (!s || s->flags & SUBJECT_CLOSED)
		return j->reason = REASON_NOT_READY;
	if (!peer)
		return j->reason = REASON_IDENTITY;
	what = (__u32)(j->direction & 1) << 24 | (__u32)p->proto << 16 | p->policy_port;
	if (s->names && j->direction == DIR_EGRESS && is_outside(peer))
		e = name_find(&p->destination, s->names, j->endpoint, what & 0xffffff);
	if (!e)
		e = policy_find((__u64)subject << 32 | peer, s->lengths[j->direction & 1], what);
	if (!e)
		e = policy_find((__u64)subject << 32, s->lengths[j->direction & 1], what);
	if (!e)
		return REASON_POLICY;
	j->rule = e->rule;
	j->verdict = e->verdict;
	if (e->verdict == VERDICT_REDIRECT)
		j->set = e->set;
	j->match = e->match;
	j->audit = e->flags & ENTRY_AUDIT;
	if (e->verdict == VERDICT_DENY)
		return j->reason = e->rule ? REASON_POLICY_DENY : REASON_POLICY;
	if (e->verdict == VERDICT_REDIRECT && !is_carried(p->proto, e->set))
		return j->reason = REASON_REDIRECT_PROTO;
	if (e->verdict == VERDICT_REDIRECT && !e->set)
		return j->reason = REASON_NO_ROUTE; /* without a set it would pass plain */
	if (e->verdict > VERDICT_REDIRECT)
		return j->reason = REASON_INVALID;
	j->reason = REASON_NONE;
	return 0;
}
