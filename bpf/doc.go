// Package bpf is the datapath: the gate's programs (src/, one object), their maps
// and events, and how they are loaded, attached and taken over.
//
// Programs are attached to the host side of each workload's veth with
// BPF_PROG_ATTACH on TCX, not by a link, so they outlive the process that put them
// there. Nothing is pinned: what is attached names its maps, and that is how a
// restarted agent finds them again, in whatever mount namespace it runs.
//
// Map layouts are generated from C. A map's name ends in its layout number; maps
// of another layout are never shared.
package bpf
