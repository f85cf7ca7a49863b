package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// head is the header of a request.
type head struct {
	size        int64 // of the frame, with the four bytes that say it
	length      int   // of the header, with those too
	key         int16
	version     int16
	correlation int32
	client      string
	api         *api
	layout      *message
	spare       int // bytes at the end that are no part of it
}

// fromClient reads what stands at the beginning of data: a request or the part of
// one that it needs. It returns how many bytes its steps consume, 0 if it waits.
func (s *Session) fromClient(data []byte) int64 {
	if s.skim != nil {
		return s.skimOn(data)
	}
	if s.stalled() {
		return 0
	}
	s.phase = parsers.Head
	h, ok := s.head(data)
	if !ok {
		return 0
	}
	var n int64
	if h.key == keyProduce {
		n = s.produce(&h, data)
	} else {
		n = s.whole(&h, data)
	}
	if n > 0 {
		s.lookup.asked = false
		s.phase = parsers.Idle
		if n > int64(len(data)) {
			s.phase = parsers.Body
		}
	}
	return n
}

// head reads the header of a request. False: it is not whole yet, or is refused.
func (s *Session) head(data []byte) (h head, ok bool) {
	if len(data) < 4 {
		return h, false
	}
	if s.id == 0 && data[0] == tlsHandshake && data[1] == tlsMajor {
		s.fail(parsers.Client, errTLS)
		return h, false
	}
	size := int32(binary.BigEndian.Uint32(data))
	if size < minRequest {
		s.fail(parsers.Client, fmt.Errorf("a request of %d bytes cannot be", size))
		return h, false
	}
	h.size = int64(size) + 4
	r := &s.request
	r.begin(&message{flexible: math.MaxInt16}, 0, data[:min(h.size, int64(len(data)))], 1)
	r.pos = 4
	h.key, h.version, h.correlation = r.int16(), r.int16(), r.int32()
	if r.err != nil {
		return h, false
	}
	h.api = apis()[h.key]
	if h.api == nil || !h.api.versions.has(h.version) {
		return h, s.unknown(&h, data)
	}
	h.layout = h.api.request(h.version)
	client, _ := r.bytes(r.stringLength(), true)
	h.client = string(client)
	if h.version >= h.layout.flexible {
		r.flexible = true
		r.tags(nil)
	}
	if r.err != nil {
		if !errors.Is(r.err, errShort) || int64(len(data)) >= h.size {
			if len(data) > maxPart || int64(len(data)) >= h.size {
				s.fail(parsers.Client, fmt.Errorf("read the header of a request: %w", r.err))
			}
		}
		return h, false
	}
	h.length = r.pos
	return h, true
}

// unknown deals with an API or a version that cannot be read, and so not answered
// either, but for ApiVersions: clients ask for a version of it before they can
// know which there are, and are told.
func (s *Session) unknown(h *head, data []byte) bool {
	request := &policy.KafkaRequest{APIKey: h.key, APIVersion: h.version, CorrelationID: h.correlation}
	if h.key == keyAPIVersions && h.version > 0 {
		if h.size > maxPart {
			s.fail(parsers.Client, fmt.Errorf("a request of %d bytes for the versions", h.size))
			return false
		}
		if int64(len(data)) < h.size {
			return false
		}
		s.request.pos = 12 // where the client id is, in every version
		client, _ := s.request.bytes(s.request.stringLength(), true)
		h.client, request.ClientID = string(client), string(client)
		h.layout, h.length = nil, int(h.size) // nothing more of it can be read
		return true
	}
	s.id++
	if s.hooks.Deny(s.id, request, fmt.Sprintf("version %d of API %d is not known", h.version, h.key)) && s.simple() {
		s.hooks.Unanswered(s.id)
		s.opaque = true
		return false
	}
	s.hooks.Response(s.id, parsers.Answer{Status: int(codeUnsupportedVersion), Local: true})
	s.err = fmt.Errorf("kafka: version %d of API %d is not known", h.version, h.key)
	return false
}

// whole deals with a request that is read as a whole.
func (s *Session) whole(h *head, data []byte) int64 {
	if h.layout == nil {
		return s.tellVersions(h)
	}
	if h.size > maxHeld {
		s.fail(parsers.Client, fmt.Errorf("a request of %d bytes to API %d, of which %d can be read", h.size, h.key, maxHeld))
		return 0
	}
	if int64(len(data)) < h.size {
		s.phase = parsers.Body
		return 0
	}
	body := data[h.length:h.size]
	if err := s.request.read(h.layout, h.version, body, maxMarks); err != nil {
		if !s.longNull(h) {
			s.fail(parsers.Client, fmt.Errorf("read a request to API %d: %w", h.key, err))
			return 0
		}
		h.spare = longNull
	}
	list := s.request.items(h.key)
	if !s.resolve(h, list) {
		return 0
	}
	switch h.key {
	case keyFetch:
		return s.fetch(h, data[:h.size], list)
	case keyShareFetch, keyShareAcknowledge:
		return s.share(h, data[:h.size], list)
	}
	p := h.pending()
	p.judged = s.judge(h, list)
	p.filter = h.key == keyMetadata || h.key == keyOffsetFetch && s.asksAll()
	if h.key == keyOffsetFetch && h.version < 8 {
		p.group = list[0].group // later ones say it in the answer
	}
	return s.carry(h, data[:h.size-int64(h.spare)], list, p)
}

// longNull is how much longer the null of some clients is than it should be: librdkafka's
// Metadata request about all topics has four bytes for the list where one is enough (its
// issue 5049). To brokers the last three are behind the end, and ignored. They are taken
// off here, so that nothing goes on that was not read.
const longNull = 3

func (s *Session) longNull(h *head) bool {
	return h.key == keyMetadata && s.request.flexible && s.request.over == longNull && s.asksAll()
}

func (h *head) pending() pending {
	return pending{key: h.key, version: h.version, correlation: h.correlation, client: h.client}
}

// asksAll reports whether a list of topics is null and stands for all of them.
func (s *Session) asksAll() bool {
	for i := range s.request.lists {
		if l := &s.request.lists[i]; l.structs && l.null {
			return true
		}
	}
	return false
}

// asked returns an item as rules judge it.
func (h *head) asked(it *item) *policy.KafkaRequest {
	return &policy.KafkaRequest{
		APIKey: h.key, APIVersion: h.version, ClientID: h.client, CorrelationID: h.correlation,
		Topic: it.topic, Group: it.group, TransactionalID: it.transaction,
	}
}

// judge judges each item and gives those that are denied their error.
func (s *Session) judge(h *head, list []item) []judged {
	reported := make([]judged, 0, min(len(list), maxJudged))
	for i := range list {
		it := &list[i]
		request := h.asked(it)
		switch {
		case len(reported) == maxJudged:
			if it.unknown {
				it.code = codeUnknownTopicID
			} else if !s.hooks.Allows(request) {
				it.code = s.errorOf(request)
			}
			continue
		case it.unknown:
			s.id++
			if !s.hooks.Deny(s.id, request, fmt.Sprintf("nobody knows a topic with id %x", it.id[:])) {
				it.code = codeUnknownTopicID
			}
		default:
			s.id++
			if s.hooks.Request(s.id, request).Verdict != policy.Allow {
				it.code = s.errorOf(request)
			}
		}
		reported = append(reported, judged{s.id, it.code})
	}
	return reported
}

// errorOf is the error of a request that is denied: of its group or transactional
// id if without them it would be allowed.
func (s *Session) errorOf(r *policy.KafkaRequest) int16 {
	without := *r
	if without.Group = ""; r.Group != "" && (r.Topic == "" && r.TransactionalID == "" || s.hooks.Allows(&without)) {
		return codeGroupDenied
	}
	without = *r
	if without.TransactionalID = ""; r.TransactionalID != "" && (r.Topic == "" || s.hooks.Allows(&without)) {
		return codeTransactionDenied
	}
	switch {
	case r.TransactionalID != "" && r.Topic == "":
		return codeTransactionDenied
	case r.Topic != "" || r.APIKey == keyProduce || r.APIKey == keyFetch:
		return codeTopicDenied
	}
	return codeClusterDenied
}

// carry forwards a request, the allowed part of it, or nothing of it.
func (s *Session) carry(h *head, data []byte, list []item, p pending) int64 {
	c := codes{}
	for i := range list {
		if list[i].code != 0 {
			c.add(&list[i])
		}
	}
	if c.other == 0 {
		s.expect(p)
		if h.spare == 0 {
			s.move(parsers.Forward, h.size)
			return h.size
		}
		s.send(parsers.Server, frame(slices.Clone(data)))
		s.move(parsers.Discard, h.size)
		return h.size
	}
	drop, left := s.request.denied(list)
	if h.key == keyMetadata && !left {
		left = s.hooks.Allows(h.asked(&item{})) // and tells the brokers
	}
	if left && rootAllowed(list) {
		if rest, ok := s.divide(h, data, list, drop, c, &p); ok {
			s.expect(p)
			s.send(parsers.Server, rest)
			s.move(parsers.Discard, h.size)
			return h.size
		}
	}
	n := s.refuse(h, data[h.length:], c, p)
	if n > 0 && (h.key == keyGroupHeartbeat || h.key == keyShareHeartbeat || h.key == keyStreamsHeartbeat) {
		s.hold(heartbeatWait) // clients send the next one at once
	}
	return n
}

// expect remembers a request until it is answered, if it will be.
func (s *Session) expect(p pending) {
	if !p.silent {
		s.enqueue(p)
		return
	}
	for _, j := range p.judged {
		s.hooks.Unanswered(j.id)
	}
}

// rootAllowed reports whether what the request as a whole is about is allowed.
func rootAllowed(list []item) bool {
	for i := range list {
		if list[i].code != 0 && list[i].element < 0 {
			return false
		}
	}
	return true
}

// divide makes the request without what is denied, and says how the answer to
// that part gets its errors for the rest. False: it cannot be divided.
func (s *Session) divide(h *head, data []byte, list []item, drop []bool, c codes, p *pending) ([]byte, bool) {
	keep := make([]bool, len(s.request.elements))
	top, nested := 0, false
	for i := range list {
		if list[i].code == 0 {
			continue
		}
		for e := list[i].element; e >= 0; e = s.request.parent(e) {
			keep[e] = true
		}
	}
	for e := range drop {
		if !drop[e] {
			continue
		}
		if parent := s.request.parent(int32(e)); parent < 0 {
			top++
		} else if !drop[parent] {
			nested = true
		}
	}
	rest := s.request.cut(append(make([]byte, 0, len(data)), data[:h.length]...), func(e int32) bool { return drop[e] })
	denied := s.request.cut(nil, func(e int32) bool { return !keep[e] })
	request, err := parse(h.key, h.version, denied)
	if err != nil {
		return nil, false
	}
	response := denial(request, c)
	if nested {
		offsets, ok := response.(*kmsg.OffsetFetchResponse)
		if !ok {
			return nil, false
		}
		p.held = answerCost * len(denied)
		p.merge = func(body []byte) ([]byte, error) { return mergeOffsets(body, offsets) }
		return frame(rest), true
	}
	var ok bool
	if p.prefix, p.prefixed, ok = s.elementsOf(response); !ok || p.prefixed != top {
		return nil, false
	}
	return frame(rest), true
}

// parse reads the body of a request that was checked against its layout.
func parse(key, version int16, body []byte) (kmsg.Request, error) {
	request := kmsg.RequestForKey(key)
	request.SetVersion(version)
	if err := request.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("read a request to API %d: %w", key, err)
	}
	return request, nil
}

// elementsOf returns the elements of an answer's list as they stand in a message.
func (s *Session) elementsOf(response kmsg.Response) (elements []byte, n int, ok bool) {
	layout := apis()[response.Key()].response(response.GetVersion())
	raw := response.AppendTo(nil)
	if layout == nil || s.answer.read(layout, response.GetVersion(), raw, maxMarksAnswer) != nil || len(s.answer.lists) == 0 {
		return nil, 0, false
	}
	first, last := -1, -1
	for i := range s.answer.elements {
		if s.answer.elements[i].list == 0 {
			if first < 0 {
				first = i
			}
			last = i
			n++
		}
	}
	if n == 0 {
		return nil, 0, false
	}
	return raw[s.answer.elements[first].start:s.answer.elements[last].end], n, true
}

// refuse answers a request of which nothing goes on.
func (s *Session) refuse(h *head, body []byte, c codes, p pending) int64 {
	request, err := parse(h.key, h.version, body)
	if err != nil {
		s.fail(parsers.Client, err)
		return 0
	}
	for i := range p.judged {
		if p.judged[i].code == 0 {
			p.judged[i].code = c.other // it shares the fate of the others
		}
	}
	if p.silent {
		s.expect(p)
		s.move(parsers.Discard, h.size)
		return h.size
	}
	s.reply(h, denial(request, c), p)
	s.move(parsers.Discard, h.size)
	return h.size
}

// reply queues an answer of our own.
func (s *Session) reply(h *head, response kmsg.Response, p pending) {
	b := make([]byte, 4, 128)
	b = binary.BigEndian.AppendUint32(b, uint32(h.correlation))
	if response.IsFlexible() && h.key != keyAPIVersions {
		b = append(b, 0)
	}
	p.local = frame(response.AppendTo(b))
	s.enqueue(p)
}

// tellVersions answers an ApiVersions request of a version that is not known, in
// the oldest form, with what may be asked instead.
func (s *Session) tellVersions(h *head) int64 {
	p := h.pending()
	p.judged = s.judge(h, []item{{element: -1}})
	response := kmsg.NewPtrApiVersionsResponse()
	response.ErrorCode = codeUnsupportedVersion
	known := apis()[keyAPIVersions].versions
	response.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: keyAPIVersions, MinVersion: known.from, MaxVersion: known.to}}
	if code := p.judged[0].code; code != 0 {
		response.ErrorCode, response.ApiKeys = code, nil
	}
	s.reply(h, response, p)
	s.move(parsers.Discard, h.size)
	return h.size
}
