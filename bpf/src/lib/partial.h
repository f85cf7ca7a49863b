/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <bpf/bpf_core_read.h>
#include "parse.h"
#include "rewrite.h"

/* A sender may leave a checksum to the device that puts the packet on the wire, and
 * says from where to sum and where to write. Who makes packets by himself (AF_PACKET
 * with PACKET_VNET_HDR) says so of any place: the device would write there what he
 * chose, over what was judged. Another port, another address. */
struct sk_buff {
	__u16 network_header;   /* from the same place as csum_start */
	__u16 csum_start;
	__u16 csum_offset;
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

#define SUMMED_PARTIAL 3        /* CHECKSUM_PARTIAL */

/* Whether a checksum that is left to a device stands where one does: that of the
 * transport, or one behind its header, of a tunnel's inside. 0 or a reason. */
static __noinline int check_partial(struct __sk_buff *skb, const struct packet *p)
{
	struct sk_buff *sk = bpf_cast_to_kern_ctx(skb);
	__s32 at, sum;

	if (!p)
		return REASON_INVALID;
	if (BPF_CORE_READ_BITFIELD(sk, ip_summed) != SUMMED_PARTIAL)
		return 0;
	/* It may begin before the network header: at the link's. */
	at = (__s16)(sk->csum_start - sk->network_header) + ETH_HLEN + sk->csum_offset;
	if (p->fragment || p->related)
		return REASON_INVALID; /* nobody else is to finish these */
	sum = p->proto == IPPROTO_SCTP ? p->l4 + 8 : checksum_of(p);
	return (sum && at == sum) || at >= (__s32)(p->l4 + header_of(p->proto)) ? 0 : REASON_INVALID;
}
