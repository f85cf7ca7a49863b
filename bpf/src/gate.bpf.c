// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The gate: one object, six programs on TCX.
 *
 *   from_workload  ingress of the host side of each veth: what a workload sends
 *   to_workload    egress of the host side of each veth: what the host's stack and
 *                  the proxy send to a workload
 *   from_host      ingress of headgate's own device: packets of the host that
 *                  belong to the proxy
 *   from_injector  ingress of the proxy's device: datagrams that it sends to workloads
 *   from_network   ingress of the node's own devices: what other networks send
 *   to_network     egress of the node's own devices: what leaves for them
 *
 * and eight on control groups, where sockets meet services: connect.h.
 * And one on demand: usage, which says how full the maps are.
 *
 * Every path ends in a delivery, in the host's stack, in a proxy's socket, or in a
 * drop with a reason. What is not known is dropped.
 */
#include "connect.h"
#include "from_host.h"
#include "from_injector.h"
#include "from_network.h"
#include "from_workload.h"
#include "to_network.h"
#include "to_workload.h"
#include "lib/usage.h"

SEC("tc")
int hg_from_workload(struct __sk_buff *skb) { return from_workload(skb); }

SEC("tc")
int hg_to_workload(struct __sk_buff *skb) { return to_workload(skb); }

SEC("tc")
int hg_from_host(struct __sk_buff *skb) { return from_host(skb); }

SEC("tc")
int hg_from_injector(struct __sk_buff *skb) { return from_injector(skb); }

SEC("tc")
int hg_from_network(struct __sk_buff *skb) { return from_network(skb); }

SEC("tc")
int hg_to_network(struct __sk_buff *skb) { return to_network(skb); }

SEC("cgroup/connect4")
int hg_connect4(struct bpf_sock_addr *ctx) { return socket_v4(ctx); }

SEC("cgroup/connect6")
int hg_connect6(struct bpf_sock_addr *ctx) { return socket_v6(ctx); }

SEC("cgroup/sendmsg4")
int hg_sendmsg4(struct bpf_sock_addr *ctx) { return socket_v4(ctx); }

SEC("cgroup/sendmsg6")
int hg_sendmsg6(struct bpf_sock_addr *ctx) { return socket_v6(ctx); }

SEC("cgroup/recvmsg4")
int hg_recvmsg4(struct bpf_sock_addr *ctx) { return answer_v4(ctx); }

SEC("cgroup/recvmsg6")
int hg_recvmsg6(struct bpf_sock_addr *ctx) { return answer_v6(ctx); }

SEC("cgroup/getpeername4")
int hg_getpeername4(struct bpf_sock_addr *ctx) { return answer_v4(ctx); }

SEC("cgroup/getpeername6")
int hg_getpeername6(struct bpf_sock_addr *ctx) { return answer_v6(ctx); }

SEC("tc")
int hg_usage(struct __sk_buff *skb) { return usage(skb); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
