package kafka

import (
	"cmp"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
)

// sharing is a share session (KIP-932), of a member of a share group: as a fetch
// session it goes on without naming its topics again.
type sharing struct{ topics map[string]bool }

// maxShares bounds the share sessions of one connection, maxShared their topics.
const (
	maxShares = 4
	maxShared = 10_000
)

// shareAnswer is what the answer to a request in a share session means.
type shareAnswer struct {
	member  string
	allowed []string
	begins  bool
	ends    bool
}

// share deals with ShareFetch and ShareAcknowledge.
func (s *Session) share(h *head, data []byte, list []item) int64 {
	request, err := parse(h.key, h.version, data[h.length:])
	if err != nil {
		s.fail(parsers.Client, err)
		return 0
	}
	var group, member *string
	var epoch int32
	var wait time.Duration
	switch r := request.(type) {
	case *kmsg.ShareFetchRequest:
		group, member, epoch = r.GroupID, r.MemberID, r.ShareSessionEpoch
		wait = min(time.Duration(max(r.MaxWaitMillis, 0))*time.Millisecond, maxWait)
	case *kmsg.ShareAcknowledgeRequest:
		group, member, epoch = r.GroupID, r.MemberID, r.ShareSessionEpoch
	}
	p := h.pending()
	p.share = &shareAnswer{member: value(group) + "\x00" + value(member), begins: epoch == 0, ends: epoch < 0}
	session := s.shares[p.share.member]
	if epoch > 0 && session == nil || session != nil && epoch > 0 && s.shareChanged(h, session, groupName(group)) {
		delete(s.shares, p.share.member)
		return s.noShareSession(h, []item{{group: groupName(group), element: -1}}, p)
	}
	wanted, forgotten := s.split(list)
	for i := range forgotten {
		forgotten[i].code = 0
	}
	judge := wanted
	if len(judge) == 0 {
		judge = []item{{group: groupName(group), element: -1}}
	}
	p.judged = s.judge(h, judge)
	c, left := codes{}, epoch != 0
	for i := range judge {
		if it := &judge[i]; it.code != 0 {
			c.add(it)
			left = left && it.element >= 0
		} else {
			left = true
			if it.topic != "" {
				p.share.allowed = append(p.share.allowed, it.topic)
			}
		}
	}
	if !left {
		p.share = nil
		n := s.refuse(h, s.without(data[h.length:], forgotten), c, p)
		if n > 0 && wait > 0 {
			s.hold(wait)
		}
		return n
	}
	drop := s.unwanted(h, wanted, forgotten)
	if drop == nil {
		s.enqueue(p)
		s.move(parsers.Forward, h.size)
		return h.size
	}
	if c.other != 0 {
		denied, err := parse(h.key, h.version, s.request.cut(nil, func(e int32) bool {
			return !holds(wanted, e)
		}))
		ok := err == nil
		if ok {
			p.prefix, p.prefixed, ok = s.elementsOf(denial(denied, c))
		}
		if !ok {
			return s.refuse(h, data[h.length:], c, p)
		}
	}
	rest := s.request.cut(append(make([]byte, 0, len(data)), data[:h.length]...), func(e int32) bool { return drop[e] })
	s.enqueue(p)
	s.send(parsers.Server, frame(rest))
	s.move(parsers.Discard, h.size)
	return h.size
}

// holds reports whether element e is one of those denied.
func holds(list []item, e int32) bool {
	for i := range list {
		if list[i].element == e && list[i].code != 0 {
			return true
		}
	}
	return false
}

// groupName is how rules see the group of a request, which always has one.
func groupName(s *string) string { return cmp.Or(value(s), emptyGroup) }

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (s *Session) shareChanged(h *head, session *sharing, group string) bool {
	for topic := range session.topics {
		if !s.hooks.Allows(h.asked(&item{topic: topic, group: group})) {
			return true
		}
	}
	return false
}

// noShareSession says that there is no such session, if the client may share.
func (s *Session) noShareSession(h *head, list []item, p pending) int64 {
	p.judged = s.judge(h, list)
	p.share = nil
	code := codeNoShareSession
	for i := range p.judged {
		if p.judged[i].code == 0 {
			p.judged[i].code = code
		} else {
			code = p.judged[i].code
		}
	}
	var response kmsg.Response
	if h.key == keyShareFetch {
		r := kmsg.NewPtrShareFetchResponse()
		r.ErrorCode, response = code, r
	} else {
		r := kmsg.NewPtrShareAcknowledgeResponse()
		r.ErrorCode, response = code, r
	}
	response.SetVersion(h.version)
	s.reply(h, response, p)
	s.move(parsers.Discard, h.size)
	return h.size
}

// shared takes from the answer what became of a session: it has begun, gone on or
// ended.
func (s *Session) shared(a *shareAnswer, code int16) {
	session := s.shares[a.member]
	switch {
	case code != 0 || a.ends:
		delete(s.shares, a.member)
		return
	case a.begins:
		session = &sharing{topics: map[string]bool{}}
		for some := range s.shares {
			if len(s.shares) < maxShares {
				break
			}
			delete(s.shares, some)
		}
		if s.shares == nil {
			s.shares = map[string]*sharing{}
		}
		s.shares[a.member] = session
	case session == nil:
		return
	}
	for _, topic := range a.allowed {
		session.topics[topic] = true
	}
	if len(session.topics) > maxShared {
		delete(s.shares, a.member)
	}
}
