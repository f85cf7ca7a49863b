/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/leg.h"
#include "lib/nat.h"
#include "lib/service.h"
#include "guard.h"

/* What leaves for other networks, at the node's own devices: an endpoint's, sent
 * by the gate or by the proxy that speaks as one, and the host's own. The policy of
 * endpoints has been judged by now; here they get the node's address.
 *
 * TC_ACT_UNSPEC is "as if we were not here": programs of others come next. */

/* The address that the device has for others to answer to. */
inline int node_address(struct __sk_buff *skb, const struct packet *p, struct addr *out)
{
	__u32 ifindex = skb->ifindex;
	struct device *d = bpf_map_lookup_elem(&hg_device_1, &ifindex);

	if (!d)
		return REASON_NO_DEVICE;
	*out = p->v6 ? d->v6 : d->v4;
	return addr_high(out) || addr_low(out) ? 0 : REASON_NO_NODE_ADDRESS;
}

/* An endpoint's packet: sent by its veth, or by the proxy on this machine. What
 * else claims to be an endpoint's is not. */
static __noinline int endpoint_leaves(struct __sk_buff *skb, struct packet *p, const struct endpoint *self)
{
	bool proxy = !skb->ingress_ifindex && (skb->mark & MARK_MASK) == MARK_FROM_PROXY;
	struct addr node = {};
	struct flow f = {};
	int reason = 0;

	if (!proxy && skb->ingress_ifindex != self->ifindex)
		return drop(skb, p, REASON_SOURCE_IP, DIR_EGRESS);
	p->source_identity = self->identity;
	p->payer = self->id;
	p->destination_identity = identity_of(&p->destination);
	ct_find(p, &f, true);
	if (proxy) {
		reason = proxy_leg(skb, p, &f);
		if (!reason && !f.entry)
			ct_find(p, &f, true); /* made just now */
	}
	if (!reason && !f.entry && !(p->tcp_flags & TCP_RST))
		reason = REASON_NO_CONNECTION;
	if (reason)
		return drop(skb, p, reason, DIR_EGRESS);
	if (svc_answers(&f)) { /* to a client that asked for a service */
		reason = svc_from_backend(skb, p, svc_answers(&f));
		return reason ? drop(skb, p, reason, DIR_EGRESS) : TC_ACT_UNSPEC;
	}
	/* Who came from outside knows the endpoint by its own address. */
	if (!f.entry || f.reply || (!f.entry->nat_port && !nat_wanted(p)))
		return TC_ACT_UNSPEC;
	if (!f.entry->nat_port)
		reason = node_address(skb, p, &node);
	if (!reason)
		reason = nat_leave(skb, p, &f, &node);
	return reason ? drop(skb, p, reason, DIR_EGRESS) : TC_ACT_UNSPEC;
}

/* A packet of the host's own. Where an endpoint's connection holds the same port
 * towards the same remote end, the host's must take another: it was here later. */
static __noinline int host_leaves(struct __sk_buff *skb, struct packet *p)
{
	struct nat_scratch *w = nat_scratch();
	__u32 sets[2] = {};
	struct flow f = {};
	struct nat_hold *h;
	struct addr node;
	int reason;

	if (!w)
		return TC_ACT_UNSPEC;
	nat_key_of(p, &p->source, p->source_port, &w->key);
	h = nat_find(&w->key);
	if (!h || (h->port == p->source_port && addr_equal(&h->addr, &p->source)))
		return TC_ACT_UNSPEC;
	ct_find(p, &f, true);
	if (!f.entry || !f.entry->nat_port) {
		if (!nat_holds(&w->key, h, &w->owner) ||
		    (is_stream(p) && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN))
			return TC_ACT_UNSPEC;
		p->source_identity = IDENTITY_HOST;
		p->destination_identity = identity_of(&p->destination);
		if (!f.entry && !ct_create(skb, p, &f, sets, CT_HOST, policy_revision()))
			ct_find(p, &f, true);
	} else if (!is_guarded(p, DIR_EGRESS)) {
		ct_update(skb, p, &f);
	}
	if (!f.entry)
		return drop(skb, p, REASON_CT_FULL, DIR_EGRESS);
	node = p->source;
	if (p->fragment == FRAGMENT_FIRST)
		remember_fragment(p);
	reason = nat_leave(skb, p, &f, &node);
	return reason ? drop(skb, p, reason, DIR_EGRESS) : TC_ACT_UNSPEC;
}

inline int to_network(struct __sk_buff *skb)
{
	const struct endpoint *self;
	struct packet p = {};
	int reason;

	if (skb->vlan_present || (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6)))
		return TC_ACT_UNSPEC;
	if (skb->ingress_ifindex && (skb->mark & MARK_MASK) == MARK_TRANSIT)
		return TC_ACT_UNSPEC;
	reason = parse(skb, &p);
	self = bpf_map_lookup_elem(&hg_endpoint_1, &p.source);
	/* Errors that tell of others' packets are the host's: workloads may send none. */
	if (p.related == RELATED_ROUTER)
		return TC_ACT_UNSPEC;
	if (self)
		return reason ? drop(skb, &p, reason, DIR_EGRESS) : endpoint_leaves(skb, &p, self);
	if (!is_node(&p.source) && !(p.v6 && addr_is_link_local(&p.source)))
		return TC_ACT_UNSPEC;
	/* What this machine only forwards is not its own. */
	if (skb->ingress_ifindex && !reason && !p.related && remember_forwarded(skb, &p) == TC_ACT_SHOT)
		return TC_ACT_SHOT;
	/* Before translation. */
	if (!skb->ingress_ifindex && guard_host(skb, &p, reason, DIR_EGRESS) == TC_ACT_SHOT)
		return TC_ACT_SHOT;
	return reason || p.related ? TC_ACT_UNSPEC : host_leaves(skb, &p);
}
