/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "event.h"

/* A workload has one neighbour, the gateway, and the gate answers for it. All
 * else that neighbours say to each other is dropped. */

#define ND_ROUTER_SOLICIT 133
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136
#define ND_REDIRECT 137
#define ND_TARGET_LINK_ADDRESS 2

#define ARP_REQUEST 1
#define ARP_REPLY 2

struct arp_packet {             /* RFC 826, for Ethernet and IPv4 */
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

inline void copy_gateway_mac(__u8 *mac)
{
	for (int i = 0; i < 6; i++)
		mac[i] = gateway_mac[i];
}

/* Straight to the workload's side, past the host's hook: nothing else that neighbours
 * say comes in there. */
inline int back_to_sender(struct __sk_buff *skb)
{
	bpf_skb_change_type(skb, PACKET_HOST); /* the question was for many */
	return bpf_redirect_peer(skb->ifindex, 0);
}

/* Who has the gateway's address. */
global int answer_arp(struct __sk_buff *skb)
{
	struct arp_packet a;
	__u8 ip[4];

	if (bpf_skb_load_bytes(skb, 0, &a, sizeof(a)) || a.operation != bpf_htons(ARP_REQUEST) ||
	    a.protocol != bpf_htons(ETH_P_IP) || a.hardware_length != 6 || a.protocol_length != 4)
		return drop_quietly(skb, REASON_NEIGHBOUR, DIR_EGRESS);
	for (int i = 0; i < 4; i++)
		if (a.target_ip[i] != gateway4.b[12 + i])
			return drop_quietly(skb, REASON_NEIGHBOUR, DIR_EGRESS);
	__builtin_memcpy(a.eth.h_dest, a.sender_mac, 6);
	copy_gateway_mac(a.eth.h_source);
	a.operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(a.target_mac, a.sender_mac, 6);
	__builtin_memcpy(ip, a.target_ip, 4);
	__builtin_memcpy(a.target_ip, a.sender_ip, 4);
	__builtin_memcpy(a.sender_ip, ip, 4);
	copy_gateway_mac(a.sender_mac);
	if (bpf_skb_store_bytes(skb, 0, &a, sizeof(a), 0))
		return drop_quietly(skb, REASON_INVALID, DIR_EGRESS);
	return back_to_sender(skb);
}

struct nd_message {             /* RFC 4861, 4.3 and 4.4, with one link address option */
	struct ethhdr eth;
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	__u8 target[16];
	__u8 option;
	__u8 option_length;
	__u8 mac[6];
} __attribute__((packed));

#define ND_BODY 32              /* from type to mac */
#define ND_ROUTER_SOLICITED_OVERRIDE 0xe0000000

struct pseudo_header {          /* RFC 8200, 8.1 */
	__u8 source[16];
	__u8 destination[16];
	__be32 length;
	__be32 next;
	__u8 body[ND_BODY];
};

inline __be16 nd_checksum(const struct nd_message *m)
{
	struct pseudo_header h = { .length = bpf_htonl(ND_BODY), .next = bpf_htonl(IPPROTO_ICMPV6) };
	__u32 sum;

	__builtin_memcpy(h.source, &m->ip.saddr, 16);
	__builtin_memcpy(h.destination, &m->ip.daddr, 16);
	__builtin_memcpy(h.body, &m->type, ND_BODY);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__be16)~sum;
}

global int answer_nd(struct __sk_buff *skb)
{
	struct nd_message m;

	if (skb->len != sizeof(m) || bpf_skb_load_bytes(skb, 0, &m, sizeof(m)) ||
	    m.type != ND_NEIGHBOUR_SOLICIT || m.ip.hop_limit != 255)
		return drop_quietly(skb, REASON_NEIGHBOUR, DIR_EGRESS);
	for (int i = 0; i < 16; i++)
		if (m.target[i] != gateway6.b[i])
			return drop_quietly(skb, REASON_NEIGHBOUR, DIR_EGRESS);
	__builtin_memcpy(m.eth.h_dest, m.eth.h_source, 6);
	copy_gateway_mac(m.eth.h_source);
	__builtin_memcpy(&m.ip.daddr, &m.ip.saddr, 16);
	__builtin_memcpy(&m.ip.saddr, m.target, 16);
	m.type = ND_NEIGHBOUR_ADVERT;
	m.flags = bpf_htonl(ND_ROUTER_SOLICITED_OVERRIDE);
	m.option = ND_TARGET_LINK_ADDRESS;
	m.option_length = 1;
	copy_gateway_mac(m.mac);
	m.checksum = 0;
	m.checksum = nd_checksum(&m);
	if (bpf_skb_store_bytes(skb, 0, &m, sizeof(m), 0))
		return drop_quietly(skb, REASON_INVALID, DIR_EGRESS);
	return back_to_sender(skb);
}

inline bool is_nd(const struct packet *p)
{
	return p->v6 && p->proto == IPPROTO_ICMPV6 && p->icmp_type >= ND_ROUTER_SOLICIT &&
	       p->icmp_type <= ND_REDIRECT;
}
