package observe

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
)

// Names remembers, for flows, by which names addresses were asked for. It is filled from
// what flows are made of, and bounded: what was longest not asked for is forgotten. No
// verdict comes from it.
type Names struct {
	mu    sync.Mutex
	known map[question]*list.Element
	order list.List // of *answered, the latest first
}

type question struct{ asker, address netip.Addr }

type answered struct {
	question
	names []string // never changed, only replaced
}

const (
	maxAnswered = 65536
	maxNames    = 8 // of one address
)

// Learn takes what a record says.
func (n *Names) Learn(r *Record) {
	if r.DNS == nil || len(r.DNS.Addresses) == 0 {
		return
	}
	for _, a := range r.DNS.Addresses {
		n.add(question{r.Source.Addr().Unmap(), a.Unmap()}, r.DNS.Query)
	}
}

func (n *Names) add(q question, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[question]*list.Element{}
	}
	e := n.known[q]
	if e == nil {
		e = n.order.PushFront(&answered{question: q})
		n.known[q] = e
		if n.order.Len() > maxAnswered {
			last := n.order.Back()
			delete(n.known, n.order.Remove(last).(*answered).question)
		}
	}
	n.order.MoveToFront(e)
	a := e.Value.(*answered)
	if slices.Contains(a.names, name) {
		return
	}
	names := append([]string{name}, a.names...)
	a.names = names[:min(len(names), maxNames)]
}

// Of says by which names the asker was told the address, the latest first.
func (n *Names) Of(asker, address netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.known[question{asker, address}]; e != nil {
		return e.Value.(*answered).names
	}
	return nil
}
