package kafka

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
)

// lookup is a Metadata request of our own, for the names of topics that a client
// names by ids which nobody here knows: the client's request waits for its answer.
type lookup struct {
	under bool // it is under way
	asked bool // for the request that waits
}

// lookupVersion is the first version of Metadata that asks by id.
const lookupVersion = 12

// maxLookup bounds the ids of one lookup; what is beyond is not known.
const maxLookup = 10_000

// resolve finds the names of topics that are named by ids. False: they are being
// looked up. What the server does not know either stays unknown, and is denied.
func (s *Session) resolve(h *head, list []item) bool {
	var missing []topicID
	for i := range list {
		it := &list[i]
		if !it.byID {
			continue
		}
		name, ok := s.topics.Name(it.id)
		switch {
		case ok:
			it.topic = name
		case h.key == keyMetadata: // its answer is filtered
		case it.id == topicID{} || s.lookup.asked || len(missing) >= maxLookup:
			it.unknown = true
		default:
			missing = append(missing, it.id)
		}
	}
	if len(missing) == 0 {
		return true
	}
	request := kmsg.NewPtrMetadataRequest()
	request.Version = lookupVersion
	request.AllowAutoTopicCreation = false
	request.Topics = make([]kmsg.MetadataRequestTopic, 0, len(missing))
	for _, id := range missing {
		t := kmsg.NewMetadataRequestTopic()
		t.TopicID = id
		request.Topics = append(request.Topics, t)
	}
	b := make([]byte, 4, 64+24*len(missing))
	b = binary.BigEndian.AppendUint16(b, uint16(keyMetadata))
	b = binary.BigEndian.AppendUint16(b, lookupVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(h.correlation))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.client)))
	b = append(append(b, h.client...), 0)
	s.send(parsers.Server, frame(request.AppendTo(b)))
	s.enqueue(pending{key: keyMetadata, version: lookupVersion, correlation: h.correlation, lookup: true})
	s.lookup = lookup{under: true, asked: true}
	return false
}

// resolveOne is resolve for a single topic, as most requests have.
func (s *Session) resolveOne(h *head, it *item) bool {
	if !it.byID {
		return true
	}
	if name, ok := s.topics.Name(it.id); ok {
		it.topic = name
		return true
	}
	list := []item{*it}
	ok := s.resolve(h, list)
	*it = list[0]
	return ok
}

// learn takes from an answer what topics its ids are.
func (s *Session) learn() {
	for i := range s.answer.marks {
		m := &s.answer.marks[i]
		if m.kind != kindTopicID || m.element < 0 {
			continue
		}
		if name := s.nameBeside(i); name >= 0 {
			s.topics.Learn(topicID(m.text), string(s.answer.marks[name].text))
		}
	}
}

// nameBeside finds the name of the topic whose id is mark i: fields of one struct
// stand next to each other.
func (s *Session) nameBeside(i int) int {
	for _, j := range [2]int{i - 1, i + 1} {
		if j < 0 || j >= len(s.answer.marks) {
			continue
		}
		if m := &s.answer.marks[j]; m.kind == kindTopic && !m.null && m.element == s.answer.marks[i].element {
			return j
		}
	}
	return -1
}

// lookedUp takes the answer to a lookup.
func (s *Session) lookedUp(p *pending, body []byte) {
	layout := apis()[p.key].response(p.version)
	if err := s.answer.read(layout, p.version, body, maxMarksAnswer); err != nil {
		s.fail(parsers.Server, fmt.Errorf("read the answer to a look-up of topics: %w", err))
		return
	}
	s.learn()
	s.lookup.under = false
}
