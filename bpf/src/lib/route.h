/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "deliver.h"
#include "node.h"

/* From a workload to other networks, by the node's routing table but past its
 * stack: whether the node forwards otherwise (ip_forward) is its own business. */

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif
#define FIB_SKIP_NEIGHBOUR 4    /* BPF_FIB_LOOKUP_SKIP_NEIGH: who sends it on finds the neighbour */

/* How long the packet is on the wire, without its link header; of what is cut up
 * later, each piece. */
inline __u32 wire_length(struct __sk_buff *skb, const struct packet *p)
{
	__u32 header = UDP_HEADER;
	__u8 words;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if (p->proto == IPPROTO_TCP && !bpf_skb_load_bytes(skb, p->l4 + 12, &words, 1))
		header = (words >> 4) * 4;
	return p->l4 - ETH_HLEN + header + skb->gso_size;
}

inline void fib_question(struct __sk_buff *skb, const struct packet *p, struct bpf_fib_lookup *q, __u32 ifindex)
{
	__u32 length = wire_length(skb, p);

	q->ifindex = ifindex;
	q->l4_protocol = p->proto;
	q->sport = bpf_htons(p->source_port);
	q->dport = bpf_htons(p->destination_port);
	q->tot_len = length < 0xffff ? length : 0xffff;
	if (p->v6) {
		q->family = AF_INET6;
		__builtin_memcpy(q->ipv6_src, &p->source, 16);
		__builtin_memcpy(q->ipv6_dst, &p->destination, 16);
	} else {
		q->family = AF_INET;
		q->ipv4_src = addr_v4(&p->source);
		q->ipv4_dst = addr_v4(&p->destination);
	}
}

/* The way of one packet: on the stack it would be too much. Packets of a processor
 * take turns. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_fib_lookup);
} hg_way_1 SEC(".maps");

inline struct bpf_fib_lookup *way_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&hg_way_1, &zero);
}

/* Looks for the way of a packet; 0, or why there is none. The scratch says more. */
static __noinline int find_way(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup *fib = way_scratch();
	long found;

	if (!p || !fib)
		return REASON_INVALID;
	if (p->ttl <= 1)
		return REASON_TTL;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib_question(skb, p, fib, host_ifindex); /* ours, so that forwarding is on there */
	found = bpf_fib_lookup(skb, fib, sizeof(*fib), FIB_SKIP_NEIGHBOUR);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return REASON_TOO_BIG;
	return found == BPF_FIB_LKUP_RET_SUCCESS ? 0 : REASON_NO_WAY;
}

/* Drops a packet that goes no further, and tells its sender. */
static __noinline int no_further(struct __sk_buff *skb, const struct packet *p, __u32 reason)
{
	struct bpf_fib_lookup *fib = way_scratch();

	if (!p || !fib)
		return TC_ACT_SHOT;
	drop(skb, p, reason, DIR_EGRESS);
	switch (reason) {
	case REASON_TTL:
		return answer(skb, p, TROUBLE_HOPS, 0);
	case REASON_TOO_BIG:
		return answer(skb, p, TROUBLE_SIZE, fib->mtu_result);
	}
	return answer(skb, p, TROUBLE_WAY, 0);
}

/* Takes the way that was found. */
static __noinline int take_way(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup *fib = way_scratch();
	struct bpf_redir_neigh next = {};
	__u32 ifindex;
	int reason;

	if (!p || !fib)
		return TC_ACT_SHOT;
	ifindex = fib->ifindex;
	if (!bpf_map_lookup_elem(&hg_device_1, &ifindex))
		return drop(skb, p, REASON_NO_DEVICE, DIR_EGRESS);
	reason = take_hop(skb, p);
	if (reason)
		return drop(skb, p, reason, DIR_EGRESS);
	next.nh_family = fib->family;
	__builtin_memcpy(next.ipv6_nh, fib->ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

/* Sends a workload's packet on its way to another network. */
global int route_out(struct __sk_buff *skb, const struct packet *p)
{
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	reason = find_way(skb, p);
	return reason ? no_further(skb, p, reason) : take_way(skb, p);
}
