package xds

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	accesslogconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// logInterval is how long Envoy gathers what it logs, and logBytes how much.
const (
	logInterval = 50 * time.Millisecond
	logBytes    = 64 << 10
)

// accessLogOf makes Envoy report every request on a stream to us.
func (b *builder) accessLogOf(p pair) []*accesslogconfigv3.AccessLog {
	return []*accesslogconfigv3.AccessLog{{
		Name: "envoy.access_loggers.http_grpc",
		ConfigType: &accesslogconfigv3.AccessLog_TypedConfig{TypedConfig: b.pack(&grpclogv3.HttpGrpcAccessLogConfig{
			CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
				LogName:             p.name(),
				TransportApiVersion: corev3.ApiVersion_V3,
				GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: agentCluster},
				}},
				BufferFlushInterval: durationpb.New(logInterval),
				BufferSizeBytes:     wrapperspb.UInt32(logBytes),
			},
		})},
	}}
}

// accessLog takes what Envoy reports.
type accessLog struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	b *Backend
}

// StreamAccessLogs implements Envoy's access log service.
func (a *accessLog) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take Envoy's access log: %w", err)
		}
		var records []observe.Record
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			records = append(records, a.b.recordsOf(e)...)
		}
		if len(records) > 0 && a.b.config.Records != nil {
			a.b.config.Records(records)
		}
	}
}

// recordsOf tells of a request as headgate's own proxy does: that it was judged, and
// how it was answered.
func (b *Backend) recordsOf(e *datav3.HTTPAccessLogEntry) []observe.Record {
	common := e.GetCommonProperties()
	source, destination := addressOf(common.GetDownstreamRemoteAddress()), addressOf(common.GetDownstreamLocalAddress())
	if !source.IsValid() || !destination.IsValid() {
		return nil
	}
	r := observe.Record{
		Kind: observe.KindL7, Time: common.GetStartTime().AsTime(), Word: observe.Forwarded, Proto: policy.ProtoTCP,
		Source: source, Destination: destination, HTTP: httpOf(e, destination),
	}
	if b.config.Identify != nil {
		r.SourceIdentity, r.DestinationIdentity = b.config.Identify(source, destination)
	}
	d := decisionOf(e)
	r.Direction, r.Rule = d.direction, d.rule
	switch {
	case d.denied:
		r.Word, r.Reason = observe.Dropped, observe.ReasonPolicyDenied
		r.Detail = "no rule allows this request"
	case e.GetRequest().GetRequestMethod() == corev3.RequestMethod_METHOD_UNSPECIFIED || e.GetResponse().GetResponseCode().GetValue() == 0 && malformed(e):
		r.Word, r.Detail = observe.Errored, e.GetResponse().GetResponseCodeDetails()
		return []observe.Record{r}
	case malformed(e):
		r.Word, r.Detail = observe.Errored, e.GetResponse().GetResponseCodeDetails()
	}
	answer := r
	status := int(e.GetResponse().GetResponseCode().GetValue())
	if status == 0 {
		return []observe.Record{r}
	}
	h := *r.HTTP
	h.Status, h.Latency = status, latencyOf(common)
	answer.HTTP, answer.Reply, answer.Word, answer.Reason = &h, true, observe.Forwarded, observe.ReasonNone
	answer.Time = r.Time.Add(h.Latency)
	if !d.denied {
		answer.Detail = ""
		if flags := failures(common.GetResponseFlags()); flags != "" {
			answer.Word, answer.Detail = observe.Errored, flags
		}
	}
	return []observe.Record{r, answer}
}

// malformed: Envoy answered by itself, and not because of a rule.
func malformed(e *datav3.HTTPAccessLogEntry) bool {
	code := e.GetResponse().GetResponseCode().GetValue()
	details := e.GetResponse().GetResponseCodeDetails()
	return code >= 400 && code < 500 && details != "" && details != "via_upstream" && !strings.HasPrefix(details, "rbac_access_denied")
}

func httpOf(e *datav3.HTTPAccessLogEntry, destination netip.AddrPort) *observe.HTTP {
	q := e.GetRequest()
	h := &observe.HTTP{Method: q.GetRequestMethod().String(), Protocol: protocolOf(e.GetProtocolVersion())}
	host := q.GetAuthority()
	if host == "" {
		host = destination.String()
	}
	h.URL = "http://" + host + q.GetPath()
	return h
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
	denied    bool
	direction policy.Direction
	rule      policy.Ref
}

// Where Envoy's RBAC filter writes what it decided, behind the prefix of the filter.
const (
	rbacMetadata     = "envoy.filters.http.rbac"
	effectivePolicy  = "enforced_effective_policy_id"
	enforcedResult   = "enforced_engine_result"
	resultDenied     = "denied"
	egressStatistic  = "egress_"
	ingressStatistic = "ingress_"
)

// decisionOf reads which rule decided: that of the direction that denied, or else the
// last that allowed, which is ingress.
func decisionOf(e *datav3.HTTPAccessLogEntry) decided {
	fields := e.GetCommonProperties().GetMetadata().GetFilterMetadata()[rbacMetadata].GetFields()
	d := decided{direction: policy.Ingress}
	for _, end := range []struct {
		prefix    string
		direction policy.Direction
	}{{egressStatistic, policy.Egress}, {ingressStatistic, policy.Ingress}} {
		result := fields[end.prefix+enforcedResult].GetStringValue()
		if result == "" {
			continue
		}
		d.direction, d.rule = end.direction, policy.Ref{}
		if id := fields[end.prefix+effectivePolicy].GetStringValue(); id != "" && id != "none" {
			d.rule = refOf(id)
		}
		if result == resultDenied {
			d.denied = true
			return d
		}
	}
	d.denied = strings.HasPrefix(e.GetResponse().GetResponseCodeDetails(), "rbac_access_denied")
	return d
}

// refOf reads the name of an RBAC policy: a number, and a policy.Ref.
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
