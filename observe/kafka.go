package observe

import (
	"fmt"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/policy"
)

// Kafka is what a proxy knows of one Kafka request, as far as it is about one
// topic: a request for several has as many records.
type Kafka struct {
	APIKey, APIVersion                      int16
	CorrelationID                           int32
	ClientID, Topic, Group, TransactionalID string
	ErrorCode                               int16         // of the answer
	Latency                                 time.Duration // request to answer; 0: there is no answer yet
}

func (k *Kafka) api() string {
	if name := policy.KafkaAPIName(k.APIKey); name != "" {
		return name
	}
	return fmt.Sprintf("unknown(%d)", k.APIKey)
}

// record is Hubble's, which knows less.
func (k *Kafka) record() *flowpb.Layer7_Kafka {
	return &flowpb.Layer7_Kafka{Kafka: &flowpb.Kafka{ //nolint:staticcheck // deprecated, and still what Hubble shows
		ErrorCode:     int32(k.ErrorCode),
		ApiVersion:    int32(k.APIVersion),
		ApiKey:        k.api(),
		CorrelationId: k.CorrelationID,
		Topic:         wire(k.Topic, maxShort),
	}}
}

// summary in words: "Kafka produce v11 topic orders client app correlation 7", and
// for the answer with its error and how long it took.
func (k *Kafka) summary(answer bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Kafka %s v%d", k.api(), k.APIVersion)
	for _, part := range [4][2]string{
		{"topic", k.Topic}, {"group", k.Group}, {"transaction", k.TransactionalID}, {"client", k.ClientID},
	} {
		if part[1] != "" {
			b.WriteString(" " + part[0] + " " + Printable(wire(part[1], maxShort)))
		}
	}
	fmt.Fprintf(&b, " correlation %d", k.CorrelationID)
	if answer {
		fmt.Fprintf(&b, " error %d %s", k.ErrorCode, latency(k.Latency))
	}
	return b.String()
}
