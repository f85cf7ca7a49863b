package xds

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// recordsOf tells of a request as headgate's own proxy does: that it was judged, and
// how it was answered.
func (b *Backend) recordsOf(p pair, e *datav3.HTTPAccessLogEntry) []observe.Record {
	common := e.GetCommonProperties()
	r, ok := b.ends(common)
	if !ok {
		return nil
	}
	r.HTTP = httpOf(e, r.Destination)
	d := decisionOf(e)
	r.Direction, r.Rule, r.Detail = d.direction, d.rule, notesOf(e)
	switch {
	case d.denied:
		r.Word, r.Reason = observe.Dropped, observe.ReasonPolicyDenied
		if d.byRule {
			r.Reason = observe.ReasonPolicyDeny
		}
		b.explain(&r, p, d, e)
	case !judged(e):
		r.Word, r.Detail = observe.Errored, e.GetResponse().GetResponseCodeDetails()
		if e.GetResponse().GetResponseCode().GetValue() == 0 {
			return []observe.Record{r}
		}
	case d.audited:
		r.Word = observe.Audited
		b.explain(&r, p, d, e)
	}
	answer := r
	status := int(e.GetResponse().GetResponseCode().GetValue())
	if status == 0 {
		return []observe.Record{r}
	}
	h := *r.HTTP
	h.Status, h.Latency, h.Headers = status, latencyOf(common), callOf(e)
	answer.HTTP, answer.Reply, answer.Word, answer.Reason = &h, true, observe.Forwarded, observe.ReasonNone
	answer.Time = r.Time.Add(h.Latency)
	if !d.denied {
		if flags := failures(common.GetResponseFlags()); flags != "" {
			answer.Word, answer.Detail = observe.Errored, flags
		}
	}
	return []observe.Record{r, answer}
}

// ends of a connection that Envoy tells of. The client is who connected: what Envoy calls
// the remote address follows X-Forwarded-For, which clients write.
func (b *Backend) ends(common *datav3.AccessLogCommon) (observe.Record, bool) {
	r := observe.Record{
		Kind: observe.KindL7, Time: common.GetStartTime().AsTime(), Word: observe.Forwarded, Proto: policy.ProtoTCP,
		Source: addressOf(common.GetDownstreamDirectRemoteAddress()), Destination: addressOf(common.GetDownstreamLocalAddress()),
	}
	if !r.Source.IsValid() || !r.Destination.IsValid() {
		return r, false
	}
	if b.config.Identify != nil {
		r.SourceIdentity, r.DestinationIdentity = b.config.Identify(r.Source, r.Destination)
	}
	return r, true
}

// judged reports whether a request came as far as the rules: what Envoy could not read,
// or refuses by itself, did not.
func judged(e *datav3.HTTPAccessLogEntry) bool {
	if e.GetCommonProperties().GetCustomTags()[directionTag] != "" { // a listener of a policy has no filter of ours
		return !malformed(e)
	}
	return len(e.GetCommonProperties().GetMetadata().GetFilterMetadata()[rbacMetadata].GetFields()) > 0 && !malformed(e)
}

// malformed: Envoy answered by itself, and not because of a rule.
func malformed(e *datav3.HTTPAccessLogEntry) bool {
	code := e.GetResponse().GetResponseCode().GetValue()
	details := e.GetResponse().GetResponseCodeDetails()
	return code >= 400 && code < 500 && details != "" && details != "via_upstream" && !strings.HasPrefix(details, "rbac_access_denied")
}

func httpOf(e *datav3.HTTPAccessLogEntry, destination netip.AddrPort) *observe.HTTP {
	q := e.GetRequest()
	h := &observe.HTTP{Method: methodOf(q), Protocol: protocolOf(e.GetProtocolVersion())}
	host := q.GetAuthority()
	if host == "" {
		host = destination.String()
	}
	h.URL = schemeOf(e) + host + q.GetPath()
	return h
}

func methodOf(q *datav3.HTTPRequestProperties) string {
	if m := q.GetRequestHeaders()[":method"]; m != "" {
		return m
	}
	return q.GetRequestMethod().String()
}

func protocolOf(v datav3.HTTPAccessLogEntry_HTTPVersion) string {
	switch v {
	case datav3.HTTPAccessLogEntry_HTTP10:
		return "HTTP/1.0"
	case datav3.HTTPAccessLogEntry_HTTP2:
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// latencyOf is from the request's head to the answer's.
func latencyOf(c *datav3.AccessLogCommon) time.Duration {
	for _, d := range []*durationpb.Duration{c.GetTimeToFirstDownstreamTxByte(), c.GetTimeToFirstUpstreamRxByte(), c.GetDuration()} {
		if d != nil && d.AsDuration() > 0 {
			return d.AsDuration()
		}
	}
	return time.Nanosecond
}

// decided is what the RBAC filters left behind.
type decided struct {
	denied, audited bool
	byRule          bool // one that denies
	byName          bool // of the server that the client asked for
	direction       policy.Direction
	rule            policy.Ref
}

// Where Envoy's RBAC filter writes what it decided, behind the prefix of the filter.
const (
	rbacMetadata         = "envoy.filters.http.rbac"
	effectivePolicy      = "effective_policy_id"
	engineResult         = "engine_result"
	enforcedWord         = "enforced_"
	shadowWord           = "shadow_"
	resultDenied         = "denied"
	egressStatistic      = egressWord + "_"
	egressDenyStatistic  = egressWord + "_deny_"
	ingressStatistic     = ingressWord + "_"
	ingressDenyStatistic = ingressWord + "_deny_"
)

// judgements are the filters in their order.
var judgements = [...]struct {
	prefix    string
	direction policy.Direction
	denies    bool
}{
	{egressDenyStatistic, policy.Egress, true},
	{egressStatistic, policy.Egress, false},
	{ingressDenyStatistic, policy.Ingress, true},
	{ingressStatistic, policy.Ingress, false},
}

// decisionOf reads which rule decided: that which denied, or else the first that would
// have, or else the last that allowed.
func decisionOf(e *datav3.HTTPAccessLogEntry) decided {
	fields := e.GetCommonProperties().GetMetadata().GetFilterMetadata()[rbacMetadata].GetFields()
	d := decided{direction: policy.Ingress}
	if e.GetCommonProperties().GetCustomTags()[directionTag] != "" {
		d.direction = policy.Egress
	}
	if fields[namesStatistic+enforcedWord+engineResult].GetStringValue() == resultDenied {
		return decided{denied: true, byName: true, direction: d.direction}
	}
	for _, j := range judgements {
		if fields[j.prefix+enforcedWord+engineResult].GetStringValue() == resultDenied {
			return decided{denied: true, byRule: j.denies, direction: j.direction, rule: namedBy(fields, j.prefix+enforcedWord)}
		}
	}
	for _, j := range judgements {
		if fields[j.prefix+shadowWord+engineResult].GetStringValue() == resultDenied {
			return decided{audited: true, byRule: j.denies, direction: j.direction, rule: namedBy(fields, j.prefix+shadowWord)}
		}
		if !j.denies && fields[j.prefix+enforcedWord+engineResult].GetStringValue() != "" {
			d.direction, d.rule = j.direction, namedBy(fields, j.prefix+enforcedWord)
		}
	}
	d.denied = strings.HasPrefix(e.GetResponse().GetResponseCodeDetails(), "rbac_access_denied")
	return d
}

// namedBy is the rule that a filter names; none: no rule matched.
func namedBy(fields map[string]*structpb.Value, prefix string) policy.Ref {
	id := fields[prefix+effectivePolicy].GetStringValue()
	if id == "" || id == "none" {
		return policy.Ref{}
	}
	return refOf(id)
}

// refOf reads the name of an RBAC policy: its kind and number, and a policy.Ref.
func refOf(name string) policy.Ref {
	_, ref, _ := strings.Cut(name, " ")
	var r policy.Ref
	r.Policy, r.Path, _ = strings.Cut(ref, " ")
	return r
}

func addressOf(a *corev3.Address) netip.AddrPort {
	ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.GetSocketAddress().GetPortValue()))
}

// failures says what went wrong between Envoy and the server.
func failures(f *datav3.ResponseFlags) string {
	for what, set := range map[string]bool{
		"the server could not be reached":             f.GetUpstreamConnectionFailure(),
		"the server ended the connection":             f.GetUpstreamConnectionTermination(),
		"the server reset the request":                f.GetUpstreamRemoteReset(),
		"the client ended the connection":             f.GetDownstreamConnectionTermination(),
		"the server broke the protocol":               f.GetUpstreamProtocolError(),
		"the request could not be routed to a server": f.GetNoHealthyUpstream(),
	} {
		if set {
			return what
		}
	}
	return ""
}

// grpcStats is the filter that counts the messages of calls, and grpcStatus how they end.
const (
	grpcStats  = "envoy.filters.http.grpc_stats"
	grpcStatus = "grpc-status"
)

// callOf is how a call ended, as headers: flows have no other place for it.
func callOf(e *datav3.HTTPAccessLogEntry) [][2]string {
	if !policy.IsCall([]byte(e.GetRequest().GetRequestHeaders()["content-type"])) {
		return nil
	}
	var headers [][2]string
	answer := e.GetResponse()
	for _, from := range []map[string]string{answer.GetResponseTrailers(), answer.GetResponseHeaders()} {
		if status := from[grpcStatus]; status != "" && headers == nil {
			headers = append(headers, [2]string{grpcStatus, status})
		}
	}
	var counted grpcstatsv3.FilterObject
	if x := e.GetCommonProperties().GetFilterStateObjects()[grpcStats]; x != nil {
		_ = x.UnmarshalTo(&counted) // else nothing was counted
	}
	return append(headers,
		[2]string{"x-grpc-messages-sent", strconv.FormatUint(counted.GetRequestMessageCount(), 10)},
		[2]string{"x-grpc-messages-received", strconv.FormatUint(counted.GetResponseMessageCount(), 10)})
}
