package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const setKafka = redirect.SetNumber(uint32(policy.ProtocolKafka)<<24 | 1)

// kafkaBroker answers Metadata with one topic, whose id begins with 1, and Fetch and
// Produce with nothing. It hands out the keys of what it was asked.
func kafkaBroker(asked chan<- int16) func(*net.TCPConn) {
	return func(c *net.TCPConn) { answerKafka(c, asked) }
}

func answerKafka(c io.ReadWriter, asked chan<- int16) {
	for {
		b, err := readKafka(c)
		if err != nil {
			return
		}
		key, version := int16(binary.BigEndian.Uint16(b)), int16(binary.BigEndian.Uint16(b[2:]))
		asked <- key
		response := kmsg.ResponseForKey(key)
		response.SetVersion(version)
		if m, ok := response.(*kmsg.MetadataResponse); ok {
			t := kmsg.NewMetadataResponseTopic()
			t.Topic, t.TopicID = kmsg.StringPtr("a"), [16]byte{1}
			m.Topics = append(m.Topics, t)
		}
		answer := append(make([]byte, 4), b[4:8]...)
		if response.IsFlexible() {
			answer = append(answer, 0)
		}
		answer = response.AppendTo(answer)
		binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func readKafka(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func startKafka(t *testing.T, asked chan<- int16, topic string) *running {
	t.Helper()
	r := startKafkaAt(t, server(t, kafkaBroker(asked)), topic)
	r.enforce(setKafka)
	return r
}

func startKafkaAt(t *testing.T, server, topic string) *running {
	t.Helper()
	r := startProxy(t, server, func(c *Config) {
		c.Compile = func(*policy.L7Set) (Judge, error) {
			return policy.CompileSet(&policy.L7Set{Protocol: policy.ProtocolKafka, Kafka: []policy.KafkaRule{{Topic: topic}}})
		}
	})
	r.connections.set(Connection{SourceIdentity: 1000, DestinationIdentity: 2000, Egress: setKafka}, false)
	return r
}

func kafkaFetch(topic byte, wait int32) []byte {
	r := kmsg.NewPtrFetchRequest()
	r.Version, r.MaxWaitMillis, r.SessionEpoch = 13, wait, -1
	t := kmsg.NewFetchRequestTopic()
	t.TopicID = [16]byte{topic}
	t.Partitions = append(t.Partitions, kmsg.NewFetchRequestTopicPartition())
	r.Topics = append(r.Topics, t)
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID("tester"))
	return f.AppendRequest(nil, r, 5)
}

// TestKafkaWaits holds a denied fetch for its time, and what is behind it, and then
// serves on. The name of the topic is looked up before.
func TestKafkaWaits(t *testing.T) {
	asked := make(chan int16, 100)
	r := startKafka(t, asked, "other")
	c := r.dial()
	begun := time.Now()
	_, err := c.Write(slices.Concat(kafkaFetch(1, 300), kafkaFetch(1, 200)))
	must(t, err)
	for range 2 {
		b, err := readKafka(c)
		must(t, err)
		answer := kmsg.NewPtrFetchResponse()
		answer.Version = 13
		must(t, answer.ReadFrom(b[5:]))
		if code := answer.Topics[0].Partitions[0].ErrorCode; code != 29 {
			t.Errorf("error %d", code)
		}
	}
	if took := time.Since(begun); took < 500*time.Millisecond {
		t.Errorf("denied within %s", took)
	}
	if key := <-asked; key != 3 || len(asked) > 0 {
		t.Errorf("the server was asked for API %d, and %d more", key, len(asked))
	}
	// A client that goes away while it waits leaves nothing behind.
	_, err = c.Write(kafkaFetch(1, 100))
	must(t, err)
	_ = c.Close()
	eventually(t, "the connection to end", func() bool { return r.status().Connections == 0 })
}

// TestKafkaLooksUp lets a request for an id that nobody knows wait for the name.
func TestKafkaLooksUp(t *testing.T) {
	asked := make(chan int16, 100)
	r := startKafka(t, asked, "a")
	for range 3 {
		c := r.dial()
		for range 20 {
			_, err := c.Write(kafkaFetch(1, 0))
			must(t, err)
			_, err = readKafka(c)
			must(t, err)
		}
	}
	lookups, fetches := 0, 0
	for len(asked) > 0 {
		if <-asked == 3 {
			lookups++
		} else {
			fetches++
		}
	}
	if lookups != 1 || fetches != 60 {
		t.Errorf("%d look-ups for %d fetches", lookups, fetches)
	}
	// An id that the server does not know either goes nowhere.
	c := r.dial()
	_, err := c.Write(kafkaFetch(9, 0))
	must(t, err)
	b, err := readKafka(c)
	must(t, err)
	answer := kmsg.NewPtrFetchResponse()
	answer.Version = 13
	must(t, answer.ReadFrom(b[5:]))
	if code := answer.Topics[0].Partitions[0].ErrorCode; code != 100 {
		t.Errorf("error %d", code)
	}
}
