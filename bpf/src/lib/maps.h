/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include "common.h"

/* Every map and its one writer. Names end in the layout number: a change of a key
 * or a value takes a new number, so that two versions never share a map that they
 * read differently. Go gives the sizes where a flag can change them. */

/* --- config: the agent writes, the proxy maps it read-only --- */
#define CONFIG_RESET 1          /* a connection that policy ends is reset, not left to hang */
#define CONFIG_HOST_AUDIT 2     /* what host policies deny is reported, and passes */
#define CONFIG_HOST_ENFORCE 4   /* host policies hold */

struct config {
	__u32 revision;         /* of the policy: entries judged under another are judged again */
	__u32 flags;            /* CONFIG_… */
	__u32 share;            /* established connections that one workload may have; 0: any number, and no order in the room */
	__u32 host_subject;     /* whose policy table this machine has; 0: none */
	__u32 room;             /* for established connections, of all together */
	__u32 reserved[11];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
} hg_config_1 SEC(".maps");

#define IDENTITY_HOST 1

/* --- endpoints: the agent writes. Address of a local workload → who it is --- */
#define ENDPOINT_READY 1        /* policy in force: it may have traffic */

struct endpoint {
	__u32 ifindex;          /* host side of its veth */
	__u32 identity;
	__u32 subject;          /* whose policy table it has */
	__u16 id;
	__u16 flags;
	__u8 mac[6];            /* its own */
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct addr);
	__type(value, struct endpoint);
} hg_endpoint_1 SEC(".maps");

/* --- ipcache: the agent writes. Prefix → identity --- */
struct ipcache_key {
	__u32 prefixlen;        /* IPv4: 96 + n */
	__u8 addr[16];
};

struct ipcache_entry {
	__u32 identity;
	__u32 tunnel_peer;      /* reserved for an overlay */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 512000);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache_key);
	__type(value, struct ipcache_entry);
} hg_ipcache_1 SEC(".maps");

/* --- policy: the agent writes. See policy.Table for the order of look-ups --- */
struct subject {
	__u32 lengths[2];       /* by direction: bit n set, entries with n port bits exist */
	__u32 flags;
	__u32 names;            /* number of its table of rules about names, 0: it has none; see name.h */
};

#define SUBJECT_CLOSED 1        /* its table could not be brought up to date: deny */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct subject);
} hg_subject_1 SEC(".maps");

enum direction { DIR_INGRESS = 0, DIR_EGRESS = 1 };
enum verdict { VERDICT_DENY = 0, VERDICT_ALLOW = 1, VERDICT_REDIRECT = 2 };

struct policy_key {
	__u32 subject;
	__u32 peer;             /* 0: every peer */
	__u16 port;             /* leading bits, rest 0; ICMP: the type */
	__u8 proto;             /* 0: every protocol */
	__u8 dir_bits;          /* direction << 7 | number of port bits */
};

#define ENTRY_AUDIT 1           /* a policy that audits would deny it: let through and reported */

struct policy_entry {
	__u8 verdict;
	__u8 match;             /* what the key names, for people: Hubble's policy_match_type */
	__u8 flags;
	__u8 pad;
	__u32 set;              /* number of the L7 set */
	__u32 rule;             /* number of the rule, for people */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_entry);
} hg_policy_1 SEC(".maps");

/* --- routes: the agent writes. L7 sets of a connection → proxy port --- */
#define SET_ANY 0xffffff        /* with a protocol in the top 8 bits: every set of it */

struct route_key {
	__u32 egress;
	__u32 ingress;
};

struct route {
	__u16 port;             /* on 127.0.0.1 and ::1, host byte order */
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct route_key);
	__type(value, struct route);
} hg_route_1 SEC(".maps");

/* --- conntrack: the gate writes, who survives collects --- */
struct ct_key {                 /* the lower (address, port) first, either way */
	struct addr addr[2];
	__u16 port[2];          /* host byte order; ICMP echo: the id on the asking side */
	__u8 proto;
	__u8 pad[3];
};

#define CT_REDIRECTED 1         /* a proxy carries it; once set it stays */
#define CT_DENIED 2             /* policy changed: nothing passes any more */
#define CT_SEEN_REPLY 4
#define CT_FIN_FORWARD 8
#define CT_FIN_REPLY 16
#define CT_CLOSING 32
#define CT_PROXY_LEG 64         /* the proxy's own connection, from another port */
#define CT_HALF_SEEN 128        /* only its answers come by here */
#define CT_BOUND 256            /* its proxy port serves this one route, and never asks again */
#define CT_HOST 512             /* of the host's own: here only because it is translated */
#define CT_FORWARDED 1024       /* of somebody behind this machine, translated by its kernel */
#define CT_TRANSIT 4096         /* between other networks, by a port of the node */
#define CT_HELD 2048            /* translated, and its hold on a port cannot be evicted */
#define CT_ACKED_FORWARD 0x2000 /* acked[0] is known: earlier layouts had something else there */
#define CT_ACKED_REPLY 0x4000
#define CT_CONFIRMED 0x1000000  /* the opener has acknowledged the answer */
#define CT_RESET_FORWARD 0x2000000 /* the opener seems to have reset it */
#define CT_RESET_REPLY 0x4000000
#define CT_RESET_LIKELY 0x8000000 /* its receiver may not heed it */

struct ct_entry {
	__u64 expires;          /* CLOCK_MONOTONIC, ns */
	__u32 acked[2];         /* TCP: by direction, what it acknowledged last, if CT_ACKED_… */
	__u64 packets[2];       /* forward, reply */
	__u64 bytes[2];
	__u32 identity[2];      /* of who opened it, of the other */
	__u32 set[2];           /* L7 sets, by direction (DIR_INGRESS, DIR_EGRESS) */
	__u32 revision;
	__u32 flags;            /* changed by atomic operations: both directions write */
	__u8 opener;            /* which of key.addr[] opened it */
	__u8 pad;
	__u16 payer;            /* whose share of connections it takes: the endpoint's id */
	__u16 rev_nat;          /* number of the service it was opened to, 0: none */
	__u16 nat_port;         /* of nat_addr, in place of the opener's; 0: not translated */
	struct addr nat_addr;   /* a tunnel's peer will stand here: nothing is both */
};

/* Established TCP: nothing is evicted. When it is full, new ones are refused. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 524288);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
} hg_ct_tcp_1 SEC(".maps");

/* Everything else: half-open TCP, UDP, ICMP. A flood evicts its own kind. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct ct_key);
	__type(value, struct ct_entry);
} hg_ct_any_1 SEC(".maps");

/* --- what happened: the gate writes --- */
struct counter {
	__u64 packets;
	__u64 bytes;
};

/* Index: reason * 2 + direction. Reason 0 counts what was let through. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, struct counter);
} hg_drops_1 SEC(".maps");

/* Events that found the ring full. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} hg_lost_1 SEC(".maps");

enum event_kind { EVENT_VERDICT = 1, EVENT_DROP = 2 };

struct event {
	__u64 time;             /* CLOCK_MONOTONIC, ns */
	struct addr source;
	struct addr destination;
	__u32 source_identity;
	__u32 destination_identity;
	__u32 ifindex;
	__u32 length;
	__u32 rule;
	__u32 set;
	__u16 source_port;
	__u16 destination_port;
	__u8 kind;
	__u8 verdict;
	__u8 reason;
	__u8 direction;
	__u8 proto;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 icmp_code;
	__u8 mac[12];           /* destination, source */
	__u8 match;
	__u8 audit;             /* a policy that audits would deny it */
	__u8 pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} hg_events_1 SEC(".maps");

/* bpf2go takes only types that something refers to. */
const struct event *unused_event __attribute__((unused));
