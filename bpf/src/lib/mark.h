/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

/* Packet marks, as in redirect/mark.go. */
#define MARK_MASK 0xf00
#define MARK_TO_PROXY 0x200
#define MARK_FROM_PROXY 0xb00
#define MARK_ANSWER 0x1000 /* beside MARK_TO_PROXY: a datagram of who was asked */
#define MARK_TRANSIT 0x900 /* between other networks, translated already */
#define MARK_RESET 0x700 /* the gate's own resets */
