package kafka

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// fromServer reads what stands at the beginning of data: an answer, or the part of
// one that is needed. Answers come in the order of their requests.
func (s *Session) fromServer(data []byte) int64 {
	if len(data) < 8 {
		return 0
	}
	size := int64(int32(binary.BigEndian.Uint32(data))) + 4
	if len(s.queue) == 0 || s.queue[0].local != nil {
		s.fail(parsers.Server, errors.New("an answer that nobody asked for"))
		return 0
	}
	p := &s.queue[0]
	if correlation := int32(binary.BigEndian.Uint32(data[4:])); size < 8 || correlation != p.correlation {
		s.fail(parsers.Server, fmt.Errorf("an answer of %d bytes to request %d where one to request %d is due", size-4, correlation, p.correlation))
		return 0
	}
	layout := apis()[p.key].response(p.version)
	r := &s.answer
	r.begin(layout, p.version, data[:min(size, int64(len(data)))], 1)
	if r.pos = 8; r.flexible && p.key != keyAPIVersions {
		r.tags(nil)
	}
	begin := r.pos
	whole := int64(len(data)) >= size
	switch {
	case r.err != nil && (whole || len(data) > maxPart || !errors.Is(r.err, errShort)):
		s.fail(parsers.Server, fmt.Errorf("read the header of an answer: %w", r.err))
		return 0
	case r.err != nil, int64(len(data)) < min(size, maxPeek):
		return 0
	case p.lookup, p.filter, p.merge != nil, p.key == keyAPIVersions, p.key == keyCreateTopics, p.key == keyTopicPartitions:
		if size > maxAnswer {
			s.fail(parsers.Server, fmt.Errorf("an answer of %d bytes, of which %d can be read", size, maxAnswer))
			return 0
		}
		if !whole {
			return 0
		}
		return s.change(p, data[:size], begin)
	}
	return s.pass(p, layout, data, begin, size)
}

// pass lets an answer through, with denied elements before its own.
func (s *Session) pass(p *pending, layout *message, data []byte, begin int, size int64) int64 {
	body := data[begin:min(size, int64(len(data)))]
	code := s.answer.errorCode(layout, p.version, body[:min(len(body), maxPart)])
	if p.fetch != nil {
		var err error
		if p.prefix, p.prefixed, err = s.fetched(p, body); err != nil {
			s.fail(parsers.Server, err)
			return 0
		}
	}
	if p.prefixed == 0 {
		s.move(parsers.Forward, size)
		s.passed(p, code)
		return size
	}
	l, ok := s.answer.first(layout, p.version, body)
	if !ok {
		if int64(len(data)) >= size || len(data) > maxPart {
			s.fail(parsers.Server, errors.New("an answer has no list for what is denied"))
		}
		return 0
	}
	b := append(make([]byte, 0, begin+int(l.end)+len(p.prefix)+8), data[:begin+int(l.at)]...)
	b = s.answer.appendCount(b, int(l.n)+p.prefixed)
	b = append(b, p.prefix...)
	rest := size - int64(begin) - int64(l.end)
	binary.BigEndian.PutUint32(b, uint32(int64(len(b))-4+rest))
	s.send(parsers.Client, b)
	s.move(parsers.Discard, int64(begin)+int64(l.end))
	s.move(parsers.Forward, rest)
	s.passed(p, code)
	return size
}

// passed reports an answer and goes on to the next.
func (s *Session) passed(p *pending, code int16) {
	if p.share != nil {
		s.shared(p.share, code)
	}
	s.answered(p, code, false)
	s.pop()
	s.proceed()
}

// change deals with an answer that is read as a whole.
func (s *Session) change(p *pending, data []byte, begin int) int64 {
	size, body := int64(len(data)), data[begin:]
	if p.lookup {
		s.lookedUp(p, body)
		s.move(parsers.Discard, size)
		s.pop()
		s.proceed()
		return size
	}
	var changed []byte
	var err error
	switch {
	case p.key == keyAPIVersions:
		changed, err = s.versions(p, body)
	case p.merge != nil:
		changed, err = p.merge(body)
	default:
		changed, err = s.filter(p, body)
	}
	if err != nil {
		s.fail(parsers.Server, fmt.Errorf("read an answer of API %d: %w", p.key, err))
		return 0
	}
	code := s.answer.errorCode(apis()[p.key].response(p.version), p.version, body[:min(len(body), maxPart)])
	if changed == nil {
		s.move(parsers.Forward, size)
	} else {
		s.send(parsers.Client, frame(append(append(make([]byte, 0, begin+len(changed)), data[:begin]...), changed...)))
		s.move(parsers.Discard, size)
	}
	s.passed(p, code)
	return size
}

// filter takes out of an answer the topics that the client may not ask for, puts
// in what was denied of its request, and learns the ids of topics. Nil: the answer
// is right as it is.
func (s *Session) filter(p *pending, body []byte) ([]byte, error) {
	layout := apis()[p.key].response(p.version)
	r := &s.answer
	if err := r.read(layout, p.version, body, maxMarksAnswer); err != nil {
		return nil, err
	}
	s.learn()
	var drop []bool
	if p.filter {
		for _, it := range r.items(p.key) {
			name := it.topic
			if it.byID {
				name, _ = s.topics.Name(it.id)
			}
			if it.element < 0 || name == "" && p.key == keyMetadata || it.byID && p.key == keyMetadata {
				continue // an error, or named beside its id
			}
			if name == "" || !s.hooks.Allows(s.shown(p, name, it.group)) {
				if drop == nil {
					drop = make([]bool, len(r.elements))
				}
				drop[it.element] = true
			}
		}
	}
	if drop == nil && p.prefixed == 0 {
		return nil, nil
	}
	b := r.cut(nil, func(e int32) bool { return drop != nil && drop[e] })
	if p.prefixed == 0 {
		return b, nil
	}
	l, ok := r.first(layout, p.version, b)
	if !ok {
		return nil, errors.New("there is no list for what is denied")
	}
	full := append(make([]byte, 0, len(b)+len(p.prefix)+8), b[:l.at]...)
	full = r.appendCount(full, int(l.n)+p.prefixed)
	return append(append(full, p.prefix...), b[l.end:]...), nil
}

func (s *Session) shown(p *pending, topic, group string) *policy.KafkaRequest {
	return &policy.KafkaRequest{APIKey: p.key, APIVersion: p.version, ClientID: p.client, CorrelationID: p.correlation, Topic: topic, Group: cmp.Or(group, p.group)}
}

// versions takes out of an ApiVersions answer what cannot be read here. An error
// is said in the oldest form, whatever was asked in.
func (s *Session) versions(p *pending, body []byte) ([]byte, error) {
	version := p.version
	if len(body) >= 2 && int16(binary.BigEndian.Uint16(body)) == codeUnsupportedVersion {
		version = 0
	}
	if err := s.answer.read(apis()[keyAPIVersions].response(version), version, body, maxMarks); err != nil {
		return nil, err
	}
	response := kmsg.NewPtrApiVersionsResponse()
	response.Version = version
	if err := response.ReadFrom(body); err != nil {
		return nil, err
	}
	list := response.ApiKeys[:0]
	for _, k := range response.ApiKeys {
		a := apis()[k.ApiKey]
		if a == nil {
			continue
		}
		k.MinVersion, k.MaxVersion = max(k.MinVersion, a.versions.from), min(k.MaxVersion, a.versions.to)
		if k.MinVersion <= k.MaxVersion {
			list = append(list, k)
		}
	}
	response.ApiKeys = list
	return response.AppendTo(nil), nil
}

// mergeOffsets puts denied topics into the groups of an answer.
func mergeOffsets(body []byte, denied *kmsg.OffsetFetchResponse) ([]byte, error) {
	version := denied.Version
	var check scan
	if err := check.read(apis()[keyOffsetFetch].response(version), version, body, maxMarksAnswer); err != nil {
		return nil, err
	}
	response := kmsg.NewPtrOffsetFetchResponse()
	response.Version = version
	if err := response.ReadFrom(body); err != nil {
		return nil, err
	}
	for _, d := range denied.Groups {
		found := false
		for i := range response.Groups {
			if g := &response.Groups[i]; g.Group == d.Group {
				g.Topics, found = append(g.Topics, d.Topics...), true
			}
		}
		if !found {
			response.Groups = append(response.Groups, d)
		}
	}
	return response.AppendTo(nil), nil
}
