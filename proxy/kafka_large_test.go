package proxy

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestKafkaLargeAnswers has a broker give its answers in bursts, in small pieces, or with
// a long pause: they arrive as they are, and so does the short one behind each.
func TestKafkaLargeAnswers(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	records := make([]byte, 3<<20)
	_, _ = random.Read(records)
	for name, write := range map[string]func(c *net.TCPConn, b []byte) error{
		"at once": func(c *net.TCPConn, b []byte) error { _, err := c.Write(b); return err },
		"in bursts": func(c *net.TCPConn, b []byte) error {
			for len(b) > 0 {
				n := min(len(b), 200_000)
				if _, err := c.Write(b[:n]); err != nil {
					return err
				}
				b = b[n:]
				time.Sleep(2 * time.Millisecond)
			}
			return nil
		},
		"with a pause": func(c *net.TCPConn, b []byte) error {
			if _, err := c.Write(b[:len(b)/2]); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			_, err := c.Write(b[len(b)/2:])
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := startKafkaAt(t, server(t, func(c *net.TCPConn) {
				for i := 0; ; i++ {
					b, err := readKafka(c)
					if err != nil {
						return
					}
					answer := append(make([]byte, 4), b[4:8]...)
					response := kmsg.NewPtrFetchResponse()
					response.Version = 12
					if i%2 == 0 {
						topic := kmsg.NewFetchResponseTopic()
						topic.Topic = "a"
						partition := kmsg.NewFetchResponseTopicPartition()
						partition.RecordBatches = records
						topic.Partitions = append(topic.Partitions, partition)
						response.Topics = append(response.Topics, topic)
					}
					answer = response.AppendTo(append(answer, 0))
					binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
					if write(c, answer) != nil {
						return
					}
				}
			}), "a")
			r.enforce(setKafka)
			c := r.dial()
			request := kmsg.NewPtrFetchRequest()
			request.Version, request.SessionEpoch = 12, -1
			topic := kmsg.NewFetchRequestTopic()
			topic.Topic = "a"
			topic.Partitions = append(topic.Partitions, kmsg.NewFetchRequestTopicPartition())
			request.Topics = append(request.Topics, topic)
			for i := range 6 {
				_, err := c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, request, int32(i)))
				must(t, err)
				b, err := readKafka(c)
				must(t, err)
				answer := kmsg.NewPtrFetchResponse()
				answer.Version = 12
				must(t, answer.ReadFrom(b[5:]))
				if i%2 == 0 && (len(answer.Topics) != 1 || !bytes.Equal(answer.Topics[0].Partitions[0].RecordBatches, records)) {
					t.Fatalf("answer %d of %d bytes is not the one that was given", i, len(b))
				}
			}
		})
	}
}
