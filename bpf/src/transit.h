/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/forged.h"
#include "lib/nat.h"
#include "lib/route.h"
#include "lib/service.h"

/* Who comes from another network to a port of the node may be led to a backend in
 * another network. It passes the node alone: with the node's address in place of the
 * client's, so that answers come back here, by the node's routes. Its port was opened
 * by whoever named it; with host policies on, those judge it, at the backend's port. */

/* Sends it on. It is as it is to leave: to_network knows it by the mark. */
inline int pass_on(struct __sk_buff *skb, const struct packet *p)
{
	count(skb, REASON_NONE, DIR_INGRESS);
	skb->mark = MARK_TRANSIT;
	return take_way(skb, p);
}

/* What the node is called where the packet leaves. */
inline int transit_address(const struct packet *p, struct addr *node)
{
	struct bpf_fib_lookup *fib = way_scratch();
	struct device *d;
	__u32 ifindex;

	if (!fib)
		return REASON_INVALID;
	ifindex = fib->ifindex;
	d = bpf_map_lookup_elem(&hg_device_1, &ifindex);
	if (!d)
		return REASON_NO_DEVICE;
	*node = p->v6 ? d->v6 : d->v4;
	return addr_high(node) || addr_low(node) ? 0 : REASON_NO_NODE_ADDRESS;
}

static __noinline int transit_leaves(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct addr node = {};
	int reason;

	if (!p || !f)
		return TC_ACT_SHOT;
	reason = find_way(skb, p);
	if (reason)
		return no_further(skb, p, reason);
	reason = transit_address(p, &node);
	if (!reason)
		reason = nat_leave(skb, p, f, &node);
	return reason ? drop(skb, p, reason, DIR_INGRESS) : pass_on(skb, p);
}

/* From a client, whose packet has its backend's address by now. TC_ACT_OK: it goes on
 * by transit_leaves. */
static __noinline int enter_transit(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct parties who = { .host_destination = 1 };
	struct next n = {};

	if (!p || !f)
		return TC_ACT_SHOT;
	p->source_identity = identity_of(&p->source);
	p->destination_identity = identity_of(&p->destination);
	p->payer = PAYER_TRANSIT;
	if (is_forged(p) || is_forged_router(skb, p))
		return drop(skb, p, REASON_SOURCE_IP, DIR_INGRESS);
	ct_find(p, f, false);
	if (svc_mixed_up(f))
		return drop(skb, p, REASON_SERVICE_CLASH, DIR_INGRESS);
	enter_connection(skb, p, f, &who, &n);
	if (n.way == WAY_DROP)
		return finish_drop(skb, p, &n, &who);
	if (!f->entry) {
		ct_find(p, f, true);
		if (!f->entry)
			return drop(skb, p, REASON_CT_FULL, DIR_INGRESS);
		ct_set(f->entry, CT_TRANSIT);
	}
	if (!svc_keep(p, f))
		return drop(skb, p, REASON_SERVICE_FULL, DIR_INGRESS);
	return TC_ACT_OK;
}

/* From a backend, and its packet has the client's address again. */
static __noinline int transit_returns(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct parties who = { .host_source = 1 };
	struct next n = {};
	int reason;

	if (!p || !f || !f->entry)
		return TC_ACT_SHOT;
	p->source_identity = identity_of(&p->source);
	p->destination_identity = identity_of(&p->destination);
	if (p->related)
		relate(skb, p, f, &who, &n);
	else
		continue_connection(skb, p, f, &who, &n);
	n.direction = DIR_INGRESS;
	if (n.way != WAY_DROP && f->entry && !nat_establish(f))
		refuse(&n, nat_refuse(f->entry), DIR_INGRESS);
	if (n.way == WAY_DROP || !f->entry)
		return finish_drop(skb, p, &n, &who);
	reason = find_way(skb, p);
	if (reason) { /* who is told of it knows the node */
		rewrite(skb, p, &f->entry->nat_addr, f->entry->nat_port, END_DESTINATION);
		return no_further(skb, p, reason);
	}
	reason = svc_from_backend(skb, p, f->entry->rev_nat);
	return reason ? drop(skb, p, reason, DIR_INGRESS) : pass_on(skb, p);
}
