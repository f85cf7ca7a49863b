/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/connection.h"
#include "lib/deliver.h"
#include "lib/itself.h"
#include "lib/service.h"

/* A workload that asks for a service and is itself behind it, where its socket was not
 * seen to connect. Its packet comes back to it by its veth, from an address that
 * nobody has, and so the answer passes here too. No policy is asked: whom a workload
 * may talk to is others' business, and a socket that was seen gets there by its own
 * loopback device, past every hook. */

/* Tells of it as of any connection: it is allowed, by no rule. */
static __noinline void tell_of_itself(struct __sk_buff *skb, const struct packet *p, const struct endpoint *self)
{
	struct judgement j = { .direction = DIR_EGRESS, .kind = EVENT_VERDICT, .verdict = VERDICT_ALLOW };

	if (!p || !self)
		return;
	j.endpoint = self->id;
	emit(skb, p, &j);
}

/* Makes it a packet of such a connection, which nobody is party to: to the service,
 * and it has the backend's address by now, which is its sender's own; or the answer. */
inline void as_itself(struct packet *p, struct flow *f, struct parties *who)
{
	p->destination_identity = who->source->identity;
	if (f->itself == ITSELF_ASKED)
		itself(&p->source, p->v6);
	who->source = NULL;
}

/* Brings it back to its sender, who is to hear the answer from the service. */
static __noinline int to_itself(struct __sk_buff *skb, struct packet *p, struct flow *f, const struct endpoint *self)
{
	__u32 service = svc_answers(f);
	struct addr other;
	int reason;

	if (!p || !f || !self)
		return TC_ACT_SHOT;
	if (f->itself == ITSELF_ANSWERS) {
		remember_fragment(p);
		other = p->source;
		reason = svc_from_backend(skb, p, service);
		if (!reason)
			reason = rewrite(skb, p, &other, p->destination_port, END_DESTINATION);
	} else {
		other = p->source;
		p->source = p->destination;
		reason = svc_keep(p, f) ? rewrite(skb, p, &other, p->source_port, END_SOURCE) : REASON_SERVICE_FULL;
		if (!f->entry)
			tell_of_itself(skb, p, self);
	}
	if (reason)
		return drop(skb, p, reason, DIR_EGRESS);
	count(skb, REASON_NONE, DIR_EGRESS);
	return deliver(skb, p, self);
}
