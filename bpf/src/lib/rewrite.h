/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "packet.h"

/* Puts another address and port in place of one end of a packet, and mends its
 * checksums. Echo ids count as ports of the asking side, as in struct packet. */
enum end { END_SOURCE, END_DESTINATION };

#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif

/* Where the transport's checksum stands; 0: it has none that ports or addresses
 * are part of. SCTP's covers ports, but is no sum, so that they must stay. */
inline __u32 checksum_of(const struct packet *p)
{
	switch (p->proto) {
	case IPPROTO_TCP:
		return p->l4 + 16;
	case IPPROTO_UDP:
		return p->l4 + 6;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return p->l4 + 2;
	}
	return 0;
}

/* A UDP checksum of zero says that there is none, and stays. */
inline __u64 checksum_flags(const struct packet *p)
{
	return p->proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

inline int rewrite_address4(struct __sk_buff *skb, const struct packet *p, const struct addr *to, enum end end)
{
	__u32 at = ETH_HLEN + (end == END_SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
	__be32 was = addr_v4(end == END_SOURCE ? &p->source : &p->destination), now = addr_v4(to);
	__u32 sum = checksum_of(p);

	if (sum && p->proto != IPPROTO_ICMP && /* whose checksum leaves addresses out */
	    bpf_l4_csum_replace(skb, sum, was, now, BPF_F_PSEUDO_HDR | checksum_flags(p) | sizeof(now)))
		return REASON_INVALID;
	if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), was, now, sizeof(now)) ||
	    bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0))
		return REASON_INVALID;
	return 0;
}

inline int rewrite_address6(struct __sk_buff *skb, const struct packet *p, const struct addr *to, enum end end)
{
	__u32 at = ETH_HLEN + (end == END_SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
	const struct addr *was = end == END_SOURCE ? &p->source : &p->destination;
	__u64 flags = BPF_F_PSEUDO_HDR | checksum_flags(p);
	__u32 sum = checksum_of(p);
	__s64 change;

	change = bpf_csum_diff((__be32 *)was, sizeof(*was), (__be32 *)to, sizeof(*to), 0);
	if (sum && bpf_l4_csum_replace(skb, sum, 0, change, flags | BPF_F_IPV6) && /* from Linux 6.16 on */
	    bpf_l4_csum_replace(skb, sum, 0, change, flags))
		return REASON_INVALID;
	return bpf_skb_store_bytes(skb, at, to, sizeof(*to), 0) ? REASON_INVALID : 0;
}

inline int rewrite_port(struct __sk_buff *skb, const struct packet *p, __u16 port, enum end end)
{
	__be16 was = bpf_htons(end == END_SOURCE ? p->source_port : p->destination_port), now = bpf_htons(port);
	__u32 at = p->l4 + (is_echo(p) ? offsetof(struct icmp_echo, id) : end == END_SOURCE ? 0 : 2);
	__u32 sum = checksum_of(p);

	if (was == now)
		return 0;
	if (!sum || bpf_l4_csum_replace(skb, sum, was, now, checksum_flags(p) | sizeof(now)) ||
	    bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0))
		return REASON_INVALID;
	return 0;
}

/* 0 or a reason. p keeps what it was. */
static __noinline int rewrite(struct __sk_buff *skb, const struct packet *p, const struct addr *to, __u16 port, enum end end)
{
	int reason;

	if (!p || !to)
		return REASON_INVALID;
	reason = p->v6 ? rewrite_address6(skb, p, to, end) : rewrite_address4(skb, p, to, end);
	return reason ? reason : rewrite_port(skb, p, port, end);
}
