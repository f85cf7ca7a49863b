// Command bench drives the built product and its peers side by side: the same client, server,
// cores and work for each, in alternating turns, so that what else the machine does
// falls on all alike. Figures are medians of the rounds; ratios are taken round by
// round, with what they range over.
//
// Each side has network namespaces and processes of its own, which idle when it is not
// their turn. Those of headgate hang on one node with one agent; those of its peers on
// a node that routes between two veths, without BPF. Every process is in a control
// group, by which its processor time is known.
//
// The program is also its own server and load (serve, load): one thread each, an event
// loop of raw system calls, so that they cost little beside what is measured.
//
// See README.md for what is compared and how to read it.
package main
