// Package reconcile brings the node to what is wanted: it keeps the endpoints and
// policies that people asked for, works out with package policy what follows, and
// writes that to the gate and to the proxy backend, in an order in which nothing
// ever widens:
//
//  1. the backend gets every L7 set, old and new, so that no number which the gate
//     may name is unknown to it;
//  2. the gate gets the tables, subject by subject, each connection seeing either
//     the old or the new verdict;
//  3. addresses get their identities, and endpoints the tables made for them;
//  4. the revision is bumped, and every connection is judged again.
//
// What fails is retried by the Controllers; until it works, the part that failed
// stays closed.
package reconcile
