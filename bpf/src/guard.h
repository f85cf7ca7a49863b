/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/nat.h"
#include "lib/route.h"

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

/* Who is at the other end. What our gateway is called towards workloads may be a
 * router's name on another link. */
inline __u32 outer_identity(const struct addr *a)
{
	__u32 identity = identity_of(a);
	struct addr anybody = {};

	return identity == IDENTITY_HOST && addr_is_link_local(a) ? identity_of(&anybody) : identity;
}

inline void host_parties(struct packet *p, __u8 direction, struct parties *who)
{
	who->host_source = direction == DIR_EGRESS;
	who->host_destination = direction == DIR_INGRESS;
	p->source_identity = who->host_source ? IDENTITY_HOST : outer_identity(&p->source);
	p->destination_identity = who->host_destination ? IDENTITY_HOST : outer_identity(&p->destination);
}

/* Whether this machine's stack would take a packet whose destination is none of the
 * addresses that we know: a subnet's broadcast address, an address that is new, a
 * local route. What it would not take, it forwards, and is not its own. */
static __noinline int is_taken(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {};
	long found;

	if (!p || !host_flags())
		return 0;
	fib_question(skb, p, &fib, skb->ifindex);
	found = bpf_fib_lookup(skb, &fib, sizeof(fib), FIB_SKIP_NEIGHBOUR);
	return found == BPF_FIB_LKUP_RET_NOT_FWDED || found == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Whether a socket of this machine's listens at its end of a connection: then it was
 * the other end that opened it. */
static __noinline int is_server(struct __sk_buff *skb, const struct packet *p, __u32 direction)
{
	struct nat_scratch *w = nat_scratch();

	if (!p || !w)
		return true;
	if (direction == DIR_INGRESS)
		nat_key_to(p, &w->key);
	else
		nat_key_of(p, &p->source, p->source_port, &w->key);
	w->key.remote_port = 0; /* from there comes nobody: only who listens is found */
	return nat_host_uses(skb, &w->key, p->v6);
}

/* A connection that is older than the firewall, or than its memory. It goes on if
 * policy would let it be opened now, by who opened it: a socket here that listens at
 * its port says that it was the other end. Somebody outside cannot make us believe in
 * one: there must be a socket that has it. */
static __noinline int adopt_connection(struct __sk_buff *skb, struct packet *p, struct flow *f, __u8 direction)
{
	struct packet *opening = forward_scratch();
	struct judgement j = { .kind = EVENT_VERDICT };
	struct bpf_sock *sk;
	__u32 sets[2] = {};

	if (!p || !f || !opening)
		return REASON_INVALID;
	if (direction == DIR_INGRESS) {
		sk = proxy_socket(skb, p);
		if (!sk)
			return REASON_NO_CONNECTION;
		bpf_sk_release(sk);
	}
	j.direction = is_server(skb, p, direction) ? DIR_INGRESS : DIR_EGRESS;
	if (j.direction == direction) {
		*opening = *p;
	} else {
		turn(p, opening);
		f->side = !f->side;
	}
	j.reason = judge_host(opening, &j);
	if (j.reason)
		return j.reason;
	emit(skb, opening, &j);
	return ct_create(skb, opening, f, sets, CT_SEEN_REPLY, policy_revision());
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

/* An answer to somebody behind this machine, whom its kernel gave its address
 * (docker, a VPN), is theirs, and no matter of host policies: what they sent was seen
 * to leave (to_network). Unless a socket here would take it: who is behind could have
 * sent in our name to let it in. */
static __noinline int is_forwarded(struct __sk_buff *skb, const struct packet *p, const struct flow *f)
{
	struct nat_scratch *w = nat_scratch();

	if (!p || !f || !f->entry || !(f->entry->flags & CT_FORWARDED) || !f->reply || !w)
		return false;
	nat_key_to(p, &w->key);
	return !nat_host_uses(skb, &w->key, p->v6);
}

inline void guard_connection(struct __sk_buff *skb, struct packet *p, __u8 direction, struct next *n,
			     const struct parties *who)
{
	struct flow f = {};
	int reason;

	ct_find(p, &f, false);
	if (f.entry && f.entry->flags & (CT_REDIRECTED | CT_PROXY_LEG))
		return; /* the proxy's */
	if (direction == DIR_INGRESS && is_forwarded(skb, p, &f)) {
		ct_update(skb, p, &f);
		return;
	}
	if (f.entry && f.entry->flags & CT_FORWARDED)
		f.entry = NULL; /* its port is ours now */
	if (f.entry)
		return continue_connection(skb, p, &f, who, n);
	if (p->proto != IPPROTO_TCP || (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return open_connection(skb, p, &f, who, n);
	reason = adopt_connection(skb, p, &f, direction);
	if (reason)
		refuse(n, reason, direction);
}

/* Whether a packet of this machine's is accounted to its connection by guard_host. */
inline bool is_guarded(const struct packet *p, __u8 direction)
{
	return host_flags() && !is_always_open(p, direction);
}

/* What leaves with this machine's address, but is somebody's behind it: its kernel
 * translated it. Nothing is judged, but its answers must be known; or it is an answer
 * itself, in a connection that was judged when it came in. */
static __noinline int remember_forwarded(struct __sk_buff *skb, struct packet *p)
{
	__u32 sets[2] = {};
	struct flow f = {};

	if (!p || !host_flags())
		return TC_ACT_UNSPEC;
	remember_fragment(p);
	ct_find(p, &f, true);
	if (f.entry) {
		ct_update(skb, p, &f);
		return TC_ACT_UNSPEC;
	}
	p->source_identity = IDENTITY_HOST;
	p->destination_identity = identity_of(&p->destination);
	if (!ct_create(skb, p, &f, sets, CT_FORWARDED, policy_revision()) || !(host_flags() & CONFIG_HOST_ENFORCE))
		return TC_ACT_UNSPEC;
	return drop(skb, p, REASON_CT_FULL, DIR_EGRESS);
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
	p->payer = direction == DIR_INGRESS ? PAYER_ASKED : PAYER_HOST;
	if (direction == DIR_INGRESS && (p->source_identity == IDENTITY_HOST || is_node(&p->source)))
		refuse(&n, REASON_SOURCE_IP, direction); /* nobody out there is this machine */
	else if (reason == REASON_L4 || reason == REASON_ICMP_TYPE || reason == REASON_ICMP6_TYPE)
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
