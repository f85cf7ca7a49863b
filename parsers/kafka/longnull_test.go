package kafka

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// TestLongNull takes the null of librdkafka's Metadata request, which is three bytes too
// long, and nothing else that is.
func TestLongNull(t *testing.T) {
	longer := func(request kmsg.Request, more ...byte) []byte {
		return frame(append(requestFrame(1, request), more...))
	}
	eachSplit(t, func(t *testing.T, split parsertest.Splits) {
		for version := int16(9); version <= 13; version++ {
			all := metadataOf(version, false)
			w := newWire(t, split, onlyA)
			// As they are sent: the list's four zeros, no topics by themselves, flags, tags.
			w.Write(parsers.Client, longer(all, 0, 1, 0))
			if got := w.got(parsers.Server); !bytes.Equal(got, requestFrame(1, all)) {
				t.Errorf("version %d: the server got %x", version, got)
			}
			w.Write(parsers.Server, responseFrame(1, metadata(version, "a", "b")))
			if _, answer := decode(t, w.got(parsers.Client), all); !same(topicErrors(answer), map[string]int16{"a": 0}) {
				t.Errorf("version %d: %v", version, topicErrors(answer))
			}
			w = newWire(t, split, policy.KafkaRule{APIKeys: []int16{keyProduce}})
			w.Write(parsers.Client, longer(all, 0, 0, 0))
			if got := w.got(parsers.Server); len(got) > 0 || len(w.hooks.malformed) > 0 {
				t.Errorf("version %d, denied: the server got %x, %v", version, got, w.hooks.malformed)
			}
			decode(t, w.got(parsers.Client), all)
		}
		produce := kmsg.NewPtrListGroupsRequest()
		produce.Version = 5
		for name, b := range map[string][]byte{
			"two bytes":   longer(metadataOf(9, false), 0, 0),
			"four bytes":  longer(metadataOf(9, false), 0, 0, 0, 0),
			"a list":      longer(metadataOf(9, true, "a"), 0, 0, 0),
			"an old one":  longer(metadataOf(8, false), 0, 0, 0),
			"another API": longer(produce, 0, 0, 0),
		} {
			w := newWire(t, split, policy.KafkaRule{})
			w.Write(parsers.Client, b)
			if got := w.got(parsers.Server); len(got) > 0 || len(w.hooks.malformed) == 0 {
				t.Errorf("%s: the server got %x", name, got)
			}
		}
	})
}
