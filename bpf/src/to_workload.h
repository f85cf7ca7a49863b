/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/deliver.h"
#include "lib/leg.h"
#include "lib/service.h"

/* What this machine's stack sends to a workload, at the host side of its veth: the
 * host's own traffic, and the proxy's. Packets between workloads do not come by. */

/* The host's stack has no socket hook on this side: the packet enters again by a
 * device of ours, where it can be given to the proxy's socket (from_host). */
inline int to_proxy_by_host(struct __sk_buff *skb)
{
	return bpf_redirect(host_ifindex, BPF_F_INGRESS);
}

/* Where a listener of Envoy leads that is not ours, the client may not have dialled:
 * ingress policy says whether it could. Rules for requests nobody would judge by.
 * Packets of the connection that go the other way end with these. Returns whether it
 * is to be dropped, which has been told then. */
static __noinline int judge_elsewhere(struct __sk_buff *skb, struct packet *p, struct flow *f,
				      const struct endpoint *self)
{
	__u32 revision = policy_revision();
	struct ruling r = {};

	if (!p || !f || !self)
		return 1;
	if (f->entry && f->entry->revision == revision)
		return 0;
	if (judge_end(skb, p, self, DIR_INGRESS, false, &r)) {
		count(skb, r.reason, DIR_INGRESS);
		return 1;
	}
	if (r.set[DIR_INGRESS]) {
		drop(skb, p, REASON_NO_ROUTE, DIR_INGRESS);
		return 1;
	}
	if (f->entry)
		f->entry->revision = revision;
	return 0;
}

static __noinline int from_proxy(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	int reason = proxy_leg(skb, p, f);

	if (!reason && svc_answers(f))
		reason = svc_from_backend(skb, p, svc_answers(f));
	if (reason)
		return drop(skb, p, reason, DIR_INGRESS);
	count(skb, REASON_NONE, DIR_INGRESS);
	if (p->fragment == FRAGMENT_FIRST)
		remember_fragment(p);
	return TC_ACT_OK;
}

/* Whether a socket of the proxy's may lead elsewhere than its client dialled. */
inline bool leads_elsewhere(struct bpf_sock *sk)
{
	struct bpf_sock *full = bpf_sk_fullsock(sk);

	return full && full->mark & MARK_ELSEWHERE;
}

/* Such a connection to the host itself: by the client's egress policy, which may say
 * that the listener is to carry it, and by the node's. Returns whether it is denied,
 * which has been told then. */
static __noinline int judge_to_host(struct __sk_buff *skb, struct packet *p, const struct endpoint *self)
{
	struct packet *opening = forward_scratch();
	struct ruling r = {};

	if (!p || !self || !opening)
		return 1;
	turn(p, opening);
	if (!judge_end(skb, opening, self, DIR_EGRESS, false, &r))
		judge_end(skb, opening, NULL, DIR_INGRESS, false, &r);
	if (r.reason)
		count(skb, r.reason, r.direction);
	return r.reason;
}

#define NOT_THE_PROXYS 0
#define THE_PROXYS 1
#define THE_PROXYS_DENIED 2

/* The host answers a connection that the proxy made to it as a workload. It went
 * over the loopback device, past every hook, so its first answer tells of it. */
static __noinline int answers_proxy(struct __sk_buff *skb, struct packet *p, struct flow *f,
				    const struct endpoint *self)
{
	struct packet opening;
	__u32 sets[2] = {};
	struct bpf_sock *sk;
	bool elsewhere;

	if (!p || !f || p->proto != IPPROTO_TCP || !(p->tcp_flags & TCP_ACK))
		return NOT_THE_PROXYS;
	sk = proxy_socket(skb, p);
	if (!sk)
		return NOT_THE_PROXYS;
	elsewhere = leads_elsewhere(sk);
	bpf_sk_release(sk);
	if (elsewhere && judge_to_host(skb, p, self))
		return THE_PROXYS_DENIED;
	/* As if its opening had been seen. */
	opening = *p;
	opening.source_identity = p->destination_identity;
	opening.destination_identity = p->source_identity;
	f->side = !f->side;
	ct_create(skb, &opening, f, sets, CT_REDIRECTED | CT_PROXY_LEG | CT_SEEN_REPLY | CT_HALF_SEEN, policy_revision());
	f->side = !f->side;
	return THE_PROXYS;
}

inline int from_stack(struct __sk_buff *skb, struct packet *p, struct flow *f, const struct endpoint *self)
{
	struct parties who = { .destination = self };
	struct next n = {};
	int reason, theirs = NOT_THE_PROXYS;

	p->source_identity = identity_of(&p->source);
	who.host_source = p->source_identity == IDENTITY_HOST;
	if (bpf_map_lookup_elem(&hg_endpoint_1, &p->source))
		return drop(skb, p, REASON_SOURCE_IP, DIR_INGRESS);
	if (p->related) {
		relate(skb, p, f, &who, &n);
	} else if (f->entry) {
		continue_connection(skb, p, f, &who, &n);
	} else if ((theirs = answers_proxy(skb, p, f, self))) {
		if (theirs == THE_PROXYS_DENIED)
			return TC_ACT_SHOT;
		n.way = WAY_PROXY;
	} else {
		if (p->source_identity != IDENTITY_HOST)
			return drop(skb, p, REASON_OUTSIDE, DIR_INGRESS);
		open_connection(skb, p, f, &who, &n);
	}
	if (f->entry || !n.reported) /* else it is that of the policy which denied it */
		n.direction = DIR_INGRESS;
	if (n.way == WAY_DROP)
		return finish_drop(skb, p, &n, &who);
	if (n.way == WAY_PLAIN && svc_answers(f)) {
		reason = svc_from_backend(skb, p, svc_answers(f));
		if (reason)
			return drop(skb, p, reason, DIR_INGRESS);
	}
	count(skb, REASON_NONE, DIR_INGRESS);
	if (p->fragment == FRAGMENT_FIRST)
		remember_fragment(p);
	return n.way == WAY_PROXY ? to_proxy_by_host(skb) : TC_ACT_OK;
}

inline int to_workload(struct __sk_buff *skb)
{
	const struct endpoint *self, *source;
	struct packet p = {};
	struct flow f = {};
	bool proxy;
	int reason;

	reason = parse(skb, &p);
	/* The host's neighbours here are fixed: it never asks. */
	if (skb->protocol == bpf_htons(ETH_P_ARP) || is_nd(&p))
		return drop_quietly(skb, REASON_NEIGHBOUR, DIR_INGRESS);
	if (p.v6 && addr_is_multicast6(&p.destination))
		return drop_quietly(skb, REASON_OUTSIDE, DIR_INGRESS);
	if (is_own_reset(skb, &p))
		return TC_ACT_OK;
	self = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	if (!reason && (!self || self->ifindex != skb->ifindex))
		reason = REASON_NO_ENDPOINT;
	if (!reason && !(self->flags & ENDPOINT_READY))
		reason = REASON_NOT_READY;
	if (reason || !self)
		return drop(skb, &p, reason, DIR_INGRESS);
	p.destination_identity = self->identity;
	p.payer = self->id;
	/* What this machine only forwards is not the host's, whatever source it claims,
	 * nor the proxy's, whatever mark it has. */
	if (skb->ingress_ifindex)
		return drop(skb, &p, REASON_OUTSIDE, DIR_INGRESS);
	proxy = (skb->mark & MARK_MASK) == MARK_FROM_PROXY;
	ct_find(&p, &f, proxy);
	if (!proxy || p.related) /* no proxy sends such by itself */
		return from_stack(skb, &p, &f, self);
	source = bpf_map_lookup_elem(&hg_endpoint_1, &p.source);
	if (source)
		p.payer = source->id;
	p.source_identity = source ? source->identity : identity_of(&p.source);
	if (skb->mark & MARK_ELSEWHERE) {
		if (!source) /* it connects as a workload, which is gone */
			return drop(skb, &p, REASON_SOURCE_IP, DIR_INGRESS);
		if (judge_elsewhere(skb, &p, &f, self))
			return TC_ACT_SHOT;
	}
	return from_proxy(skb, &p, &f);
}
