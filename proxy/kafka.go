package proxy

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/kafka"
	"github.com/headgate/headgate/policy"
)

// broker tells one Kafka server from others: what it says of its topics counts for
// connections to it alone.
type broker struct {
	address  netip.AddrPort
	identity policy.Identity
}

// topics is what is known of the topics of the connection's server.
func (c *conn) topics() kafka.Topics {
	return c.p.brokers.Of(broker{c.destination, c.known.DestinationIdentity})
}

var _ kafka.Hooks = (*conn)(nil)

// Allows implements kafka.Hooks.
func (c *conn) Allows(r policy.Request) bool {
	decision, _ := c.judge(r)
	return decision.Verdict == policy.Allow
}

// Deny implements kafka.Hooks.
func (c *conn) Deny(id uint64, r policy.Request, reason string) bool {
	pass, audited := c.passes()
	word, why := observe.Dropped, observe.ReasonPolicyDenied
	switch {
	case audited:
		word, why = observe.Audited, observe.ReasonNone
	case pass:
		word, why = observe.Forwarded, observe.ReasonNone
	}
	c.requests.Add(1)
	c.p.requests.Add(1)
	if !pass {
		c.p.denied.Add(1)
	}
	direction := policy.Ingress
	if c.known.Ingress == 0 {
		direction = policy.Egress
	}
	c.asked(id, r, word, why, &policy.Decision{Reason: reason}, direction)
	return pass
}

// Unanswered implements kafka.Hooks.
func (c *conn) Unanswered(id uint64) {
	if i := slices.IndexFunc(c.exchanges, func(x exchange) bool { return x.id == id }); i >= 0 {
		c.drop(i)
	}
}

// Field numbers of Record and KafkaRecord in proxy.proto.
const (
	fieldKafka = 40

	kafkaKey         = 1
	kafkaVersion     = 2
	kafkaCorrelation = 3
	kafkaClient      = 4
	kafkaTopic       = 5
	kafkaGroup       = 6
	kafkaTransaction = 7

	maxKafkaName = 256

	kafkaNetworkException = 13 // the error of a request whose server cannot be reached
)

// appendKafka appends what a request is about. scratch is returned grown.
func appendKafka(b, scratch []byte, r *policy.KafkaRequest) (record, grown []byte) {
	m := appendUint(scratch[:0], kafkaKey, uint64(r.APIKey))
	m = appendUint(m, kafkaVersion, uint64(r.APIVersion))
	m = appendUint(m, kafkaCorrelation, uint64(r.CorrelationID))
	for i, text := range [4]string{r.ClientID, r.Topic, r.Group, r.TransactionalID} {
		if text == "" {
			continue
		}
		var clean [3 * maxKafkaName]byte
		m = protowire.AppendTag(m, kafkaClient+protowire.Number(i), protowire.BytesType)
		m = protowire.AppendBytes(m, appendClean(clean[:0], text, maxKafkaName))
	}
	b = protowire.AppendTag(b, fieldKafka, protowire.BytesType)
	return protowire.AppendBytes(b, m), m
}

func kafkaRecordFromProto(r *proxyv1.Record) *observe.Kafka {
	k := r.Kafka
	return &observe.Kafka{
		APIKey: int16(k.ApiKey), APIVersion: int16(k.ApiVersion), CorrelationID: k.CorrelationId, ClientID: k.ClientId,
		Topic: k.Topic, Group: k.Group, TransactionalID: k.TransactionalId, ErrorCode: int16(r.Status),
	}
}

func kafkaToProto(k policy.KafkaRule) *proxyv1.KafkaRule {
	return &proxyv1.KafkaRule{
		Role: k.Role, ApiKeys: each(k.APIKeys, func(key int16) int32 { return int32(key) }),
		HasVersion: k.HasVersion, ApiVersion: int32(k.APIVersion), ClientId: k.ClientID,
		Topic: k.Topic, Group: k.Group, TransactionalId: k.TransactionalID, Ref: refToProto(k.Ref),
	}
}

func kafkaFromProto(p *proxyv1.KafkaRule) policy.KafkaRule {
	return policy.KafkaRule{
		Role: p.Role, APIKeys: each(p.ApiKeys, func(key int32) int16 { return int16(key) }),
		HasVersion: p.HasVersion, APIVersion: int16(p.ApiVersion), ClientID: p.ClientId,
		Topic: p.Topic, Group: p.Group, TransactionalID: p.TransactionalId, Ref: refFromProto(p.Ref),
	}
}
