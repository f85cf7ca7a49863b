/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "to_workload.h"

/* What the proxy writes to a device of its own: datagrams for workloads of this node, whole
 * frames. They are judged as what it sends by the host's stack (to_workload), and past that
 * stack put on the workload's side of its veth. Nothing else comes in here, and nothing goes
 * any further: no host has a route by this device. */
inline int from_injector(struct __sk_buff *skb)
{
	const struct endpoint *self, *source;
	struct packet p = {};
	struct flow f = {};
	int reason, action;

	reason = parse(skb, &p);
	if (!reason && (p.proto != IPPROTO_UDP || p.related || p.fragment))
		reason = REASON_INVALID;
	self = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	if (!reason && !self)
		reason = REASON_NO_ENDPOINT;
	if (!reason && !(self->flags & ENDPOINT_READY))
		reason = REASON_NOT_READY;
	if (reason || !self)
		return drop(skb, &p, reason, DIR_INGRESS);
	p.destination_identity = self->identity;
	p.payer = self->id;
	ct_find(&p, &f, true);
	source = bpf_map_lookup_elem(&hg_endpoint_1, &p.source);
	if (source)
		p.payer = source->id;
	p.source_identity = source ? source->identity : identity_of(&p.source);
	action = from_proxy(skb, &p, &f);
	if (action != TC_ACT_OK)
		return action;
	/* It came with no link address of anybody's. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return hand_over(skb, &p, self);
}
