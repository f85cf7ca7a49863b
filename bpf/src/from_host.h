/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"

/* Packets of the host that to_workload sent round by our own device, because they
 * belong to a connection that a proxy carries. Nothing else comes in here. */
inline int from_host(struct __sk_buff *skb)
{
	struct packet p = {};
	struct flow f = {};
	int reason;

	reason = parse(skb, &p);
	if (reason)
		return drop(skb, &p, reason, DIR_INGRESS);
	ct_find(&p, &f, true);
	if (!f.entry || !(f.entry->flags & CT_REDIRECTED))
		return drop(skb, &p, REASON_NO_CONNECTION, DIR_INGRESS);
	p.source_identity = f.entry->identity[reply_of(&f)];
	p.destination_identity = f.entry->identity[!reply_of(&f)];
	reason = to_proxy(skb, &p, route_of(f.entry->set).port,
			  (f.entry->flags & (CT_DENIED | CT_BOUND)) == (CT_DENIED | CT_BOUND), reply_of(&f));
	if (reason)
		return drop(skb, &p, reason, DIR_INGRESS);
	/* It carries the workload's link address, not ours. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return TC_ACT_OK;
}
