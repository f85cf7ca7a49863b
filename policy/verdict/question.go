package verdict

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
)

// Question is one case: may this connection, or this request on it, be?
// Numbers are texts, so that files may write them either way.
type Question struct {
	ID        string  `json:"id"`
	Direction string  `json:"direction"` // ingress, egress; empty: both
	From      End     `json:"from"`
	To        End     `json:"to"`
	Port      string  `json:"port"` // a number, or a name that the destination gives a port
	Protocol  string  `json:"protocol"`
	ICMPType  string  `json:"icmpType"`
	SNI       *string `json:"sni"`
	L7        *L7     `json:"l7"`
}

// End names one end of a connection, in one of these ways.
type End struct {
	Endpoint string `json:"endpoint,omitempty"`
	IP       string `json:"ip,omitempty"`
	Entity   string `json:"entity,omitempty"`
	Node     string `json:"node,omitempty"`
}

// L7 is a request, of one protocol.
type L7 struct {
	HTTP  *HTTP  `json:"http"`
	GRPC  *GRPC  `json:"grpc"`
	Kafka *Kafka `json:"kafka"`
	DNS   *DNS   `json:"dns"`
}

// HTTP is a request as the client sends it.
type HTTP struct {
	Method  string  `json:"method"`
	Path    string  `json:"path"`
	Host    string  `json:"host"`
	Headers Headers `json:"headers"` // names and values
}

// GRPC is a call.
type GRPC struct {
	Service string  `json:"service"`
	Method  string  `json:"method"`
	Host    string  `json:"host"`
	Headers Headers `json:"headers"`
}

// Kafka is a request as far as it is about one topic.
type Kafka struct {
	APIKey          string `json:"apiKey"` // a name or a number
	APIVersion      string `json:"apiVersion"`
	ClientID        string `json:"clientID"`
	Topic           string `json:"topic"`
	Group           string `json:"group"`
	TransactionalID string `json:"transactionalID"`
}

// DNS is a question to a name server.
type DNS struct {
	Query string `json:"query"`
	Type  string `json:"type"` // empty: A
}

// flow is a question's protocol and port, read.
type flow struct {
	proto policy.Proto
	port  uint16
}

// readFlow reads the protocol and port. Without a protocol a port is of TCP.
func readFlow(q *Question, to *party) (flow, error) {
	proto, ok := protocols()[strings.ToUpper(q.Protocol)]
	if !ok {
		return flow{}, fmt.Errorf("%q is no protocol; write TCP, UDP, SCTP, ICMP or ICMPv6", q.Protocol)
	}
	icmp := proto == policy.ProtoICMP || proto == policy.ProtoICMPv6
	if q.Protocol == "" {
		switch {
		case q.ICMPType == "":
			proto = policy.ProtoTCP
		case sixth(q.From.IP) || sixth(q.To.IP):
			proto, icmp = policy.ProtoICMPv6, true
		default:
			proto, icmp = policy.ProtoICMP, true
		}
	}
	text, what := q.Port, "port"
	if icmp {
		text, what = q.ICMPType, "ICMP type"
	}
	if text == "" {
		return flow{proto: proto}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 16); err == nil && (!icmp || n < 256) {
		return flow{proto, uint16(n)}, nil
	}
	if !icmp && to.subject != nil {
		for _, p := range to.subject.NamedPorts[strings.ToLower(text)] {
			if p.Proto == proto {
				return flow{p.Proto, p.Port}, nil
			}
		}
	}
	return flow{}, fmt.Errorf("%q is no %s", text, what)
}

// sixth reports whether it is an address of IPv6.
func sixth(text string) bool {
	a, err := address(text)
	return err == nil && a.Is6()
}
