/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define inline __always_inline static
/* Verified once, by itself, for any arguments: the work of the verifier is that of
 * all such functions together, and not of all ways through them. */
#define global __attribute__((noinline))

/* Every address has 16 bytes; IPv4 is ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct addr {
	__u8 b[16];
} __attribute__((aligned(8)));

/* Set when the programs are loaded. */
const volatile struct addr gateway4; /* the address every workload routes to */
const volatile struct addr gateway6;
const volatile __u8 gateway_mac[6];  /* of the host side of every veth */
const volatile __u32 host_ifindex;   /* the device packets of the host enter by */
