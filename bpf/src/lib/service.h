/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "fragment.h"
#include "conntrack.h"
#include "itself.h"
#include "rewrite.h"

/* Services: virtual addresses in front of backends. A connection to one is given
 * a backend when it opens, at connect() (connect.h) or here, and keeps it: removing
 * a backend takes it from new connections only. What is judged is the backend.
 *
 * Per packet the client keeps the service's address. Which backend a connection
 * has stands in hg_svc_new_1 and hg_svc_nat_1, and is good as long as conntrack
 * knows the connection between client and backend under the same number; that
 * number, in the conntrack entry, is also what gives answers their address back. */

#define SVC_SLOTS 1021          /* a prime, as Maglev wants it */
#define SVC_TRIES 4             /* how many backends are looked at for a new connection */

/* --- the agent writes --- */
struct svc_key {
	struct addr addr;
	__u16 port;             /* host byte order; 0 with proto 0: the address itself */
	__u8 proto;
	__u8 pad[5];
};

#define SVC_WHOLE 1             /* of an address: all of it is ours, other ports are refused */
#define SVC_HOST 2              /* for the host's own sockets only */

/* One address, port and protocol of a service. */
struct svc_front {
	__u32 number;           /* not zero but for an address; fits conntrack's 16 bits */
	__u32 flags;
	__u32 affinity;         /* seconds a client stays with its backend; 0: as it comes */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct svc_key);
	__type(value, struct svc_front);
} hg_svc_front_1 SEC(".maps");

/* Number → what clients call it, for answers. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct svc_key);
} hg_svc_rev_1 SEC(".maps");

/* Number → its Maglev table, one value: a packet sees the old or the new one. */
struct svc_slots {
	__u32 count;            /* of backends; 0: there is none */
	__u32 slot[SVC_SLOTS];  /* numbers of backends */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct svc_slots);
} hg_svc_slots_1 SEC(".maps");

struct svc_back {
	struct addr addr;
	__u32 front;            /* number of whose backend it is */
	__u16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct svc_back);
} hg_svc_back_1 SEC(".maps");

/* --- the gate writes --- */
struct svc_affinity_key {
	struct addr client;
	__u32 front;
	__u32 pad;
};

struct svc_affinity {
	__u64 used;             /* CLOCK_MONOTONIC, ns */
	__u32 back;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct svc_affinity_key);
	__type(value, struct svc_affinity);
} hg_svc_affin_1 SEC(".maps");

/* Client and service → backend, of one connection. */
struct svc_nat_key {
	struct addr client;
	__u32 front;
	__u16 port;
	__u16 pad;
};

struct svc_nat {
	struct addr addr;
	__u32 back;             /* number; it may be gone */
	__u16 port;
	__u8 proto;
	__u8 pad;
};

/* As conntrack has it: established TCP is not evicted, and who survives collects
 * it; what opens, and UDP, may evict its own kind. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct svc_nat_key);
	__type(value, struct svc_nat);
} hg_svc_nat_1 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct svc_nat_key);
	__type(value, struct svc_nat);
} hg_svc_new_1 SEC(".maps");

/* What is looked up for one packet: on the stack it would be too much. Packets of a
 * processor take turns. */
struct svc_scratch {
	struct svc_key asked;
	struct svc_nat_key client;
	struct svc_nat nat;
	struct svc_affinity_key affinity;
	struct addr as;         /* whom the backend is spoken to by */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct svc_scratch);
} hg_svc_work_1 SEC(".maps");

/* A client's hash decides its slot; a service has one of its own for it. */
inline __u32 svc_hash(const struct addr *client, __u32 front, __u16 port)
{
	__u64 h = addr_high(client) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ (h >> 32) ^ addr_low(client)) * 0xbf58476d1ce4e5b9ULL;
	h = (h ^ (h >> 29) ^ ((__u64)front << 16 | port)) * 0x94d049bb133111ebULL;
	h = (h ^ (h >> 32)) * 0xff51afd7ed558ccdULL;
	return h >> 32;
}

/* A backend that is in use, by its number. */
inline struct svc_back *svc_back_of(__u32 number, __u32 front)
{
	struct svc_back *b = bpf_map_lookup_elem(&hg_svc_back_1, &number);

	return b && b->front == front ? b : NULL;
}

/* The backend for a new connection: the client's of late, or its slot's. 0: there
 * is none. Another try gives another slot. */
inline __u32 svc_choose(struct svc_affinity_key *key, const struct svc_front *f, __u32 hash, __u32 attempt)
{
	struct svc_affinity chosen = {};
	struct svc_affinity *kept;
	struct svc_slots *table;
	__u32 number, slot;

	if (!key || !f)
		return 0;
	number = f->number;
	table = bpf_map_lookup_elem(&hg_svc_slots_1, &number);
	if (!table || !table->count)
		return 0;
	chosen.used = bpf_ktime_get_ns();
	key->front = number;
	key->pad = 0;
	if (f->affinity && !attempt) {
		kept = bpf_map_lookup_elem(&hg_svc_affin_1, key);
		if (kept && chosen.used - kept->used < f->affinity * SECOND && svc_back_of(kept->back, number)) {
			kept->used = chosen.used;
			return kept->back;
		}
	}
	hash += attempt * 0x9e3779b9U;
	slot = (__u64)hash * SVC_SLOTS >> 32;
	asm volatile("" : "+r"(slot)); /* or the compiler drops what the verifier asks for */
	if (slot >= SVC_SLOTS)
		return 0;
	chosen.back = table->slot[slot];
	if (f->affinity)
		bpf_map_update_elem(&hg_svc_affin_1, key, &chosen, BPF_ANY);
	return chosen.back;
}

/* The connection with the backend that the scratch names, which may be the client. */
inline void svc_find(const struct packet *p, struct flow *f, struct svc_scratch *w)
{
	w->as = p->source;
	if (addr_equal(&w->nat.addr, &p->source))
		itself(&w->as, p->v6);
	f->side = ct_order(&w->as, p->source_port, &w->nat.addr, w->nat.port, p->proto, &f->key);
	ct_find_key(p, f, false);
}

inline bool svc_is_of(const struct flow *f, __u32 number)
{
	return f->entry && !f->reply && f->entry->rev_nat == number;
}

/* A backend that this client can have a new connection with: not one that the same
 * port is connected to already, for nobody could tell the two apart. */
inline int svc_open(const struct packet *p, struct flow *f, const struct svc_front *front, struct svc_scratch *w)
{
	__u32 hash = svc_hash(&p->source, front->number, p->source_port);
	int reason = REASON_NO_BACKEND;
	struct svc_back *b;

	w->affinity.client = p->source;
	for (int i = 0; i < SVC_TRIES; i++) {
		w->nat.back = svc_choose(&w->affinity, front, hash, i);
		b = svc_back_of(w->nat.back, front->number);
		if (!b)
			continue;
		reason = REASON_SERVICE_CLASH;
		w->nat.addr = b->addr;
		w->nat.port = b->port;
		w->nat.proto = p->proto;
		svc_find(p, f, w);
		if (f->entry && !svc_is_of(f, front->number))
			continue;
		bpf_map_delete_elem(&hg_svc_nat_1, &w->client); /* of a connection that ended */
		f->service_new = 1;
		return bpf_map_update_elem(&hg_svc_new_1, &w->client, &w->nat, BPF_ANY) ? REASON_SERVICE_FULL : 0;
	}
	return reason;
}

/* The backend of the connection that a packet to a service belongs to, or opens. */
inline int svc_connection(const struct packet *p, struct flow *f, const struct svc_front *front, struct svc_scratch *w)
{
	bool opens = !p->related && (!is_stream(p) || (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN);
	struct svc_nat *nat;

	__builtin_memset(&w->client, 0, sizeof(w->client));
	w->client.client = p->source;
	w->client.port = p->source_port;
	w->client.front = front->number;
	nat = bpf_map_lookup_elem(&hg_svc_nat_1, &w->client);
	f->service_new = !nat;
	if (!nat)
		nat = bpf_map_lookup_elem(&hg_svc_new_1, &w->client);
	if (!nat)
		return opens ? svc_open(p, f, front, w) : p->related ? REASON_ICMP_ERROR : REASON_NO_CONNECTION;
	w->nat = *nat;
	if (!opens)
		return 0;
	svc_find(p, f, w); /* is it still the connection that this was made for? */
	return svc_is_of(f, front->number) ? 0 : svc_open(p, f, front, w);
}

/* Where a packet to a service goes: the scratch gets the backend. 0: it is for no
 * service, or f->service says for which; or why it is dropped. */
inline int svc_resolve(const struct packet *p, struct flow *f, struct svc_scratch *w)
{
	struct svc_front *front;
	int reason, whole;

	w->asked.addr = p->destination;
	w->asked.port = w->asked.proto = 0;
	front = bpf_map_lookup_elem(&hg_svc_front_1, &w->asked);
	if (!front)
		return 0;
	reason = front->flags & SVC_WHOLE ? REASON_SERVICE_PORT : 0;
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return reason;
	w->asked.port = p->destination_port;
	w->asked.proto = p->proto;
	front = bpf_map_lookup_elem(&hg_svc_front_1, &w->asked);
	if (!front || front->flags & SVC_HOST)
		return reason;
	whole = reason;
	reason = svc_connection(p, f, front, w);
	if (reason == REASON_NO_CONNECTION && !whole)
		return 0; /* the node's own may have that port as well */
	if (!reason)
		f->service = front->number;
	return reason;
}

/* Once established, the translation is out of the reach of eviction. False: there
 * is no room. */
inline bool svc_keep(const struct packet *p, struct flow *f)
{
	struct svc_nat_key key = { .client = p->source, .port = p->source_port, .front = f->service };
	struct svc_nat *nat;

	if (!f->service_new || !f->tcp)
		return true;
	nat = bpf_map_lookup_elem(&hg_svc_new_1, &key);
	if (!nat)
		return false;
	if (bpf_map_update_elem(&hg_svc_nat_1, &key, nat, BPF_ANY))
		return false;
	bpf_map_delete_elem(&hg_svc_new_1, &key);
	return true;
}

/* A packet to a service gets its backend's address; 0 or a reason. */
static __noinline int svc_to_backend(struct __sk_buff *skb, struct packet *p, struct flow *f)
{
	struct svc_scratch *w;
	__u32 zero = 0;
	int reason;

	w = bpf_map_lookup_elem(&hg_svc_work_1, &zero);
	if (!p || !f || !w)
		return REASON_INVALID;
	reason = svc_resolve(p, f, w);
	if (reason || !f->service)
		return reason;
	remember_fragment(p); /* by the addresses on the wire */
	reason = rewrite(skb, p, &w->nat.addr, w->nat.port, END_DESTINATION);
	p->destination = w->nat.addr;
	p->destination_port = p->policy_port = w->nat.port;
	p->service = f->service;
	return reason;
}

/* Whether all of an address is a service's: nobody sends from there. */
inline bool svc_is_virtual(const struct addr *a)
{
	struct svc_key k = { .addr = *a };
	struct svc_front *front = bpf_map_lookup_elem(&hg_svc_front_1, &k);

	return front && front->flags & SVC_WHOLE;
}

/* What clients call a service; NULL: it is gone, and its connections with it. */
inline struct svc_key *svc_name(__u32 number) { return bpf_map_lookup_elem(&hg_svc_rev_1, &number); }

/* An answer to a client of a service gets the service's address; 0 or a reason. */
static __noinline int svc_from_backend(struct __sk_buff *skb, const struct packet *p, __u32 number)
{
	struct svc_key *was = svc_name(number);

	return was ? rewrite(skb, p, &was->addr, was->port, END_SOURCE) : REASON_NO_CONNECTION;
}

/* A packet to a service gets back the address that it was sent to: an answer quotes
 * what its sender knows. */
static __noinline int svc_as_sent(struct __sk_buff *skb, const struct packet *p)
{
	struct svc_key *was;

	if (!p || !p->service)
		return 0;
	was = svc_name(p->service);
	return was ? rewrite(skb, p, &was->addr, was->port, END_DESTINATION) : REASON_NO_CONNECTION;
}

/* Two connections of a client may meet in one entry: one to a service, one straight
 * to the backend that the other was given, from the same port. */
inline bool svc_mixed_up(const struct flow *f)
{
	return f->entry && !f->reply && f->entry->rev_nat != f->service;
}

inline __u32 svc_answers(const struct flow *f)
{
	return f->entry && f->reply ? f->entry->rev_nat : 0;
}
