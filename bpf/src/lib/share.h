/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "maps.h"

/* What each workload has of the room for established TCP: connections that it
 * opened, or that others than workloads opened to it. Without shares one pair of
 * workloads could take all room, and nobody else would connect any more. This machine
 * itself has one, and so has what only passes it: outside they are as many as they like.
 *
 * With shares alone a few together could still take all. So the last of the room is for
 * those that have little of it, and half of that for what passes.
 *
 * By the endpoint's id. The gate counts up, and down what it removes itself; who
 * collects maps it and counts down what it removes. */
#define PAYER_HOST 0            /* what this machine opens; no endpoint has these ids */
#define PAYER_ASKED 0xfffe      /* what others open to it, so that they cannot keep it from opening any */
#define PAYER_TRANSIT 0xffff
#define SHARE_LAST 16           /* which part of the room is the last of it */
#define SHARE_LITTLE 128        /* which part of that is little */

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

/* Elements of a hash map, which the kernel counts by processor. */
struct bpf_map {
	__u32 max_entries;
} __attribute__((preserve_access_index));

extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

#define ELEMENTS(name) bpf_map_sum_elem_count((const struct bpf_map *)&name)

/* Whether somebody has all that he may. */
static __noinline int share_spent(__u16 payer)
{
	const struct config *c = config();
	__u32 id = payer, last;
	__s64 *open;

	if (!c || !c->share)
		return false;
	open = bpf_map_lookup_elem(&hg_share_1, &id);
	if (!open)
		return false;
	if (*open >= (__s64)c->share)
		return true;
	last = c->room / SHARE_LAST;
	if (*open < (__s64)(payer == PAYER_TRANSIT ? last / 2 : last / SHARE_LITTLE))
		return false;
	return last && ELEMENTS(hg_ct_tcp_1) >= (__s64)(c->room - last);
}
