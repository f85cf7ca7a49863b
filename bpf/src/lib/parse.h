/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "fragment.h"
#include "ip.h"

/* From bytes to struct packet, or to the reason why they cannot be judged. */

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_UNREACHABLE 1
#define ICMP6_PARAMETER 4
#define ICMP_HEADER 8           /* of errors and echo messages alike */
#define QUOTED 8                /* bytes of transport that an error quotes at least (RFC 792) */

#define STREAM_HEAD 14          /* ports, numbers and flags */

#define SCTP_INIT 1
#define SCTP_INIT_ACK 2
#define SCTP_ABORT 6
#define SCTP_SHUTDOWN 7
#define SCTP_SHUTDOWN_ACK 8
#define SCTP_SHUTDOWN_COMPLETE 14

/* An echo message's id, on the asking side. */
inline bool parse_echo(struct packet *p, const struct icmp_echo *h)
{
	if (h->type == (p->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST))
		p->source_port = bpf_ntohs(h->id);
	else if (h->type == (p->v6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY))
		p->destination_port = bpf_ntohs(h->id);
	else
		return false;
	return true;
}

/* Errors that tell of a packet on its way. Redirects and source quenches, which
 * only routers may send, are none. */
inline bool is_icmp_error(const struct packet *p)
{
	if (p->v6)
		return p->icmp_type >= ICMP6_UNREACHABLE && p->icmp_type <= ICMP6_PARAMETER;
	return p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEEDED ||
	       p->icmp_type == ICMP_PARAMETER;
}

inline bool is_own_icmp(const struct packet *p)
{
	return p->proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

/* The ports of a packet that an error quotes. About an error there may be none
 * (RFC 1122, 3.2.2; RFC 4443, 2.4). */
inline int parse_quoted(struct __sk_buff *skb, struct packet *in)
{
	union {
		struct icmp_echo echo;
		__be16 ports[2];
	} h;

	if (bpf_skb_load_bytes(skb, in->l4, &h, QUOTED))
		return REASON_INVALID;
	if (is_own_icmp(in))
		return parse_echo(in, &h.echo) ? 0 : REASON_INVALID;
	if (!is_stream(in) && in->proto != IPPROTO_UDP)
		return REASON_L4;
	in->source_port = bpf_ntohs(h.ports[0]);
	in->destination_port = bpf_ntohs(h.ports[1]);
	return 0;
}

/* The IP header that an error quotes. */
global int parse_inner(struct __sk_buff *skb, struct packet *in, __u32 at, __u32 *room)
{
	if (!in || !room)
		return REASON_INVALID;
	return in->v6 ? read_v6(skb, in, at, room) : read_v4(skb, in, at, room);
}

/* An ICMP error is judged as a packet of the connection that it tells of. It must
 * have been sent to who sent the packet inside, and tell of one that has ports: not
 * of a later fragment, for which no error may be sent. */
global int parse_error(struct __sk_buff *skb, struct packet *p)
{
	struct packet in = {};
	__u32 room = 0;
	int reason;

	if (!p)
		return REASON_INVALID;
	if (p->fragment)
		return REASON_FRAGMENT;
	in.v6 = p->v6;
	p->inner = p->l4 + ICMP_HEADER;
	reason = parse_inner(skb, &in, p->inner, &room);
	if (reason)
		return reason;
	if (room < QUOTED || in.fragment == FRAGMENT_LATER || !addr_equal(&in.source, &p->destination))
		return REASON_INVALID;
	reason = parse_quoted(skb, &in);
	if (reason)
		return reason;
	p->related = addr_equal(&in.destination, &p->source) ? RELATED_END : RELATED_ROUTER;
	p->source = in.destination;
	p->source_port = in.destination_port;
	p->destination_port = in.source_port;
	p->inner_l4 = in.l4;
	p->proto = in.proto;
	p->policy_port = p->destination_port;
	if (is_own_icmp(p))
		p->policy_port = p->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST;
	return 0;
}

inline int parse_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct icmp_echo h;

	if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
		return REASON_INVALID;
	p->icmp_type = h.type;
	p->icmp_code = h.code;
	p->policy_port = h.type;
	if (parse_echo(p, &h))
		return 0;
	if (is_icmp_error(p))
		return parse_error(skb, p);
	return p->v6 ? REASON_ICMP6_TYPE : REASON_ICMP_TYPE;
}

/* What the first chunk does to the association, in TCP's words. */
inline __u8 sctp_flags(__u8 chunk)
{
	switch (chunk) {
	case SCTP_INIT:
		return TCP_SYN;
	case SCTP_INIT_ACK:
		return TCP_SYN | TCP_ACK;
	case SCTP_ABORT:
	case SCTP_SHUTDOWN_COMPLETE:
		return TCP_RST;
	case SCTP_SHUTDOWN:
	case SCTP_SHUTDOWN_ACK:
		return TCP_FIN | TCP_ACK;
	}
	return TCP_ACK;
}

inline __u32 header_of(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return TCP_HEADER;
	case IPPROTO_SCTP:
		return SCTP_HEADER;
	}
	return UDP_HEADER; /* ICMP's is as long */
}

inline int parse_l4(struct __sk_buff *skb, struct packet *p, __u32 room)
{
	struct {
		__be16 ports[2];
		__be32 numbers[2];
		__u8 offset;
		__u8 flags;
	} h;

	if (!is_stream(p) && p->proto != IPPROTO_UDP && !is_own_icmp(p))
		return REASON_L4;
	if (room < header_of(p->proto))
		return REASON_INVALID;
	if (is_own_icmp(p))
		return parse_icmp(skb, p);
	if (bpf_skb_load_bytes(skb, p->l4, &h, is_stream(p) ? STREAM_HEAD : sizeof(h.ports)))
		return REASON_INVALID;
	p->source_port = bpf_ntohs(h.ports[0]);
	p->destination_port = bpf_ntohs(h.ports[1]);
	p->policy_port = p->destination_port;
	if (!is_stream(p))
		return 0;
	p->tcp_flags = p->proto == IPPROTO_TCP ? h.flags : sctp_flags(h.offset); /* where the first chunk says what it is */
	p->number = bpf_ntohl(p->tcp_flags & TCP_RST ? h.numbers[0] : h.numbers[1]);
	return 0;
}

/* Fills p as far as it can; 0, or why the packet cannot be judged. */
global int parse(struct __sk_buff *skb, struct packet *p)
{
	__u32 room = 0;
	int reason;

	if (!p)
		return REASON_INVALID;
	/* Another network, whose addresses are not ours. */
	if (skb->vlan_present || skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD))
		return REASON_VLAN;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		reason = read_v4(skb, p, ETH_HLEN, &room);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		reason = read_v6(skb, p, ETH_HLEN, &room);
	else
		return REASON_L3;
	if (reason)
		return reason;
	return p->fragment == FRAGMENT_LATER ? follow_fragment(p) : parse_l4(skb, p, room);
}
