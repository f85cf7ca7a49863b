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
	names []string // the latest first
}

const (
	maxAnswered = 65536
	maxNames    = 8 // of one address
	// longestName is longer than any with all its bytes escaped (RFC 1035, 2.3.4).
	longestName = 4 * 255
)

// Learn takes what records say.
func (n *Names) Learn(digests []Digest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range digests {
		d := &digests[i]
		if len(d.Addresses) == 0 || len(d.Query) > longestName {
			continue
		}
		asker, name := d.Source.Addr().Unmap(), name{raw: d.Query}
		for _, a := range d.Addresses {
			n.add(question{asker, a.Unmap()}, &name)
		}
	}
}

// name is one that is only made a string if it must be, and then once.
type name struct {
	raw  []byte
	text string
}

func (n *name) String() string {
	if n.text == "" {
		n.text = string(n.raw)
	}
	return n.text
}

// add is called with mu held.
func (n *Names) add(q question, name *name) {
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
	for i := range a.names {
		if a.names[i] == string(name.raw) {
			return
		}
	}
	if len(a.names) < maxNames {
		a.names = append(a.names, "")
	}
	copy(a.names[1:], a.names)
	a.names[0] = name.String()
}

// Of says by which names the asker was told the address, the latest first.
func (n *Names) Of(asker, address netip.Addr) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.known[question{asker, address}]; e != nil {
		return slices.Clone(e.Value.(*answered).names)
	}
	return nil
}
