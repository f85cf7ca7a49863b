/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "packet.h"

/* IP headers, walked to the transport header. Both readers take the offset of the
 * header, for a packet may be inside another, and leave in *room how many bytes
 * of transport there are. What lies behind the packet's own length does not count:
 * its receiver will not read it. */

#define IP_MORE 0x2000
#define IP_OFFSET 0x1fff
#define OPTIONS_SIZE 40
#define OPTION_END 0
#define OPTION_NOTHING 1
#define OPTION_LOOSE_ROUTE 131
#define OPTION_STRICT_ROUTE 137

/* Options are parsed past, but for those by which a sender chooses the way: policy
 * would judge the first stop on it (RFC 7126, 4.3 and 4.4). */
global int check_options(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u8 options[OPTIONS_SIZE + 1] = {};
	__u32 next = 0, size;

	if (length == 0 || length > OPTIONS_SIZE || bpf_skb_load_bytes(skb, at, options, length))
		return REASON_INVALID;
	for (__u32 i = 0; i < OPTIONS_SIZE; i++) {
		if (i < next)
			continue;
		if (i >= length || options[i] == OPTION_END)
			return 0;
		if (options[i] == OPTION_LOOSE_ROUTE || options[i] == OPTION_STRICT_ROUTE)
			return REASON_SOURCE_ROUTE;
		size = options[i] == OPTION_NOTHING ? 1 : options[i + 1];
		next = i + size;
		if (next > length || (options[i] != OPTION_NOTHING && size < 2))
			return REASON_INVALID;
	}
	return 0;
}

inline void set_fragment(struct packet *p, __u32 id, __u32 offset, __u32 room)
{
	p->fragment = offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	p->edge = offset ? offset : room;
	p->fragment_id = id;
}

inline int read_v4(struct __sk_buff *skb, struct packet *p, __u32 at, __u32 *room)
{
	struct iphdr h;
	__u32 end, offset;

	if (bpf_skb_load_bytes(skb, at, &h, sizeof(h)) || h.version != 4 || h.ihl < 5)
		return REASON_INVALID;
	addr_from_v4(&p->source, h.saddr);
	addr_from_v4(&p->destination, h.daddr);
	p->proto = h.protocol;
	p->ttl = h.ttl;
	p->l4 = at + h.ihl * 4;
	end = at + bpf_ntohs(h.tot_len);
	if (at > ETH_HLEN || (!h.tot_len && skb->len > 0xffff)) /* a quotation is cut; too big for 16 bits */
		end = skb->len;
	if (end > skb->len || end < p->l4)
		return REASON_INVALID;
	*room = end - p->l4;
	offset = bpf_ntohs(h.frag_off);
	if (offset & (IP_MORE | IP_OFFSET))
		set_fragment(p, bpf_ntohs(h.id), (offset & IP_OFFSET) * 8, *room);
	return h.ihl > 5 ? check_options(skb, at + sizeof(h), h.ihl * 4 - sizeof(h)) : 0;
}

/* Each once and destination options twice (RFC 8200, 4.1). */
#define IP6_EXTENSIONS 6
#define IP6_MORE 1
#define IP6_OFFSET 0xfff8

struct extension {
	__u8 next;
	__u8 length;            /* in units of 8 bytes, without the first */
	union {
		struct {
			__u8 type;
			__u8 left;
		} routing;
		__be16 fragment;
	};
	__be32 id;              /* of a fragment */
};

/* How long one extension header is; 0: it is none. */
inline __u32 extension_size(__u8 proto, const struct extension *h)
{
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_DSTOPTS:
	case IPPROTO_ROUTING:
		return (h->length + 1) * 8;
	case IPPROTO_FRAGMENT:
		return 8;
	case IPPROTO_AH: /* it hides nothing (RFC 4302, 2.2) */
		return (h->length + 2) * 4;
	}
	return 0;
}

inline bool is_extension(__u8 proto)
{
	struct extension none = {};

	return extension_size(proto, &none) != 0;
}

/* Walks extension headers from *at. What is hidden (ESP) or unknown ends the walk,
 * and is refused as a transport. */
global int walk_extensions(struct __sk_buff *skb, struct packet *p, __u32 *at, __u32 end)
{
	struct extension h;
	__u32 offset, size;

	if (!p || !at)
		return REASON_INVALID;
	for (int i = 0; i < IP6_EXTENSIONS && is_extension(p->proto); i++) {
		if (*at + sizeof(h) > end || bpf_skb_load_bytes(skb, *at, &h, sizeof(h)))
			return REASON_INVALID;
		size = extension_size(p->proto, &h);
		if (*at + size > end)
			return REASON_INVALID;
		if ((p->proto == IPPROTO_HOPOPTS && i > 0) || (p->proto == IPPROTO_FRAGMENT && p->fragment))
			return REASON_EXTENSION;
		/* RFC 5095; and while there are stops left, this is not the last. */
		if (p->proto == IPPROTO_ROUTING && (!h.routing.type || h.routing.left))
			return REASON_SOURCE_ROUTE;
		*at += size;
		offset = bpf_ntohs(h.fragment);
		if (p->proto == IPPROTO_FRAGMENT && offset & (IP6_OFFSET | IP6_MORE)) /* else whole: RFC 6946 */
			set_fragment(p, bpf_ntohl(h.id), offset & IP6_OFFSET, end - *at);
		p->proto = h.next;
		if (p->fragment == FRAGMENT_LATER)
			return 0;
	}
	return is_extension(p->proto) ? REASON_EXTENSION : 0;
}

inline bool is_mapped_v4(const struct addr *a)
{
	return addr_high(a) == 0 && addr_low(a) >> 32 == 0xffff;
}

inline int read_v6(struct __sk_buff *skb, struct packet *p, __u32 at, __u32 *room)
{
	__u32 end, l4 = at + sizeof(struct ipv6hdr);
	struct ipv6hdr h;
	int reason = 0;

	if (bpf_skb_load_bytes(skb, at, &h, sizeof(h)) || h.version != 6)
		return REASON_INVALID;
	__builtin_memcpy(&p->source, &h.saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &h.daddr, sizeof(p->destination));
	p->v6 = 1;
	p->proto = h.nexthdr;
	p->ttl = h.hop_limit;
	p->l4 = l4;
	/* ::ffff:0:0/96 on the wire would be taken for IPv4 (RFC 6890). */
	if (is_mapped_v4(&p->source))
		return REASON_SOURCE_IP;
	if (is_mapped_v4(&p->destination))
		return REASON_INVALID;
	end = l4 + bpf_ntohs(h.payload_len);
	if (at > ETH_HLEN || (!h.payload_len && skb->len > 0xffff)) /* as for IPv4 */
		end = skb->len;
	if (end > skb->len || end < l4)
		return REASON_INVALID;
	if (is_extension(h.nexthdr))
		reason = walk_extensions(skb, p, &l4, end);
	p->l4 = l4;
	*room = end - l4;
	return reason;
}
