/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "connection.h"

/* A packet of the proxy's, to either end; 0 or a reason. Its connection to the
 * server may have another source port than the client's, and is then one of its
 * own: with no sets, so that nobody takes it for a connection of the client's. */
inline int proxy_leg(struct __sk_buff *skb, const struct packet *p, struct flow *f)
{
	__u32 sets[2] = {};

	if (f->entry && f->entry->flags & CT_REDIRECTED)
		return ct_account(skb, p, f, true);
	if (f->entry) /* the proxy has no part in it */
		return p->tcp_flags & TCP_RST ? 0 : REASON_NO_CONNECTION;
	if ((p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return ct_create(skb, p, f, sets, CT_REDIRECTED | CT_PROXY_LEG, policy_revision());
	return p->tcp_flags & TCP_RST ? 0 : REASON_NO_CONNECTION; /* a reset of what is forgotten harms nobody */
}
