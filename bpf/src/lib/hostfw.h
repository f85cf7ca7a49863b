/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "policy.h"
#include "share.h"

/* Host policies: this machine is a subject like a workload, judged at its own
 * devices and at the veths of its workloads. Off, nothing is looked at. */

/* Ports that no policy closes, so that nobody is locked out: the agent writes.
 * Whoever connects there is let in, and answered, without conntrack: its being
 * full locks nobody out either. */
struct open_port {
	__u16 port;
	__u8 proto;
	__u8 direction;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct open_port);
	__type(value, __u32);
} hg_open_1 SEC(".maps");

inline bool is_open(__u8 proto, __u16 port, __u8 direction)
{
	struct open_port k = { .port = port, .proto = proto, .direction = direction };

	return bpf_map_lookup_elem(&hg_open_1, &k) != NULL;
}

/* Whether a packet, of either direction, is one of an open port's. An answer is
 * taken by its source port alone on the way out; on the way in anybody could
 * choose that. */
inline bool is_always_open(const struct packet *p, __u8 direction)
{
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return false;
	return is_open(p->proto, p->destination_port, direction) ||
	       (direction == DIR_EGRESS && is_open(p->proto, p->source_port, DIR_INGRESS));
}

inline __u32 host_flags(void)
{
	const struct config *c = config();

	return c && c->host_subject ? c->flags & (CONFIG_HOST_AUDIT | CONFIG_HOST_ENFORCE) : 0;
}

/* Judges one direction of a connection of this machine; 0, or the reason it is
 * denied. With audit alone it is never denied, and j says what would have been. */
inline int judge_host(struct packet *p, struct judgement *j)
{
	const struct config *c = config();
	int reason;

	j->verdict = VERDICT_ALLOW;
	if (!c || !host_flags() || is_always_open(p, j->direction))
		return 0;
	reason = judge(p, c->host_subject, j);
	if (!reason && j->verdict == VERDICT_REDIRECT) {
		j->set = 0;
		reason = REASON_NO_ROUTE; /* no proxy stands before the host's own stack */
	}
	if (!reason || c->flags & CONFIG_HOST_ENFORCE)
		return j->reason = reason;
	j->verdict = VERDICT_ALLOW;
	j->reason = REASON_NONE;
	j->audit = 1;
	return 0;
}
