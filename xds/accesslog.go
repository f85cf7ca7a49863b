package xds

import (
	"errors"
	"fmt"
	"io"
	"time"

	accesslogconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/observe"
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
			CommonConfig: commonLog(p),
			// The method is a word of a few in the log itself.
			AdditionalRequestHeadersToLog:   []string{":method", "content-type"},
			AdditionalResponseHeadersToLog:  []string{grpcStatus},
			AdditionalResponseTrailersToLog: []string{grpcStatus},
		})},
	}}
}

// unreadLogOf makes Envoy report what it carries unread.
func (b *builder) unreadLogOf(p pair) []*accesslogconfigv3.AccessLog {
	return b.connectionLog(p, literal(passedTag, "yes"))
}

func commonLog(p pair) *grpclogv3.CommonGrpcAccessLogConfig {
	return &grpclogv3.CommonGrpcAccessLogConfig{
		LogName:             p.name(),
		CustomTags:          tagsOf(p),
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: agentCluster},
		}},
		BufferFlushInterval:     durationpb.New(logInterval),
		BufferSizeBytes:         wrapperspb.UInt32(logBytes),
		FilterStateObjectsToLog: []string{grpcStats},
	}
}

// accessLog takes what Envoy reports.
type accessLog struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	b *Backend
}

// StreamAccessLogs implements Envoy's access log service. A stream is of one listener,
// whose name comes first.
func (a *accessLog) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	var p pair
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take Envoy's access log: %w", err)
		}
		if name := m.GetIdentifier().GetLogName(); name != "" {
			p = pairNamed(name)
		}
		var records []observe.Record
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			records = append(records, a.b.told(p, e)...)
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			records = append(records, a.b.connection(p, e)...)
		}
		a.b.report(records)
	}
}

func (b *Backend) report(records []observe.Record) {
	if len(records) > 0 && b.config.Records != nil {
		b.config.Records(records)
	}
}
