/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "conntrack.h"
#include "fragment.h"
#include "node.h"
#include "rewrite.h"

/* Source translation: other networks see the node's address in place of an
 * endpoint's, and a port that no other connection with the same remote end has.
 *
 * The conntrack entry of a connection says as what it is known outside (nat_addr,
 * nat_port); conntrack itself knows it by its own addresses alone. A hold says the
 * reverse: whose a port of the node is, towards one remote end. It is good as long
 * as the conntrack entry that it leads to says the same, so a hold lives exactly as
 * long as its connection, and one left behind is free for the taking. */
const volatile __u8 nat_mode;           /* 0: connections keep their addresses */
const volatile __u16 nat_port_first;    /* where a port is looked for whose own is taken */
const volatile __u16 nat_port_last;

#define NAT_TRIES 128

struct nat_key {
	struct addr node;
	struct addr remote;
	__u16 node_port;        /* host byte order; ICMP echo: the id */
	__u16 remote_port;
	__u8 proto;
	__u8 pad[3];
};

struct nat_hold {
	struct addr addr;       /* whose it is */
	__u16 port;
	__u16 pad;
	__u32 claims;           /* how often it changed hands */
};

/* As conntrack has it: established TCP is out of the reach of eviction, and who
 * survives collects it; the rest evicts its own kind. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct nat_key);
	__type(value, struct nat_hold);
} hg_nat_tcp_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct nat_key);
	__type(value, struct nat_hold);
} hg_nat_any_1 SEC(".maps");

/* Where endpoints go by their own address: the agent writes. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, __u32);
} hg_nat_not_1 SEC(".maps");

/* What is looked up for one packet: on the stack it would be too much. Packets of a
 * processor take turns. */
struct nat_scratch {
	struct nat_key key;
	struct nat_hold hold;
	struct ct_key owner;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nat_scratch);
} hg_nat_work_1 SEC(".maps");

inline struct nat_scratch *nat_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&hg_nat_work_1, &zero);
}

/* The key of what leaves as node:port. */
inline void nat_key_of(const struct packet *p, const struct addr *node, __u16 port, struct nat_key *k)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->node = *node;
	k->node_port = port;
	k->remote = p->destination;
	k->remote_port = p->destination_port;
	k->proto = p->proto;
}

/* The key of what comes to a port of the node. */
inline void nat_key_to(const struct packet *p, struct nat_key *k)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->node = p->destination;
	k->node_port = p->destination_port;
	k->remote = p->source;
	k->remote_port = p->source_port;
	k->proto = p->proto;
}

inline bool is_stream_proto(__u8 proto) { return proto == IPPROTO_TCP || proto == IPPROTO_SCTP; }

inline struct nat_hold *nat_find(const struct nat_key *k)
{
	struct nat_hold *h = bpf_map_lookup_elem(&hg_nat_any_1, k);

	/* In this order: what moves is in the second before it leaves the first. */
	if (!h && is_stream_proto(k->proto))
		h = bpf_map_lookup_elem(&hg_nat_tcp_1, k);
	return h;
}

inline bool nat_says(const struct ct_entry *e, const struct nat_key *k)
{
	return e && e->nat_port == k->node_port && addr_equal(&e->nat_addr, &k->node);
}

/* Whether the connection that a hold leads to lives, and is known by it. */
inline bool nat_holds(const struct nat_key *k, const struct nat_hold *h, struct ct_key *owner)
{
	struct ct_entry *e = NULL;

	ct_order(&h->addr, h->port, &k->remote, k->remote_port, k->proto, owner);
	if (is_stream_proto(k->proto))
		e = bpf_map_lookup_elem(&hg_ct_tcp_1, owner);
	if (!e)
		e = bpf_map_lookup_elem(&hg_ct_any_1, owner);
	return nat_says(e, k) && e->expires >= bpf_ktime_get_ns();
}

/* A socket of the host's that would be meant by an answer to node:port. */
inline bool nat_host_uses(struct __sk_buff *skb, const struct nat_key *k, bool v6)
{
	struct bpf_sock_tuple t = {};
	struct bpf_sock *sk;
	__u32 size = sizeof(t.ipv4);

	if (v6) {
		__builtin_memcpy(t.ipv6.saddr, &k->remote, 16);
		__builtin_memcpy(t.ipv6.daddr, &k->node, 16);
		t.ipv6.sport = bpf_htons(k->remote_port);
		t.ipv6.dport = bpf_htons(k->node_port);
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = addr_v4(&k->remote);
		t.ipv4.daddr = addr_v4(&k->node);
		t.ipv4.sport = bpf_htons(k->remote_port);
		t.ipv4.dport = bpf_htons(k->node_port);
	}
	if (k->proto == IPPROTO_TCP) {
		sk = bpf_skc_lookup_tcp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return false;
		bpf_sk_release(sk);
		return true;
	}
	if (k->proto == IPPROTO_UDP) {
		sk = bpf_sk_lookup_udp(skb, &t, size, BPF_F_CURRENT_NETNS, 0);
		if (!sk)
			return false;
		bpf_sk_release(sk);
		return true;
	}
	return false;
}

enum claim { CLAIM_TAKEN, CLAIM_DONE, CLAIM_FULL };

/* Takes the port that the scratch's key names for its hold's owner, if nobody has
 * it. */
global int nat_claim(struct __sk_buff *skb, __u32 v6)
{
	struct nat_scratch *w = nat_scratch();
	struct nat_hold *h;
	__u32 claims;
	long err;

	if (!w)
		return CLAIM_FULL;
	h = nat_find(&w->key);
	if (!h) {
		if (nat_host_uses(skb, &w->key, v6))
			return CLAIM_TAKEN;
		err = bpf_map_update_elem(&hg_nat_any_1, &w->key, &w->hold, BPF_NOEXIST);
		return !err ? CLAIM_DONE : err == -17 /* EEXIST */ ? CLAIM_TAKEN : CLAIM_FULL;
	}
	if (h->port == w->hold.port && addr_equal(&h->addr, &w->hold.addr))
		return CLAIM_DONE;
	claims = h->claims;
	if (nat_holds(&w->key, h, &w->owner) || nat_host_uses(skb, &w->key, v6) ||
	    __sync_val_compare_and_swap(&h->claims, claims, claims + 1) != claims)
		return CLAIM_TAKEN;
	h->addr = w->hold.addr;
	h->port = w->hold.port;
	return CLAIM_DONE;
}

/* Half of the ports, the even ones, are for everybody; of the other half each
 * workload has two lanes of sixteen, by its id. Else one that opens connections from
 * every port of its own to one server would leave nobody else a port towards it. The
 * host, which only gives way where it must, takes what there is. */
inline __u32 nat_lane(__u16 payer, __u32 which)
{
	return payer * 0x9e3779b1U >> (which & 1 ? 28 : 24) & 15;
}

inline __u32 nat_ports(void) { return nat_port_last - nat_port_first + 1; }

inline bool nat_may_have(const struct packet *p, __u16 port)
{
	__u32 at = (__u32)port - nat_port_first, lane = at >> 1 & 15;

	return !p->payer || nat_ports() <= NAT_TRIES || at >= nat_ports() || !(at & 1) ||
	       lane == nat_lane(p->payer, 0) || lane == nat_lane(p->payer, 1);
}

inline __u16 nat_port_at(const struct packet *p, __u32 attempt, __u32 from)
{
	__u32 at, count = nat_ports();

	if (count <= NAT_TRIES) /* few are tried one after the other, many at random */
		return nat_port_first + (from + attempt) % count;
	at = bpf_get_prandom_u32() % count;
	if (!p->payer)
		return nat_port_first + at;
	if (!(attempt & 1))
		return nat_port_first + (at & ~1U);
	at = (at & ~31U) | nat_lane(p->payer, attempt >> 1) << 1 | 1;
	return nat_port_first + (at < count ? at : at - 32);
}

/* Finds a port for a connection that has none; 0 or a reason. */
inline int nat_allocate(struct __sk_buff *skb, const struct packet *p, struct ct_entry *e, const struct addr *node)
{
	struct nat_scratch *w = nat_scratch();
	__u32 from = bpf_get_prandom_u32();
	int claim = CLAIM_TAKEN;

	if (!w)
		return REASON_INVALID;
	__builtin_memset(&w->hold, 0, sizeof(w->hold));
	w->hold.addr = p->source;
	w->hold.port = p->source_port;
	nat_key_of(p, node, p->source_port, &w->key);
	if (p->source_port && (nat_may_have(p, p->source_port) || p->proto == IPPROTO_SCTP)) /* zero says that there is none */
		claim = nat_claim(skb, p->v6);
	if (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP || is_echo(p)) {
		for (__u32 i = 0; i < NAT_TRIES && claim == CLAIM_TAKEN; i++) {
			w->key.node_port = nat_port_at(p, i, from);
			claim = nat_claim(skb, p->v6);
		}
	}
	if (claim != CLAIM_DONE)
		return claim == CLAIM_FULL ? REASON_NAT_FULL : REASON_NAT_PORTS;
	e->nat_addr = *node;
	e->nat_port = w->key.node_port;
	return 0;
}

/* What may be evicted is held again with each packet. */
inline bool nat_keep(struct __sk_buff *skb, const struct packet *p, const struct ct_entry *e)
{
	struct nat_scratch *w = nat_scratch();

	if (!w)
		return false;
	__builtin_memset(&w->hold, 0, sizeof(w->hold));
	w->hold.addr = p->source;
	w->hold.port = p->source_port;
	nat_key_of(p, &e->nat_addr, e->nat_port, &w->key);
	return nat_claim(skb, p->v6) == CLAIM_DONE;
}

/* Once the connection is established its hold is out of the reach of eviction.
 * False: there is no room. The scratch's key is that of its hold. */
inline bool nat_establish(const struct flow *f)
{
	struct nat_scratch *w = nat_scratch();
	struct nat_hold *h;

	if (!f->tcp || !w || !f->entry || f->entry->flags & CT_HELD)
		return true;
	h = bpf_map_lookup_elem(&hg_nat_any_1, &w->key);
	if (h) {
		if (bpf_map_update_elem(&hg_nat_tcp_1, &w->key, h, BPF_ANY))
			return false;
		bpf_map_delete_elem(&hg_nat_any_1, &w->key);
	}
	ct_set(f->entry, CT_HELD);
	return true;
}

/* It never was established. */
inline int nat_refuse(struct ct_entry *e)
{
	ct_set(e, CT_CLOSING);
	e->expires = bpf_ktime_get_ns() + CT_TCP_CLOSING;
	return REASON_NAT_FULL;
}

/* Translates a packet of who opened the connection; 0 or a reason. */
static __noinline int nat_leave(struct __sk_buff *skb, const struct packet *p, struct flow *f, const struct addr *node)
{
	struct nat_scratch *w = nat_scratch();
	struct ct_entry *e;
	struct addr as;
	int reason;

	if (!p || !f || !node || !w)
		return REASON_INVALID;
	e = f->entry;
	if (!e)
		return REASON_NO_CONNECTION;
	if (!e->nat_port || (!f->tcp && !nat_keep(skb, p, e))) {
		reason = nat_allocate(skb, p, e, node);
		if (reason)
			return reason;
	} else if (f->tcp && !(e->flags & CT_HELD)) {
		nat_key_of(p, &e->nat_addr, e->nat_port, &w->key);
		if (!nat_establish(f))
			return nat_refuse(e);
	}
	as = e->nat_addr;
	return rewrite(skb, p, &as, e->nat_port, END_SOURCE);
}

/* Whose packet to the node this is: f becomes that of the connection, and the
 * scratch's hold says for whom it is. False: nobody's. */
inline bool nat_find_owner(const struct packet *p, struct flow *f)
{
	struct nat_scratch *w = nat_scratch();
	struct nat_hold *h;

	if (!p || !f || !w)
		return false;
	nat_key_to(p, &w->key);
	h = nat_find(&w->key);
	if (!h)
		return false;
	w->hold = *h;
	f->side = ct_order(&p->source, p->source_port, &w->hold.addr, w->hold.port, p->proto, &f->key);
	ct_find_key(p, f, false);
	return f->reply && nat_says(f->entry, &w->key);
}

/* Undoes the translation of a packet to the node; 0 or a reason. Without f->entry it
 * is nobody's, and untouched. */
static __noinline int nat_return(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct nat_scratch *w = nat_scratch();
	int reason;

	if (!p || !f || !w)
		return REASON_INVALID;
	if (!nat_find_owner(p, f)) {
		f->entry = NULL;
		return 0;
	}
	if (p->fragment == FRAGMENT_FIRST)
		remember_fragment(p);
	reason = rewrite(skb, p, &w->hold.addr, w->hold.port, END_DESTINATION);
	p->destination = w->hold.addr;
	p->destination_port = w->hold.port;
	return reason;
}

inline bool addr_is_private(const struct addr *a, bool v6)
{
	if (v6)
		return (a->b[0] & 0xfe) == 0xfc;                        /* fc00::/7 */
	return a->b[12] == 10 || (a->b[12] == 172 && (a->b[13] & 0xf0) == 16) ||
	       (a->b[12] == 192 && a->b[13] == 168) || (a->b[12] == 100 && (a->b[13] & 0xc0) == 64);
}

/* Whether a connection of an endpoint is to be translated: others cannot answer to
 * a private address, unless they are said to. TCP's fate is decided by its SYN. */
inline bool nat_wanted(const struct packet *p)
{
	struct ipcache_key to = { .prefixlen = 128 };

	if (!nat_mode || !addr_is_private(&p->source, p->v6))
		return false;
	if (is_stream(p) && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	__builtin_memcpy(to.addr, &p->destination, sizeof(to.addr));
	return !bpf_map_lookup_elem(&hg_nat_not_1, &to);
}
