/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "answer.h"

/* The gate is a router: one hop less to live (RFC 1812, 5.3.1; RFC 8200, 3). */
inline int take_hop(struct __sk_buff *skb, const struct packet *p)
{
	__u8 ttl = p->ttl - 1, proto = wire_proto(p);

	if (p->ttl <= 1)
		return REASON_TTL;
	if (p->v6)
		return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit), &ttl, 1, 0) ?
			REASON_INVALID : 0;
	/* TTL and protocol share a 16-bit word of the header checksum. */
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check),
				bpf_htons(p->ttl << 8 | proto), bpf_htons(ttl << 8 | proto), 2))
		return REASON_INVALID;
	return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &ttl, 1, 0) ?
		REASON_INVALID : 0;
}

/* Puts the packet on the workload's own side of its veth, past the host's hooks. */
inline int hand_over(struct __sk_buff *skb, const struct packet *p, const struct endpoint *to)
{
	__u8 macs[12];

	__builtin_memcpy(macs, to->mac, 6);
	copy_gateway_mac(macs + 6);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return drop(skb, p, REASON_INVALID, DIR_EGRESS);
	return bpf_redirect_peer(to->ifindex, 0);
}

/* The same as a router, for what has been judged in both directions by now. */
global int deliver(struct __sk_buff *skb, const struct packet *p, const struct endpoint *to)
{
	int reason;

	if (!p || !to)
		return TC_ACT_SHOT;
	reason = take_hop(skb, p);
	if (reason)
		drop(skb, p, reason, DIR_EGRESS);
	if (reason == REASON_TTL)
		return answer(skb, p, TROUBLE_HOPS, 0);
	if (reason)
		return TC_ACT_SHOT;
	return hand_over(skb, p, to);
}
