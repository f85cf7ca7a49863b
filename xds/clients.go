package xds

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/redirect"
)

// Roles of clients.
const (
	roleProxy  = "proxy"  // our Envoy: it enforces
	roleClient = "client" // it looks up services, and is told of nothing else
)

// clients are those who are connected, for people.
type clients struct {
	mu  sync.Mutex
	all []*client

	mask func(string) string
}

// client is one stream.
type client struct {
	mu    sync.Mutex
	says  redirect.DiscoveryClient
	types map[string]*redirect.DiscoveryType
	heard func() // may be nil
	// mask takes the values of secrets out of what the client says.
	mask func(string) string
}

// join notes a stream until leave is called.
func (cs *clients) join(ctx context.Context, variant, role string, node *corev3.Node) (c *client, leave func()) {
	who := whoCalls(ctx)
	c = &client{mask: cs.mask, types: map[string]*redirect.DiscoveryType{}, says: redirect.DiscoveryClient{
		Node: node.GetId(), Agent: agentOf(node), Role: role, Variant: variant, PID: int(who.Pid), UID: who.Uid, Since: time.Now(),
	}}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all = append(cs.all, c)
	return c, func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		cs.all = slices.DeleteFunc(cs.all, func(o *client) bool { return o == c })
	}
}

// agentOf is how a client calls its program.
func agentOf(n *corev3.Node) string {
	version := n.GetUserAgentVersion()
	if v := n.GetUserAgentBuildVersion().GetVersion(); v != nil {
		version = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	return strings.TrimSpace(n.GetUserAgentName() + " " + version)
}

func (cs *clients) list() []redirect.DiscoveryClient {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := make([]redirect.DiscoveryClient, 0, len(cs.all))
	for _, c := range cs.all {
		out = append(out, c.describe())
	}
	return out
}

func (c *client) describe() redirect.DiscoveryClient {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.says
	for _, t := range c.types {
		d.Types = append(d.Types, *t)
	}
	slices.SortFunc(d.Types, func(a, b redirect.DiscoveryType) int { return strings.Compare(a.Type, b.Type) })
	return d
}

func (c *client) of(typeURL string) *redirect.DiscoveryType {
	t := c.types[typeURL]
	if t == nil {
		t = &redirect.DiscoveryType{Type: typeURL}
		c.types[typeURL] = t
	}
	return t
}

// asker and teller are the two ends of both variants of the protocol.
type asker interface {
	GetTypeUrl() string
	GetResponseNonce() string
	GetErrorDetail() *rpcstatus.Status
}

type teller interface {
	GetTypeUrl() string
	GetNonce() string
}

func (c *client) asked(r asker) {
	if c.heard != nil {
		c.heard()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, nonce, refused := c.of(r.GetTypeUrl()), r.GetResponseNonce(), r.GetErrorDetail()
	switch {
	case refused != nil:
		t.Refused = nonce
		t.Refusals++
		c.says.Refusal, c.says.RefusedAt = c.mask(strings.TrimSpace(refused.GetMessage())), time.Now()
	case nonce != "":
		t.Acked = nonce
	}
}

func (c *client) told(r teller) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.of(r.GetTypeUrl())
	t.Sent = r.GetNonce()
	t.Responses++
}

// watched is a stream of which the client's first request has been read already, to
// know who it is.
type watched[Q, A any] struct {
	grpc.BidiStreamingServer[Q, A]
	first  *Q
	client *client
}

// Recv gives the first request again, then the next ones.
func (w *watched[Q, A]) Recv() (*Q, error) {
	q := w.first
	w.first = nil
	if q == nil {
		var err error
		if q, err = w.BidiStreamingServer.Recv(); err != nil {
			return nil, err
		}
	}
	w.client.asked(any(q).(asker))
	return q, nil
}

// Send notes what the client is told.
func (w *watched[Q, A]) Send(a *A) error {
	w.client.told(any(a).(teller))
	return w.BidiStreamingServer.Send(a)
}
