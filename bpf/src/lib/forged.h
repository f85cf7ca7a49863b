/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "connection.h"
#include "node.h"
#include "service.h"

/* Who other networks cannot be, whatever policy says of it. */

/* A source that nobody there has: this machine's own and the gateway's, none at all, or
 * that by which workloads meet themselves. */
static __noinline int is_forged(const struct packet *p)
{
	if (!p)
		return true;
	return !p->source_identity || p->source_identity == IDENTITY_HOST || is_node(&p->source) ||
	       is_itself(&p->source, p->v6) || addr_is_nobody(&p->source, p->v6);
}

/* Who says that he passed a packet on, and could not: p has the ends of its connection
 * in place of him. */
static __noinline int is_forged_router(struct __sk_buff *skb, const struct packet *p)
{
	struct addr by = {};
	__be32 v4;

	if (!p || p->related != RELATED_ROUTER)
		return false;
	if (p->v6 ? bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &by, sizeof(by))
		  : bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &v4, sizeof(v4)))
		return true;
	if (!p->v6)
		addr_from_v4(&by, v4);
	return is_node(&by) || addr_is_nobody(&by, p->v6) || svc_is_virtual(&by) || bpf_map_lookup_elem(&hg_endpoint_1, &by);
}

/* Judges what comes from another network. Nobody there is a service: of that only who
 * opens a connection is asked. */
inline void enter_connection(struct __sk_buff *skb, struct packet *p, struct flow *f, const struct parties *who,
			     struct next *n)
{
	if (p->related)
		relate(skb, p, f, who, n);
	else if (f->entry)
		continue_connection(skb, p, f, who, n);
	else if (svc_is_virtual(&p->source))
		refuse(n, REASON_SOURCE_IP, DIR_INGRESS);
	else
		open_connection(skb, p, f, who, n);
	n->direction = DIR_INGRESS;
}
