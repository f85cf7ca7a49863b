/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "maps.h"
#include "packet.h"

/* A wake-up a record costs a quarter of the throughput; the reader looks by itself
 * every 100 ms, so it is woken only when a batch has gathered. */
#define EVENT_BATCH (64 << 10)

inline void count(struct __sk_buff *skb, __u8 reason, __u8 direction)
{
	__u32 index = reason * 2 + (direction & 1);
	struct counter *c = bpf_map_lookup_elem(&hg_drops_1, &index);

	if (c) {
		c->packets++;
		c->bytes += skb->len;
	}
}

inline void count_lost(void)
{
	__u32 zero = 0;
	__u64 *lost = bpf_map_lookup_elem(&hg_lost_1, &zero);

	if (lost)
		++*lost;
}

/* What was decided, and by what. */
struct judgement {
	__u32 rule;
	__u32 set;
	__u8 kind;
	__u8 verdict;
	__u8 reason;
	__u8 direction;
	__u8 match;
	__u8 audit;
	__u16 endpoint;         /* of whose policy it is; 0: of this machine */
};

global int emit(struct __sk_buff *skb, const struct packet *p, const struct judgement *j)
{
	struct event *e;

	if (!p || !j)
		return 0;
	e = bpf_ringbuf_reserve(&hg_events_1, sizeof(*e), 0);
	if (!e) {
		count_lost();
		return 0;
	}
	e->time = bpf_ktime_get_ns();
	e->source = p->source;
	e->destination = p->destination;
	e->source_identity = p->source_identity;
	e->destination_identity = p->destination_identity;
	e->ifindex = skb->ifindex;
	e->length = skb->len;
	e->rule = j->rule;
	e->set = j->set;
	e->source_port = p->source_port;
	e->destination_port = p->destination_port;
	e->kind = j->kind;
	e->verdict = j->verdict;
	e->reason = j->reason;
	e->direction = j->direction;
	e->proto = wire_proto(p);
	e->tcp_flags = p->tcp_flags;
	e->icmp_type = p->icmp_type;
	e->icmp_code = p->icmp_code;
	e->match = j->match;
	e->audit = j->audit;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	if (bpf_skb_load_bytes(skb, 0, e->mac, sizeof(e->mac)))
		__builtin_memset(e->mac, 0, sizeof(e->mac));
	bpf_ringbuf_submit(e, bpf_ringbuf_query(&hg_events_1, BPF_RB_AVAIL_DATA) >= EVENT_BATCH ?
			      BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	return 0;
}

/* Drops, counts and reports a packet. */
global int drop(struct __sk_buff *skb, const struct packet *p, __u8 reason, __u8 direction)
{
	struct judgement j = { .kind = EVENT_DROP, .reason = reason, .direction = direction };

	count(skb, reason, direction);
	emit(skb, p, &j);
	return TC_ACT_SHOT;
}

/* Drops and counts what every machine sends by itself, and nobody asks about. */
inline int drop_quietly(struct __sk_buff *skb, __u8 reason, __u8 direction)
{
	count(skb, reason, direction);
	return TC_ACT_SHOT;
}
