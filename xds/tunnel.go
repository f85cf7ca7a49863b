package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// Envoy judges a tunnel once, when it is asked for. What it was asked for, it tells when
// the tunnel stands, and again from time to time, so that an agent that comes later knows
// of it. Whenever rules change, tunnels are judged again here, and the sockets of those
// that are denied are closed by the kernel.

// tunnelInterval is how often Envoy tells of tunnels.
const tunnelInterval = 5 * time.Second

// tunnels are those that stand.
type tunnels struct {
	mu  sync.Mutex
	all map[tunnelKey]*tunnel
}

// tunnelKey tells tunnels apart; HTTP/2 has several on a connection.
type tunnelKey struct {
	source, destination netip.AddrPort
	began               int64
}

type tunnel struct {
	pair    pair
	request *policy.HTTPRequest // that opened it; nil: what is in it is not read
	hello   *policy.TLSRequest  // that its connection began with; nil: it is plain text
	record  observe.Record      // of its request
	closed  bool

	destroyed bool      // its socket
	missing   time.Time // since when its socket has not been found
}

// outlives reports whether a tunnel stands that should not, by what came of destroying its
// socket. One that is not found may have ended just now, or with another tunnel on the same
// connection, and the entry that says so be on its way; that takes no tunnelInterval.
func (t *tunnel) outlives(err error, now time.Time) bool {
	switch {
	case err == nil:
		t.destroyed = true
		return false
	case !errors.Is(err, unix.ENOENT):
		return true
	case t.destroyed:
		return false
	case t.missing.IsZero():
		t.missing = now
	}
	return now.Sub(t.missing) >= tunnelInterval
}

// told is what a log entry tells: of a request that is over, or of a tunnel.
func (b *Backend) told(p pair, e *datav3.HTTPAccessLogEntry) []observe.Record {
	common := e.GetCommonProperties()
	request := headOf(e)
	if request == nil || !opened(request, e) {
		if common.GetAccessLogType() == datav3.AccessLogType_DownstreamPeriodic {
			return nil // it is told of when it is over
		}
		return b.recordsOf(p, e)
	}
	records := b.recordsOf(p, e)
	if len(records) == 0 {
		return nil
	}
	r := records[0]
	key := tunnelKey{r.Source, r.Destination, common.GetStartTime().AsTime().UnixNano()}
	switch common.GetAccessLogType() {
	case datav3.AccessLogType_DownstreamTunnelSuccessfullyEstablished:
		b.stands(key, &tunnel{pair: p, hello: helloOf(common), request: request, record: r})
		return records
	case datav3.AccessLogType_DownstreamPeriodic:
		b.stands(key, &tunnel{pair: p, hello: helloOf(common), request: request, record: r})
		return nil
	}
	b.tunnels.mu.Lock()
	delete(b.tunnels.all, key)
	b.tunnels.mu.Unlock()
	r.HTTP, r.Rule, r.Time = nil, policy.Ref{}, time.Now()
	r.Detail = fmt.Sprintf("tunnel ended: %d bytes from the client, %d from the server, opened by %s http://%s%s",
		e.GetRequest().GetRequestBodyBytes(), e.GetResponse().GetResponseBodyBytes(), request.Method, request.Host, request.Path)
	return []observe.Record{r}
}

// unread tells of a connection that is carried without being read.
func (b *Backend) unread(p pair, e *datav3.TCPAccessLogEntry) []observe.Record {
	r, ok := b.ends(e.GetCommonProperties())
	if !ok {
		return nil
	}
	if p.ingress == 0 {
		r.Direction = policy.Egress
	}
	r.Detail = "it is not HTTP; passed on unread, as no policy that enforces applies"
	for _, n := range []policy.Direction{policy.Egress, policy.Ingress} {
		if x := b.program(p.in(n)); x != nil && (x.audit || x.shadowAllow != nil) {
			r.Word = observe.Audited
		}
	}
	return []observe.Record{r}
}

// opened reports whether the answer made the connection, or the stream, a tunnel.
func opened(request *policy.HTTPRequest, e *datav3.HTTPAccessLogEntry) bool {
	status := e.GetResponse().GetResponseCode().GetValue()
	return status == 101 || string(request.Method) == connectMethod && status/100 == 2 ||
		e.GetCommonProperties().GetAccessLogType() == datav3.AccessLogType_DownstreamTunnelSuccessfullyEstablished
}

// headOf reads the head of a request that the script has kept; nil: it is not for a
// tunnel.
func headOf(e *datav3.HTTPAccessLogEntry) *policy.HTTPRequest {
	head := e.GetCommonProperties().GetMetadata().GetFilterMetadata()[scriptMetadata].GetFields()["head"].GetListValue().GetValues()
	if len(head) == 0 {
		return nil
	}
	r := &policy.HTTPRequest{}
	for _, line := range head {
		name, value, _ := strings.Cut(line.GetStringValue(), "=")
		plain := unescaped(value)
		switch name {
		case ":method":
			r.Method = plain
		case ":path":
			r.Path = plain
		case ":authority":
			r.Host = plain
		default:
			if !strings.HasPrefix(name, ":") {
				r.Headers = append(r.Headers, policy.HTTPHeader{Name: unescaped(name), Value: plain})
			}
		}
	}
	return r
}

// unescaped reverses escaped.
func unescaped(s string) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return out
}

// stands remembers a tunnel, and judges it: rules may have changed since Envoy did.
func (b *Backend) stands(key tunnelKey, t *tunnel) {
	b.tunnels.mu.Lock()
	if b.tunnels.all == nil {
		b.tunnels.all = map[tunnelKey]*tunnel{}
	}
	if known := b.tunnels.all[key]; known != nil {
		t = known
	} else {
		b.tunnels.all[key] = t
	}
	b.tunnels.mu.Unlock()
	b.judgeTunnel(key, t)
}

// judgeTunnels ends the tunnels that the rules in force deny.
func (b *Backend) judgeTunnels() {
	b.tunnels.mu.Lock()
	all := make(map[tunnelKey]*tunnel, len(b.tunnels.all))
	for key, t := range b.tunnels.all {
		all[key] = t
	}
	b.tunnels.mu.Unlock()
	for key, t := range all {
		b.judgeTunnel(key, t)
	}
}

func (b *Backend) judgeTunnel(key tunnelKey, t *tunnel) {
	d, direction := b.judgeStanding(t)
	if d.Verdict == policy.Allow {
		return
	}
	err := destroySocket(key.destination, key.source)
	b.tunnels.mu.Lock()
	told := t.closed
	t.closed = true
	outlives := t.outlives(err, time.Now())
	b.tunnels.mu.Unlock()
	if outlives {
		b.log.Error("close a tunnel that is denied now; its ends must be restarted", "from", key.source, "to", key.destination, "error", err)
	}
	if told {
		return
	}
	r := t.record
	r.Time, r.Word, r.Reason, r.Direction = time.Now(), observe.Dropped, observe.ReasonPolicyDenied, direction
	r.Rule, r.Nearest, r.Detail = d.Rule, d.Nearest, d.Reason
	b.report([]observe.Record{r})
}

// judge judges a request of a pair by the rules in force, as Envoy would: egress first,
// then ingress, about the request as egress lets it go on.
func (b *Backend) judge(p pair, r *policy.HTTPRequest) (policy.Decision, policy.Direction) {
	d := policy.Decision{Verdict: policy.Allow}
	for _, direction := range []policy.Direction{policy.Egress, policy.Ingress} {
		n := p.in(direction)
		if n == 0 {
			continue
		}
		program := b.program(n)
		switch {
		case program == nil || program.judge == nil:
			return policy.Decision{Reason: "its rules are not in force any more"}, direction
		case program.audit:
			continue
		}
		if d = program.judge.Decide(r); d.Verdict != policy.Allow {
			return d, direction
		}
		if d.Edited {
			r = &policy.HTTPRequest{Method: r.Method, Path: r.Path, Host: r.Host, Headers: d.Headers}
		}
	}
	return policy.Decision{Verdict: policy.Allow}, policy.Ingress
}
