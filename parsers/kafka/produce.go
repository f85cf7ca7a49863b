package kafka

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
)

// produce deals with the requests that are most of the traffic. One for a single
// topic is judged by what stands before its records, which are not looked at.
func (s *Session) produce(h *head, data []byte) int64 {
	r := &s.request
	r.begin(h.layout, h.version, data[:min(h.size, int64(len(data)))], 1)
	r.pos = h.length
	it := item{element: -1}
	if h.version >= 3 {
		transaction, _ := r.bytes(r.stringLength(), true)
		it.transaction = string(transaction)
	}
	acks := r.int16()
	r.int32()
	n, begin := r.length(), r.pos
	if n == 1 {
		if it.byID = h.version >= 13; it.byID {
			copy(it.id[:], r.span(16))
		} else {
			topic, _ := r.bytes(r.stringLength(), false)
			it.topic = string(topic)
		}
	}
	if r.err != nil {
		if int64(len(data)) >= h.size || len(data) > maxPart || !errors.Is(r.err, errShort) {
			s.fail(parsers.Client, fmt.Errorf("read a Produce request: %w", r.err))
		}
		return 0
	}
	p := h.pending()
	p.silent = acks == 0
	switch {
	case n == 1:
		if !s.resolveOne(h, &it) {
			return 0
		}
		p.judged = s.judge(h, []item{it})
		if it.code = p.judged[0].code; it.code == 0 {
			s.expect(p)
			s.move(parsers.Forward, h.size)
			return h.size
		}
	case h.size <= maxMixed+4:
		return s.produceMixed(h, data, p)
	default:
		// Too long to be divided, so it takes a rule for all topics.
		it.topic = anyTopic
		p.judged = s.judge(h, []item{it})
		if it.code = p.judged[0].code; it.code == 0 {
			s.expect(p)
			s.move(parsers.Forward, h.size)
			return h.size
		}
	}
	if p.silent {
		s.expect(p)
		s.move(parsers.Discard, h.size)
		return h.size
	}
	return s.startSkim(h, data, begin, n, it, p)
}

// produceMixed deals with a request for several topics, which is read as a whole.
func (s *Session) produceMixed(h *head, data []byte, p pending) int64 {
	if int64(len(data)) < h.size {
		s.phase = parsers.Body
		return 0
	}
	if err := s.request.read(h.layout, h.version, data[h.length:h.size], maxMarks); err != nil {
		s.fail(parsers.Client, fmt.Errorf("read a Produce request: %w", err))
		return 0
	}
	list := s.request.items(h.key)
	if !s.resolve(h, list) {
		return 0
	}
	p.judged = s.judge(h, list)
	return s.carry(h, data[:h.size], list, p)
}

// skim drops a Produce request that is denied, and keeps of it what its answer
// must repeat: topics and the numbers of partitions.
type skim struct {
	head       head
	pending    pending
	code       codes
	left       int64 // of the frame
	topics     int   // to come
	partitions int   // to come, of the last topic
	state      skimState
	most       int
	request    *kmsg.ProduceRequest
}

type skimState uint8

const (
	atTopic skimState = iota
	atPartition
	atPartitionTags
	atTopicTags
	atTags
	atDone
)

func (s *Session) startSkim(h *head, data []byte, begin, topics int, it item, p pending) int64 {
	s.skim = &skim{head: *h, pending: p, left: h.size - int64(begin), topics: topics, most: maxMarks, request: kmsg.NewPtrProduceRequest()}
	s.skim.request.Version = h.version
	s.skim.code.other = it.code
	if topics == 0 {
		s.skim.state = atTags
	}
	s.move(parsers.Discard, int64(begin))
	n := int64(begin)
	if begin < len(data) {
		n += s.skimOn(data[begin:])
	}
	return n
}

// skimOn goes on with what has come. What is returned was given to be dropped.
func (s *Session) skimOn(data []byte) int64 {
	k := s.skim
	s.phase = parsers.Body
	done := int64(0)
	for k.state != atDone {
		part := data[min(done, int64(len(data))):]
		part = part[:min(int64(len(part)), k.left)]
		r := &s.request
		r.begin(k.head.layout, k.head.version, part, 1)
		more := k.step(r)
		if r.err != nil {
			if errors.Is(r.err, errShort) && int64(len(part)) < k.left && len(part) < maxPart {
				return done
			}
			s.fail(parsers.Client, fmt.Errorf("read a Produce request: %w", r.err))
			return done
		}
		n := int64(r.pos) + more
		if n > k.left {
			s.fail(parsers.Client, fmt.Errorf("read a Produce request: %w", errShort))
			return done
		}
		k.left -= n
		done += n
		s.move(parsers.Discard, n)
	}
	if k.left != 0 {
		s.fail(parsers.Client, fmt.Errorf("read a Produce request: %d bytes are left over", k.left))
		return done
	}
	s.skim = nil
	s.reply(&k.head, denial(k.request, k.code), k.pending)
	return done
}

// step reads one piece of the request: more is how many bytes of records follow.
func (k *skim) step(r *scan) (more int64) {
	topic := &k.request.Topics
	switch k.state {
	case atTopic:
		t := kmsg.NewProduceRequestTopic()
		if k.head.version >= 13 {
			copy(t.TopicID[:], r.span(16))
		} else {
			name, _ := r.bytes(r.stringLength(), false)
			t.Topic = string(name)
		}
		n := r.length()
		if k.most -= max(n, 0) + 1; n < 0 || k.most < 0 {
			r.fail(errors.New("a list has a count that cannot be"))
		}
		if r.err != nil {
			k.most += max(n, 0) + 1
			return 0
		}
		*topic = append(*topic, t)
		k.topics, k.partitions, k.state = k.topics-1, n, atPartition
		if n == 0 {
			k.state = atTopicTags
		}
	case atPartition:
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition = r.int32()
		n := r.length()
		if n < -1 {
			r.fail(errors.New("records of a length that cannot be"))
		}
		if r.err != nil {
			return 0
		}
		last := &(*topic)[len(*topic)-1]
		last.Partitions = append(last.Partitions, p)
		k.partitions--
		k.state = atPartitionTags
		return int64(max(n, 0))
	case atPartitionTags:
		if r.flexible {
			r.tags(nil)
		}
		if r.err == nil {
			k.state = atPartition
			if k.partitions == 0 {
				k.state = atTopicTags
			}
		}
	case atTopicTags:
		if r.flexible {
			r.tags(nil)
		}
		if r.err == nil {
			k.state = atTopic
			if k.topics == 0 {
				k.state = atTags
			}
		}
	case atTags:
		if r.flexible {
			r.tags(nil)
		}
		if r.err == nil {
			k.state = atDone
		}
	}
	return 0
}
