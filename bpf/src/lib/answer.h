/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "neighbour.h"
#include "node.h"
#include "parse.h"
#include "service.h"

/* A packet that goes no further is answered, as every router does (RFC 792, RFC 4443):
 * one that has used up its hops, so that traceroute sees the gate, has no way, or is too
 * big for it. Workloads are answered by the gateway, others by the node. Only what
 * policy let through is answered, and not more than a device's share. */

#define ANSWER_INTERVAL (10000000ULL)  /* ns: 100 answers a second */
#define ANSWER_BURST 20                /* a traceroute sends 16 probes at once */
#define ANSWER_QUOTE4 548      /* 576 in all (RFC 1812, 4.3.2.3) */
#define ANSWER_QUOTE6 1232     /* 1280 in all (RFC 4443, 2.4) */
#define HOPS 64

/* What to say, as type and code of either version. */
#define TROUBLE(type4, code4, type6) ((type4) << 16 | (code4) << 8 | (type6))
#define TROUBLE_HOPS TROUBLE(ICMP_TIME_EXCEEDED, 0, 3)
#define TROUBLE_WAY TROUBLE(ICMP_UNREACHABLE, 0, ICMP6_UNREACHABLE)
#define TROUBLE_SIZE TROUBLE(ICMP_UNREACHABLE, 4, 2)

/* Device → when its next answer is due, ns. The gate writes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} hg_answer_1 SEC(".maps");

inline bool may_answer(__u32 ifindex)
{
	__u64 now = bpf_ktime_get_ns(), due = now;
	__u64 *last = bpf_map_lookup_elem(&hg_answer_1, &ifindex);

	if (last && *last > now)
		due = *last;
	if (due > now + ANSWER_BURST * ANSWER_INTERVAL)
		return false;
	due += ANSWER_INTERVAL;
	return bpf_map_update_elem(&hg_answer_1, &ifindex, &due, BPF_ANY) == 0;
}

struct icmp_error {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 mtu;             /* of the way, if the packet is too big for it (RFC 1191) */
};

inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* The Internet checksum of bytes of a packet, not inverted. */
global int sum_bytes(struct __sk_buff *skb, __u32 at, __u32 length)
{
	__u32 size, sum = 0;

	for (__u32 i = 0; i < ANSWER_QUOTE6; i += 32) {
		__u8 part[32] = {};

		if (i >= length)
			break;
		size = length - i;
		if (size > sizeof(part))
			size = sizeof(part);
		barrier_var(size); /* the compiler knows that it is not 0, and would not say so */
		if (size == 0 || bpf_skb_load_bytes(skb, at + i, part, size))
			return 0;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)part, sizeof(part), sum);
	}
	return fold(sum);
}

/* Cuts the packet to what is quoted, and makes room for headers before it. */
inline bool make_room(struct __sk_buff *skb, __u32 headers, __u32 quote, __u32 *sum)
{
	if (skb->len < ETH_HLEN + quote)
		quote = skb->len - ETH_HLEN;
	if (bpf_skb_change_tail(skb, ETH_HLEN + quote, 0))
		return false;
	*sum = sum_bytes(skb, ETH_HLEN, quote);
	return bpf_skb_adjust_room(skb, headers, BPF_ADJ_ROOM_MAC, 0) == 0;
}

inline bool turn_link(struct __sk_buff *skb, bool to_workload)
{
	__u8 macs[12];

	if (bpf_skb_load_bytes(skb, ETH_ALEN, macs, ETH_ALEN) || bpf_skb_load_bytes(skb, 0, macs + ETH_ALEN, ETH_ALEN))
		return false;
	if (to_workload) /* whatever it wrote there */
		copy_gateway_mac(macs + ETH_ALEN);
	return bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) == 0;
}

global int answer4(struct __sk_buff *skb, const struct packet *p, __u32 trouble, __u32 mtu, const struct addr *by)
{
	struct {
		struct iphdr ip;
		struct icmp_error icmp;
	} m = {};
	__u32 sum = 0;

	if (!p || !by || !make_room(skb, sizeof(m), ANSWER_QUOTE4, &sum))
		return TC_ACT_SHOT;
	m.ip.version = 4;
	m.ip.ihl = 5;
	m.ip.tot_len = bpf_htons(skb->len - ETH_HLEN);
	m.ip.ttl = HOPS;
	m.ip.protocol = IPPROTO_ICMP;
	m.ip.saddr = addr_v4(by);
	m.ip.daddr = addr_v4(&p->source);
	m.ip.check = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&m.ip, sizeof(m.ip), 0));
	m.icmp.type = trouble >> 16;
	m.icmp.code = trouble >> 8;
	m.icmp.mtu = bpf_htonl(mtu);
	m.icmp.checksum = ~fold(bpf_csum_diff(NULL, 0, (__be32 *)&m.icmp, sizeof(m.icmp), sum));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &m, sizeof(m), 0) ? TC_ACT_SHOT : TC_ACT_OK;
}

global int answer6(struct __sk_buff *skb, const struct packet *p, __u32 trouble, __u32 mtu, const struct addr *by)
{
	struct {
		struct ipv6hdr ip;
		struct icmp_error icmp;
	} m = {};
	__u32 sum = 0;

	if (!p || !by || !make_room(skb, sizeof(m), ANSWER_QUOTE6, &sum))
		return TC_ACT_SHOT;
	__builtin_memcpy(&m.ip.saddr, by, sizeof(m.ip.saddr));
	__builtin_memcpy(&m.ip.daddr, &p->source, sizeof(m.ip.daddr));
	m.icmp.type = trouble;
	m.icmp.mtu = bpf_htonl(mtu);
	m.ip.payload_len = bpf_htons(skb->len - ETH_HLEN - sizeof(m.ip));
	/* The pseudo header has the same fields (RFC 8200, 8.1), in another order. */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&m, sizeof(m), sum) + bpf_htonl(IPPROTO_ICMPV6) % 0xffff;
	m.icmp.checksum = ~fold(sum);
	m.ip.version = 6;
	m.ip.hop_limit = HOPS;
	m.ip.nexthdr = IPPROTO_ICMPV6;
	return bpf_skb_store_bytes(skb, ETH_HLEN, &m, sizeof(m), 0) ? TC_ACT_SHOT : TC_ACT_OK;
}

/* As whom: the gateway to a workload by its own device, the node to other networks. */
inline bool answers_as(struct __sk_buff *skb, const struct packet *p, const struct endpoint *sender, struct addr *by)
{
	__u32 ifindex = skb->ifindex;
	struct device *d;

	if (sender) {
		for (int i = 0; i < 16; i++)
			by->b[i] = p->v6 ? gateway6.b[i] : gateway4.b[i];
		return sender->ifindex == ifindex;
	}
	d = bpf_map_lookup_elem(&hg_device_1, &ifindex);
	if (d)
		*by = p->v6 ? d->v6 : d->v4;
	return d && (addr_high(by) || addr_low(by));
}

/* Answers the sender of a packet that goes no further. No errors about errors, nor
 * about later fragments. */
static __noinline int answer(struct __sk_buff *skb, const struct packet *p, __u32 trouble, __u32 mtu)
{
	struct endpoint *sender;
	struct addr by = {};
	int made;

	if (!p || p->related || p->fragment == FRAGMENT_LATER)
		return TC_ACT_SHOT;
	sender = bpf_map_lookup_elem(&hg_endpoint_1, &p->source);
	if (!answers_as(skb, p, sender, &by) || !may_answer(skb->ifindex) || svc_as_sent(skb, p))
		return TC_ACT_SHOT;
	made = p->v6 ? answer6(skb, p, trouble, mtu, &by) : answer4(skb, p, trouble, mtu, &by);
	if (made != TC_ACT_OK || !turn_link(skb, sender != NULL))
		return TC_ACT_SHOT;
	return sender ? back_to_sender(skb) : bpf_redirect(skb->ifindex, 0);
}
