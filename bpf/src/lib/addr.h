/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "common.h"

inline __u64 addr_high(const struct addr *a) { return bpf_be64_to_cpu(*(const __u64 *)&a->b[0]); }
inline __u64 addr_low(const struct addr *a) { return bpf_be64_to_cpu(*(const __u64 *)&a->b[8]); }

inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return addr_high(a) == addr_high(b) && addr_low(a) == addr_low(b);
}

/* Same as the C library's memcmp: below, equal, above. */
inline int addr_compare(const struct addr *a, const struct addr *b)
{
	__u64 x = addr_high(a), y = addr_high(b);

	if (x == y) {
		x = addr_low(a);
		y = addr_low(b);
	}
	return x == y ? 0 : x < y ? -1 : 1;
}

inline void addr_from_v4(struct addr *a, __be32 v4)
{
	*(__u64 *)&a->b[0] = 0;
	*(__u32 *)&a->b[8] = bpf_htonl(0xffff);
	*(__u32 *)&a->b[12] = v4;
}

inline __be32 addr_v4(const struct addr *a) { return *(const __u32 *)&a->b[12]; }

inline bool addr_is_link_local(const struct addr *a)
{
	return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

inline bool addr_is_multicast6(const struct addr *a) { return a->b[0] == 0xff; }

/* What nobody sends from: this network, loopback, groups, all (RFC 6890). */
inline bool addr_is_nobody(const struct addr *a, bool v6)
{
	if (v6)
		return addr_is_multicast6(a) || (addr_high(a) == 0 && addr_low(a) <= 1);
	return a->b[12] == 0 || a->b[12] == 127 || a->b[12] >= 224;
}
