/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "datagram.h"

/* Questions of the DNS that go on without the proxy. It has judged the same before: the
 * same name and type, by the same sets of rules, in the same round. What was asked is
 * remembered for who gets the answer: the proxy, or told.h.
 *
 * What is out of the ordinary in any way is the proxy's: long names, other classes,
 * whatever is not exactly one question. */

#define DNS_HEADER 12
#define DNS_NAME 96             /* longest name on the wire, its last label included */
#define DNS_MESSAGE 128
#define DNS_TAKES 1232          /* the proxy lets no server send more; see parsers/dns */
#define DNS_TYPE_OPT 41
#define DNS_OPT 11              /* its record without options */
/* Besides these a question has no flags: recursion desired, authentic data, checking disabled. */
#define DNS_FLAGS 0x0130

/* --- the proxy writes: what it has allowed --- */
struct dns_known_key {
	__u64 round;
	__u32 set[2];           /* by direction */
	__u16 type;             /* host byte order */
	__u16 length;           /* of the name */
	__u8 name[DNS_NAME];    /* as on the wire, in small letters; the rest is 0 */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct dns_known_key);
	__type(value, __u8);
} hg_dns_known_1 SEC(".maps");

/* Rounds: what was written in another is void, and so is everything in round 0. Each change
 * of rules begins one. */
#define DNS_ROUND_KNOWN 0       /* of what is allowed: rules about names in questions */
#define DNS_ROUND_TOLD 1        /* of what was told: rules about names in egress policy */
#define DNS_LOST 2              /* how many events found no room */
#define DNS_LOST_TOLD 3         /* how many of these the proxy has told of */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} hg_dns_state_1 SEC(".maps");

inline __u64 round_of(__u32 which)
{
	__u64 *now = bpf_map_lookup_elem(&hg_dns_state_1, &which);

	return now ? *now : 0;
}

/* --- the gate writes, the proxy takes out: what was asked --- */
struct dns_asked_key {
	struct addr client;
	struct addr server;
	__u16 client_port;
	__u16 server_port;
	__u16 id;
	__u16 pad;
};

struct dns_asked {
	__u64 at;               /* CLOCK_MONOTONIC, ns */
	__u32 length;
	__u32 name;             /* its length */
	__u8 message[DNS_MESSAGE];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct dns_asked_key);
	__type(value, struct dns_asked);
} hg_dns_asked_1 SEC(".maps");

/* How many questions of an endpoint went on lately. The proxy takes over what waits for longer
 * than that, so this bounds how many wait here: nobody takes the room of all others. */
#define DNS_PACE_SHIFT 27       /* 134 ms */
#define DNS_PACE 8192

struct dns_pace {
	__u32 period;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536); /* numbers of endpoints */
	__type(key, __u32);
	__type(value, struct dns_pace);
} hg_dns_pace_1 SEC(".maps");

/* Two processors may both begin a period: then a few more go on. */
inline bool keeps_pace(__u32 endpoint, __u64 now)
{
	struct dns_pace *pace = bpf_map_lookup_elem(&hg_dns_pace_1, &endpoint);
	__u32 period = now >> DNS_PACE_SHIFT;

	if (!pace)
		return false;
	if (pace->period != period) {
		pace->period = period;
		pace->count = 0;
	}
	return __sync_fetch_and_add(&pace->count, 1) < DNS_PACE;
}

/* A question that is read. Packets of a processor take turns. */
struct question {
	struct dns_known_key known;
	struct dns_asked asked;
	__u8 beyond[16];        /* what is read behind a short message is 0 */
	struct dns_asked_key key;
	__u32 left;             /* of the label */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct question);
} hg_question_1 SEC(".maps");

/* One byte of the name: the length of a label, or one of a label's. No pointers: there is
 * nothing before the first name that they could point to. */
static long read_name(__u32 i, struct question **of)
{
	struct question *q = *of;
	__u8 c;

	if (!q || i >= DNS_NAME)
		return 1;
	c = q->asked.message[DNS_HEADER + i];
	if (q->left) {
		q->left--;
		if (c >= 'A' && c <= 'Z')
			c += 'a' - 'A';
	} else if (!c) {
		q->asked.name = i + 1;
		return 1;
	} else if (c > 63) {
		return 1;
	} else {
		q->left = c;
	}
	q->known.name[i] = c;
	return 0;
}

inline __u16 dns_u16(const struct question *q, __u32 at)
{
	at &= DNS_MESSAGE - 1;
	return q->asked.message[at] << 8 | q->asked.message[at + 1];
}

/* What follows the question: nothing, or one OPT record that asks for no more than the
 * proxy lets pass. */
inline bool is_plain_end(const struct question *q, __u32 at)
{
	__u32 rest = q->asked.length - at;

	if (!dns_u16(q, 10))
		return rest == 0;
	return rest >= DNS_OPT && !(dns_u16(q, at) >> 8) && dns_u16(q, at + 1) == DNS_TYPE_OPT &&
	       dns_u16(q, at + 3) <= DNS_TAKES && !dns_u16(q, at + 5) && rest == DNS_OPT + dns_u16(q, at + 9);
}

/* Reads the message of a datagram, if it is one question and nothing else. */
inline bool read_question(struct __sk_buff *skb, const struct packet *p, struct question *q)
{
	__u32 length = datagram_length(skb, p), at;

	if (length < DNS_HEADER + 1 + 4 || length > DNS_MESSAGE)
		return false;
	__builtin_memset(q, 0, sizeof(*q));
	if (bpf_skb_load_bytes(skb, p->l4 + UDP_HEADER, q->asked.message, length))
		return false;
	q->asked.length = length;
	if (dns_u16(q, 2) & ~DNS_FLAGS || dns_u16(q, 4) != 1 || dns_u16(q, 6) || dns_u16(q, 8) || dns_u16(q, 10) > 1)
		return false;
	bpf_loop(DNS_NAME, read_name, &q, 0);
	at = DNS_HEADER + q->asked.name;
	if (!q->asked.name || at + 4 > length || dns_u16(q, at + 2) != 1) /* class IN */
		return false;
	q->known.type = dns_u16(q, at);
	q->known.length = q->asked.name;
	return is_plain_end(q, at + 4);
}

/* The round is in the key, not in the value: the map gives the memory of what it forgets to
 * others at once, and who still reads it may read theirs. */
inline bool is_allowed(struct question *q, const __u32 set[2])
{
	q->known.round = round_of(DNS_ROUND_KNOWN);
	q->known.set[0] = set[0];
	q->known.set[1] = set[1];
	return q->known.round && bpf_map_lookup_elem(&hg_dns_known_1, &q->known);
}

/* Whether a question, which is the proxy's, goes on without it. Then its answer finds it
 * here. Where the proxy is not, nothing goes on. */
static __noinline bool goes_past(struct __sk_buff *skb, const struct packet *p, const __u32 set[2], __u16 port)
{
	__u32 zero = 0;
	struct question *q = bpf_map_lookup_elem(&hg_question_1, &zero);
	struct bpf_sock *sk;

	if (!q || !p || !set || !read_question(skb, p, q) || !is_allowed(q, set))
		return false;
	sk = datagram_socket(skb, p, port);
	if (!sk)
		return false;
	bpf_sk_release(sk);
	q->key.client = p->source;
	q->key.server = p->destination;
	q->key.client_port = p->source_port;
	q->key.server_port = p->destination_port;
	q->key.id = dns_u16(q, 0);
	q->asked.at = bpf_ktime_get_ns();
	return keeps_pace(p->payer, q->asked.at) && !bpf_map_update_elem(&hg_dns_asked_1, &q->key, &q->asked, BPF_NOEXIST);
}
