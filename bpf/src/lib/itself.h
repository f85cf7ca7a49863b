/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "addr.h"

/* As whom a workload meets itself, where a service leads it to itself: its kernel takes
 * nothing that comes by its veth in its own name. Nobody has these addresses, neither
 * workloads nor others: what is sent there belongs to such a connection, or is dropped.
 * Cilium's for IPv4; of a block that no router forwards for IPv6 (RFC 6666). */
#define ITSELF4 0xa9fe2a01      /* 169.254.42.1 */
#define ITSELF6_HIGH 0x0100000000000000ULL /* 100::a9fe:2a01 */

enum itself { ITSELF_NOT, ITSELF_ASKED, ITSELF_ANSWERS };

inline void itself(struct addr *a, bool v6)
{
	if (!v6) {
		addr_from_v4(a, bpf_htonl(ITSELF4));
		return;
	}
	*(__u64 *)&a->b[0] = bpf_cpu_to_be64(ITSELF6_HIGH);
	*(__u64 *)&a->b[8] = bpf_cpu_to_be64(ITSELF4);
}

inline bool is_itself(const struct addr *a, bool v6)
{
	if (!v6)
		return addr_v4(a) == bpf_htonl(ITSELF4);
	return addr_high(a) == ITSELF6_HIGH && addr_low(a) == ITSELF4;
}
