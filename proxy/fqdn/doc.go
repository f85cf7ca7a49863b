// Package fqdn makes names hold in egress policy. It remembers which addresses each
// endpoint was told under which names, and writes what follows to the kernel: under
// which identity an endpoint knows an address, and what rules about names say of that
// identity.
//
// An identity stands for the prefix that an address would be judged by without a name,
// and the selectors that pick its names: many addresses have one. What a table of rules
// says of it is resolved here, by package policy, from what the agent delivered last, so
// all of this works while no agent is there. What one endpoint was told opens nothing to
// another.
//
// A mutex owns all state. An answer takes it and is put in force by who brings it, which is
// mostly no more than a look whether that is so already (LearnNow). Long work, changes of
// rules above all, lets answers go first again and again (pause). For what cannot be
// interrupted, or was held up for long, they wait in a queue, and what gathers there is
// written with one system call. An answer is done when the kernel has the rules of each
// identity it led to, then its addresses: in this order, so that nothing ever stands for
// an identity of which the kernel knows nothing. What leaves goes the other way round.
package fqdn
