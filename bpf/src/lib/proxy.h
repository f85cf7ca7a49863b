/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "datagram.h"

/* Where these L7 sets are served; port 0: nowhere. A backend that asks conntrack
 * for the route at each request serves all of a protocol on one port; one whose
 * listeners know their rules has a port for each pair of sets, and a connection is
 * bound to it. */
struct served {
	__u16 port;
	__u8 bound;
};

inline struct served route_of(const __u32 sets[2])
{
	struct route_key k = { .egress = sets[DIR_EGRESS], .ingress = sets[DIR_INGRESS] };
	struct route *r = bpf_map_lookup_elem(&hg_route_1, &k);
	struct served out = {};
	__u32 protocol;

	if (r) {
		out.port = r->port;
		out.bound = 1;
		return out;
	}
	protocol = (k.egress ? k.egress : k.ingress) & ~SET_ANY;
	if (k.egress && k.ingress && (k.ingress & ~SET_ANY) != protocol)
		return out; /* no proxy reads one connection as two protocols */
	k.egress = k.ingress = protocol | SET_ANY;
	r = bpf_map_lookup_elem(&hg_route_1, &k);
	if (r)
		out.port = r->port;
	return out;
}

/* A socket that this packet belongs to. A listener is not one: it would take what
 * is left of a connection whose socket is gone for a new one. */
inline struct bpf_sock *proxy_socket(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(t.ipv4);

	if (p->v6) {
		__builtin_memcpy(t.ipv6.saddr, &p->source, 16);
		__builtin_memcpy(t.ipv6.daddr, &p->destination, 16);
		t.ipv6.sport = bpf_htons(p->source_port);
		t.ipv6.dport = bpf_htons(p->destination_port);
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = addr_v4(&p->source);
		t.ipv4.daddr = addr_v4(&p->destination);
		t.ipv4.sport = bpf_htons(p->source_port);
		t.ipv4.dport = bpf_htons(p->destination_port);
	}
	sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NULL;
	if (sk->state == BPF_TCP_LISTEN ||
	    (sk->state == BPF_TCP_TIME_WAIT && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

inline struct bpf_sock *proxy_listener(struct __sk_buff *skb, const struct packet *p, __u16 port)
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
	sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return NULL;
	if (sk->state != BPF_TCP_LISTEN) {
		bpf_sk_release(sk);
		return NULL;
	}
	return sk;
}

inline int assign(struct __sk_buff *skb, struct bpf_sock *sk)
{
	int err = bpf_sk_assign(skb, sk, 0);

	bpf_sk_release(sk);
	if (err)
		return REASON_ASSIGN;
	skb->mark = MARK_TO_PROXY; /* routed to this machine by redirect's rule */
	return 0;
}

/* No socket can be assigned to an ICMP error. This machine's stack finds the socket
 * by the packet inside, once the error is delivered here: so it learns the path's
 * MTU, and whether anybody listens. Without a socket the stack would drop it. */
inline int tell_proxy(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock *sk;

	if (p->proto == IPPROTO_TCP) {
		sk = proxy_socket(skb, p);
		if (!sk)
			return REASON_NO_SOCKET;
		bpf_sk_release(sk);
	}
	skb->mark = MARK_TO_PROXY;
	return 0;
}

/* Hands a packet of a redirected connection to the proxy; 0 or a reason. What has
 * no socket any more, or is cut off from it, goes to the listener, which resets it:
 * who sent it learns that the connection is gone. Without a listener it is dropped,
 * never forwarded. */
global int to_proxy(struct __sk_buff *skb, const struct packet *p, __u16 port, bool cut, bool answer)
{
	struct bpf_sock *sk = NULL;

	if (!p)
		return REASON_INVALID;
	if (p->fragment)
		return REASON_FRAGMENT_PROXY;
	if (p->related)
		return tell_proxy(skb, p);
	if (p->proto == IPPROTO_UDP)
		return port ? datagram_to_proxy(skb, p, port, answer) : REASON_NO_ROUTE;
	if (!cut)
		sk = proxy_socket(skb, p);
	if (sk)
		return assign(skb, sk);
	if (!port)
		return REASON_NO_ROUTE;
	sk = proxy_listener(skb, p, port);
	if (!sk)
		return REASON_PROXY_DOWN;
	return assign(skb, sk);
}
