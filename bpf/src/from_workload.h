/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/deliver.h"
#include "lib/partial.h"
#include "lib/route.h"
#include "lib/service.h"
#include "lib/told.h"
#include "itself.h"

/* What a workload sends, at the host side of its veth: who is it, may it, and
 * where does it go. */

inline int check_source(struct __sk_buff *skb, const struct packet *p, const struct endpoint *self)
{
	__u8 mac[6];

	if (!self || self->ifindex != skb->ifindex || p->related == RELATED_ROUTER)
		return REASON_SOURCE_IP;
	if (bpf_skb_load_bytes(skb, ETH_ALEN, mac, sizeof(mac)))
		return REASON_INVALID;
	for (int i = 0; i < 6; i++)
		if (mac[i] != self->mac[i])
			return REASON_SOURCE_MAC;
	if (!(self->flags & ENDPOINT_READY))
		return REASON_NOT_READY;
	return 0;
}

/* What no router forwards unasked (RFC 1812, 5.2.1 and 5.3.5). */
inline bool is_for_many(const struct packet *p)
{
	return !p->v6 && ((p->destination.b[12] & 0xf0) == 0xe0 || addr_v4(&p->destination) == 0xffffffff);
}

/* This machine itself, or nobody: what other networks must never be asked for (RFC 1122, 3.2.1.3;
 * RFC 4291, 2.5.2 and 2.5.3). */
inline bool is_for_nobody(const struct packet *p)
{
	if (p->v6)
		return addr_high(&p->destination) == 0 && addr_is_nobody(&p->destination, true);
	return p->destination.b[12] == 0 || p->destination.b[12] == 127;
}

/* Where the destination is: a workload here, the host, or elsewhere. */
inline int check_destination(struct packet *p, const struct endpoint *peer)
{
	if (peer) {
		p->destination_identity = peer->identity;
		return peer->flags & ENDPOINT_READY ? 0 : REASON_NOT_READY;
	}
	p->destination_identity = identity_of(&p->destination);
	if (!p->destination_identity)
		return REASON_NO_ENDPOINT;
	return is_for_many(p) || is_for_nobody(p) ? REASON_OUTSIDE : 0;
}

/* Whether what the proxy judges is a question that need not come to it. Without sets it is
 * denied; with one hop left it goes no further than the proxy, which sends it anew. */
inline bool needs_no_proxy(struct __sk_buff *skb, const struct packet *p, const struct next *n)
{
	return p->proto == IPPROTO_UDP && !p->related && !p->fragment && !n->answer && !n->cut && n->port &&
	       (n->set[DIR_EGRESS] || n->set[DIR_INGRESS]) && p->ttl > 1 && p->destination_identity != IDENTITY_HOST && goes_past(skb, p, n->set, n->port);
}

inline int route_onward(struct __sk_buff *skb, const struct packet *p, const struct endpoint *peer,
			const struct next *n)
{
	int reason;

	if (n->way == WAY_PROXY && !needs_no_proxy(skb, p, n)) {
		reason = to_proxy(skb, p, n->port, n->cut, n->answer);
		if (reason)
			return drop(skb, p, reason, DIR_EGRESS);
		return TC_ACT_OK;
	}
	if (peer)
		return deliver(skb, p, peer);
	if (p->destination_identity == IDENTITY_HOST)
		return TC_ACT_OK; /* to the host's own stack */
	return route_out(skb, p);
}

inline int from_workload(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow f = {};
	struct next n = {};
	struct parties who = {};
	const struct endpoint *self;
	int reason;

	if (skb->protocol == bpf_htons(ETH_P_ARP) && !skb->vlan_present)
		return answer_arp(skb);
	reason = parse(skb, &p);
	if (is_nd(&p))
		return answer_nd(skb);
	if (p.v6 && addr_is_multicast6(&p.destination))
		return drop_quietly(skb, REASON_OUTSIDE, DIR_EGRESS);
	if (is_own_reset(skb, &p)) /* to the host's stack, or to another network past it */
		return identity_of(&p.destination) == IDENTITY_HOST ? TC_ACT_OK : route_out(skb, &p);
	who.source = bpf_map_lookup_elem(&hg_endpoint_1, &p.source);
	if (who.source) {
		p.source_identity = who.source->identity;
		p.payer = who.source->id;
	}
	if (!reason)
		reason = check_source(skb, &p, who.source);
	if (!reason)
		reason = check_partial(skb, &p);
	if (reason)
		return drop(skb, &p, reason, DIR_EGRESS);
	self = who.source;
	if (is_itself(&p.destination, p.v6))
		f.itself = ITSELF_ANSWERS;
	else
		who.destination = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	if (!who.destination && !f.itself) {
		reason = svc_to_backend(skb, &p, &f);
		if (reason)
			return drop(skb, &p, reason, DIR_EGRESS);
		if (f.service && addr_equal(&p.destination, &p.source))
			f.itself = ITSELF_ASKED;
		else if (f.service)
			who.destination = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	}
	if (f.itself && p.ttl <= 1) /* while its sender is known */
		return no_further(skb, &p, REASON_TTL);
	if (f.itself)
		as_itself(&p, &f, &who);
	else
		reason = check_destination(&p, who.destination);
	if (reason)
		return drop(skb, &p, reason, DIR_EGRESS);
	who.host_destination = !who.destination && !f.itself && p.destination_identity == IDENTITY_HOST;
	ct_find(&p, &f, false);
	if (f.itself == ITSELF_ANSWERS && !svc_answers(&f))
		return drop(skb, &p, p.related ? REASON_ICMP_ERROR : REASON_NO_CONNECTION, DIR_EGRESS);
	if (svc_mixed_up(&f))
		return drop(skb, &p, REASON_SERVICE_CLASH, DIR_EGRESS);
	if (p.related)
		relate(skb, &p, &f, &who, &n);
	else if (f.entry)
		continue_connection(skb, &p, &f, &who, &n);
	else
		open_connection(skb, &p, &f, &who, &n);
	if (n.way == WAY_DROP)
		return finish_drop(skb, &p, &n, &who);
	if (f.itself)
		return to_itself(skb, &p, &f, self);
	if (f.service && !svc_keep(&p, &f))
		return drop(skb, &p, REASON_SERVICE_FULL, DIR_EGRESS);
	if (who.destination && answer_needs_no_proxy(skb, &p, &n, who.destination))
		n.way = WAY_PLAIN;
	if (n.way == WAY_PLAIN && who.destination && svc_answers(&f)) { /* else it is done where it leaves */
		reason = svc_from_backend(skb, &p, svc_answers(&f));
		if (reason)
			return drop(skb, &p, reason, DIR_EGRESS);
	}
	count(skb, REASON_NONE, DIR_EGRESS);
	/* To a service it is known by the addresses on the wire; where it leaves, by the backend's. */
	if (!(f.service && who.destination))
		remember_fragment(&p);
	return route_onward(skb, &p, who.destination, &n);
}
