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

/* Drops a packet that goes no further, and tells its sender. */
inline int no_further(struct __sk_buff *skb, const struct packet *p, __u8 reason, __u32 trouble, __u32 mtu)
{
	drop(skb, p, reason, DIR_EGRESS);
	return answer(skb, p, trouble, mtu);
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

/* Sends a workload's packet on its way to another network. */
global int route_out(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_redir_neigh next = {};
	struct bpf_fib_lookup fib = {};
	__u32 ifindex;
	long found;
	int reason;

	if (!p)
		return TC_ACT_SHOT;
	if (p->ttl <= 1)
		return no_further(skb, p, REASON_TTL, TROUBLE_HOPS, 0);
	fib_question(skb, p, &fib, host_ifindex); /* ours, so that forwarding is on there */
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), FIB_SKIP_NEIGHBOUR);
	if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return no_further(skb, p, REASON_TOO_BIG, TROUBLE_SIZE, fib.mtu_result);
	if (found != BPF_FIB_LKUP_RET_SUCCESS)
		return no_further(skb, p, REASON_NO_WAY, TROUBLE_WAY, 0);
	ifindex = fib.ifindex;
	if (!bpf_map_lookup_elem(&hg_device_1, &ifindex))
		return drop(skb, p, REASON_NO_DEVICE, DIR_EGRESS);
	reason = take_hop(skb, p);
	if (reason)
		return drop(skb, p, reason, DIR_EGRESS);
	next.nh_family = fib.family;
	__builtin_memcpy(next.ipv6_nh, fib.ipv6_dst, sizeof(next.ipv6_nh));
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}
