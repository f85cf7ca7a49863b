/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "name.h"
#include "question.h"

/* Answers of the DNS that go on without the proxy, to questions that did. It has let the same
 * name and type through to the same endpoint before, and nothing is to be done that it has
 * not done: every address in the answer is one of those it has put in force, stands in the
 * kernel as it did then, and will for longer than the answer may be kept. What is not to the
 * letter such an answer is the proxy's, with its question: other records, aliases, answers
 * that say no, new addresses, longer lives. Here nothing is learnt. */

#define DNS_ADDRESSES 8
#define DNS_ANSWER 384          /* less than what every client takes by UDP */
#define DNS_RECORD 12           /* of an address, before it: a pointer to the question's name, and so on */
#define DNS_TYPE_A 1
#define DNS_TYPE_AAAA 28
#define DNS_TTL_MAX 86400       /* as the proxy's */
/* An answer without error, whole; these flags and codes count: QR, the opcode, TC, Z, the code. */
#define DNS_ANSWER_MASK 0xfa4f
#define DNS_ANSWER_FLAGS 0x8000

/* --- the proxy writes: what it has told an endpoint of a name --- */
struct dns_told_key {
	__u32 endpoint;
	__u16 type;
	__u16 length;           /* of the name */
	__u8 name[DNS_NAME];    /* as in dns_known_key */
};

struct dns_told {
	__u64 round;
	__u64 until;            /* CLOCK_MONOTONIC, ns: so long all of them stay */
	__u32 count;
	__u32 floor;            /* s: an answer counts at least for so long, however short its life */
	__u32 identity[DNS_ADDRESSES]; /* as what hg_name_1 has each; 0: it has not */
	struct addr addr[DNS_ADDRESSES];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_told_key);
	__type(value, struct dns_told);
} hg_dns_told_1 SEC(".maps");

/* --- the gate tells the proxy, which records both; it looks by itself --- */
struct dns_event {
	__u64 asked;            /* CLOCK_MONOTONIC, ns */
	__u64 answered;
	struct addr client;
	struct addr server;
	__u16 client_port;
	__u16 server_port;
	__u16 query_length;
	__u16 answer_length;
	__u8 query[DNS_MESSAGE];
	__u8 answer[DNS_ANSWER]; /* only what there is of it */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} hg_dns_event_1 SEC(".maps");

/* An answer that is read. */
struct telling {
	struct dns_event event;
	__u8 beyond[128];       /* what is read behind a message is no other's */
	struct dns_asked_key asked;
	struct dns_told_key key;
	struct name_key name;
	__u32 at;               /* the next record */
	__u32 ttl;              /* the longest */
	__u32 good;             /* records; of the name: bytes */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct telling);
} hg_telling_1 SEC(".maps");

inline __u16 told_u16(const struct telling *t, __u32 at)
{
	at &= 511;
	return t->event.answer[at] << 8 | t->event.answer[at + 1];
}

/* One byte of the name: as it was asked. */
static long same_name(__u32 i, struct telling **of)
{
	struct telling *t = *of;
	__u8 c;

	if (!t || i >= DNS_NAME)
		return 1;
	c = t->event.answer[DNS_HEADER + i];
	if (c != t->event.query[DNS_HEADER + i])
		return 1;
	t->good++;
	t->key.name[i] = c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c;
	return 0;
}

/* What is read, and what it is compared with. */
struct reading {
	struct telling *t;
	const struct dns_told *told;
};

/* Whether one of the addresses that were told is that of a record, and stands as it did. */
inline bool stands(struct telling *t, const struct dns_told *told)
{
	__u32 *identity;

	for (__u32 i = 0; i < DNS_ADDRESSES && i < told->count; i++) {
		if (!addr_equal(&told->addr[i], &t->name.addr))
			continue;
		identity = bpf_map_lookup_elem(&hg_name_1, &t->name);
		return (identity ? *identity : 0) == told->identity[i];
	}
	return false;
}

/* One record: an address of the name that was asked, of the type that was. */
static long read_record(__u32 i, struct reading *r)
{
	const struct dns_told *told = r->told;
	struct telling *t = r->t;
	__u32 at, ttl, length;

	if (!t || !told)
		return 1;
	at = t->at & 511;
	length = t->key.type == DNS_TYPE_A ? 4 : 16;
	if (told_u16(t, at) != (0xc000 | DNS_HEADER) || told_u16(t, at + 2) != t->key.type || told_u16(t, at + 4) != 1 ||
	    told_u16(t, at + 10) != length || at + DNS_RECORD + length > t->event.answer_length)
		return 1;
	ttl = told_u16(t, at + 6) << 16 | told_u16(t, at + 8);
	if (ttl > DNS_TTL_MAX)
		return 1;
	if (ttl > t->ttl)
		t->ttl = ttl;
	if (length == 4)
		addr_from_v4(&t->name.addr, *(__u32 *)(t->event.answer + at + DNS_RECORD));
	else
		__builtin_memcpy(&t->name.addr, t->event.answer + at + DNS_RECORD, 16);
	if (!stands(t, told))
		return 1;
	t->good++;
	t->at = at + DNS_RECORD + length;
	return 0;
}

/* Reads the head of an answer, up to the end of its question, which is the one that was
 * asked. */
static __noinline bool read_head(struct __sk_buff *skb, const struct packet *p, struct telling *t)
{
	struct dns_asked *asked;
	__u32 length, at;

	if (!p || !t)
		return false;
	length = datagram_length(skb, p);
	if (length < DNS_HEADER + 1 + 4 || length > DNS_ANSWER)
		return false;
	if (bpf_skb_load_bytes(skb, p->l4 + UDP_HEADER, t->event.answer, length))
		return false;
	if ((told_u16(t, 2) & DNS_ANSWER_MASK) != DNS_ANSWER_FLAGS || told_u16(t, 4) != 1 || told_u16(t, 8) || told_u16(t, 10) > 1)
		return false;
	t->asked.client = p->destination;
	t->asked.server = p->source;
	t->asked.client_port = p->destination_port;
	t->asked.server_port = p->source_port;
	t->asked.id = told_u16(t, 0);
	t->asked.pad = 0;
	asked = bpf_map_lookup_elem(&hg_dns_asked_1, &t->asked);
	if (!asked || asked->name > DNS_NAME)
		return false;
	t->event.asked = asked->at;
	t->event.query_length = asked->length;
	t->event.answer_length = length;
	__builtin_memcpy(t->event.query, asked->message, DNS_MESSAGE);
	t->key.length = asked->name;
	__builtin_memset(t->key.name, 0, DNS_NAME);
	t->good = 0;
	bpf_loop(t->key.length, same_name, &t, 0);
	at = DNS_HEADER + t->key.length;
	if (t->good != t->key.length || at + 4 > length)
		return false;
	t->key.type = told_u16(t, at);
	t->at = at + 4;
	return t->key.type == (t->event.query[at & 127] << 8 | t->event.query[(at + 1) & 127]) && told_u16(t, at + 2) == 1;
}

/* Behind the addresses there is nothing, or one OPT record that says of no error. */
inline bool ends_plainly(const struct telling *t)
{
	__u32 at = t->at & 511, rest = t->event.answer_length - at;

	if (!told_u16(t, 10))
		return rest == 0;
	return rest >= DNS_OPT && !(told_u16(t, at) >> 8) && told_u16(t, at + 1) == DNS_TYPE_OPT && !told_u16(t, at + 5) &&
	       rest == DNS_OPT + told_u16(t, at + 9);
}

/* Whether all that an answer says of its name is in force for the endpoint that asked. */
static __noinline bool is_in_force(struct telling *t, __u32 endpoint)
{
	struct reading r = { .t = t };
	struct dns_told *told;
	__u64 round;
	__u32 records;

	if (!t)
		return false;
	t->key.endpoint = t->name.endpoint = endpoint;
	t->name.pad = t->ttl = t->good = 0;
	if (t->key.type != DNS_TYPE_A && t->key.type != DNS_TYPE_AAAA)
		return false;
	told = bpf_map_lookup_elem(&hg_dns_told_1, &t->key);
	round = round_of(DNS_ROUND_TOLD);
	records = told_u16(t, 6);
	if (!told || !round || told->round != round || !records || records > DNS_ADDRESSES)
		return false;
	r.told = told;
	bpf_loop(records, read_record, &r, 0);
	t->event.answered = bpf_ktime_get_ns();
	if (t->ttl < told->floor)
		t->ttl = told->floor;
	if (t->good != records || !ends_plainly(t) || t->event.answered + (__u64)t->ttl * SECOND > told->until)
		return false;
	/* The map gives the memory of what it forgets to others at once: all that was read is of
	 * this key only if it still is there. */
	return bpf_map_lookup_elem(&hg_dns_told_1, &t->key) == told;
}

inline void tell_of(struct telling *t, const struct packet *p)
{
	__u32 lost = DNS_LOST, length = t->event.answer_length;
	__u64 *count;

	t->event.client = p->destination;
	t->event.server = p->source;
	t->event.client_port = p->destination_port;
	t->event.server_port = p->source_port;
	if (length > DNS_ANSWER)
		return;
	if (!bpf_ringbuf_output(&hg_dns_event_1, &t->event, offsetof(struct dns_event, answer) + length, BPF_RB_NO_WAKEUP))
		return;
	count = bpf_map_lookup_elem(&hg_dns_state_1, &lost);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Whether an answer, which is the proxy's, goes to its endpoint without it. Then its question
 * has been answered. */
static __noinline bool was_told(struct __sk_buff *skb, const struct packet *p, __u32 endpoint, __u16 port)
{
	__u32 zero = 0;
	struct telling *t = bpf_map_lookup_elem(&hg_telling_1, &zero);
	struct bpf_sock *sk;

	if (!t || !p || !read_head(skb, p, t) || !is_in_force(t, endpoint))
		return false;
	sk = datagram_socket(skb, p, port);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	if (bpf_map_delete_elem(&hg_dns_asked_1, &t->asked)) /* somebody else has answered it */
		return false;
	tell_of(t, p);
	return true;
}

/* Of a packet that is on its way to the proxy. */
inline bool answer_needs_no_proxy(struct __sk_buff *skb, const struct packet *p, const struct next *n, const struct endpoint *to)
{
	return n->way == WAY_PROXY && p->proto == IPPROTO_UDP && !p->related && !p->fragment && n->answer && !n->cut && n->port &&
	       p->ttl > 1 && n->set[DIR_EGRESS] && was_told(skb, p, to->id, n->port);
}
