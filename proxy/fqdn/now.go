package fqdn

import (
	"math"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
)

// outcome of an answer that somebody waits for.
type outcome struct {
	done func(error)
	err  error
}

func (s *Store) tell(done func(error), err error) { s.told = append(s.told, outcome{done, err}) }

// came is when an answer reached this process.
func (a *Answer) came() time.Time {
	if a.Came.IsZero() {
		return time.Now()
	}
	return a.Came
}

// unknownFor is how long what could not be remembered is not tried again.
const unknownFor = 5 * time.Second

// Standing is how the addresses of an answer stand once they are in force.
type Standing struct {
	Endpoint uint16            // who knows them; 0: nobody, or not all
	As       []policy.Identity // as what, each; 0: the datapath knows it as nothing
	Until    time.Time         // so long all of them stay, whatever comes but other rules
	Floor    time.Duration     // an answer counts at least for so long
}

// stand says how the addresses of an answer stand that is in force. A second, of the grace that
// there is, is for answers whose lives are rounded otherwise.
func (s *Store) stand(t *task, st *Standing) {
	st.Endpoint, st.As = 0, st.As[:0]
	if t.host == nil {
		return
	}
	st.Floor = s.limits.MinTTL
	name := policy.NormalName(t.answer.Name)
	e := t.host.known[name]
	switch {
	case e == nil:
		s.standUnknown(t, name, st)
		return
	case len(t.addrs) != len(t.answer.Addresses):
		return
	}
	until := uint32(math.MaxUint32)
	for _, addr := range t.addrs {
		raw := addr.As16()
		i := slices.IndexFunc(e.addrs, func(l learnt) bool { return l.addr == raw })
		if i < 0 {
			return
		}
		until = min(until, e.addrs[i].expires)
		st.As = append(st.As, t.host.holds[raw].as)
	}
	st.Endpoint, st.Until = t.host.id, time.Unix(int64(until), 0).Add(min(s.limits.Grace/2, time.Second))
}

// standUnknown is stand for a name that there is no rule about, and no room to remember: for
// some time nothing is lost if the same answer is not learnt again.
func (s *Store) standUnknown(t *task, name string, st *Standing) {
	if policy.ValidateDNSName(name) != nil || s.pickOf(name) != s.none {
		return
	}
	longest := time.Duration(0)
	for _, a := range t.answer.Addresses {
		longest = max(longest, min(a.TTL, maxTTL))
		st.As = append(st.As, t.host.holds[a.Addr.Unmap().As16()].as)
	}
	st.Endpoint, st.Until = t.host.id, s.now().Add(max(longest, s.limits.MinTTL)+unknownFor)
}

// LearnNow puts an answer in force at once, and keeps nothing of what it is given. now is
// false if it has to wait for others' work, or for rules that the agent is to make: then it
// is Learn's. st, if it is not nil, is filled in where the answer is in force.
func (s *Store) LearnNow(a Answer, st *Standing) (now bool, err error) {
	if s.long.Load() != 0 {
		return false, nil
	}
	s.begin()
	defer s.end()
	if s.stopped {
		return false, nil
	}
	t := &s.one[0]
	*t = task{question: question{answer: a, at: a.came()}, addrs: t.addrs[:0]}
	defer func() { t.question = question{} }()
	s.note(t)
	missing := s.result(t, s.admit(s.one[:]))
	if t.err == nil && len(missing) > 0 {
		return false, nil
	}
	s.count(t)
	if st != nil && t.err == nil {
		s.stand(t, st)
	}
	return true, t.err
}

// crowded reports whether none of some addresses can have another name.
func (h *host) crowded(addrs []Address) bool {
	for i := range addrs {
		have := h.holds[addrs[i].Addr.Unmap().As16()]
		if have.more == nil || len(*have.more) < maxNames {
			return false
		}
	}
	return true
}
