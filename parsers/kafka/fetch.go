package kafka

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
)

const (
	maxFetches = 4      // sessions of one connection
	maxFetched = 20_000 // topics and partitions of one
	maxRefused = 2_000  // of them denied, of which more is kept
	maxWait    = time.Minute
	// sessionsFrom is the first version of Fetch that knows sessions.
	sessionsFrom = 7
)

// fetching is a fetch session (KIP-227): requests name only what changed. What is
// denied in it the server never hears of; its errors are given with every answer,
// as a server gives errors. When the rules change about anything in it, or a
// session is not of this connection, the client is told that there is none, and
// begins a new one with all that it wants.
type fetching struct {
	id      int32
	allowed map[string]bool // topics
	denied  []deniedTopic
	size    int
}

type deniedTopic struct {
	topic string
	code  int16
	entry kmsg.FetchResponseTopic
}

// fetchAnswer is what the answer to a Fetch means.
type fetchAnswer struct {
	begins  bool // a session, if it has an id
	session *fetching
	allowed []string
	denied  []deniedTopic
}

// fetchHead is what stands before the topics, and who asks.
type fetchHead struct {
	replica int32 // a broker that copies; negative: a client
	wait    time.Duration
	id      int32
	epoch   int32
}

func (s *Session) fetchHead(h *head, data []byte) (f fetchHead) {
	r := scan{b: data, pos: h.length, end: len(data)}
	f.replica = -1
	if h.version <= 14 {
		f.replica = r.int32()
	} else if s.request.tagged {
		if request, err := parse(h.key, h.version, data[h.length:]); err == nil {
			f.replica = request.(*kmsg.FetchRequest).ReplicaState.ID
		}
	}
	f.wait = min(time.Duration(max(r.int32(), 0))*time.Millisecond, maxWait)
	r.int32() // least bytes
	if h.version >= 3 {
		r.int32() // most bytes
	}
	if h.version >= 4 {
		r.int8() // isolation
	}
	f.epoch = -1
	if h.version >= sessionsFrom {
		f.id, f.epoch = r.int32(), r.int32()
	}
	return f
}

// fetch deals with a Fetch request that was checked and whose topics are list.
func (s *Session) fetch(h *head, data []byte, list []item) int64 {
	f := s.fetchHead(h, data)
	wanted, forgotten := s.split(list)
	p := h.pending()
	if f.replica >= 0 {
		// What a broker says that it has counts for what others may read.
		s.id++
		if !s.hooks.Deny(s.id, h.asked(&item{}), fmt.Sprintf("fetching as broker %d is for brokers", f.replica)) {
			p.judged = []judged{{s.id, codeClusterDenied}}
			return s.refuse(h, data[h.length:], codes{other: codeClusterDenied}, p)
		}
		p.judged = []judged{{id: s.id}}
	}
	p.fetch = &fetchAnswer{begins: h.version >= sessionsFrom && f.epoch == 0}
	var session *fetching
	switch session = s.fetching(f.id); {
	case f.epoch <= 0: // it asks for all anew, and names the session that it had, if any, for it to end
		s.forget(f.id)
		session = nil
	case session == nil && f.id != 0:
		return s.noFetchSession(h, data, []item{{element: -1}}, p)
	}
	if session != nil {
		if s.changed(h, session) {
			s.forget(f.id)
			return s.noFetchSession(h, data, session.items(), p)
		}
		p.fetch.session = session
		p.judged = append(p.judged, s.judge(h, session.items())...)
	}
	if session == nil && len(wanted) == 0 {
		wanted = []item{{element: -1}}
	}
	p.judged = append(p.judged, s.judge(h, wanted)...)
	c := codes{}
	left := session != nil
	for i := range wanted {
		it := &wanted[i]
		if it.code != 0 {
			c.add(it)
			continue
		}
		left = true
		p.fetch.allowed = append(p.fetch.allowed, it.topic)
	}
	var err error
	if p.fetch.denied, err = s.deniedTopics(h, data, wanted, c); err != nil {
		s.fail(parsers.Client, err)
		return 0
	}
	if !left {
		n := s.refuse(h, s.without(data[h.length:], forgotten), c, p)
		if n > 0 {
			s.hold(f.wait)
		}
		return n
	}
	drop := s.unwanted(h, wanted, forgotten)
	if session != nil {
		session.take(p.fetch, forgotten)
	}
	s.enqueue(p)
	if drop == nil {
		s.move(parsers.Forward, h.size)
		return h.size
	}
	rest := s.request.cut(append(make([]byte, 0, len(data)), data[:h.length]...), func(e int32) bool { return drop[e] })
	s.send(parsers.Server, frame(rest))
	s.move(parsers.Discard, h.size)
	return h.size
}

// split tells what is wanted from what is no longer.
func (s *Session) split(list []item) (wanted, forgotten []item) {
	for _, it := range list {
		if it.element >= 0 && s.request.elements[it.element].list != 0 {
			forgotten = append(forgotten, it)
		} else if it.element >= 0 {
			wanted = append(wanted, it)
		}
	}
	return wanted, forgotten
}

// changed reports whether the rules now say something else about a session.
func (s *Session) changed(h *head, f *fetching) bool {
	for topic := range f.allowed {
		if !s.hooks.Allows(h.asked(&item{topic: topic})) {
			return true
		}
	}
	return slices.ContainsFunc(f.denied, func(d deniedTopic) bool {
		return d.code == codeTopicDenied && s.hooks.Allows(h.asked(&item{topic: d.topic}))
	})
}

// items are the topics of a session, as if the request had named them.
func (f *fetching) items() []item {
	list := make([]item, 0, len(f.allowed))
	for topic := range f.allowed {
		list = append(list, item{topic: topic, element: -1})
	}
	return list
}

// noFetchSession says that there is no such session, if the client may fetch.
func (s *Session) noFetchSession(h *head, data []byte, list []item, p pending) int64 {
	p.judged = s.judge(h, list)
	p.fetch = nil
	response := kmsg.NewPtrFetchResponse()
	response.Version = h.version
	response.ErrorCode = codeNoFetchSession
	for i := range p.judged {
		if p.judged[i].code == 0 {
			p.judged[i].code = codeNoFetchSession
		}
	}
	s.reply(h, response, p)
	s.move(parsers.Discard, h.size)
	return h.size
}

// unwanted says which elements the server must not get; nil: it may have all.
func (s *Session) unwanted(h *head, wanted, forgotten []item) []bool {
	var drop []bool
	set := func(e int32) {
		if drop == nil {
			drop = make([]bool, len(s.request.elements))
		}
		drop[e] = true
	}
	for i := range wanted {
		if wanted[i].code != 0 {
			set(wanted[i].element)
		}
	}
	for i := range forgotten {
		it := &forgotten[i]
		if it.unknown || !s.hooks.Allows(h.asked(it)) {
			it.code = codeTopicDenied
			set(it.element)
		}
	}
	return drop
}

// without returns a body without some elements.
func (s *Session) without(body []byte, list []item) []byte {
	if len(list) == 0 {
		return body
	}
	drop := make([]bool, len(s.request.elements))
	for i := range list {
		drop[list[i].element] = true
	}
	return s.request.cut(nil, func(e int32) bool { return drop[e] })
}

// deniedTopics makes the entries of an answer for what is denied.
func (s *Session) deniedTopics(h *head, data []byte, wanted []item, c codes) ([]deniedTopic, error) {
	if c.other == 0 || wanted[0].element < 0 {
		return nil, nil
	}
	names := map[string]string{} // of what is denied, by how it is named
	keep := make([]bool, len(s.request.elements))
	for i := range wanted {
		it := &wanted[i]
		if it.code == 0 {
			continue
		}
		keep[it.element] = true
		if it.byID {
			names[string(it.id[:])] = it.topic
		}
	}
	request, err := parse(h.key, h.version, s.request.cut(nil, func(e int32) bool { return !keep[e] }))
	if err != nil {
		return nil, err
	}
	response := denial(request, c).(*kmsg.FetchResponse)
	list := make([]deniedTopic, 0, len(response.Topics))
	for _, t := range response.Topics {
		d := deniedTopic{topic: t.Topic, code: c.other, entry: t}
		if h.version >= 13 {
			d.topic = names[string(t.TopicID[:])]
		}
		if len(t.Partitions) > 0 {
			d.code = t.Partitions[0].ErrorCode
		}
		list = append(list, d)
	}
	return list, nil
}

func (s *Session) fetching(id int32) *fetching {
	for _, f := range s.fetches {
		if f.id == id {
			return f
		}
	}
	return nil
}

func (s *Session) forget(id int32) {
	s.fetches = slices.DeleteFunc(s.fetches, func(f *fetching) bool { return f.id == id })
}

// take changes a session as a request asks.
func (f *fetching) take(a *fetchAnswer, forgotten []item) {
	for i := range forgotten {
		it := &forgotten[i]
		f.denied = slices.DeleteFunc(f.denied, func(d deniedTopic) bool {
			return it.byID && d.entry.TopicID == it.id || !it.byID && d.topic == it.topic
		})
	}
	for _, d := range a.denied {
		f.denied = slices.DeleteFunc(f.denied, func(before deniedTopic) bool {
			return before.entry.TopicID == d.entry.TopicID && before.entry.Topic == d.entry.Topic
		})
		f.size += 1 + len(d.entry.Partitions)
	}
	f.denied = append(f.denied, a.denied...)
	for _, topic := range a.allowed {
		f.allowed[topic] = true
	}
}

// fetched deals with the beginning of an answer to a Fetch: what it says of its
// session. It returns the entries that go before those of the server.
func (s *Session) fetched(p *pending, part []byte) (entries []byte, n int, err error) {
	a := p.fetch
	denied := a.denied
	if p.version >= sessionsFrom {
		r := scan{b: part, end: len(part)}
		r.int32() // throttle
		code, id := r.int16(), r.int32()
		switch {
		case code != 0:
			if a.session != nil {
				s.forget(a.session.id)
			}
			return nil, 0, nil
		case a.session != nil:
			denied = a.session.denied
			if a.session.large() {
				s.forget(a.session.id)
			}
		case a.begins && id != 0:
			s.begin(id, a)
		}
	}
	if len(denied) == 0 {
		return nil, 0, nil
	}
	response := kmsg.NewPtrFetchResponse()
	response.Version = p.version
	for _, d := range denied {
		response.Topics = append(response.Topics, d.entry)
	}
	entries, n, ok := s.elementsOf(response)
	if !ok {
		return nil, 0, fmt.Errorf("put %d denied topics into an answer", len(denied))
	}
	return entries, n, nil
}

// large reports whether more is known of a session than may be kept.
func (f *fetching) large() bool { return f.size > maxRefused || f.size+len(f.allowed) > maxFetched }

// begin remembers a session that the server has begun.
func (s *Session) begin(id int32, a *fetchAnswer) {
	f := &fetching{id: id, allowed: map[string]bool{}}
	f.take(a, nil)
	if f.large() {
		return // the client will be told that there is none
	}
	s.forget(id)
	if len(s.fetches) >= maxFetches {
		s.fetches = s.fetches[1:]
	}
	s.fetches = append(s.fetches, f)
}
