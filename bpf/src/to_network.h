/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/node.h"

/* What leaves for other networks, at the node's own devices: an endpoint's, sent
 * by the gate or by the proxy that speaks as one, and the host's own. */

inline int to_network(struct __sk_buff *skb)
{
	const struct endpoint *local;
	struct packet p = {};

	if (skb->protocol != bpf_htons(ETH_P_IP) && skb->protocol != bpf_htons(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	parse(skb, &p);
	local = bpf_map_lookup_elem(&hg_endpoint_1, &p.source);
	if (local)
		return TC_ACT_UNSPEC; /* translated here */
	if (is_node(&p.source))
		return TC_ACT_UNSPEC; /* host policies are judged here */
	return TC_ACT_UNSPEC;
}
