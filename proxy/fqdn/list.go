package fqdn

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/policy"
)

func addrOf(l learnt) netip.Addr { return netip.AddrFrom16(l.addr).Unmap() }

// Known is an address that an endpoint knows by a name.
type Known struct {
	Name      string
	Address   netip.Addr
	Endpoint  string
	Expires   time.Time
	Identity  policy.Identity // in the kernel; 0: no rule is about it
	Selectors []string        // that pick the name
}

// List says what is known, by name, endpoint and address, at most so many.
func (s *Store) List(ctx context.Context, most int) (list []Known, all int, err error) {
	err = s.do(ctx, func() {
		for _, h := range s.hosts {
			for _, e := range h.known {
				for _, l := range e.addrs {
					if all++; len(list) < most {
						list = append(list, s.known(h, e, l))
					}
				}
			}
		}
	})
	slices.SortFunc(list, func(a, b Known) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Endpoint, b.Endpoint), a.Address.Compare(b.Address))
	})
	return list, all, err
}

func (s *Store) known(h *host, e *entry, l learnt) Known {
	k := Known{Name: e.name, Address: addrOf(l), Endpoint: h.name, Expires: time.Unix(int64(l.expires), 0), Identity: h.holds[l.addr].as}
	for _, f := range e.pick.selectors {
		k.Selectors = append(k.Selectors, f.String())
	}
	return k
}

// Selected is a selector and what it picks now.
type Selected struct {
	Selector  string
	Names     int
	Addresses int
}

// Selectors lists those of every table.
func (s *Store) Selectors(ctx context.Context) (list []Selected, err error) {
	err = s.do(ctx, func() {
		found := map[string]*Selected{}
		for _, f := range s.matcher.all {
			found[f.String()] = &Selected{Selector: f.String()}
		}
		for _, h := range s.hosts {
			for _, e := range h.known {
				for _, f := range e.pick.selectors {
					if x := found[f.String()]; x != nil {
						x.Names++
						x.Addresses += len(e.addrs)
					}
				}
			}
		}
		for _, x := range found {
			list = append(list, *x)
		}
	})
	slices.SortFunc(list, func(a, b Selected) int { return cmp.Compare(a.Selector, b.Selector) })
	return list, err
}

// Stats are counts for people and metrics.
type Stats struct {
	Names, Addresses, InKernel, Identities, Waiting int
	Held                                            uint64 // addresses that only a connection keeps
	Answers, Refused                                uint64
	P50, P99                                        time.Duration // from an answer to the kernel's maps, of the last ones
	Stuck                                           int           // addresses that the kernel does not forget
	StuckEndpoints                                  []uint16      // that knew them
}

// Stats counts.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var out Stats
	err := s.do(ctx, func() {
		out = Stats{Addresses: s.addresses, InKernel: s.inKernel, Identities: len(s.byID), Waiting: len(s.waiting), Stuck: len(s.stuck.owners), StuckEndpoints: s.stuckEndpoints()}
		for _, h := range s.hosts {
			out.Names += len(h.known)
		}
	})
	out.Held, out.Refused = s.stats.held.Load(), s.stats.refused.Load()
	out.Answers, out.P50, out.P99 = s.stats.latency()
	return out, err
}

// stats are counted by whoever comes by.
type stats struct {
	refused, held atomic.Uint64
	saveTook      atomic.Int64
	saveFails     atomic.Bool

	mu      sync.Mutex
	answers uint64
	last    [4096]time.Duration
}

func (s *stats) took(d time.Duration) {
	s.mu.Lock()
	s.last[s.answers%uint64(len(s.last))] = d
	s.answers++
	s.mu.Unlock()
}

func (s *stats) latency() (answers uint64, p50, p99 time.Duration) {
	s.mu.Lock()
	answers = s.answers
	sample := slices.Clone(s.last[:min(answers, uint64(len(s.last)))])
	s.mu.Unlock()
	if len(sample) == 0 {
		return answers, 0, 0
	}
	slices.Sort(sample)
	return answers, sample[len(sample)/2], sample[len(sample)*99/100]
}
