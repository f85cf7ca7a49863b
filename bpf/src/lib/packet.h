/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "addr.h"
#include "reason.h"

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define TCP_HEADER 20           /* without options */
#define UDP_HEADER 8

/* RFC 792 and RFC 4443: both echo messages look the same. */
struct icmp_echo {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id;
	__be16 sequence;
};

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129

/* What the gate knows of a packet. Ports are in host byte order; for ICMP echo
 * the id stands on the asking side, so that request and answer are one tuple. */
struct packet {
	struct addr source;
	struct addr destination;
	__u32 source_identity;
	__u32 destination_identity;
	__u16 source_port;
	__u16 destination_port;
	__u16 policy_port;      /* what policy calls the port: ICMP type for ICMP */
	__u16 l4;               /* offset of the transport header */
	__u8 proto;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 v6;
	__u8 ttl;
	__u16 payer;            /* whose share of connections it may take */
	__u8 pad[4];
};

inline bool is_echo(const struct packet *p)
{
	return p->proto == IPPROTO_ICMP || p->proto == IPPROTO_ICMPV6;
}

inline bool is_echo_reply(const struct packet *p)
{
	return (p->proto == IPPROTO_ICMP && p->icmp_type == ICMP_ECHO_REPLY) ||
	       (p->proto == IPPROTO_ICMPV6 && p->icmp_type == ICMP6_ECHO_REPLY);
}

inline bool is_own_icmp(const struct packet *p)
{
	return p->proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP);
}

inline bool is_echo_request(const struct packet *p)
{
	return p->icmp_type == (p->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST) && is_own_icmp(p);
}

inline int parse_icmp(struct __sk_buff *skb, struct packet *p)
{
	struct icmp_echo h;
	bool request, reply;

	if (bpf_skb_load_bytes(skb, p->l4, &h, sizeof(h)))
		return REASON_INVALID;
	p->icmp_type = h.type;
	p->icmp_code = h.code;
	p->policy_port = h.type;
	if (p->v6) {
		request = h.type == ICMP6_ECHO_REQUEST;
		reply = h.type == ICMP6_ECHO_REPLY;
	} else {
		request = h.type == ICMP_ECHO_REQUEST;
		reply = h.type == ICMP_ECHO_REPLY;
	}
	if (request)
		p->source_port = bpf_ntohs(h.id);
	else if (reply)
		p->destination_port = bpf_ntohs(h.id);
	else
		return REASON_ICMP_ERROR;
	return 0;
}

inline int parse_l4(struct __sk_buff *skb, struct packet *p)
{
	__be16 ports[2];

	if (p->proto == (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return parse_icmp(skb, p);
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return REASON_L4;
	if (skb->len < p->l4 + (p->proto == IPPROTO_TCP ? TCP_HEADER : UDP_HEADER))
		return REASON_INVALID;
	if (bpf_skb_load_bytes(skb, p->l4, ports, sizeof(ports)))
		return REASON_INVALID;
	p->source_port = bpf_ntohs(ports[0]);
	p->destination_port = bpf_ntohs(ports[1]);
	p->policy_port = p->destination_port;
	if (p->proto == IPPROTO_TCP && bpf_skb_load_bytes(skb, p->l4 + 13, &p->tcp_flags, 1))
		return REASON_INVALID;
	return 0;
}

inline int parse_v4(struct __sk_buff *skb, struct packet *p)
{
	struct iphdr h;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h)) || h.version != 4 || h.ihl < 5)
		return REASON_INVALID;
	addr_from_v4(&p->source, h.saddr);
	addr_from_v4(&p->destination, h.daddr);
	p->proto = h.protocol;
	p->ttl = h.ttl;
	p->l4 = ETH_HLEN + h.ihl * 4;
	if (h.frag_off & bpf_htons(0x3fff)) /* more fragments, or an offset */
		return REASON_FRAGMENT;
	return parse_l4(skb, p);
}

inline int parse_v6(struct __sk_buff *skb, struct packet *p)
{
	struct ipv6hdr h;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &h, sizeof(h)) || h.version != 6)
		return REASON_INVALID;
	__builtin_memcpy(&p->source, &h.saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &h.daddr, sizeof(p->destination));
	p->v6 = 1;
	p->proto = h.nexthdr;
	p->ttl = h.hop_limit;
	p->l4 = ETH_HLEN + sizeof(h);
	/* ::ffff:0:0/96 on the wire would be taken for IPv4 (RFC 6890). */
	if (addr_high(&p->source) == 0 && addr_low(&p->source) >> 32 == 0xffff)
		return REASON_SOURCE_IP;
	if (addr_high(&p->destination) == 0 && addr_low(&p->destination) >> 32 == 0xffff)
		return REASON_INVALID;
	if (h.nexthdr == IPPROTO_FRAGMENT)
		return REASON_FRAGMENT;
	return parse_l4(skb, p);
}

/* Fills p as far as it can; 0, or why the packet cannot be judged. */
__noinline int parse(struct __sk_buff *skb, struct packet *p)
{
	if (!p)
		return REASON_INVALID;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_v4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return parse_v6(skb, p);
	return REASON_L3;
}
