/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "deliver.h"
#include "parse.h"

/* What a router tells the sender of a packet that it cannot forward (RFC 792, RFC
 * 4443). The gate is each workload's only router. */
#define ICMP_FRAG_NEEDED 4      /* code of ICMP_UNREACHABLE */
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3

struct trouble {
	__u8 type4, code4;
	__u8 type6, code6;
	__u16 mtu;              /* of the way out, where that is the trouble */
};

#define QUOTE_MOST 96           /* of the packet; 8 bytes behind its IP header are enough */
#define ERROR_TTL 64

struct icmp_error {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 unused;
	__be16 mtu;
};

struct pseudo6 {                /* RFC 8200, 8.1 */
	__u8 source[16];
	__u8 destination[16];
	__be32 length;
	__be32 next;
};

/* An error in the making: on the stack it would be too much. Packets of a processor
 * take turns. */
struct answer_scratch {
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	};
	struct icmp_error icmp;
	struct pseudo6 pseudo;
	__u8 quoted[QUOTE_MOST];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer_scratch);
} hg_answer_1 SEC(".maps");

inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

inline void error_head4(const struct packet *p, const struct trouble *t, __u32 quoted, struct answer_scratch *w)
{
	w->v4.version = 4;
	w->v4.ihl = 5;
	w->v4.tot_len = bpf_htons(sizeof(w->v4) + sizeof(w->icmp) + quoted);
	w->v4.ttl = ERROR_TTL;
	w->v4.protocol = IPPROTO_ICMP;
	w->v4.saddr = *(const volatile __u32 *)&gateway4.b[12];
	w->v4.daddr = addr_v4(&p->source);
	w->v4.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&w->v4, sizeof(w->v4), 0));
	w->icmp.type = t->type4;
	w->icmp.code = t->code4;
}

/* The sum of what the checksum is made over besides the message. */
inline __u32 error_head6(const struct packet *p, const struct trouble *t, __u32 quoted, struct answer_scratch *w)
{
	w->v6.version = 6;
	w->v6.payload_len = bpf_htons(sizeof(w->icmp) + quoted);
	w->v6.nexthdr = IPPROTO_ICMPV6;
	w->v6.hop_limit = ERROR_TTL;
	for (int i = 0; i < 16; i++)
		w->pseudo.source[i] = gateway6.b[i];
	__builtin_memcpy(w->pseudo.destination, &p->source, 16);
	__builtin_memcpy(&w->v6.saddr, w->pseudo.source, 16);
	__builtin_memcpy(&w->v6.daddr, w->pseudo.destination, 16);
	w->pseudo.length = bpf_htonl(sizeof(w->icmp) + quoted);
	w->pseudo.next = bpf_htonl(IPPROTO_ICMPV6);
	w->icmp.type = t->type6;
	w->icmp.code = t->code6;
	return bpf_csum_diff(NULL, 0, (__be32 *)&w->pseudo, sizeof(w->pseudo), 0);
}

/* The head of the packet, and how much of it; what is missing is zero, which is
 * nothing to a sum. A TCP header stays whole, for its checksum may still have to be
 * filled in. */
inline __u32 quote(struct __sk_buff *skb, const struct packet *p, __u8 *to)
{
	__u32 want = p->l4 - ETH_HLEN + (p->proto == IPPROTO_TCP ? TCP_HEADER : UDP_HEADER);
	__u32 have = skb->len - ETH_HLEN;

	if (want > have)
		want = have;
	if (want < UDP_HEADER || want > QUOTE_MOST || bpf_skb_load_bytes(skb, ETH_HLEN, to, want))
		return 0;
	return want;
}

/* Errors are sent about no error, and about the first fragment of a datagram only. */
inline bool answerable(const struct packet *p)
{
	if (p->related || p->fragment == FRAGMENT_LATER)
		return false;
	return !is_own_icmp(p) || p->icmp_type == (p->v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO_REQUEST);
}

/* Makes of the packet an error that its sender, a workload, gets from the gateway.
 * False: it is no packet that errors are sent for. */
global bool answer(struct __sk_buff *skb, const struct packet *p, const struct trouble *t)
{
	__u32 zero = 0, sum = 0, length, size;
	struct answer_scratch *w;
	__u8 macs[12];

	w = bpf_map_lookup_elem(&hg_answer_1, &zero);
	if (!w || !p || !t || !answerable(p))
		return false;
	__builtin_memset(w, 0, sizeof(*w));
	length = quote(skb, p, w->quoted);
	if (!length)
		return false;
	size = p->v6 ? sizeof(w->v6) : sizeof(w->v4);
	if (bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)) ||
	    bpf_skb_change_tail(skb, ETH_HLEN + length, 0) ||
	    bpf_skb_adjust_room(skb, size + sizeof(w->icmp), BPF_ADJ_ROOM_MAC, 0))
		return false;
	if (p->v6)
		sum = error_head6(p, t, length, w);
	else
		error_head4(p, t, length, w);
	w->icmp.mtu = bpf_htons(t->mtu);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&w->icmp, sizeof(w->icmp), sum);
	w->icmp.checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)w->quoted, sizeof(w->quoted), sum));
	__builtin_memcpy(macs, macs + 6, 6);
	copy_gateway_mac(macs + 6);
	return !bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN, &w->v6, size, 0) &&
	       !bpf_skb_store_bytes(skb, ETH_HLEN + size, &w->icmp, sizeof(w->icmp), 0);
}

/* Drops a packet of a workload for a reason, and tells it. */
inline int drop_answered(struct __sk_buff *skb, const struct packet *p, __u8 reason, const struct trouble *t)
{
	int action = drop(skb, p, reason, DIR_EGRESS);

	return answer(skb, p, t) ? back_to_sender(skb) : action;
}
