/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"

/* Host policies at the node's own devices: what this machine's own stack sends
 * there, and what is sent to it. TC_ACT_UNSPEC: it passes. Workloads' packets do
 * not come here, nor does the loopback device's. */

#define IPPROTO_IGMP_MEMBER 2
#define ICMP6_MLD_FIRST 130
#define ICMP6_ND_LAST 136       /* neighbour advertisement; redirects are not essential */
#define ICMP6_MLD2_REPORT 143

/* Without these no address is resolved, no path measured and no group joined: RFC
 * 792, 4443, 4861, 2710 and 3810. An error goes with its connection, which the host's
 * stack knows. What could not be read is nothing of all this, whatever it begins with. */
inline bool is_essential(const struct packet *p, int reason)
{
	switch (reason) {
	case REASON_NONE:
		return p->related;
	case REASON_ICMP6_TYPE:
		return (p->icmp_type >= ICMP6_MLD_FIRST && p->icmp_type <= ICMP6_ND_LAST) || p->icmp_type == ICMP6_MLD2_REPORT;
	case REASON_L4:
		return !p->v6 && p->proto == IPPROTO_IGMP_MEMBER;
	}
	return false;
}

inline void host_parties(struct packet *p, __u8 direction, struct parties *who)
{
	who->host_source = direction == DIR_EGRESS;
	who->host_destination = direction == DIR_INGRESS;
	p->source_identity = who->host_source ? IDENTITY_HOST : identity_of(&p->source);
	p->destination_identity = who->host_destination ? IDENTITY_HOST : identity_of(&p->destination);
}

/* A connection that is older than the firewall, or than its memory. It goes on if
 * policy would let either end open it now. Somebody outside cannot make us believe
 * in one: there must be a socket that has it. */
static __noinline int adopt_connection(struct __sk_buff *skb, struct packet *p, struct flow *f, __u8 direction)
{
	struct judgement j = { .direction = !direction };
	struct packet *forward = forward_scratch();
	struct bpf_sock *sk;
	__u32 sets[2] = {};

	if (!p || !f || !forward)
		return REASON_INVALID;
	if (direction == DIR_INGRESS) {
		sk = proxy_socket(skb, p);
		if (!sk)
			return REASON_NO_CONNECTION;
		bpf_sk_release(sk);
	}
	turn(p, forward);
	if (!judge_host(forward, &j) && !j.audit) {
		f->side = !f->side;
		ct_create(skb, forward, f, sets, CT_SEEN_REPLY, policy_revision());
		return 0;
	}
	j.direction = direction;
	j.kind = EVENT_VERDICT;
	j.audit = 0;
	j.reason = judge_host(p, &j);
	if (j.reason)
		return j.reason;
	emit(skb, p, &j);
	ct_create(skb, p, f, sets, CT_SEEN_REPLY, policy_revision());
	return 0;
}

/* What has no connections is judged packet by packet. */
inline void judge_alone(struct __sk_buff *skb, struct packet *p, const struct parties *who, struct next *n)
{
	struct ruling r = {};

	judge_connection(skb, p, who, false, &r);
	n->reported = 1;
	if (r.reason)
		refuse(n, r.reason, r.direction);
}

inline void guard_connection(struct __sk_buff *skb, struct packet *p, __u8 direction, struct next *n,
			     const struct parties *who)
{
	struct flow f = {};
	int reason;

	ct_find(p, &f, false);
	if (f.entry && f.entry->flags & (CT_REDIRECTED | CT_PROXY_LEG))
		return; /* the proxy's */
	if (f.entry)
		return continue_connection(skb, p, &f, who, n);
	if (p->proto != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return open_connection(skb, p, &f, who, n);
	reason = adopt_connection(skb, p, &f, direction);
	if (reason)
		refuse(n, reason, direction);
}

/* reason is what parse said of the packet. With audit alone nothing is dropped. */
static __noinline int guard_host(struct __sk_buff *skb, struct packet *p, int reason, __u8 direction)
{
	struct parties who = {};
	struct next n = {};
	__u32 flags = host_flags();

	if (!p || !flags || (skb->mark & MARK_MASK) == MARK_FROM_PROXY || is_own_reset(skb, p))
		return TC_ACT_UNSPEC;
	if (is_essential(p, reason))
		return TC_ACT_UNSPEC;
	if (!reason && is_always_open(p, direction)) {
		remember_fragment(p);
		return TC_ACT_UNSPEC;
	}
	host_parties(p, direction, &who);
	if (reason == REASON_L4 || reason == REASON_ICMP_TYPE || reason == REASON_ICMP6_TYPE)
		judge_alone(skb, p, &who, &n);
	else if (reason)
		refuse(&n, reason, direction);
	else
		guard_connection(skb, p, direction, &n, &who);
	if (n.way != WAY_DROP && !reason)
		remember_fragment(p);
	if (n.way != WAY_DROP || !(flags & CONFIG_HOST_ENFORCE))
		return TC_ACT_UNSPEC;
	return n.reported ? drop_quietly(skb, n.reason, direction) : drop(skb, p, n.reason, direction);
}

/* What is for this machine though no address of it stands there: to a link, to a
 * group, to all. */
inline bool is_for_everybody(const struct __sk_buff *skb, const struct packet *p)
{
	const __u8 *a = p->destination.b;

	if (skb->pkt_type == PACKET_BROADCAST || skb->pkt_type == PACKET_MULTICAST)
		return true;
	if (p->v6)
		return addr_is_link_local(&p->destination) || addr_is_multicast6(&p->destination);
	/* Groups and all, whatever the frame's own address; "this" network; link-local. */
	return a[12] >= 224 || a[12] == 0 || (a[12] == 169 && a[13] == 254);
}
