/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "lib/mark.h"
#include "lib/service.h"

/* Sockets that ask for a service get a backend when they connect, and the gate then
 * sees a connection to the backend. The programs are on the root of the control
 * groups, where they see every process of the machine; they act in the network
 * namespaces of this agent alone. What does not come by here (raw sockets, virtual
 * machines, other networks) is translated per packet. */

#define ECONNREFUSED 111
#define SOCK_STREAM 1
#define SOCK_DGRAM 2

#define NETNS_HOST 1            /* the agent's own, not an endpoint's */

/* --- the agent writes --- */
struct svc_netns {
	struct addr v4;         /* by whose affinity its clients are known */
	struct addr v6;
	__u64 inode;            /* for an agent that looks for leftovers */
	__u32 flags;
	__u32 pad;
};

/* Cookie of a network namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, struct svc_netns);
} hg_svc_netns_1 SEC(".maps");

/* --- these programs write: socket and backend → what the socket had asked for --- */
struct svc_sock_key {
	__u64 cookie;
	struct addr addr;
	__u16 port;
	__u8 proto;
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct svc_sock_key);
	__type(value, struct svc_key);
} hg_svc_sock_1 SEC(".maps");

/* 0 for what no service has. Multipath TCP is a stream as well. */
inline __u8 sock_proto(const struct bpf_sock_addr *ctx)
{
	if (ctx->type == SOCK_STREAM)
		return IPPROTO_TCP;
	return ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP ? IPPROTO_UDP : 0;
}

inline void sock_v4(const struct bpf_sock_addr *ctx, struct svc_key *k)
{
	addr_from_v4(&k->addr, ctx->user_ip4);
	k->port = bpf_ntohs(ctx->user_port);
	k->proto = sock_proto(ctx);
}

inline void sock_v6(const struct bpf_sock_addr *ctx, struct svc_key *k)
{
	__u32 *words = (__u32 *)k->addr.b;

	words[0] = ctx->user_ip6[0];
	words[1] = ctx->user_ip6[1];
	words[2] = ctx->user_ip6[2];
	words[3] = ctx->user_ip6[3];
	k->port = bpf_ntohs(ctx->user_port);
	k->proto = sock_proto(ctx);
}

inline void sock_set_v4(struct bpf_sock_addr *ctx, const struct svc_key *k)
{
	ctx->user_ip4 = addr_v4(&k->addr);
	ctx->user_port = bpf_htons(k->port);
}

inline void sock_set_v6(struct bpf_sock_addr *ctx, const struct svc_key *k)
{
	const __u32 *words = (const __u32 *)k->addr.b;

	ctx->user_ip6[0] = words[0];
	ctx->user_ip6[1] = words[1];
	ctx->user_ip6[2] = words[2];
	ctx->user_ip6[3] = words[3];
	ctx->user_port = bpf_htons(k->port);
}

inline bool addr_is_v4(const struct addr *a)
{
	return addr_high(a) == 0 && addr_low(a) >> 32 == 0xffff;
}

enum sock_way { SOCK_AS_IT_IS, SOCK_TRANSLATED, SOCK_REFUSED };

/* Gives k, what a socket asks for, the backend's address in place of a service's. */
static __noinline enum sock_way svc_socket(struct bpf_sock_addr *ctx, struct svc_key *k)
{
	__u64 netns = bpf_get_netns_cookie(ctx), cookie;
	struct svc_affinity_key client = {};
	struct svc_sock_key reverse = {};
	struct svc_netns *here;
	struct svc_front *front;
	struct svc_key asked;
	struct svc_back *b;
	enum sock_way none;
	__u32 hash;

	if (!k)
		return SOCK_AS_IT_IS;
	here = bpf_map_lookup_elem(&hg_svc_netns_1, &netns);
	if (!here || !k->proto)
		return SOCK_AS_IT_IS;
	asked = *k;
	asked.port = asked.proto = 0;
	front = bpf_map_lookup_elem(&hg_svc_front_1, &asked);
	if (!front)
		return SOCK_AS_IT_IS;
	none = front->flags & SVC_WHOLE ? SOCK_REFUSED : SOCK_AS_IT_IS;
	asked = *k;
	front = bpf_map_lookup_elem(&hg_svc_front_1, &asked);
	if (!front || (front->flags & SVC_HOST && !(here->flags & NETNS_HOST)))
		return none;
	cookie = bpf_get_socket_cookie(ctx);
	/* Datagrams of one socket go one way, as long as the table is the same. */
	hash = k->proto == IPPROTO_UDP ? (cookie * 0x9e3779b97f4a7c15ULL) >> 32 : bpf_get_prandom_u32();
	client.client = addr_is_v4(&k->addr) ? here->v4 : here->v6;
	b = svc_back_of(svc_choose(&client, front, hash, 0), front->number);
	if (!b)
		return SOCK_REFUSED;
	k->addr = b->addr;
	k->port = b->port;
	reverse.cookie = cookie;
	reverse.addr = k->addr;
	reverse.port = k->port;
	reverse.proto = k->proto;
	if (!bpf_map_lookup_elem(&hg_svc_sock_1, &reverse))
		bpf_map_update_elem(&hg_svc_sock_1, &reverse, &asked, BPF_ANY);
	return SOCK_TRANSLATED;
}

/* Gives k, a backend, the address that this socket had asked for. */
static __noinline bool svc_socket_answer(struct bpf_sock_addr *ctx, struct svc_key *k)
{
	struct svc_sock_key reverse = {};
	struct svc_key *asked;

	if (!k)
		return false;
	reverse.cookie = bpf_get_socket_cookie(ctx);
	reverse.addr = k->addr;
	reverse.port = k->port;
	reverse.proto = k->proto;
	asked = bpf_map_lookup_elem(&hg_svc_sock_1, &reverse);
	if (!asked)
		return false;
	*k = *asked;
	return true;
}

/* 1: go on; 0: the system call fails at once. */
inline int refuse_socket(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

inline int socket_v4(struct bpf_sock_addr *ctx)
{
	struct svc_key k = {};
	enum sock_way way;

	sock_v4(ctx, &k);
	way = svc_socket(ctx, &k);
	if (way == SOCK_TRANSLATED)
		sock_set_v4(ctx, &k);
	return way == SOCK_REFUSED ? refuse_socket() : 1;
}

inline int socket_v6(struct bpf_sock_addr *ctx)
{
	struct svc_key k = {};
	enum sock_way way;

	sock_v6(ctx, &k);
	way = svc_socket(ctx, &k);
	if (way == SOCK_TRANSLATED)
		sock_set_v6(ctx, &k);
	return way == SOCK_REFUSED ? refuse_socket() : 1;
}

/* The proxy's socket for datagrams asks nobody, and reads more than all others. */
inline bool is_proxys(const struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	return sk && sk->mark == MARK_FROM_PROXY;
}

inline int answer_v4(struct bpf_sock_addr *ctx)
{
	struct svc_key k = {};

	if (is_proxys(ctx))
		return 1;
	sock_v4(ctx, &k);
	if (svc_socket_answer(ctx, &k))
		sock_set_v4(ctx, &k);
	return 1;
}

inline int answer_v6(struct bpf_sock_addr *ctx)
{
	struct svc_key k = {};

	if (is_proxys(ctx))
		return 1;
	sock_v6(ctx, &k);
	if (svc_socket_answer(ctx, &k))
		sock_set_v6(ctx, &k);
	return 1;
}
