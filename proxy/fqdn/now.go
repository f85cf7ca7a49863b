package fqdn

import "time"

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

// LearnNow puts an answer in force at once, and keeps nothing of what it is given. now is
// false if it has to wait for others' work, or for rules that the agent is to make: then it
// is Learn's.
func (s *Store) LearnNow(a Answer) (now bool, err error) {
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
