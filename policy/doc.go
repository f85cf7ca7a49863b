// Package policy decides. It turns policies, identities and labels into the
// tables that the datapath and the proxies enforce, and answers for every
// verdict with the rule that gave it.
//
// Everything here is a pure function of its arguments: no files, no clock, no
// kernel. The same Resolve feeds the kernel maps, the Go proxy, Envoy and the
// explanations people ask for, so they cannot disagree.
//
// The package fails closed by construction: the zero Verdict denies, a Key that
// is in no Table denies, an L7 set that does not know a request denies.
package policy
