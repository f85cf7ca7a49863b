package kafka

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

var (
	idA = [16]byte{1}
	idB = [16]byte{2}
	ids = map[string][16]byte{"a": idA, "b": idB}
)

// onlyA lets a client do anything with topic a, and in groups that begin with g.
var onlyA = policy.KafkaRule{Topic: "a", Group: "g*"}

func produceOf(version int16, records string, topics ...string) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Version, r.Acks = version, -1
	for _, name := range topics {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = name, ids[name]
		for i := range int32(2) {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = i, []byte(records)
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
	return r
}

func produced(request *kmsg.ProduceRequest, topics ...string) *kmsg.ProduceResponse {
	r := kmsg.NewPtrProduceResponse()
	r.Version = request.Version
	for _, name := range topics {
		t := kmsg.NewProduceResponseTopic()
		t.Topic, t.TopicID = name, ids[name]
		for i := range int32(2) {
			p := kmsg.NewProduceResponseTopicPartition()
			p.Partition, p.BaseOffset = i, 77
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
	}
	return r
}

func fetchOf(version int16, session, epoch int32, topics ...string) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.SessionID, r.SessionEpoch, r.MaxWaitMillis = version, session, epoch, 500
	for _, name := range topics {
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = name, ids[name]
		t.Partitions = []kmsg.FetchRequestTopicPartition{kmsg.NewFetchRequestTopicPartition()}
		r.Topics = append(r.Topics, t)
	}
	return r
}

func fetched(version int16, session int32, topics ...string) *kmsg.FetchResponse {
	r := kmsg.NewPtrFetchResponse()
	r.Version, r.SessionID = version, session
	for _, name := range topics {
		t := kmsg.NewFetchResponseTopic()
		t.Topic, t.TopicID = name, ids[name]
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches = []byte(strings.Repeat("batch", 100))
		t.Partitions = []kmsg.FetchResponseTopicPartition{p}
		r.Topics = append(r.Topics, t)
	}
	return r
}

// topicErrors are the errors of an answer by topic.
func topicErrors(r kmsg.Response) map[string]int16 {
	list := map[string]int16{}
	name := func(topic string, id [16]byte) string {
		for n, known := range ids {
			if topic == "" && id == known {
				return n
			}
		}
		return topic
	}
	switch r := r.(type) {
	case *kmsg.ProduceResponse:
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				list[name(t.Topic, t.TopicID)] = p.ErrorCode
			}
		}
	case *kmsg.FetchResponse:
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				list[name(t.Topic, t.TopicID)] = p.ErrorCode
			}
		}
	case *kmsg.MetadataResponse:
		for _, t := range r.Topics {
			if t.Topic != nil {
				list[*t.Topic] = t.ErrorCode
			} else {
				list[name("", t.TopicID)] = t.ErrorCode
			}
		}
	}
	return list
}

func same(a, b map[string]int16) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// parsed reads a request that reached the server.
func parsed(t *testing.T, b []byte) kmsg.Request {
	t.Helper()
	s := New(newHooks(t), nil)
	h, ok := s.head(b)
	if !ok || int64(len(b)) != h.size {
		t.Fatalf("the server got %d bytes that are no request: %x", len(b), b[:min(len(b), 60)])
	}
	r, err := parse(h.key, h.version, b[h.length:])
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func eachSplit(t *testing.T, f func(t *testing.T, split parsertest.Splits)) {
	t.Run("whole", func(t *testing.T) { f(t, parsertest.Whole) })
	t.Run("bytewise", func(t *testing.T) { f(t, parsertest.Bytewise) })
}

func learnt(w *wire) *wire {
	for name, id := range ids {
		w.Session.(*Session).topics.Learn(id, name)
	}
	return w
}

func TestProduceIsDivided(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		for version := int16(0); version <= 13; version++ {
			w := learnt(newWire(t, split, onlyA))
			request := produceOf(version, "records", "b", "a")
			w.Write(parsers.Client, requestFrame(9, request))
			got := parsed(t, w.got(parsers.Server)).(*kmsg.ProduceRequest)
			if len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 2 || version < 13 && got.Topics[0].Topic != "a" {
				t.Fatalf("version %d: the server got %+v", version, got.Topics)
			}
			w.Write(parsers.Server, responseFrame(9, produced(request, "a")))
			_, answer := decode(t, w.got(parsers.Client), request)
			if errs := topicErrors(answer); !same(errs, map[string]int16{"a": 0, "b": 29}) {
				t.Errorf("version %d: %v", version, errs)
			}
		}
	})
}

func TestProduceByIDs(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		w := newWire(t, split, onlyA)
		look := func(correlation int32, known ...string) {
			t.Helper()
			asked := parsed(t, w.got(parsers.Server)).(*kmsg.MetadataRequest)
			answer := kmsg.NewPtrMetadataResponse()
			answer.Version = lookupVersion
			for _, q := range asked.Topics {
				m := kmsg.NewMetadataResponseTopic()
				m.TopicID, m.ErrorCode = q.TopicID, codeUnknownTopicID
				for _, name := range known {
					if ids[name] == q.TopicID {
						m.Topic, m.ErrorCode = kmsg.StringPtr(name), 0
					}
				}
				answer.Topics = append(answer.Topics, m)
			}
			w.Write(parsers.Server, responseFrame(correlation, answer))
		}
		// An id that nobody knows is looked up before anything goes on.
		request := produceOf(13, "x", "a")
		frame := requestFrame(1, request)
		w.Write(parsers.Client, frame)
		look(1, "a")
		if got := w.got(parsers.Server); !slices.Equal(got, frame) {
			t.Fatalf("the server got %x", got)
		}
		w.Write(parsers.Server, responseFrame(1, produced(request, "a")))
		if _, answer := decode(t, w.got(parsers.Client), request); !same(topicErrors(answer), map[string]int16{"a": 0}) {
			t.Error(topicErrors(answer))
		}
		// Known now.
		w.Write(parsers.Client, frame)
		if got := w.got(parsers.Server); !slices.Equal(got, frame) {
			t.Fatalf("the server got %x", got)
		}
		w.Write(parsers.Server, responseFrame(1, produced(request, "a")))
		w.got(parsers.Client)
		// What turns out to be another topic is denied, and what the server does not
		// know either never passes.
		for _, tt := range []struct {
			known string
			code  int16
		}{{"", codeUnknownTopicID}, {"b", codeTopicDenied}} {
			request = produceOf(13, "x", "b")
			w.Write(parsers.Client, requestFrame(2, request))
			look(2, tt.known)
			if got := w.got(parsers.Server); len(got) > 0 {
				t.Fatalf("the server got %x", got)
			}
			if _, answer := decode(t, w.got(parsers.Client), request); !same(topicErrors(answer), map[string]int16{"b": tt.code}) {
				t.Errorf("%q: %v", tt.known, topicErrors(answer))
			}
		}
	})
}

// TestLongProduce denies what is too long to be held, and lets through what is
// allowed however long it is.
func TestLongProduce(t *testing.T) {
	records := strings.Repeat("r", maxMixed)
	for _, version := range []int16{3, 9, 13} {
		for name, topics := range map[string][]string{"one": {"b"}, "several": {"a", "b"}} {
			w := learnt(newWire(t, parsertest.Random(5), onlyA))
			request := produceOf(version, records, topics...)
			for i := range 2 { // the connection stays usable
				w.Write(parsers.Client, requestFrame(int32(i), request))
				if got := w.got(parsers.Server); len(got) > 0 {
					t.Fatalf("%s, version %d: the server got %d bytes", name, version, len(got))
				}
				_, answer := decode(t, w.got(parsers.Client), request)
				for _, topic := range topics {
					if errs := topicErrors(answer); errs[topic] != codeTopicDenied || len(errs) != len(topics) {
						t.Errorf("%s, version %d: %v", name, version, errs)
					}
				}
			}
		}
		for _, rules := range [][]policy.KafkaRule{{onlyA}, {{}}} {
			topics := []string{"a"}
			if rules[0].Topic == "" {
				topics = []string{"a", "b"}
			}
			w := learnt(newWire(t, parsertest.Random(6), rules...))
			frame := requestFrame(1, produceOf(version, records, topics...))
			w.Write(parsers.Client, frame)
			if got := w.got(parsers.Server); !slices.Equal(got, frame) {
				t.Errorf("version %d: the server got %d of %d bytes", version, len(got), len(frame))
			}
		}
	}
}

func TestNoAcknowledgement(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		w := learnt(newWire(t, split, onlyA))
		for _, topics := range [][]string{{"b"}, {"a"}, {"a", "b"}} {
			request := produceOf(9, "x", topics...)
			request.Acks = 0
			w.Write(parsers.Client, requestFrame(1, request))
			got := w.got(parsers.Server)
			if topics[0] == "b" && len(got) > 0 {
				t.Errorf("the server got %x", got)
			} else if topics[0] == "a" && len(parsed(t, got).(*kmsg.ProduceRequest).Topics) != 1 {
				t.Errorf("the server got %x", got)
			}
		}
		if got := w.got(parsers.Client); len(got) > 0 || len(w.hooks.open) > 0 {
			t.Errorf("the client got %x, %d are open", got, len(w.hooks.open))
		}
		request := produceOf(9, "x", "b") // and the next is answered
		w.Write(parsers.Client, requestFrame(2, request))
		if n, answer := decode(t, w.got(parsers.Client), request); n != 2 || topicErrors(answer)["b"] != 29 {
			t.Errorf("%d %v", n, topicErrors(answer))
		}
	})
}

func TestFetchIsDivided(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		for version := int16(0); version <= 18; version++ {
			w := learnt(newWire(t, split, onlyA))
			request := fetchOf(version, 0, -1, "a", "b")
			w.Write(parsers.Client, requestFrame(9, request))
			if got := parsed(t, w.got(parsers.Server)).(*kmsg.FetchRequest); len(got.Topics) != 1 || version < 13 && got.Topics[0].Topic != "a" {
				t.Fatalf("version %d: the server got %+v", version, got.Topics)
			}
			w.Write(parsers.Server, responseFrame(9, fetched(version, 0, "a")))
			_, answer := decode(t, w.got(parsers.Client), request)
			if errs := topicErrors(answer); !same(errs, map[string]int16{"a": 0, "b": 29}) {
				t.Errorf("version %d: %v", version, errs)
			}
		}
	})
}

func TestDeniedFetchWaits(t *testing.T) {
	w := learnt(newWire(t, parsertest.Whole, onlyA))
	denied, allowed := fetchOf(12, 0, 0, "b"), fetchOf(12, 0, 0, "a")
	w.Write(parsers.Client, slices.Concat(requestFrame(1, denied), requestFrame(2, allowed)))
	if a, b := w.got(parsers.Client), w.got(parsers.Server); len(a)+len(b) > 0 {
		t.Fatalf("before its time the client got %x, the server %x", a, b)
	}
	w.Elapse()
	n, answer := decode(t, w.got(parsers.Client), denied)
	if r := answer.(*kmsg.FetchResponse); n != 1 || r.ErrorCode != 0 || r.SessionID != 0 || topicErrors(answer)["b"] != 29 {
		t.Errorf("%d %+v", n, r)
	}
	if got := parsed(t, w.got(parsers.Server)).(*kmsg.FetchRequest); got.Topics[0].Topic != "a" {
		t.Errorf("the server got %+v", got)
	}
}

// TestFetchSession goes through the life of one: what is denied in it comes with
// every answer, what rules come to deny ends it.
func TestFetchSession(t *testing.T) {
	for _, version := range []int16{7, 12, 13, 18} {
		w := learnt(newWire(t, parsertest.Random(uint64(version)), onlyA))
		exchange := func(request *kmsg.FetchRequest, response *kmsg.FetchResponse) (*kmsg.FetchRequest, *kmsg.FetchResponse) {
			t.Helper()
			w.Write(parsers.Client, requestFrame(5, request))
			var got *kmsg.FetchRequest
			if b := w.got(parsers.Server); len(b) > 0 {
				got = parsed(t, b).(*kmsg.FetchRequest)
				w.Write(parsers.Server, responseFrame(5, response))
			}
			_, answer := decode(t, w.got(parsers.Client), request)
			return got, answer.(*kmsg.FetchResponse)
		}
		// Nobody else's.
		if got, answer := exchange(fetchOf(version, 33, 4), nil); got != nil || answer.ErrorCode != codeNoFetchSession {
			t.Errorf("version %d: a session of another connection: %+v %+v", version, got, answer)
		}
		// Clients that were told so begin anew, and some name what they had: to refuse that
		// again would have them ask for ever.
		for _, epoch := range []int32{0, -1} {
			if got, answer := exchange(fetchOf(version, 33, epoch, "a", "b"), fetched(version, 0, "a")); got == nil || len(got.Topics) != 1 ||
				!same(topicErrors(answer), map[string]int16{"a": 0, "b": 29}) {
				t.Errorf("version %d: all anew, epoch %d: %+v %+v", version, epoch, got, answer)
			}
		}
		got, answer := exchange(fetchOf(version, 0, 0, "a", "b"), fetched(version, 33, "a"))
		if len(got.Topics) != 1 || !same(topicErrors(answer), map[string]int16{"a": 0, "b": 29}) || answer.SessionID != 33 {
			t.Fatalf("version %d: %+v %+v", version, got, answer)
		}
		got, answer = exchange(fetchOf(version, 33, 1), fetched(version, 33))
		if got == nil || !same(topicErrors(answer), map[string]int16{"b": 29}) {
			t.Errorf("version %d: goes on: %+v %+v", version, got, answer)
		}
		forget := fetchOf(version, 33, 2)
		f := kmsg.NewFetchRequestForgottenTopic()
		f.Topic, f.TopicID, f.Partitions = "b", idB, []int32{0}
		forget.ForgottenTopics = append(forget.ForgottenTopics, f)
		got, answer = exchange(forget, fetched(version, 33))
		if got == nil || len(got.ForgottenTopics) != 0 || len(topicErrors(answer)) != 0 {
			t.Errorf("version %d: forgets: %+v %+v", version, got, answer)
		}
		got, answer = exchange(fetchOf(version, 33, 3, "b"), fetched(version, 33, "a"))
		if got == nil || len(got.Topics) != 0 || !same(topicErrors(answer), map[string]int16{"a": 0, "b": 29}) {
			t.Errorf("version %d: adds: %+v %+v", version, got, answer)
		}
		w.hooks.use(policy.KafkaRule{Topic: "b"})
		got, answer = exchange(fetchOf(version, 33, 4), nil)
		if got != nil || answer.ErrorCode != codeNoFetchSession {
			t.Errorf("version %d: rules changed: %+v %+v", version, got, answer)
		}
		if len(w.hooks.open) > 0 || len(w.hooks.malformed) > 0 {
			t.Errorf("version %d: %d open, %v", version, len(w.hooks.open), w.hooks.malformed)
		}
	}
}

func metadataOf(version int16, named bool, topics ...string) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.Version = version
	if named {
		r.Topics = []kmsg.MetadataRequestTopic{}
	}
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		r.Topics = append(r.Topics, t)
	}
	return r
}

func metadata(version int16, topics ...string) *kmsg.MetadataResponse {
	r := kmsg.NewPtrMetadataResponse()
	r.Version = version
	b := kmsg.NewMetadataResponseBroker()
	b.Host = "broker"
	r.Brokers = append(r.Brokers, b)
	for _, name := range topics {
		t := kmsg.NewMetadataResponseTopic()
		t.Topic, t.TopicID = kmsg.StringPtr(name), ids[name]
		t.Partitions = append(t.Partitions, kmsg.NewMetadataResponseTopicPartition())
		r.Topics = append(r.Topics, t)
	}
	return r
}

func TestMetadataIsFiltered(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		for version := int16(0); version <= 13; version++ {
			w := newWire(t, split, onlyA)
			all := metadataOf(version, version == 0)
			w.Write(parsers.Client, requestFrame(1, all))
			w.got(parsers.Server)
			w.Write(parsers.Server, responseFrame(1, metadata(version, "b", "a", "c")))
			_, answer := decode(t, w.got(parsers.Client), all)
			if !same(topicErrors(answer), map[string]int16{"a": 0}) || len(answer.(*kmsg.MetadataResponse).Brokers) != 1 {
				t.Errorf("version %d: all: %v", version, topicErrors(answer))
			}
			if name, ok := w.Session.(*Session).topics.Name(idB); version >= 10 && (!ok || name != "b") {
				t.Errorf("version %d: the id of b was not learnt", version)
			}
			named := metadataOf(version, true, "b", "a")
			w.Write(parsers.Client, requestFrame(2, named))
			if got := parsed(t, w.got(parsers.Server)).(*kmsg.MetadataRequest); len(got.Topics) != 1 || *got.Topics[0].Topic != "a" {
				t.Fatalf("version %d: the server got %+v", version, got.Topics)
			}
			w.Write(parsers.Server, responseFrame(2, metadata(version, "a")))
			if _, answer := decode(t, w.got(parsers.Client), named); !same(topicErrors(answer), map[string]int16{"a": 0, "b": 29}) {
				t.Errorf("version %d: named: %v", version, topicErrors(answer))
			}
			denied := metadataOf(version, true, "b")
			w.Write(parsers.Client, requestFrame(3, denied))
			if got := parsed(t, w.got(parsers.Server)).(*kmsg.MetadataRequest); len(got.Topics) != 0 {
				t.Fatalf("version %d: the server got %+v", version, got.Topics)
			}
			var known []string
			if version == 0 { // an empty list is all of them
				known = []string{"b", "c"}
			}
			w.Write(parsers.Server, responseFrame(3, metadata(version, known...)))
			if _, answer := decode(t, w.got(parsers.Client), denied); !same(topicErrors(answer), map[string]int16{"b": 29}) || len(answer.(*kmsg.MetadataResponse).Brokers) != 1 {
				t.Errorf("version %d: denied: %v", version, topicErrors(answer))
			}
		}
	})
}

func TestVersionsAreClamped(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		w := newWire(t, split, policy.KafkaRule{})
		request := kmsg.NewPtrApiVersionsRequest()
		for _, version := range []int16{0, 2, 3, 4} {
			request.Version = version
			w.Write(parsers.Client, requestFrame(1, request))
			w.got(parsers.Server)
			response := kmsg.NewPtrApiVersionsResponse()
			response.Version = version
			response.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 0, MaxVersion: 99}, {ApiKey: 17, MaxVersion: 1}, {ApiKey: 58}, {ApiKey: 500, MaxVersion: 3}, {ApiKey: 3, MinVersion: 50, MaxVersion: 60}}
			w.Write(parsers.Server, responseFrame(1, response))
			_, answer := decode(t, w.got(parsers.Client), request)
			got := answer.(*kmsg.ApiVersionsResponse).ApiKeys
			if len(got) != 2 || got[0].MaxVersion != 13 || got[1].ApiKey != 17 || got[1].MinVersion != 1 {
				t.Errorf("version %d: %+v", version, got)
			}
		}
		// The server's error is in the oldest form, and so is ours.
		refusal := kmsg.NewPtrApiVersionsResponse()
		refusal.ErrorCode = codeUnsupportedVersion
		w.Write(parsers.Client, requestFrame(1, request))
		w.got(parsers.Server)
		w.Write(parsers.Server, responseFrame(1, refusal))
		for range 2 {
			r := kmsg.NewPtrApiVersionsResponse()
			decodeAs(t, w.got(parsers.Client), r)
			if r.ErrorCode != codeUnsupportedVersion {
				t.Errorf("%+v", r)
			}
			later := requestFrame(7, request)
			later[7] = 9 // a version of the future
			w.Write(parsers.Client, later)
			if got := w.got(parsers.Server); len(got) > 0 {
				t.Errorf("the server got %x", got)
			}
		}
	})
}

// TestOrder answers pipelined requests in their order, whoever answers them.
func TestOrder(t *testing.T) {
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		w := newWire(t, split, onlyA)
		allowed, denied := produceOf(9, "x", "a"), produceOf(9, "x", "b")
		w.Write(parsers.Client, slices.Concat(requestFrame(1, allowed), requestFrame(2, denied), requestFrame(3, allowed), requestFrame(4, denied)))
		if got := w.got(parsers.Client); len(got) > 0 {
			t.Fatalf("the client got %x", got)
		}
		w.Write(parsers.Server, responseFrame(1, produced(allowed, "a")))
		w.Write(parsers.Server, responseFrame(3, produced(allowed, "a")))
		got := w.got(parsers.Client)
		for want := int32(1); want <= 4; want++ {
			size := int(got[3]) + int(got[2])<<8 + 4
			n, answer := decode(t, got[:size], allowed)
			code := int16(0)
			if want%2 == 0 {
				code = 29
			}
			for _, have := range topicErrors(answer) {
				if n != want || have != code {
					t.Errorf("answer %d: correlation %d, error %d", want, n, have)
				}
			}
			got = got[size:]
		}
		if want := []string{"server 0", "local 29", "server 0", "local 29"}; !slices.Equal(w.hooks.responses, want) {
			t.Error(w.hooks.responses)
		}
	})
}

func TestErrorsByCause(t *testing.T) {
	commit := func(group string) kmsg.Request {
		r := kmsg.NewPtrOffsetCommitRequest()
		r.Version, r.Group = 8, group
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = "a"
		topic.Partitions = append(topic.Partitions, kmsg.NewOffsetCommitRequestTopicPartition())
		r.Topics = append(r.Topics, topic)
		return r
	}
	initialise := func(transaction string) kmsg.Request {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.Version = 4
		if transaction != "" {
			r.TransactionalID = &transaction
		}
		return r
	}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group = 5, "other"
	acl := kmsg.NewPtrCreateACLsRequest()
	acl.Version = 3
	acl.Creations = append(acl.Creations, kmsg.CreateACLsRequestCreation{ResourceType: 2, ResourceName: "a", Principal: "User:x", Host: "*"})
	for name, tt := range map[string]struct {
		request kmsg.Request
		rule    policy.KafkaRule
		code    int16
	}{
		"group of a commit":      {commit("other"), onlyA, codeGroupDenied},
		"topic of a commit":      {commit("g"), policy.KafkaRule{Topic: "z", Group: "g"}, codeTopicDenied},
		"group":                  {join, onlyA, codeGroupDenied},
		"transaction":            {initialise("evil"), policy.KafkaRule{Role: "produce", TransactionalID: "tx"}, codeTransactionDenied},
		"idempotent":             {initialise(""), policy.KafkaRule{Role: "consume"}, codeClusterDenied},
		"ACLs under a topic":     {acl, onlyA, codeClusterDenied},
		"transaction by a role":  {initialise("tx"), policy.KafkaRule{Role: "produce"}, codeTransactionDenied},
		"ACLs under other rules": {acl, policy.KafkaRule{Role: "produce"}, codeClusterDenied},
	} {
		w := newWire(t, parsertest.Whole, tt.rule)
		w.Write(parsers.Client, requestFrame(1, tt.request))
		if got := w.got(parsers.Server); len(got) > 0 {
			t.Fatalf("%s: the server got %x", name, got)
		}
		_, answer := decode(t, w.got(parsers.Client), tt.request)
		for _, code := range errorsOf(answer) {
			if code != tt.code {
				t.Errorf("%s: error %d, want %d", name, code, tt.code)
			}
		}
		if len(errorsOf(answer)) == 0 {
			t.Errorf("%s: no error in %+v", name, answer)
		}
	}
}
