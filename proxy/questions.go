package proxy

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
)

// questions are those that went by UDP and have no answer yet. An answer counts only if it
// is for one of them: the same two ends, the same id, the same question to the byte; and
// only once. Memory is bounded: an endpoint has its share, and a question that finds no
// room is refused.
type questions struct {
	limits *DNSLimits
	seed   maphash.Seed
	total  atomic.Int64
	shards [16]shard // by the client's address
}

type shard struct {
	mu     sync.Mutex
	asked  map[questionKey]*question
	of     map[netip.Addr]int    // how many an endpoint has, held answers included
	wrong  map[twoEnds]wrongs    // answers to none of their questions; less by what was asked again
	barred map[twoEnds]time.Time // see bars
	spare  *question
	waits  queue // for an answer, oldest first
	holds  queue // have one that is not to be released yet
	opaque int   // that could not be read, and went on all the same
}

type twoEnds struct{ client, server netip.AddrPort }

func (k *questionKey) ends() twoEnds { return twoEnds{k.client, k.server} }

const (
	// maxWrong answers to nothing end the questions of the same ends: somebody guesses.
	maxWrong = 8
	maxEnds  = 4096
	// wrongLasts is when they are forgotten if no more came: late ones and copies add up else.
	wrongLasts = 10 * time.Second
	// barsFor is until those that went on without us have been collected.
	barsFor = 3 * shortcutLooks
)

type questionKey struct {
	client, server netip.AddrPort
	id             uint16
	hash           uint64 // of the question; 0: it could not be read
}

// question is one that waits, for its answer or for what the answer needs.
type question struct {
	key     questionKey
	message dns.Message
	query   []byte // that message is of
	known   Connection
	shared  []byte // of its record and its answer's, as dnsWriter made it
	asked   []byte
	word    observe.Word
	at      time.Time // it was asked
	answer  []byte    // held
	found   answered
	// use tells one use of this memory from the next, for who comes late.
	use        uint64
	held       bool
	since      time.Time // it waits or is held
	prev, next *question
}

// queue is a list of questions in the order in which their time is over.
type queue struct{ first, last *question }

func (q *queue) push(x *question) {
	if x.prev = q.last; x.prev != nil {
		x.prev.next = x
	} else {
		q.first = x
	}
	q.last = x
}

func (q *queue) remove(x *question) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		q.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		q.last = x.prev
	}
	x.prev, x.next = nil, nil
}

func newQuestions(limits *DNSLimits) *questions {
	t := &questions{limits: limits, seed: maphash.MakeSeed()}
	for i := range t.shards {
		s := &t.shards[i]
		s.asked, s.of, s.wrong, s.barred = map[questionKey]*question{}, map[netip.Addr]int{}, map[twoEnds]wrongs{}, map[twoEnds]time.Time{}
	}
	return t
}

func (t *questions) shard(client netip.Addr) *shard {
	a := client.As16()
	return &t.shards[(a[15]^a[14]*7^a[13]*13)%16]
}

// hash of a question as it was sent; never 0.
func (t *questions) hash(question []byte) uint64 { return max(maphash.Bytes(t.seed, question), 1) }

// add remembers a question, or that it was sent once more. False: there is no room.
func (s *shard) add(t *questions, key questionKey, m *dns.Message, raw []byte, fill func(*question)) (again, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.asked[key]; x != nil {
		s.waits.remove(x)
		x.since = time.Now()
		s.waits.push(x)
		s.countWrong(key.ends(), -1) // both answers may come
		return true, true
	}
	if !s.enter(t, key.client.Addr()) {
		return false, false
	}
	x := s.fresh(key, m, raw, fill)
	x.since = x.at
	s.asked[key] = x
	if key.hash == 0 {
		s.opaque++
	}
	s.waits.push(x)
	return false, true
}

// fresh is memory for a question.
func (s *shard) fresh(key questionKey, m *dns.Message, raw []byte, fill func(*question)) *question {
	x := s.spare
	if x == nil {
		x = &question{}
	} else {
		s.spare, x.next = x.next, nil
	}
	x.key, x.query = key, append(x.query[:0], raw...)
	x.message = *m
	x.message.Raw = x.query
	fill(x)
	return x
}

// adopt takes up a question that waited elsewhere and has its answer now: it is in no queue.
// Nil: there is no room.
func (s *shard) adopt(t *questions, key questionKey, m *dns.Message, raw []byte, fill func(*question)) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.enter(t, key.client.Addr()) {
		return nil
	}
	return s.fresh(key, m, raw, fill)
}

// bars reports whether so many answers came to no question of these ends, not long ago, that
// none is taken for one to a question which never came here.
func (s *shard) bars(e twoEnds, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isBarred(e, now)
}

func (s *shard) isBarred(e twoEnds, now time.Time) bool {
	return len(s.barred) > 0 && (now.Before(s.barred[e]) || now.Before(s.barred[twoEnds{client: netip.AddrPortFrom(e.client.Addr(), 0)}]))
}

// bar has bars say so for a while; if there are many, for all ends of the client.
func (s *shard) bar(e twoEnds, now time.Time) {
	if len(s.barred) >= maxEnds {
		maps.DeleteFunc(s.barred, func(_ twoEnds, until time.Time) bool { return now.After(until) })
	}
	if len(s.barred) >= maxEnds {
		e = twoEnds{client: netip.AddrPortFrom(e.client.Addr(), 0)}
	}
	s.barred[e] = now.Add(barsFor)
}

// trust forgets the answers to no question of two ends: there came one to a question.
func (s *shard) trust(e twoEnds) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) > 0 {
		delete(s.wrong, e)
	}
}

// enter counts a question of a client. False: there is no room.
func (s *shard) enter(t *questions, client netip.Addr) bool {
	if s.of[client] >= t.limits.PerEndpoint {
		return false
	}
	if t.total.Add(1) > int64(t.limits.Questions) {
		t.total.Add(-1)
		return false
	}
	s.of[client]++
	return true
}

func (s *shard) leave(t *questions, client netip.Addr) {
	if s.of[client]--; s.of[client] <= 0 {
		delete(s.of, client)
	}
	t.total.Add(-1)
}

// streamed counts a question that came by TCP. False: there is no room.
func (t *questions) streamed(client netip.Addr) bool {
	s := t.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enter(t, client)
}

// streamEnds gives back what streamed took, so many times.
func (t *questions) streamEnds(client netip.Addr, n int) {
	s := t.shard(client)
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.leave(t, client)
	}
}

// take finds the question that an answer is for and takes it out of those that wait, so
// that no other answer is for it. It is the caller's until hold or free.
func (s *shard) take(key questionKey, asked []byte) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.asked[key]
	if x == nil || key.hash != 0 && string(x.message.Question()) != string(asked) {
		return nil
	}
	delete(s.asked, key)
	if key.hash == 0 {
		s.opaque--
	}
	s.waits.remove(x)
	if len(s.wrong) > 0 && s.wrong[key.ends()].n > 0 {
		delete(s.wrong, key.ends())
	}
	return x
}

func (s *shard) countWrong(e twoEnds, n int) int {
	if len(s.wrong) >= maxEnds {
		clear(s.wrong)
	}
	now, w := time.Now(), s.wrong[e]
	if now.Sub(w.last) > wrongLasts {
		w.n = 0
	}
	w.n, w.last = w.n+n, now
	s.wrong[e] = w
	return w.n
}

// wrongs are answers to nothing.
type wrongs struct {
	n    int
	last time.Time
}

// guessed counts an answer to no question. After some it takes out the questions of these
// ends, which are the caller's to free.
func (s *shard) guessed(e twoEnds, now time.Time) (ended []*question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.countWrong(e, 1) < maxWrong {
		return nil
	}
	delete(s.wrong, e)
	if !s.isBarred(e, now) { // else right answers, which are taken for none meanwhile, would bar their ends for ever
		s.bar(e, now)
	}
	for x := s.waits.first; x != nil; x = x.next {
		if x.key.ends() == e {
			ended = append(ended, x)
		}
	}
	for _, x := range ended {
		s.waits.remove(x)
		delete(s.asked, x.key)
		if x.key.hash == 0 {
			s.opaque--
		}
	}
	return ended
}

// hold keeps a question that has its answer, until somebody claims it.
func (s *shard) hold(x *question) (use uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.held, x.since = true, time.Now()
	s.holds.push(x)
	return x.use
}

// claim lets one of those who could end a question do it: they come from several sides.
func (s *shard) claim(x *question, use uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.use != use || !x.held {
		return false
	}
	s.holds.remove(x)
	x.held = false
	return true
}

// keepQuery is how long a query may be whose memory is used again.
const keepQuery = 1 << 10

// free forgets a question that is in no queue.
func (s *shard) free(t *questions, x *question) {
	s.mu.Lock()
	s.release(t, x)
	s.mu.Unlock()
}

func (s *shard) release(t *questions, x *question) {
	s.leave(t, x.key.client.Addr())
	x.use++
	x.answer = nil
	if cap(x.query) > keepQuery {
		x.query = nil
	}
	x.next, s.spare = s.spare, x
}

// unanswered takes out a question whose answer did not come; false: there is none.
func (s *shard) unanswered(t *questions, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.waits.first
	if x == nil || now.Sub(x.since) < t.limits.Answer {
		return false
	}
	s.waits.remove(x)
	delete(s.asked, x.key)
	if x.key.hash == 0 {
		s.opaque--
	}
	s.release(t, x)
	return true
}

// overdue finds a held answer whose time is over; nil: none. It must be claimed.
func (s *shard) overdue(t *questions, now time.Time) (*question, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.holds.first
	if x == nil || now.Sub(x.since) < t.limits.Deadline {
		return nil, 0
	}
	return x, x.use
}
