/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "packet.h"

/* Puts another address and port in place of one end of a packet, and mends its
 * checksums. Echo ids count as ports of the asking side, as in struct packet. */
enum end { END_SOURCE, END_DESTINATION };

#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif

/* Where the transport's checksum stands; 0: there is none that addresses or ports are
 * part of. SCTP's covers ports, but is no sum, so that they must stay. */
inline __u32 checksum_of(const struct packet *p)
{
	if (p->fragment == FRAGMENT_LATER)
		return 0;
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

/* Puts an address into an IPv4 header and mends its checksum. */
inline int put_address4(struct __sk_buff *skb, __u32 header, enum end end, __be32 was, __be32 now)
{
	__u32 at = header + (end == END_SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));

	return bpf_l3_csum_replace(skb, header + offsetof(struct iphdr, check), was, now, sizeof(now)) ||
	       bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0);
}

inline int put_address6(struct __sk_buff *skb, __u32 header, enum end end, const struct addr *now)
{
	__u32 at = header + (end == END_SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));

	return bpf_skb_store_bytes(skb, at, now, sizeof(*now), 0) != 0;
}

inline int mend_pseudo6(struct __sk_buff *skb, __u32 sum, __s64 change, __u64 flags)
{
	flags |= BPF_F_PSEUDO_HDR;
	return bpf_l4_csum_replace(skb, sum, 0, change, flags | BPF_F_IPV6) && /* from Linux 6.16 on */
	       bpf_l4_csum_replace(skb, sum, 0, change, flags);
}

inline int rewrite_address4(struct __sk_buff *skb, const struct packet *p, const struct addr *to, enum end end)
{
	__be32 was = addr_v4(end == END_SOURCE ? &p->source : &p->destination), now = addr_v4(to);
	__u32 sum = checksum_of(p);

	if (sum && p->proto != IPPROTO_ICMP && /* whose checksum leaves addresses out */
	    bpf_l4_csum_replace(skb, sum, was, now, BPF_F_PSEUDO_HDR | checksum_flags(p) | sizeof(now)))
		return REASON_INVALID;
	return put_address4(skb, ETH_HLEN, end, was, now) ? REASON_INVALID : 0;
}

inline int rewrite_address6(struct __sk_buff *skb, const struct packet *p, const struct addr *to, enum end end)
{
	const struct addr *was = end == END_SOURCE ? &p->source : &p->destination;
	__u32 sum = checksum_of(p);
	__s64 change = bpf_csum_diff((__be32 *)was, sizeof(*was), (__be32 *)to, sizeof(*to), 0);

	if (sum && mend_pseudo6(skb, sum, change, checksum_flags(p)))
		return REASON_INVALID;
	return put_address6(skb, ETH_HLEN, end, to) ? REASON_INVALID : 0;
}

/* The port in the transport header at l4, under the checksum at sum. */
inline int rewrite_port(struct __sk_buff *skb, const struct packet *p, __u32 l4, __u32 sum, __u16 port, enum end end)
{
	__be16 was = bpf_htons(end == END_SOURCE ? p->source_port : p->destination_port), now = bpf_htons(port);
	__u32 at = l4 + (is_echo(p) ? offsetof(struct icmp_echo, id) : (end == END_SOURCE) != !!p->related ? 0 : 2);

	if (was == now || p->fragment == FRAGMENT_LATER)
		return 0;
	if (!sum || bpf_l4_csum_replace(skb, sum, was, now, (p->related ? 0 : checksum_flags(p)) | sizeof(now)) ||
	    bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0))
		return REASON_INVALID;
	return 0;
}

/* An ICMP error, which has the addresses of its connection turned round: outside as
 * any packet, unless it is a router's, who sends it in its own name; inside at the
 * other end. The checksum of the quoted transport is left:
 * it is of no use without the rest of it (RFC 5508, 4.2). */
inline int rewrite_error(struct __sk_buff *skb, const struct packet *p, const struct addr *to, __u16 port, enum end end)
{
	const struct addr *was = end == END_SOURCE ? &p->source : &p->destination;
	enum end inside = end == END_SOURCE ? END_DESTINATION : END_SOURCE;
	bool outside = p->related == RELATED_END || end == END_DESTINATION;
	__u32 sum = p->l4 + offsetof(struct icmp_echo, checksum);
	__s64 change;

	if (p->v6) {
		change = bpf_csum_diff((__be32 *)was, sizeof(*was), (__be32 *)to, sizeof(*to), 0);
		if ((outside && (mend_pseudo6(skb, sum, change, 0) || put_address6(skb, ETH_HLEN, end, to))) ||
		    bpf_l4_csum_replace(skb, sum, 0, change, 0) || put_address6(skb, p->inner, inside, to))
			return REASON_INVALID;
	} else if ((outside && put_address4(skb, ETH_HLEN, end, addr_v4(was), addr_v4(to))) ||
		   put_address4(skb, p->inner, inside, addr_v4(was), addr_v4(to))) {
		return REASON_INVALID; /* a header with its own checksum in it adds up to the same */
	}
	return rewrite_port(skb, p, p->inner_l4, sum, port, end);
}

/* 0 or a reason. p keeps what it was. */
global int rewrite(struct __sk_buff *skb, const struct packet *p, const struct addr *to, __u16 port, enum end end)
{
	int reason;

	if (!p || !to)
		return REASON_INVALID;
	if (p->related)
		return rewrite_error(skb, p, to, port, end);
	reason = p->v6 ? rewrite_address6(skb, p, to, end) : rewrite_address4(skb, p, to, end);
	return reason ? reason : rewrite_port(skb, p, p->l4, checksum_of(p), port, end);
}
