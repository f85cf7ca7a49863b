/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/deliver.h"
#include "lib/node.h"

/* What comes from other networks, at the node's own devices: endpoints' answers
 * with the node's address on them, packets to endpoints, and the host's own, which
 * are none of the gate's business. TC_ACT_UNSPEC is "as if we were not here":
 * programs of others, then the host's stack. */

inline int from_network(struct __sk_buff *skb)
{
	const struct endpoint *local;
	struct packet p = {};

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	parse(skb, &p);
	/* translation is undone here */
	/* services are translated here */
	local = bpf_map_lookup_elem(&hg_endpoint_1, &p.destination);
	if (local)
		return TC_ACT_UNSPEC; /* judged and delivered here */
	if (is_node(&p.destination))
		return TC_ACT_UNSPEC; /* host policies are judged here */
	return TC_ACT_UNSPEC;
}
