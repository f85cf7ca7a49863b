package observe

import (
	"net/netip"
	"time"

	"github.com/headgate/headgate/policy"
)

// Kind of a Record.
type Kind uint8

const (
	KindVerdict Kind = 1 // a new connection was judged by L3/L4 policy
	KindDrop    Kind = 2 // a packet was dropped
	KindL7      Kind = 3 // a proxy judged a request or saw its answer
)

// Word is a verdict in Hubble's words.
type Word uint8

const (
	Forwarded  Word = 1
	Dropped    Word = 2
	Errored    Word = 3
	Audited    Word = 4
	Redirected Word = 5
)

// Record is what a source of flows (the datapath, a proxy) knows of one event.
// Names, labels and the rest of a Flow are added by the Builder.
type Record struct {
	Kind      Kind
	Time      time.Time
	Word      Word
	Direction policy.Direction
	Reason    DropReason // why, when dropped or refused

	Source, Destination                 netip.AddrPort // as the client dialled
	SourceIdentity, DestinationIdentity policy.Identity
	SourceMAC, DestinationMAC           [6]byte
	Proto                               policy.Proto
	TCPFlags                            uint8
	ICMPType, ICMPCode                  uint8
	Reply                               bool
	Interface                           uint32 // ifindex, 0 unknown

	MatchType uint8 // how the policy entry was found, by Hubble's policy_match_type; 0 none or unknown

	Rule    policy.Ref // that decided
	Nearest policy.Ref // or came nearest
	Detail  string     // in words, for people

	HTTP  *HTTP  // KindL7
	Kafka *Kafka // or this
	DNS   *DNS   // or this
	TLS   *TLS   // or this
}

// TLS is what a client says when TLS begins. Hubble has no place of its own for it: it is
// the flow's summary.
type TLS struct {
	ServerName string // empty: none
}

// tlsSummary is how the summary of a hello begins.
const tlsSummary = "TLS "

func (t *TLS) summary() string {
	if t.ServerName == "" {
		return tlsSummary + "without a server name"
	}
	return tlsSummary + "server name " + Printable(wire(t.ServerName, maxShort))
}

// HTTP is what a proxy knows of one request. With Status 0 it is the request
// alone, else the request and its answer.
type HTTP struct {
	Method, URL, Protocol string // URL: "http://host/path?query"; Protocol: "HTTP/1.1"
	Status                int
	Latency               time.Duration // request head to response head
	Headers               [][2]string
}
