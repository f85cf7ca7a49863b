package fqdn

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/headgate/headgate/policy"
)

// maxBatch bounds how many answers are put in force at once: who came first does not
// wait for all who came after.
const maxBatch = 256

// maxWait is how long an answer may wait for rules that the agent is to make. Whoever
// asked has gone by then.
const maxWait = 10 * time.Second

// task is one answer on its way.
type task struct {
	question
	host  *host
	addrs []netip.Addr
	err   error
}

// write is an address that becomes known as something.
type write struct {
	host *host
	addr netip.Addr
	id   policy.Identity
}

// learn puts in force what has gathered in the queue.
func (s *Store) learn() {
	s.mu.Lock()
	n := min(len(s.queue), maxBatch)
	batch := s.queue[:n:n]
	s.queue = s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil
	} else {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	tasks := make([]task, n)
	for i := range batch {
		tasks[i] = task{question: batch[i]}
		s.note(&tasks[i])
	}
	failed := s.admit(tasks)
	for i := range tasks {
		s.answer(&tasks[i], failed)
	}
}

// note remembers what an answer says.
func (s *Store) note(t *task) {
	switch {
	case s.over:
		t.err = ErrEnded
		return
	case s.names == nil:
		t.err = ErrNotYet
		return
	}
	t.host = s.byAddr[t.answer.Client.Unmap()]
	name := policy.NormalName(t.answer.Name)
	if t.host == nil || len(t.answer.Addresses) == 0 {
		return // no rule concerns it
	}
	e := t.host.known[name]
	if e == nil {
		if policy.ValidateDNSName(name) != nil {
			return
		}
		pick := s.pickOf(name)
		if pick == s.none && (t.host.unruled >= maxUnruled || t.host.crowded(t.answer.Addresses)) {
			return
		}
		e = &entry{name: strings.Clone(name), pick: pick}
	}
	for _, a := range t.answer.Addresses {
		addr := a.Addr.Unmap().WithZone("")
		if !isSomebody(addr) {
			continue
		}
		ttl := min(max(a.TTL, s.limits.MinTTL), maxTTL)
		if t.err = s.remember(t.host, e, addr, t.answer.At.Add(ttl)); t.err != nil {
			if e.pick == s.none { // nothing is to be in force for it
				t.err = nil
			}
			return
		}
		t.addrs = append(t.addrs, addr)
	}
}

// isSomebody reports whether an address can be a server elsewhere: a name that leads to
// this machine itself, or to many, opens nothing (RFC 6890).
func isSomebody(a netip.Addr) bool {
	if !a.IsValid() || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	return !a.Is4() || a.As4()[0] != 0 && a.As4() != [4]byte{255, 255, 255, 255}
}

const (
	// maxUnruled bounds the names of an endpoint that no rule is about: they are remembered
	// for rules to come, and who asks for more of them does not need them to be.
	maxUnruled = 4096
	// maxNames bounds the names that an address is known by.
	maxNames = 256
	// pairs of a name and an address there may be for each address there may be.
	pairs = 2
)

// remember adds an address to a name of a host, or lets it count for longer.
func (s *Store) remember(h *host, e *entry, addr netip.Addr, until time.Time) error {
	raw, expires := addr.As16(), uint32(until.Unix()+1)
	if s.expires == 0 || int64(expires) < s.expires {
		s.expires = int64(expires)
	}
	if s.changed.IsZero() {
		s.changed = s.now()
	}
	for i := range e.addrs {
		if e.addrs[i].addr == raw {
			e.addrs[i].expires = max(e.addrs[i].expires, expires)
			return nil
		}
	}
	if e.pick != s.none && h.unruled > 0 && (len(h.holds) >= s.limits.PerEndpoint || h.pairs >= pairs*s.limits.PerEndpoint) {
		s.forgetUnruled(h)
	}
	have, known := h.holds[raw]
	switch {
	case len(e.addrs) >= 2*s.limits.PerName: // the janitor brings it back to PerName
		return fmt.Errorf("%w: %s has %d", ErrShare, e.name, len(e.addrs))
	case !known && len(h.holds) >= s.limits.PerEndpoint:
		return fmt.Errorf("%w: %s has %d", ErrShare, h.name, len(h.holds))
	case known && len(have.entries()) >= maxNames:
		return fmt.Errorf("%w: %s has %d names", ErrShare, addr, maxNames)
	case h.pairs >= pairs*s.limits.PerEndpoint:
		return fmt.Errorf("%w: %s has %d, by all their names", ErrShare, h.name, h.pairs)
	case (!known && s.addresses >= s.config.Maps.Room() || s.pairs >= pairs*s.config.Maps.Room()) && !s.makeRoom():
		return ErrFull
	}
	have, known = h.holds[raw] // there may be room now
	if h.known[e.name] == nil && e.pick == s.none {
		h.unruled++
	}
	h.known[e.name] = e
	h.pairs++
	s.pairs++
	e.addrs = append(e.addrs, learnt{raw, expires})
	switch {
	case !known:
		have.one = e
		s.addresses++
	case have.more == nil:
		have.more = &[]*entry{have.one, e}
	default:
		*have.more = append(*have.more, e)
	}
	h.holds[raw] = have
	return nil
}

// makeRoom forgets what no rule is about. It says whether there was any. Whoever fills
// the room does not have it looked for all the time.
func (s *Store) makeRoom() bool {
	before, now := s.pairs, s.now()
	if now.Sub(s.madeRoom) < time.Second {
		return false
	}
	s.madeRoom = now
	for _, h := range s.hosts {
		s.forgetUnruled(h)
	}
	return s.pairs < before
}

// forgetUnruled forgets the names of a host that no rule is about.
func (s *Store) forgetUnruled(h *host) {
	if h.unruled > 0 && s.config.Forgot != nil {
		defer s.config.Forgot()
	}
	for _, e := range h.known {
		if e.pick == s.none {
			s.forgetName(h, e, func(learnt) bool { return true })
		}
	}
}

// admit writes the rules of what addresses are known as now, then the addresses. It says
// which were not written, and why.
func (s *Store) admit(tasks []task) map[policy.NameKey]error {
	var writes []write
	var seen map[policy.NameKey]bool
	for i := range tasks {
		t := &tasks[i]
		for _, addr := range t.addrs {
			have, ok := t.host.holds[addr.As16()]
			if !ok {
				continue
			}
			id := s.identify(addr, &have)
			if id == have.as && s.ensure(t.host, id) == nil {
				continue
			}
			w := write{t.host, addr, id}
			if seen[w.key()] {
				continue
			}
			if seen == nil {
				seen = map[policy.NameKey]bool{}
			}
			seen[w.key()] = true
			writes = append(writes, w)
		}
	}
	if len(writes) == 0 {
		return nil
	}
	return s.write(writes)
}

// write brings addresses in the kernel from what they are known as to what they are to
// be known as. It says which were not written, and why. These are known as nothing then,
// so that their prefix judges them: what they were known as before may be allowed what
// they are not.
func (s *Store) write(writes []write) map[policy.NameKey]error {
	failed := map[policy.NameKey]error{}
	var keys []policy.NameKey
	var ids []policy.Identity
	var puts, gone []write
	fails := func(w write, err error) {
		failed[w.key()] = err
		if w.host.holds[w.addr.As16()].as != 0 {
			gone = append(gone, write{w.host, w.addr, 0})
		}
	}
	for _, w := range writes {
		if w.id == 0 {
			gone = append(gone, w)
			continue
		}
		if w.host.holds[w.addr.As16()].as == 0 && s.inKernel+len(puts) >= s.room() {
			failed[w.key()] = ErrFull
			continue
		}
		if err := s.ensure(w.host, w.id); err != nil {
			fails(w, err)
			continue
		}
		keys, ids, puts = append(keys, w.key()), append(ids, w.id), append(puts, w)
	}
	done, err := s.config.Maps.Put(keys, ids)
	for i, w := range puts {
		if i < done {
			s.become(w)
		} else {
			fails(w, errors.Join(ErrFull, err))
		}
	}
	s.withdraw(gone, failed)
	return failed
}

func (w *write) key() policy.NameKey { return policy.NameKey{Endpoint: w.host.id, Addr: w.addr} }

// withdraw removes addresses from the kernel. What stays there is ErrStale.
func (s *Store) withdraw(gone []write, failed map[policy.NameKey]error) {
	keys := make([]policy.NameKey, len(gone))
	for i := range gone {
		keys[i] = gone[i].key()
	}
	together := s.config.Maps.Delete(keys)
	for i, w := range gone {
		if together != nil { // to learn which
			if err := s.config.Maps.Delete(keys[i : i+1]); err != nil {
				failed[keys[i]] = errors.Join(failed[keys[i]], fmt.Errorf("%w: %w", ErrStale, err))
				s.stale = true
				continue
			}
		}
		s.become(w)
	}
}

// room is how many addresses may be in the kernel: what it has is kept by slots, which
// do not fill evenly.
func (s *Store) room() int { return s.config.Maps.Room() / 100 * 98 }

// become notes what the kernel knows an address as.
func (s *Store) become(w write) {
	raw := w.addr.As16()
	have := w.host.holds[raw]
	if have.as == 0 && w.id != 0 {
		s.inKernel++
	}
	if have.as != 0 && w.id == 0 {
		s.inKernel--
	}
	s.use(w.host, have.as, -1)
	s.use(w.host, w.id, 1)
	have.as = w.id
	w.host.holds[raw] = have
	if w.id != 0 {
		delete(s.stuck.owners, w.key())
	}
}

// answer says that an answer is in force, or why not, or lets it wait for rules that the
// agent is to make.
func (s *Store) answer(t *task, failed map[policy.NameKey]error) {
	if missing := s.result(t, failed); t.err == nil && len(missing) > 0 {
		s.waiting = append(s.waiting, waiting{missing, s.now().Add(maxWait), t.done})
		return
	}
	s.count(t)
	s.tell(t.done, t.err)
}

func (s *Store) count(t *task) {
	if t.err != nil {
		s.stats.refused.Add(1)
		return
	}
	s.stats.took(time.Since(t.at))
}

// result is whether what an answer says is in force, and what it lacks that the agent is to make.
func (s *Store) result(t *task, failed map[policy.NameKey]error) (missing []policy.NameRulesKey) {
	for _, addr := range t.addrs {
		if err := failed[policy.NameKey{Endpoint: t.host.id, Addr: addr}]; err != nil {
			t.err = errors.Join(t.err, err)
			break
		}
		id := t.host.holds[addr.As16()].as
		for _, table := range t.host.tables {
			if r := s.rules[policy.NameRulesKey{Table: table, Identity: id}]; r != nil && r.missing {
				missing = append(missing, policy.NameRulesKey{Table: table, Identity: id})
			}
		}
	}
	return missing
}

// expireWaiting gives up on rules that nobody makes.
func (s *Store) expireWaiting() {
	now := s.now()
	s.settle(func(w waiting) (bool, error) { return now.After(w.until), ErrMissing })
}

// settleWaiting answers whose rules are in force.
func (s *Store) settleWaiting() {
	s.settle(func(w waiting) (bool, error) {
		for _, k := range w.keys {
			if r := s.rules[k]; r != nil && r.missing {
				return false, nil
			}
		}
		return true, nil
	})
}

func (s *Store) settle(over func(waiting) (bool, error)) {
	var left []waiting
	for _, w := range s.waiting {
		if done, err := over(w); done {
			if err != nil {
				s.stats.refused.Add(1)
			}
			s.tell(w.done, err)
			continue
		}
		left = append(left, w)
	}
	s.waiting = left
}
