/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "conntrack.h"
#include "hostfw.h"
#include "nat.h"

/* How full the maps are, without reading them: the kernel counts the elements of
 * hash maps by processor, and those of a trie. */
struct lpm_trie {
	struct bpf_map map;
	size_t n_entries;
} __attribute__((preserve_access_index));

struct usage {
	__u64 endpoint;
	__u64 ipcache;
	__u64 subject;
	__u64 policy;
	__u64 route;
	__u64 ct_tcp;
	__u64 ct_any;
	__u64 nat_tcp;
	__u64 nat_any;
	__u64 name;
	__u64 name_rule;
	__u64 events;           /* bytes that wait to be read */
};

const struct usage *unused_usage __attribute__((unused)); /* for bpf2go */

/* Writes it in place of the packet that it is run with. */
inline int usage(struct __sk_buff *skb)
{
	struct usage out = {}, *u = &out;

	u->endpoint = ELEMENTS(hg_endpoint_1);
	u->ipcache = ((struct lpm_trie *)&hg_ipcache_1)->n_entries;
	u->subject = ELEMENTS(hg_subject_1);
	u->policy = ELEMENTS(hg_policy_1);
	u->route = ELEMENTS(hg_route_1);
	u->ct_tcp = ELEMENTS(hg_ct_tcp_1);
	u->ct_any = ELEMENTS(hg_ct_any_1);
	u->nat_tcp = ELEMENTS(hg_nat_tcp_1);
	u->nat_any = ELEMENTS(hg_nat_any_1);
	u->name = ELEMENTS(hg_name_1);
	u->name_rule = ELEMENTS(hg_name_rule_1);
	u->events = bpf_ringbuf_query(&hg_events_1, BPF_RB_AVAIL_DATA);
	return bpf_skb_store_bytes(skb, 0, u, sizeof(*u), 0);
}
