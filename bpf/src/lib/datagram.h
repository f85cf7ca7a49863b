/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "conntrack.h"
#include "mark.h"

/* Questions and answers of the DNS on their way to the proxy. All that belong to one
 * IP version share its socket (or group of sockets): a socket for each client would
 * cost more than what it carries. The proxy knows them apart by their addresses, and
 * by the mark, which says who sent them; both are the gate's word, not the sender's. */

/* The proxy's socket at a port. Without the proxy somebody else may have the port: only
 * who may set marks has that of the proxy on its socket. */
inline struct bpf_sock *datagram_socket(struct __sk_buff *skb, const struct packet *p, __u16 port)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(t.ipv4);

	if (p->v6) {
		t.ipv6.daddr[3] = bpf_htonl(1); /* ::1 */
		t.ipv6.dport = bpf_htons(port);
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.daddr = bpf_htonl(INADDR_LOOPBACK);
		t.ipv4.dport = bpf_htons(port);
	}
	sk = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NULL;
	if (sk->mark != MARK_FROM_PROXY) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

/* How long the message of a datagram is. 0: it has none, or not everybody who reads it finds
 * the same end: by the lengths of IP and UDP, and of what came. */
inline __u32 datagram_length(struct __sk_buff *skb, const struct packet *p)
{
	__u32 at = ETH_HLEN + (p->v6 ? offsetof(struct ipv6hdr, payload_len) : offsetof(struct iphdr, tot_len));
	__u32 begin = ETH_HLEN + (p->v6 ? sizeof(struct ipv6hdr) : 0);
	__be16 packet, datagram;

	if (skb->gso_size || bpf_skb_load_bytes(skb, at, &packet, 2) || bpf_skb_load_bytes(skb, p->l4 + 4, &datagram, 2))
		return 0;
	if (begin + bpf_ntohs(packet) != skb->len || p->l4 + bpf_ntohs(datagram) != skb->len)
		return 0;
	return skb->len - p->l4 - UDP_HEADER; /* which is there; see parse.h */
}

/* Hands a datagram to the proxy; 0 or a reason. */
static __noinline int datagram_to_proxy(struct __sk_buff *skb, const struct packet *p, __u16 port, bool answer)
{
	struct bpf_sock *sk;
	int err;

	sk = datagram_socket(skb, p, port);
	if (!sk)
		return REASON_PROXY_DOWN;
	err = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (err)
		return REASON_ASSIGN;
	skb->mark = MARK_TO_PROXY | (answer ? MARK_ANSWER : 0);
	return 0;
}
