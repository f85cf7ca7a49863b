/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <linux/ip.h>
#include <linux/ipv6.h>
#include "addr.h"
#include "reason.h"

/* TCP's; the chunks of SCTP that open, answer and end an association count as the
 * flag of the same meaning. */
#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define TCP_HEADER 20           /* without options */
#define UDP_HEADER 8
#define SCTP_HEADER 16          /* with the head of the first chunk */

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

enum fragment { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

/* An ICMP error is part of the connection that it is about. */
enum related {
	RELATED_NOT,
	RELATED_END,            /* sent by the connection's other end */
	RELATED_ROUTER,         /* sent by somebody on its way */
};

/* What the gate knows of a packet. Ports are in host byte order; for ICMP echo
 * the id stands on the asking side, so that request and answer are one tuple. Of an
 * ICMP error, source, destination, ports and protocol are those of the packet
 * inside, turned round: as if this were a packet of that connection. */
struct packet {
	struct addr source;
	struct addr destination;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 fragment_id;
	__u32 number;           /* TCP: what it acknowledges; of a reset, its own */
	__u16 source_port;
	__u16 destination_port;
	__u16 policy_port;      /* what policy calls the port: ICMP type for ICMP */
	__u16 l4;               /* offset of the transport header */
	union {
		__u16 inner;    /* related: offset of the IP header inside */
		__u16 edge;     /* first fragment: its end in the datagram; later: its start */
	};
	__u16 inner_l4;         /* related: offset of the transport header inside */
	__u8 proto;
	__u8 tcp_flags;
	__u8 icmp_type;         /* related: of the error */
	__u8 icmp_code;
	__u8 v6;
	__u8 ttl;
	__u8 related;
	__u8 fragment;
	__u16 payer;            /* whose share of connections it may take */
	__u16 service;          /* number of the one it was sent to, before it was translated; 0: none */
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

/* Protocols whose connections have a first packet that says so. */
inline bool is_stream(const struct packet *p)
{
	return p->proto == IPPROTO_TCP || p->proto == IPPROTO_SCTP;
}

/* The protocol of what is on the wire, not of what it is about. */
inline __u8 wire_proto(const struct packet *p)
{
	if (!p->related)
		return p->proto;
	return p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
}
