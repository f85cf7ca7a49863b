// Package verdict answers questions about policies: may this one reach that one
// on this port, with this request, and why.
//
// It is pure. A World says what there is, policies say what is allowed, and the
// answer comes from policy.Resolve, Table.Lookup and CompileSet, as in the
// datapath and the proxies, so that an answer and a packet cannot disagree.
package verdict
