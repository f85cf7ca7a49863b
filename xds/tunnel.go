package xds

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// told is what a log entry tells: of a request that is over, of a tunnel, or of what is
// under way.
func (b *Backend) told(p pair, e *datav3.HTTPAccessLogEntry) []observe.Record {
	kind := e.GetCommonProperties().GetAccessLogType()
	request := headOf(e)
	tunnel := request != nil && opened(request, e)
	periodic := kind == datav3.AccessLogType_DownstreamPeriodic
	if periodic && !tunnel && !mayLast(p, e) {
		return nil // it is told of when it is over
	}
	records := b.recordsOf(p, e)
	if len(records) == 0 {
		return nil
	}
	r := records[0]
	key := keyOf(r, e)
	if periodic || kind == datav3.AccessLogType_DownstreamTunnelSuccessfullyEstablished {
		x := &exchange{pair: p, hello: helloOf(e.GetCommonProperties()), request: request, record: r}
		if request == nil {
			x.request, x.partial = partOf(&r, e), true
		}
		b.goesOn(key, x)
		if periodic {
			return nil
		}
		return records
	}
	cut := b.underway.over(key)
	if !tunnel {
		if last := &records[len(records)-1]; cut && last.Word == observe.Errored {
			last.Detail = "its connection was closed: a request there is denied now"
		}
		return records
	}
	r.HTTP, r.Rule, r.Time = nil, policy.Ref{}, time.Now()
	r.Detail = fmt.Sprintf("tunnel ended: %d bytes from the client, %d from the server, opened by %s http://%s%s",
		e.GetRequest().GetRequestBodyBytes(), e.GetResponse().GetResponseBodyBytes(), request.Method, request.Host, request.Path)
	return []observe.Record{r}
}

// mayLast: a stream of HTTP/2 on a listener of ours. What was asked over HTTP/1, either
// backend lets have its answer.
func mayLast(p pair, e *datav3.HTTPAccessLogEntry) bool {
	return !p.custom() && e.GetProtocolVersion() == datav3.HTTPAccessLogEntry_HTTP2
}

func keyOf(r observe.Record, e *datav3.HTTPAccessLogEntry) exchangeKey {
	return exchangeKey{
		connection: connection{r.Source, r.Destination}, began: e.GetCommonProperties().GetStartTime().AsTime().UnixNano(),
		target: r.HTTP.Method + " " + r.HTTP.URL,
	}
}

// partOf is what the log itself tells of a request's head.
func partOf(r *observe.Record, e *datav3.HTTPAccessLogEntry) *policy.HTTPRequest {
	q := e.GetRequest()
	request := &policy.HTTPRequest{Method: []byte(r.HTTP.Method), Path: []byte(q.GetPath()), Host: []byte(q.GetAuthority())}
	if kind := q.GetRequestHeaders()["content-type"]; kind != "" {
		request.Headers = []policy.HTTPHeader{{Name: []byte("content-type"), Value: []byte(kind)}}
	}
	return request
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
