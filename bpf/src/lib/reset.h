/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "conntrack.h"
#include "neighbour.h"
#include "service.h"

/* Ends a connection that policy no longer allows: the packet that met the denial
 * becomes a reset to who sent it and another to the other end, each with the
 * numbers that its kernel takes for its peer's (RFC 9293, 3.10.7; RFC 5961, 3.2):
 * what the sender acknowledges is what it expects next, and what it sends now is
 * what the other expects. An end that expects something else by then answers, and
 * gets its reset for that answer. */
struct reset {
	struct addr source;
	struct addr destination;
	__be32 seq;
	__be32 ack;
	__u16 source_port;
	__u16 destination_port;
	__u8 flags;
	__u8 v6;
	__u8 partial;           /* the device fills in the checksum */
	__u8 pad;
};

struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 seq;
	__be32 ack;
	__u8 offset;
	__u8 flags;
	__be16 window;
	__u16 checksum;
	__be16 urgent;
};

/* Ours, on its way: marks are cleared between network namespaces, so no workload
 * can send one. */
inline bool is_own_reset(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->mark == MARK_RESET && p->proto == IPPROTO_TCP && p->tcp_flags & TCP_RST;
}

inline __u16 sum16(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Of the pseudo header. ::ffff:a.b.c.d has the sum of a.b.c.d: 0xffff is zero. */
inline __u64 pseudo_sum(const struct addr *a, const struct addr *b, __u32 length)
{
	__u32 rest[2] = { bpf_htonl(length), bpf_htonl(IPPROTO_TCP) };
	__u64 sum = (__u32)bpf_csum_diff(NULL, 0, (__be32 *)a, sizeof(*a), 0);

	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)b, sizeof(*b), 0);
	return sum + (__u32)bpf_csum_diff(NULL, 0, rest, sizeof(rest), 0);
}

static __noinline int write_ip(struct __sk_buff *skb, const struct reset *r)
{
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} h = {};

	if (!r)
		return -EINVAL;
	if (r->v6) {
		h.v6.version = 6;
		h.v6.hop_limit = 64;
		h.v6.nexthdr = IPPROTO_TCP;
		h.v6.payload_len = bpf_htons(TCP_HEADER);
		__builtin_memcpy(&h.v6.saddr, &r->source, 16);
		__builtin_memcpy(&h.v6.daddr, &r->destination, 16);
		return bpf_skb_store_bytes(skb, ETH_HLEN, &h.v6, sizeof(h.v6), BPF_F_RECOMPUTE_CSUM);
	}
	h.v4.version = 4;
	h.v4.ihl = 5;
	h.v4.ttl = 64;
	h.v4.protocol = IPPROTO_TCP;
	h.v4.tot_len = bpf_htons(sizeof(h.v4) + TCP_HEADER);
	h.v4.frag_off = bpf_htons(0x4000);
	h.v4.saddr = addr_v4(&r->source);
	h.v4.daddr = addr_v4(&r->destination);
	h.v4.check = ~sum16((__u32)bpf_csum_diff(NULL, 0, (__be32 *)&h.v4, sizeof(h.v4), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &h.v4, sizeof(h.v4), BPF_F_RECOMPUTE_CSUM);
}

inline __u32 l4_of(const struct reset *r)
{
	return ETH_HLEN + (r->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

static __noinline int write_tcp(struct __sk_buff *skb, const struct reset *r)
{
	struct tcp_header h = { .offset = TCP_HEADER / 4 << 4 };
	__u64 sum;

	if (!r)
		return -EINVAL;
	h.source = bpf_htons(r->source_port);
	h.destination = bpf_htons(r->destination_port);
	h.seq = r->seq;
	h.ack = r->ack;
	h.flags = r->flags;
	sum = pseudo_sum(&r->source, &r->destination, TCP_HEADER);
	if (r->partial)
		h.checksum = sum16(sum);
	else
		h.checksum = ~sum16(sum + (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0));
	return bpf_skb_store_bytes(skb, l4_of(r), &h, sizeof(h), BPF_F_RECOMPUTE_CSUM);
}

/* To a workload by its device; to everybody else through the host's stack, where
 * it enters as from the workload at the other end. */
static __noinline int send_reset(struct __sk_buff *skb, const struct reset *r,
				 const struct endpoint *to, const struct endpoint *other)
{
	const struct endpoint *by = to ? to : other;
	__u8 macs[12];
	__u8 gateway[6];

	if (!r || !by)
		return 0;
	/* Makes the packet a reset, whatever it was. */
	if (bpf_skb_change_tail(skb, l4_of(r) + TCP_HEADER, 0) || write_ip(skb, r) || write_tcp(skb, r))
		return 0;
	copy_gateway_mac(gateway);
	__builtin_memcpy(macs, to ? by->mac : gateway, 6);
	__builtin_memcpy(macs + 6, to ? gateway : by->mac, 6);
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
		return 0;
	skb->mark = MARK_RESET;
	return bpf_clone_redirect(skb, by->ifindex, to ? 0 : BPF_F_INGRESS);
}

inline bool resets(void)
{
	const struct config *c = config();

	return c && c->flags & CONFIG_RESET;
}

/* Who opened a connection to a service has its reset from there. */
inline void reset_as_service(struct reset *r, __u32 number)
{
	struct svc_key *was = number ? svc_name(number) : NULL;

	if (was) {
		r->source = was->addr;
		r->source_port = was->port;
	}
}

/* What is left of the packet is dropped by the caller. Options and extension
 * headers are rare enough that such a packet only is dropped. opened: the number of
 * the service it was opened to << 1 | whether this packet is an answer. */
global int reset_both(struct __sk_buff *skb, const struct packet *p,
		      const struct endpoint *source, const struct endpoint *destination, __u32 opened)
{
	struct reset r = {};
	__be32 numbers[2];      /* sequence, acknowledged */
	__u16 checksum;

	if (!p || p->proto != IPPROTO_TCP || (p->tcp_flags & (TCP_RST | TCP_ACK)) != TCP_ACK)
		return 0;
	if (p->l4 != ETH_HLEN + (p->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) ||
	    bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcp_header, seq), numbers, sizeof(numbers)) ||
	    bpf_skb_load_bytes(skb, p->l4 + offsetof(struct tcp_header, checksum), &checksum, sizeof(checksum)))
		return 0;
	r.v6 = p->v6;
	/* A sum of the pseudo header alone is one that the sender's device was to finish. */
	r.partial = checksum == sum16(pseudo_sum(&p->source, &p->destination, skb->len - p->l4));
	r.source = p->destination;
	r.destination = p->source;
	r.source_port = p->destination_port;
	r.destination_port = p->source_port;
	r.seq = numbers[1];
	r.flags = TCP_RST;
	if (!(opened & 1))
		reset_as_service(&r, opened >> 1);
	send_reset(skb, &r, source, destination);
	r.source = p->source;
	r.destination = p->destination;
	r.source_port = p->source_port;
	r.destination_port = p->destination_port;
	r.seq = numbers[0];
	r.ack = numbers[1];
	r.flags = TCP_RST | TCP_ACK;
	if (opened & 1)
		reset_as_service(&r, opened >> 1);
	send_reset(skb, &r, destination, source);
	return 0;
}
