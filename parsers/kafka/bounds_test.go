package kafka

import (
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// TestPipelineIsBounded has a client ask on and on while the server says nothing: what
// is kept for the answers is bounded by its size, not only by their number.
func TestPipelineIsBounded(t *testing.T) {
	fetch := fetchOf(12, 0, -1, "a", "b")
	for i := range int32(5000) {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition = i
		fetch.Topics[1].Partitions = append(fetch.Topics[1].Partitions, p)
	}
	offsets := kmsg.NewPtrOffsetFetchRequest()
	offsets.Version = 8
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = "g"
	for _, name := range []string{"a", "b"} {
		topic := kmsg.NewOffsetFetchRequestGroupTopic()
		topic.Topic, topic.Partitions = name, make([]int32, 20_000)
		group.Topics = append(group.Topics, topic)
	}
	offsets.Groups = append(offsets.Groups, group)
	produce := produceOf(9, "", "a", "b")
	produce.Topics[1].Partitions = make([]kmsg.ProduceRequestTopicPartition, 20_000)
	for name, request := range map[string]kmsg.Request{"Fetch": fetch, "OffsetFetch": offsets, "Produce": produce} {
		w := newWire(t, parsertest.Whole, onlyA)
		frame := requestFrame(1, request)
		heap := heapInUse()
		passed := 0
		for range 2 * maxPending {
			w.Write(parsers.Client, frame)
			if len(w.got(parsers.Server)) == 0 {
				break
			}
			w.Out[parsers.Server], w.read[parsers.Server] = nil, 0
			passed++
		}
		if used := int64(heapInUse()) - int64(heap); passed < 1 || passed >= maxPending || used > 16<<20 {
			t.Errorf("%s: %d requests of %d bytes went on, for which %d KB are kept", name, passed, len(frame), used>>10)
		}
		runtime.KeepAlive(w)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSessionsAreBounded has a client begin fetch sessions with as much denied as fits
// into requests.
func TestSessionsAreBounded(t *testing.T) {
	w := newWire(t, parsertest.Whole, onlyA)
	heap := heapInUse()
	for id := int32(1); id <= 8; id++ {
		fetch := fetchOf(12, 0, 0, "a", "b")
		for i := range int32(20_000) {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition = i
			fetch.Topics[1].Partitions = append(fetch.Topics[1].Partitions, p)
		}
		w.Write(parsers.Client, requestFrame(id, fetch))
		w.Write(parsers.Server, responseFrame(id, fetched(12, id, "a")))
		if len(w.got(parsers.Client)) == 0 || w.Err != nil {
			t.Fatalf("no answer to fetch %d: %v", id, w.Err)
		}
		w.got(parsers.Server)
		w.Out[parsers.Client], w.read[parsers.Client] = nil, 0
		w.Out[parsers.Server], w.read[parsers.Server] = nil, 0
	}
	if used := int64(heapInUse()) - int64(heap); used > 16<<20 {
		t.Errorf("%d KB are kept for sessions", used>>10)
	}
	runtime.KeepAlive(w)
}

// TestConfigurationOfBrokers holds rules that name topics against requests about what
// is no topic.
func TestConfigurationOfBrokers(t *testing.T) {
	describe := func(kind kmsg.ConfigResourceType, name string) kmsg.Request {
		r := kmsg.NewPtrDescribeConfigsRequest()
		r.Version = 4
		r.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: name}}
		return r
	}
	alter := func(kind kmsg.ConfigResourceType, name string) kmsg.Request {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r.Version = 1
		r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kind, ResourceName: name}}
		return r
	}
	named := policy.KafkaRule{APIKeys: []int16{32, 33, 44}, Topic: "a"}
	every := policy.KafkaRule{APIKeys: []int16{32, 33, 44}}
	for name, tt := range map[string]struct {
		request kmsg.Request
		rule    policy.KafkaRule
		passes  bool
	}{
		"a topic that is named":        {describe(2, "a"), named, true},
		"another topic":                {describe(2, "b"), named, false},
		"a broker":                     {describe(4, "1"), named, false},
		"every broker":                 {alter(4, ""), named, false},
		"loggers":                      {alter(8, "1"), named, false},
		"a group":                      {alter(32, "g"), named, false},
		"a kind that is not known":     {alter(99, "a"), named, false},
		"a topic to alter":             {alter(2, "a"), named, true},
		"a broker, by the API alone":   {alter(4, "1"), every, true},
		"a broker, by a topic's rule":  {describe(4, "1"), policy.KafkaRule{Topic: "a"}, false},
		"a topic, by a topic's rule":   {describe(2, "a"), policy.KafkaRule{Topic: "a"}, false},
		"a broker, by a client's rule": {describe(4, "1"), policy.KafkaRule{ClientID: "tester"}, true},
	} {
		w := newWire(t, parsertest.Whole, tt.rule)
		w.Write(parsers.Client, requestFrame(1, tt.request))
		if got := len(w.got(parsers.Server)) > 0; got != tt.passes {
			t.Errorf("%s: reached the broker: %v", name, got)
		}
	}
}
