/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/deliver.h"
#include "lib/forged.h"
#include "lib/nat.h"
#include "lib/service.h"
#include "lib/told.h"
#include "guard.h"
#include "transit.h"

/* What comes from other networks, at the node's own devices: answers to endpoints
 * that have the node's address, packets to endpoints' own addresses, and the
 * host's, which are passed by.
 *
 * TC_ACT_UNSPEC is "as if we were not here": programs of others come next, then the
 * host's stack. */

/* A packet to an endpoint goes to it or to the proxy, or is dropped. f has the entry
 * of one whose translation was undone. */
static __noinline int enter_endpoint(struct __sk_buff *skb, struct packet *p, struct flow *f,
				     const struct endpoint *self)
{
	struct parties who = { .destination = self };
	bool translated = f->entry != NULL;
	struct ct_entry *e;
	struct next n = {};
	int reason = 0;

	p->source_identity = identity_of(&p->source);
	p->destination_identity = self->identity;
	p->payer = self->id;
	if (is_forged(p) || is_forged_router(skb, p))
		reason = REASON_SOURCE_IP;
	else if (!(self->flags & ENDPOINT_READY))
		reason = REASON_NOT_READY;
	if (reason)
		return drop(skb, p, reason, DIR_INGRESS);
	if (!translated)
		ct_find(p, f, false);
	if (svc_mixed_up(f) && !translated)
		return drop(skb, p, REASON_SERVICE_CLASH, DIR_INGRESS);
	enter_connection(skb, p, f, &who, &n);
	e = f->entry;
	if (n.way != WAY_DROP && translated && e && !nat_establish(f))
		refuse(&n, nat_refuse(e), DIR_INGRESS);
	if (n.way == WAY_DROP)
		return finish_drop(skb, p, &n, &who);
	if (f->service && !svc_keep(p, f))
		return drop(skb, p, REASON_SERVICE_FULL, DIR_INGRESS);
	if (answer_needs_no_proxy(skb, p, &n, self))
		n.way = WAY_PLAIN;
	if (n.way == WAY_PLAIN && svc_answers(f)) {
		reason = svc_from_backend(skb, p, svc_answers(f));
		if (reason)
			return drop(skb, p, reason, DIR_INGRESS);
	}
	count(skb, REASON_NONE, DIR_INGRESS);
	if (!translated && !f->service && p->fragment == FRAGMENT_FIRST) /* else it is known by the addresses on the wire */
		remember_fragment(p);
	if (n.way != WAY_PROXY) {
		if (translated && e && p->ttl <= 1) /* who is told of it knows the node */
			rewrite(skb, p, &e->nat_addr, e->nat_port, END_DESTINATION);
		return deliver(skb, p, self);
	}
	reason = to_proxy(skb, p, n.port, n.cut, n.answer);
	return reason ? drop(skb, p, reason, DIR_INGRESS) : TC_ACT_OK;
}

/* The host's own, that gave way to an endpoint's, and has its address back. */
inline int enter_host(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	if (!p->related && !is_guarded(p, DIR_INGRESS) && ct_update(skb, p, f))
		return drop(skb, p, REASON_CT_FULL, DIR_INGRESS);
	if (!p->related && !nat_establish(f))
		return drop(skb, p, REASON_NAT_FULL, DIR_INGRESS);
	return guard_host(skb, p, 0, DIR_INGRESS);
}

/* A packet to a service. Its connection is looked for like any other's. */
inline int enter_service(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	int reason = svc_to_backend(skb, p, f);

	f->entry = NULL;
	return reason;
}

/* To no address that we know: the host's all the same, somebody's behind it, or
 * somebody's route is wrong, or it is a scan. */
inline int enter_nobody(struct __sk_buff *skb, struct packet *p, int reason)
{
	if (is_taken(skb, p))
		return guard_host(skb, p, reason, DIR_INGRESS);
	return identity_of(&p->destination) ? TC_ACT_UNSPEC : drop_quietly(skb, REASON_NO_ENDPOINT, DIR_INGRESS);
}

inline int from_network(struct __sk_buff *skb)
{
	const struct endpoint *self;
	struct packet p = {};
	struct flow f = {};
	bool node;
	int reason;

	/* Tagged for VLAN 0: the stack takes it as if it had no tag. */
	if (skb->vlan_present && !(skb->vlan_tci & 0xfff) && (bpf_skb_vlan_pop(skb) || skb->vlan_present))
		return TC_ACT_SHOT;
	if (skb->vlan_present || skb->pkt_type == PACKET_OTHERHOST ||
	    (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return TC_ACT_UNSPEC;
	reason = parse(skb, &p);
	if (bpf_map_lookup_elem(&hg_endpoint_1, &p.source))
		return drop(skb, &p, REASON_SOURCE_IP, DIR_INGRESS);
	if (skb->pkt_type != PACKET_HOST)
		return guard_host(skb, &p, reason, DIR_INGRESS);
	self = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	if (!self && is_for_everybody(skb, &p))
		return guard_host(skb, &p, reason, DIR_INGRESS);
	if (!self && !reason) {
		node = is_node(&p.destination);
		if (node)
			reason = nat_return(skb, &p, &f);
		if (!reason && !f.entry)
			reason = enter_service(skb, &p, &f);
		if (!reason && !f.entry && !f.service)
			return node ? guard_host(skb, &p, 0, DIR_INGRESS) : enter_nobody(skb, &p, 0);
		self = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
		if (!reason && f.service && !self && node) /* by a port that was opened to everybody */
			return enter_transit(skb, &p, &f) == TC_ACT_OK ? transit_leaves(skb, &p, &f) : TC_ACT_SHOT;
		if (!reason && f.entry && !self && f.entry->flags & CT_TRANSIT)
			return transit_returns(skb, &p, &f);
		if (!reason && f.service && !self) /* an answer of others' would not come by here */
			reason = REASON_NO_BACKEND;
	} else if (!self) { /* what cannot be read is the host's */
		return is_node(&p.destination) ? guard_host(skb, &p, reason, DIR_INGRESS) : enter_nobody(skb, &p, reason);
	}
	if (reason)
		return drop(skb, &p, reason, DIR_INGRESS);
	return self ? enter_endpoint(skb, &p, &f, self) : enter_host(skb, &p, &f);
}
