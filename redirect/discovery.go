package redirect

import (
	"errors"
	"time"
)

// Discovery is what a backend that is fed by xDS is told, and what it made of that:
// for people.
type Discovery struct {
	Resources []DiscoveryResource
	Clients   []DiscoveryClient
}

// DiscoveryResource is one resource that is handed out.
type DiscoveryResource struct {
	Type    string // its type URL
	Name    string
	Version string
	State   string // "acked", "sent", "refused"; "offered" where it is only for those who ask
	Refusal string // what was said of it
	Body    []byte // JSON, secrets masked
}

// DiscoveryClient is a connected client.
type DiscoveryClient struct {
	Node      string
	Agent     string // what it calls its program, with the version
	Role      string // "proxy": it enforces; "client": it looks services up
	Variant   string // "delta", "sotw"
	PID       int
	UID       uint32
	Since     time.Time
	Types     []DiscoveryType
	Refusal   string // the last one, in the client's words
	RefusedAt time.Time
}

// DiscoveryType is how it stands with a client and one type of resources.
type DiscoveryType struct {
	Type                 string
	Sent, Acked, Refused string // nonces, of what was answered last
	Responses, Refusals  uint64
}

// Discoverer is a Backend that hands out what it enforces by xDS.
type Discoverer interface {
	Discovery(typeURL string) (Discovery, error)
}

// ErrUnservable says that a backend can never serve a route, as long as its sets are
// what they are. Its port stays closed.
var ErrUnservable = errors.New("no proxy can serve these L7 rules together")
