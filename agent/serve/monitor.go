package serve

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// Monitor implements agentv1.AgentServer.
func (s *Server) Monitor(r *agentv1.MonitorRequest, to grpc.ServerStreamingServer[agentv1.MonitorEvent]) error {
	for _, name := range r.Endpoints {
		if _, err := s.Engine.GetEndpoint(name); err != nil {
			return grpcError(err)
		}
	}
	for _, t := range r.Types {
		if t != "drop" && t != "verdict" {
			return status.Errorf(codes.InvalidArgument, "there are no events of type %q: write drop or verdict", t)
		}
	}
	return s.Watch(to.Context().Done(), func(e *bpf.Event, missed uint64) error {
		if missed > 0 {
			if err := to.Send(&agentv1.MonitorEvent{TimeNs: e.Time.UnixNano(), Type: "lost", Lost: missed}); err != nil {
				return err
			}
		}
		if v := s.monitored(e); wanted(r, e, v) {
			return to.Send(v)
		}
		return nil
	})
}

func wanted(r *agentv1.MonitorRequest, e *bpf.Event, v *agentv1.MonitorEvent) bool {
	return (len(r.Types) == 0 || slices.Contains(r.Types, v.Type)) &&
		(len(r.Reasons) == 0 || e.Kind == bpf.EventDrop && slices.Contains(r.Reasons, uint32(e.Reason))) &&
		(len(r.Endpoints) == 0 || slices.Contains(r.Endpoints, v.SourceEndpoint) || slices.Contains(r.Endpoints, v.DestinationEndpoint))
}

// monitored is an event in words, and no more than the gate told.
func (s *Server) monitored(e *bpf.Event) *agentv1.MonitorEvent {
	v := &agentv1.MonitorEvent{
		TimeNs: e.Time.UnixNano(), Type: "verdict", Verdict: "FORWARDED", Direction: e.Direction.String(), Protocol: protoName(e.Proto),
		Source: end(e.Source), Destination: end(e.Destination),
		SourceIdentity: uint32(e.SourceIdentity), DestinationIdentity: uint32(e.DestinationIdentity),
		SourceEndpoint: s.nameOf(e.Source.Addr()), DestinationEndpoint: s.nameOf(e.Destination.Addr()),
		Ifindex: e.Ifindex, Length: e.Length, Rule: s.Engine.Reference(e.Rule).String(),
		SourceMac: net.HardwareAddr(e.SourceMAC[:]).String(), DestinationMac: net.HardwareAddr(e.DestinationMAC[:]).String(),
	}
	switch {
	case e.Kind == bpf.EventDrop:
		v.Type, v.Verdict, v.Reason, v.ReasonCode = "drop", "DROPPED", observe.DropReason(e.Reason).String(), uint32(e.Reason)
	case e.Audit:
		v.Verdict = "AUDIT"
	case e.Verdict == policy.Redirect:
		v.Verdict = "REDIRECTED"
	}
	if e.Set != 0 {
		v.Set = setName(e.Set)
	}
	switch e.Proto {
	case policy.ProtoTCP:
		v.Flags = tcpFlags(e.TCPFlags)
	case policy.ProtoICMP, policy.ProtoICMPv6:
		v.Flags = fmt.Sprintf("type %d code %d", e.ICMPType, e.ICMPCode)
	}
	return v
}

func (s *Server) nameOf(a netip.Addr) string {
	if info, ok := s.Engine.Endpoint(a); ok {
		return info.Namespace + "/" + info.Name
	}
	return ""
}

// end leaves a port out that there is none.
func end(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

func tcpFlags(f uint8) string {
	var out []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}
