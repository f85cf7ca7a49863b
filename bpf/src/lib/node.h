/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "maps.h"

/* The node's own devices, by which other networks are reached, and its addresses:
 * the agent writes, and follows what changes. */
struct device {
	struct addr v4;         /* what the node is called there; all zero: nothing */
	struct addr v6;
	__u32 flags;
	__u32 reserved;
};

/* By interface index. A device that is not in it has no hooks: nothing of an
 * endpoint leaves by it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct device);
} hg_device_1 SEC(".maps");

/* Every address of this machine but those of the loopback device and link-local
 * ones. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, __u32);
} hg_node_1 SEC(".maps");

inline bool is_node(const struct addr *a) { return bpf_map_lookup_elem(&hg_node_1, a) != NULL; }
