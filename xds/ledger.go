package xds

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/headgate/headgate/redirect"
)

// resourceKey names a resource.
type resourceKey struct{ typeURL, name string }

// versions of resources; an empty version: it is not there.
type versions map[resourceKey]string

// RefusedError is what Envoy said of a resource that it did not take.
type RefusedError struct {
	Resource, Message string

	alone bool // it was no other that came with it
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("envoy refused %s: %s", e.Resource, e.Message)
}

// ledger remembers what Envoy acknowledged and what it refused. It listens to the
// delta server; the stream that was opened last counts.
type ledger struct {
	mu      sync.Mutex
	stream  int64 // 0: none
	seen    bool  // there was one
	version string
	sent    map[string]versions // by nonce, not answered yet
	acked   versions
	refused map[resourceKey]refusal
	last    string        // what Envoy refused last, for people
	changed chan struct{} // closed when something did

	guard    *guard              // may be nil
	mask     func(string) string // hides secrets in what Envoy says; may be nil
	onStream func()              // a stream was opened; called by a goroutine of its own
}

type refusal struct {
	version, message string
	alone            bool // no other resource was offered with it
}

func newLedger() *ledger {
	l := &ledger{changed: make(chan struct{})}
	l.forget()
	return l
}

func (l *ledger) forget() {
	l.sent, l.acked, l.refused = map[string]versions{}, versions{}, map[resourceKey]refusal{}
}

func (l *ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// OnDeltaStreamOpen implements delta.Callbacks.
func (l *ledger) OnDeltaStreamOpen(_ context.Context, stream int64, _ string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stream, l.seen, l.last = stream, true, ""
	l.forget()
	l.wake()
	if l.onStream != nil {
		go l.onStream()
	}
	return nil
}

// OnDeltaStreamClosed implements delta.Callbacks.
func (l *ledger) OnDeltaStreamClosed(stream int64, _ *corev3.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream == l.stream {
		l.stream = 0
		l.forget()
		l.wake()
	}
}

// OnStreamDeltaResponse implements delta.Callbacks: a response is about to be sent.
func (l *ledger) OnStreamDeltaResponse(stream int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream != l.stream {
		return
	}
	sent := versions{}
	for _, x := range r.GetResources() {
		sent[resourceKey{r.GetTypeUrl(), x.GetName()}] = x.GetVersion()
	}
	for _, name := range r.GetRemovedResources() {
		sent[resourceKey{r.GetTypeUrl(), name}] = ""
	}
	l.sent[r.GetNonce()] = sent
}

// OnStreamDeltaRequest implements delta.Callbacks: a first request says what Envoy
// has from a stream before, others answer a response or change what it wants.
func (l *ledger) OnStreamDeltaRequest(stream int64, r *discoveryv3.DeltaDiscoveryRequest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream != l.stream {
		return nil
	}
	if v := r.GetNode().GetUserAgentBuildVersion().GetVersion(); v != nil {
		l.version = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
	}
	for name, version := range r.GetInitialResourceVersions() {
		l.acked[resourceKey{r.GetTypeUrl(), name}] = version
	}
	sent := l.sent[r.GetResponseNonce()]
	delete(l.sent, r.GetResponseNonce())
	for key, version := range sent {
		l.answer(key, version, len(sent) == 1, r)
	}
	l.wake()
	return nil
}

func (l *ledger) answer(key resourceKey, version string, alone bool, r *discoveryv3.DeltaDiscoveryRequest) {
	switch {
	case r.GetErrorDetail() != nil:
		l.last = l.masked(strings.TrimSpace(r.GetErrorDetail().GetMessage()))
		l.refused[key] = refusal{version, l.last, alone}
	case version == "":
		delete(l.acked, key)
		delete(l.refused, key)
	default:
		l.acked[key] = version
		delete(l.refused, key)
	}
}

// masked is what Envoy said without the values of secrets: it quotes what it refuses.
func (l *ledger) masked(said string) string {
	if l.mask == nil {
		return said
	}
	return l.mask(said)
}

// wait returns when Envoy has acknowledged all that is wanted: nil. When it refuses
// one of them: a RefusedError. When there is no Envoy: redirect.ErrNotReady.
func (l *ledger) wait(ctx context.Context, want versions) error {
	began := time.Now()
	err := l.await(ctx, want)
	if l.guard != nil {
		l.guard.waited(began, err)
	}
	return err
}

func (l *ledger) await(ctx context.Context, want versions) error {
	for {
		done, changed, err := l.look(want)
		if done || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for Envoy to acknowledge: %w", context.Cause(ctx))
		}
	}
}

func (l *ledger) look(want versions) (done bool, changed <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream == 0 {
		return false, nil, fmt.Errorf("%w: envoy is not connected", redirect.ErrNotReady)
	}
	done = true
	for key, version := range want {
		r, refused := l.refused[key]
		if l.acked[key] == version && (version != "" || !refused) { // what was refused is taken away too
			continue
		}
		done = false
		if refused && r.version == version {
			return false, nil, &RefusedError{key.name, r.message, r.alone}
		}
	}
	return done, l.changed, nil
}

// status says how it stands with Envoy.
func (l *ledger) status() redirect.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := redirect.Status{Name: "envoy", State: "ready", Version: l.version}
	switch {
	case l.stream == 0 && l.seen:
		s.State, s.Detail = "down", "envoy is not connected any more"
	case l.stream == 0:
		s.State, s.Detail = "starting", "envoy has not connected yet"
	case l.last != "":
		s.Detail = "envoy refused: " + l.last
	}
	return s
}
