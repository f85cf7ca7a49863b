/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Why a packet was dropped. The numbers are those of observe.DropReason: Hubble's
 * where it has a fitting one, headgate's own from 230. */
enum drop_reason {
	REASON_NONE = 0,
	REASON_SOURCE_MAC = 130,
	REASON_SOURCE_IP = 132,
	REASON_POLICY = 133,        /* no rule allows it */
	REASON_INVALID = 134,
	REASON_L3 = 139,            /* neither IP nor ARP */
	REASON_L4 = 142,            /* a protocol that is not tracked */
	REASON_ICMP_TYPE = 144,     /* neither echo nor an error that tells of a packet */
	REASON_ICMP6_TYPE = 146,
	REASON_NO_ENDPOINT = 150,   /* nobody has that address */
	REASON_CT_FULL = 155,
	REASON_EXTENSION = 156,     /* IPv6 extension headers, too many or out of order */
	REASON_FRAGMENT = 157,      /* overlaps, or of an ICMP error */
	REASON_NO_BACKEND = 158,    /* a service without one */
	REASON_NO_CONNECTION = 163, /* TCP that belongs to no connection, and opens none */
	REASON_NAT_PORTS = 167,     /* every port of the node is in use towards that remote end */
	REASON_NO_WAY = 169,        /* no route leads there */
	REASON_IDENTITY = 171,
	REASON_FRAGMENT_FIRST = 175, /* its first fragment has not passed */
	REASON_ICMPV6 = 176,        /* router advertisements and the like */
	REASON_NO_SOCKET = 178,
	REASON_ASSIGN = 179,
	REASON_REDIRECT_PROTO = 180,
	REASON_POLICY_DENY = 181,   /* a rule denies it */
	REASON_VLAN = 182,
	REASON_TTL = 196,
	REASON_NOT_READY = 203,     /* no policy in force yet */
	REASON_OUTSIDE = 230,
	REASON_NO_ROUTE = 231,      /* no proxy serves these L7 sets */
	REASON_PROXY_DOWN = 232,
	REASON_NEIGHBOUR = 235,     /* ARP or NDP for somebody else */
	REASON_ICMP_ERROR = 239,    /* about no connection that lives and is allowed */
	REASON_NAT_FULL = 240,      /* no room for another translated connection */
	REASON_NO_NODE_ADDRESS = 241, /* the device has no address to translate to */
	REASON_TOO_BIG = 242,       /* for the way out; the sender was told */
	REASON_NO_DEVICE = 243,     /* the route leads by a device that is not served */
	REASON_SERVICE_CLASH = 245, /* the client's port is connected to that backend already */
	REASON_SERVICE_PORT = 246,  /* a service's address, but none of its ports */
	REASON_SERVICE_FULL = 247,  /* no room for another translation */
	REASON_SHARE = 248,         /* its workload has as many connections as it may */
	REASON_SOURCE_ROUTE = 254,  /* its sender chose the way */
	REASON_FRAGMENT_PROXY = 255, /* no socket takes a fragment */
};
