/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "hostfw.h"
#include "parse.h"
#include "proxy.h"
#include "reset.h"

/* Whose policy a connection meets. NULL: that end has none here, unless it is this
 * machine. */
struct parties {
	const struct endpoint *source;
	const struct endpoint *destination;
	__u8 host_source;
	__u8 host_destination;
};

struct ruling {
	__u32 set[2];           /* by direction */
	__u8 reason;            /* 0: let through */
	__u8 direction;         /* that refused */
};

/* Judges one end and reports what came out. What would be denied is always
 * reported. NULL: this machine. */
inline int judge_end(struct __sk_buff *skb, struct packet *p, const struct endpoint *end,
		     __u8 direction, bool report, struct ruling *r)
{
	struct judgement j = { .direction = direction, .kind = EVENT_VERDICT, .endpoint = end ? end->id : 0 };
	int reason;

	if (!end && !host_flags())
		return 0;
	reason = end ? judge(p, end->subject, &j) : judge_host(p, &j);
	r->set[direction] = j.set;
	if (reason) {
		r->reason = reason;
		r->direction = direction;
		j.kind = EVENT_DROP;
	}
	if (reason || report || j.audit)
		emit(skb, p, &j);
	return reason;
}

/* Judges a connection by the egress policy of its source and the ingress policy
 * of its destination: both must let it through. */
inline void judge_connection(struct __sk_buff *skb, struct packet *p, const struct parties *who,
			     bool report, struct ruling *r)
{
	if ((who->source || who->host_source) && judge_end(skb, p, who->source, DIR_EGRESS, report, r))
		return;
	if (who->destination || who->host_destination)
		judge_end(skb, p, who->destination, DIR_INGRESS, report, r);
}

/* Another packet in the making: on the stack it would be too much. Packets of a
 * processor take turns. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} hg_forward_1 SEC(".maps");

inline struct packet *forward_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&hg_forward_1, &zero);
}

/* The packet that opens a connection, made from an answer in it. */
inline void turn(const struct packet *p, struct packet *forward)
{
	*forward = *p;
	forward->source = p->destination;
	forward->destination = p->source;
	forward->source_identity = p->destination_identity;
	forward->destination_identity = p->source_identity;
	forward->source_port = p->destination_port;
	forward->destination_port = p->source_port;
	forward->policy_port = p->source_port;
	if (p->proto == IPPROTO_ICMP)
		forward->policy_port = forward->icmp_type = ICMP_ECHO_REQUEST;
	if (p->proto == IPPROTO_ICMPV6)
		forward->policy_port = forward->icmp_type = ICMP6_ECHO_REQUEST;
}

/* A packet, of either direction, under a new policy revision: the connection is
 * judged as if it were opened now. Denied: nothing passes; but a proxy that carries it and asks for
 * its route answers its next request itself, and must get it. One that is bound to
 * a route does not know that it is another now: that is as good as denied. Returns
 * whether it is. */
static __noinline int judge_again(struct __sk_buff *skb, struct packet *p, struct flow *f,
				  const struct parties *who, __u32 revision)
{
	struct packet *forward = forward_scratch();
	struct parties opened;
	struct ct_entry *e;
	struct ruling r = {};

	if (!p || !f || !who || !f->entry || !forward)
		return 0;
	e = f->entry;
	*forward = *p;
	opened = *who;

	if (f->reply) {
		turn(p, forward);
		opened.source = who->destination;
		opened.destination = who->source;
		opened.host_source = who->host_destination;
		opened.host_destination = who->host_source;
	}
	judge_connection(skb, forward, &opened, false, &r);
	e->identity[0] = forward->source_identity;
	e->identity[1] = forward->destination_identity;
	/* What was bound and cut stays cut: its rules are another's for good. */
	if (r.reason || (e->flags & (CT_DENIED | CT_BOUND)) == (CT_DENIED | CT_BOUND) ||
	    (e->flags & CT_BOUND && (e->set[DIR_INGRESS] != r.set[DIR_INGRESS] ||
						 e->set[DIR_EGRESS] != r.set[DIR_EGRESS])))
		ct_set(e, CT_DENIED);
	else
		ct_clear(e, CT_DENIED);
	if (!r.reason) {
		e->set[DIR_INGRESS] = r.set[DIR_INGRESS];
		e->set[DIR_EGRESS] = r.set[DIR_EGRESS];
		if (r.set[DIR_INGRESS] || r.set[DIR_EGRESS])
			ct_set(e, CT_REDIRECTED);
		else if (p->proto == IPPROTO_UDP) /* the proxy holds no state that would be cut in two */
			ct_clear(e, CT_REDIRECTED);
	}
	e->revision = revision;
	return !!(e->flags & CT_DENIED);
}

enum way { WAY_PLAIN, WAY_PROXY, WAY_DROP };

struct next {
	enum way way;
	__u8 reason;            /* WAY_DROP */
	__u8 direction;
	__u8 reported;          /* by an event already */
	__u8 cut;               /* WAY_PROXY: reset it, whatever socket it has */
	__u8 answer;            /* WAY_PROXY: not of who opened the connection */
	__u8 revoked;           /* WAY_DROP: of a connection that was allowed */
	__u8 reply;             /* revoked: it was sent by who did not open it */
	__u16 service;          /* revoked: that it was opened to */
	__u16 port;             /* WAY_PROXY: the listener for what has no socket */
	__u32 set[2];           /* WAY_PROXY: by which it is judged there, by direction; 0: by none, it is denied */
};

inline void refuse(struct next *n, __u8 reason, __u8 direction)
{
	n->way = WAY_DROP;
	n->reason = reason;
	n->direction = direction;
}

/* An ICMP error goes with the connection that it tells of, which must live and be
 * allowed. It opens none, and keeps none alive. */
static __noinline void relate(struct __sk_buff *skb, struct packet *p, struct flow *f,
		   const struct parties *who, struct next *n)
{
	__u8 direction = f->reply ? DIR_INGRESS : DIR_EGRESS;
	__u32 revision = policy_revision();
	struct ct_entry *e = f->entry;

	if (!e)
		return refuse(n, REASON_ICMP_ERROR, DIR_EGRESS);
	if (e->revision != revision && !(e->flags & CT_PROXY_LEG)) {
		n->reported = judge_again(skb, p, f, who, revision);
	}
	if (e->flags & CT_DENIED)
		return refuse(n, REASON_POLICY, direction);
	/* The proxy has no socket to the ends of datagrams: they go on as they came, and what
	 * is told of one concerns who sent it. */
	if (e->flags & CT_REDIRECTED && p->proto != IPPROTO_UDP)
		n->way = WAY_PROXY;
}

/* A packet of a connection that is known. */
static __noinline void continue_connection(struct __sk_buff *skb, struct packet *p, struct flow *f,
				const struct parties *who, struct next *n)
{
	__u32 revision = policy_revision();
	struct ct_entry *e = f->entry;
	__u8 direction = f->reply ? DIR_INGRESS : DIR_EGRESS;
	int reason;

	if (is_echo(p) && is_echo_reply(p) != f->reply)
		return refuse(n, REASON_NO_CONNECTION, direction); /* asks back under the same id */
	if (e->revision != revision && !(e->flags & CT_PROXY_LEG)) {
		n->reported = judge_again(skb, p, f, who, revision);
	}
	if ((e->flags & (CT_DENIED | CT_REDIRECTED)) == CT_DENIED) {
		n->revoked = 1;
		n->reply = f->reply;
		n->service = e->rev_nat;
		return refuse(n, REASON_POLICY, direction);
	}
	reason = ct_update(skb, p, f);
	if (reason || !f->entry)
		return refuse(n, reason ? reason : REASON_CT_FULL, direction);
	if (f->entry->flags & CT_REDIRECTED) {
		n->way = WAY_PROXY;
		n->answer = f->reply;
		n->port = route_of(f->entry->set).port;
		n->cut = (f->entry->flags & (CT_DENIED | CT_BOUND)) == (CT_DENIED | CT_BOUND);
		if (!(f->entry->flags & CT_DENIED)) {
			n->set[DIR_INGRESS] = f->entry->set[DIR_INGRESS];
			n->set[DIR_EGRESS] = f->entry->set[DIR_EGRESS];
		}
	}
}

/* The first packet of a connection. TCP begins with a SYN: what began before the
 * gate knew of it, or was forgotten, has no direction to be judged by. */
static __noinline void open_connection(struct __sk_buff *skb, struct packet *p, struct flow *f,
			    const struct parties *who, struct next *n)
{
	/* Before the tables are read: what changes meanwhile is judged again. */
	__u32 revision = policy_revision();
	struct ruling r = {};
	struct served served;
	__u32 flags = 0;
	int reason;

	if (is_stream(p) && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return refuse(n, REASON_NO_CONNECTION, DIR_EGRESS);
	if (is_echo_reply(p)) /* that nobody asked for */
		return refuse(n, REASON_NO_CONNECTION, DIR_EGRESS);
	judge_connection(skb, p, who, true, &r);
	if (r.reason) {
		n->reported = 1;
		return refuse(n, r.reason, r.direction);
	}
	if (is_stream(p) && share_spent(p->payer))
		return refuse(n, REASON_SHARE, DIR_EGRESS);
	if (r.set[DIR_INGRESS] || r.set[DIR_EGRESS]) {
		served = route_of(r.set);
		flags = CT_REDIRECTED | (served.bound ? CT_BOUND : 0);
		n->way = WAY_PROXY;
		n->port = served.port;
		n->set[DIR_INGRESS] = r.set[DIR_INGRESS];
		n->set[DIR_EGRESS] = r.set[DIR_EGRESS];
		if (!n->port)
			return refuse(n, REASON_NO_ROUTE, DIR_EGRESS);
	}
	reason = ct_create(skb, p, f, r.set, flags, revision);
	if (reason)
		refuse(n, reason, DIR_EGRESS);
}

inline int finish_drop(struct __sk_buff *skb, const struct packet *p, const struct next *n,
		       const struct parties *who)
{
	if (n->reported)
		count(skb, n->reason, n->direction);
	else
		drop(skb, p, n->reason, n->direction);
	if (n->revoked && resets())
		reset_both(skb, p, who->source, who->destination, n->service << 1 | (n->reply & 1));
	return TC_ACT_SHOT;
}
