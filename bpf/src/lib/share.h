/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "maps.h"

/* What each workload has of the room for established TCP: connections that it
 * opened, or that others than workloads opened to it. Without shares one pair of
 * workloads could take all room, and nobody else would connect any more.
 *
 * By the endpoint's id. The gate counts up, and down what it removes itself; who
 * collects maps it and counts down what it removes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __s64);
} hg_share_1 SEC(".maps");

inline const struct config *config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&hg_config_1, &zero);
}

inline void share_add(__u16 payer, __s64 n)
{
	__u32 id = payer;
	__s64 *open = bpf_map_lookup_elem(&hg_share_1, &id);

	if (open)
		__sync_fetch_and_add(open, n);
}

/* Whether a workload has all that it may. What belongs to no workload (id 0) has
 * no bounds but the map's. */
inline bool share_spent(__u16 payer)
{
	const struct config *c = config();
	__u32 id = payer;
	__s64 *open;

	if (!payer || !c || !c->share)
		return false;
	open = bpf_map_lookup_elem(&hg_share_1, &id);
	return open && *open >= (__s64)c->share;
}
