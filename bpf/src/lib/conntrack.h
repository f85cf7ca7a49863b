/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "policy.h"
#include "share.h"

/* How long an entry outlives its last packet, by state.
 *
 *   opening      until the opener has acknowledged the answer: Cilium's and Linux's
 *                (nf_conntrack_tcp_timeout_syn_recv)
 *   established  as long as Cilium's; RFC 5382, REQ-5 asks for 2 h 4 min at least,
 *                so that keep-alives every 2 h are enough
 *   half closed  after one FIN; the same asks for 4 min, but who asked may wait
 *                longer for its answer
 *   closing      after a reset or both FINs, for what is still on the way: Cilium's
 *   UDP          30 s is Linux's, 60 s Cilium's; it is only judged anew after that
 *   UDP stream   once answered; RFC 4787, REQ-5 asks for 2 min
 *   SCTP         seven heartbeats, as Linux's (RFC 9260, 15: one in 30 s)
 *   ICMP         as Linux's */
#define CT_TCP_OPENING (60 * SECOND)
#define CT_TCP_ESTABLISHED (21600 * SECOND)
#define CT_TCP_HALF_CLOSED (3600 * SECOND)
#define CT_TCP_CLOSING (10 * SECOND)
#define CT_TCP_CLOSING_PROXY (30 * SECOND) /* both legs in one entry: one may lag */
#define CT_TCP_HALF_SEEN (600 * SECOND) /* the proxy's keep-alives make answers */
#define CT_SCTP (210 * SECOND)
#define CT_UDP (60 * SECOND)
#define CT_UDP_STREAM (180 * SECOND)
#define CT_ICMP (30 * SECOND)

/* Where a packet stands in its connection. */
struct flow {
	struct ct_key key;
	struct ct_entry *entry; /* NULL: no connection */
	__u8 side;              /* which of key.addr[] sent this packet */
	__u8 reply;
	__u8 tcp;               /* the entry is in the map of established TCP */
	__u8 service_new;       /* its translation can still be evicted */
	__u8 itself;            /* enum itself: of a workload with itself */
	__u16 service;          /* that it was sent to, 0: none; see service.h */
};

/* The key of two ends. True: the first stands second in it. */
inline bool ct_order(const struct addr *a, __u16 a_port, const struct addr *b, __u16 b_port, __u8 proto, struct ct_key *k)
{
	int order = addr_compare(a, b);
	bool turned = order > 0 || (order == 0 && a_port > b_port);

	__builtin_memset(k, 0, sizeof(*k));
	if (turned) {
		k->addr[0] = *b;
		k->addr[1] = *a;
		k->port[0] = b_port;
		k->port[1] = a_port;
	} else {
		k->addr[0] = *a;
		k->addr[1] = *b;
		k->port[0] = a_port;
		k->port[1] = b_port;
	}
	k->proto = proto;
	return turned;
}

/* 0 or 1, as the verifier sees too: it forgets the range of what it saved a byte of,
 * and compilers leave out what they know to be so. */
inline __u32 reply_of(const struct flow *f)
{
	__u32 reply = f->reply;

	barrier_var(reply);
	return reply & 1;
}

inline void ct_key_of(const struct packet *p, struct flow *f)
{
	f->side = ct_order(&p->source, p->source_port, &p->destination, p->destination_port, p->proto, &f->key);
}

/* A SYN on a connection that ended opens a new one, or on one that a proxy carries
 * without a rule any more: nobody would listen for it. And so does a client's on what
 * is the proxy's own connection, which took a port that the client then took too.
 * The proxy's SYN never does: its connection to the server lives in the client's
 * entry, which must not lose what it was judged by. */
inline bool ct_reopens(const struct packet *p, const struct ct_entry *e)
{
	return is_stream(p) && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN &&
	       (e->flags & (CT_CLOSING | CT_DENIED | CT_PROXY_LEG) ||
		(e->flags & CT_REDIRECTED && !e->set[DIR_INGRESS] && !e->set[DIR_EGRESS]));
}

/* Who removes an established connection gives its share back. */
inline void ct_remove(struct flow *f)
{
	__u16 payer = f->entry->payer;

	if (!bpf_map_delete_elem(&hg_ct_tcp_1, &f->key))
		share_add(payer, -1);
}

/* As ct_find, with a key that is there already. */
inline void ct_find_key(const struct packet *p, struct flow *f, bool from_proxy)
{
	f->entry = NULL;
	f->tcp = 0;
	f->reply = 0;
	if (is_stream(p)) {
		f->entry = bpf_map_lookup_elem(&hg_ct_tcp_1, &f->key);
		f->tcp = f->entry != NULL;
	}
	if (!f->entry)
		f->entry = bpf_map_lookup_elem(&hg_ct_any_1, &f->key);
	if (!f->entry && is_stream(p)) {
		/* It may have moved between the two look-ups. */
		f->entry = bpf_map_lookup_elem(&hg_ct_tcp_1, &f->key);
		f->tcp = f->entry != NULL;
	}
	if (!f->entry)
		return;
	if (f->entry->expires < bpf_ktime_get_ns() || (!from_proxy && ct_reopens(p, f->entry))) {
		if (f->tcp)
			ct_remove(f);
		f->entry = NULL;
		f->tcp = 0;
		return;
	}
	f->reply = f->side != f->entry->opener;
}

inline void ct_find(const struct packet *p, struct flow *f, bool from_proxy)
{
	ct_key_of(p, f);
	ct_find_key(p, f, from_proxy);
}

inline __u64 ct_stream_lifetime(const struct packet *p, const struct ct_entry *e)
{
	if (e->flags & (CT_CLOSING | CT_DENIED))
		return e->flags & CT_REDIRECTED ? CT_TCP_CLOSING_PROXY : CT_TCP_CLOSING;
	if (e->flags & CT_HALF_SEEN)
		return CT_TCP_HALF_SEEN;
	if (!(e->flags & CT_CONFIRMED))
		return CT_TCP_OPENING;
	if (p->proto == IPPROTO_SCTP)
		return CT_SCTP;
	return e->flags & (CT_FIN_FORWARD | CT_FIN_REPLY) ? CT_TCP_HALF_CLOSED : CT_TCP_ESTABLISHED;
}

inline __u64 ct_lifetime(const struct packet *p, const struct ct_entry *e)
{
	if (is_stream(p))
		return ct_stream_lifetime(p, e);
	if (p->proto == IPPROTO_UDP)
		return e->flags & CT_SEEN_REPLY ? CT_UDP_STREAM : CT_UDP;
	return CT_ICMP;
}

/* Moves established TCP out of the reach of eviction. Whoever looks finds the
 * entry in one map or in both, never in none. 0, or why there is no room. */
inline int ct_establish(struct flow *f)
{
	__u16 payer = f->entry->payer;
	long err;

	if (share_spent(payer))
		return REASON_SHARE;
	err = bpf_map_update_elem(&hg_ct_tcp_1, &f->key, f->entry, BPF_NOEXIST);
	if (!err)
		share_add(payer, 1);
	else if (err != -EEXIST) /* another processor was first */
		return REASON_CT_FULL;
	bpf_map_delete_elem(&hg_ct_any_1, &f->key);
	f->tcp = 1;
	f->entry = bpf_map_lookup_elem(&hg_ct_tcp_1, &f->key);
	return f->entry ? 0 : REASON_CT_FULL;
}

/* Both directions write flags, from several processors: no bit may be lost. */
inline void ct_set(struct ct_entry *e, __u32 flags)
{
	if ((e->flags & flags) != flags)
		__sync_fetch_and_or(&e->flags, flags);
}

inline void ct_clear(struct ct_entry *e, __u32 flags)
{
	if (e->flags & flags)
		__sync_fetch_and_and(&e->flags, ~flags);
}

/* How far ahead of what was acknowledged a reset may be: what is still on its way
 * stands between. More than the least window would help who guesses. */
#define CT_RESET_AHEAD 0xffff

/* A reset. Its receiver heeds it if it has the very number that he expects next, which
 * is what he acknowledged last, and asks back if it is near (RFC 5961, 3.2): who is not
 * on the way, and forges its sender, has to guess. Of a connection that opens, and where
 * the numbers are not known, any reset is one. A proxy's own are: it has left its kernel. */
static __noinline void ct_reset(const struct packet *p, struct ct_entry *e, bool reply, bool proxy)
{
	__u32 known = reply ? CT_ACKED_FORWARD : CT_ACKED_REPLY;
	__u32 expected, reset = reply ? CT_RESET_REPLY : CT_RESET_FORWARD;

	if (!p || !e)
		return;
	expected = e->acked[reply ? 0 : 1];
	if (proxy || p->proto != IPPROTO_TCP || !(e->flags & CT_CONFIRMED) || !(e->flags & known) || p->number == expected) {
		ct_clear(e, CT_RESET_LIKELY);
		ct_set(e, CT_CLOSING | reset);
	} else if (p->number - expected <= CT_RESET_AHEAD && !(e->flags & CT_CLOSING)) {
		ct_set(e, CT_CLOSING | CT_RESET_LIKELY | reset);
	}
}

/* What was acknowledged. Of a connection that a proxy carries there are two, in one
 * entry: what the proxy sends tells of both. */
inline void ct_acknowledge(const struct packet *p, struct ct_entry *e, __u32 reply, bool proxy)
{
	if (p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_ACK | TCP_RST)) == TCP_ACK &&
	    (proxy || !(e->flags & CT_REDIRECTED))) {
		e->acked[reply] = p->number;
		ct_set(e, reply ? CT_ACKED_REPLY : CT_ACKED_FORWARD);
	}
}

/* What a packet of TCP or SCTP does to its connection. A reset may be forged, or
 * its receiver may not heed it: who goes on sending after its own reset
 * has not sent it, and who does after a reset that was near has not heeded it; the
 * connection lives on. */
inline void ct_stream(const struct packet *p, struct ct_entry *e, __u32 reply, bool proxy)
{
	__u32 reset = reply ? CT_RESET_REPLY : CT_RESET_FORWARD;
	__u32 fins = CT_FIN_FORWARD | CT_FIN_REPLY;

	if (p->fragment == FRAGMENT_LATER)
		return;
	if (p->tcp_flags & TCP_FIN)
		ct_set(e, reply ? CT_FIN_REPLY : CT_FIN_FORWARD);
	if (p->tcp_flags & TCP_RST)
		return ct_reset(p, e, reply, proxy);
	if ((e->flags & fins) == fins || (e->flags & CT_HALF_SEEN && p->tcp_flags & TCP_FIN))
		ct_set(e, CT_CLOSING);
	else if (proxy ? e->flags & CT_RESET_LIKELY
		       : e->flags & (reset | CT_RESET_LIKELY) && !(e->flags & CT_REDIRECTED)) /* a proxy's legs share the entry */
		ct_clear(e, CT_CLOSING | CT_RESET_LIKELY | CT_RESET_FORWARD | CT_RESET_REPLY);
	ct_acknowledge(p, e, reply, proxy);
	if (!reply && e->flags & CT_SEEN_REPLY && p->tcp_flags & TCP_ACK)
		ct_set(e, CT_CONFIRMED);
}

/* Accounts a packet to its connection; 0 or a reason. */
inline int ct_account(struct __sk_buff *skb, const struct packet *p, struct flow *f, bool proxy)
{
	struct ct_entry *e = f->entry;
	__u32 reply = reply_of(f);

	if (!e)
		return 0;
	__sync_fetch_and_add(&e->packets[reply], 1);
	__sync_fetch_and_add(&e->bytes[reply], skb->len);
	if (is_stream(p))
		ct_stream(p, e, reply, proxy);
	if (reply)
		ct_set(e, CT_SEEN_REPLY);
	e->expires = bpf_ktime_get_ns() + ct_lifetime(p, e);
	/* Not before its opener has answered: who forges sources never does, and a flood of
	 * openings must stay where it evicts its own kind. */
	if (!is_stream(p) || f->tcp || !(e->flags & CT_SEEN_REPLY) || !(p->tcp_flags & TCP_ACK) || e->flags & CT_CLOSING)
		return 0;
	if (e->flags & (CT_CONFIRMED | CT_HALF_SEEN))
		return ct_establish(f);
	return share_spent(e->payer) ? REASON_SHARE : 0;
}

inline int ct_update(struct __sk_buff *skb, const struct packet *p, struct flow *f)
{
	return ct_account(skb, p, f, false);
}

/* What a connection begins with. */
struct ct_start {
	__u32 set[2];
	__u32 flags;
	__u32 revision;
	__u32 opener;
	__u32 service;
};

global int ct_insert(struct __sk_buff *skb, const struct packet *p, const struct ct_key *key,
			 const struct ct_start *start)
{
	struct ct_entry e = {};

	if (!p || !key || !start)
		return REASON_INVALID;
	e.packets[0] = 1;
	e.bytes[0] = skb->len;
	e.identity[0] = p->source_identity;
	e.identity[1] = p->destination_identity;
	e.set[0] = start->set[0];
	e.set[1] = start->set[1];
	e.revision = start->revision;
	e.flags = start->flags;
	e.opener = start->opener;
	e.rev_nat = start->service;
	e.payer = p->payer;
	e.expires = bpf_ktime_get_ns() + ct_lifetime(p, &e);
	return bpf_map_update_elem(&hg_ct_any_1, key, &e, BPF_ANY) ? REASON_CT_FULL : 0;
}

/* Remembers a connection that policy let through; 0 or a reason. */
inline int ct_create(struct __sk_buff *skb, const struct packet *p, struct flow *f,
		     const __u32 sets[2], __u32 flags, __u32 revision)
{
	struct ct_start start = {
		.set = { sets[0], sets[1] }, .flags = flags, .revision = revision, .opener = f->side, .service = f->service,
	};

	return ct_insert(skb, p, &f->key, &start);
}

inline __u32 policy_revision(void)
{
	const struct config *c = config();

	return c ? c->revision : 0;
}
