package serve

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/redirect"
)

// dumpChunk is how many bytes of resources are in one message, more or less.
const dumpChunk = 1 << 20

// DumpXDS implements agentv1.AgentServer.
func (s *Server) DumpXDS(r *agentv1.DumpXDSRequest, stream grpc.ServerStreamingServer[agentv1.DumpXDSResponse]) error {
	if s.Discovery == nil {
		return status.Error(codes.FailedPrecondition, "nothing is served by xDS here: start the agent with --backend envoy")
	}
	d, err := s.Discovery(r.Type)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	out := &agentv1.DumpXDSResponse{}
	for i := range d.Clients {
		out.Clients = append(out.Clients, protoClient(&d.Clients[i]))
	}
	size := 0
	for _, x := range d.Resources {
		v := &agentv1.XDSResource{Type: x.Type, Name: x.Name, Version: x.Version, State: x.State, Refusal: x.Refusal, Size: uint32(len(x.Body))}
		if r.Bodies {
			v.Body = x.Body
		}
		out.Resources = append(out.Resources, v)
		if size += len(v.Body) + 200; size < dumpChunk {
			continue
		}
		if err := stream.Send(out); err != nil {
			return err
		}
		out, size = &agentv1.DumpXDSResponse{}, 0
	}
	return stream.Send(out)
}

func protoClient(c *redirect.DiscoveryClient) *agentv1.XDSClient {
	out := &agentv1.XDSClient{
		Node: c.Node, Agent: c.Agent, Role: c.Role, Variant: c.Variant, Pid: int32(c.PID), Uid: c.UID, SinceNs: c.Since.UnixNano(), Refusal: c.Refusal,
	}
	if !c.RefusedAt.IsZero() {
		out.RefusedNs = c.RefusedAt.UnixNano()
	}
	for _, t := range c.Types {
		out.Types = append(out.Types, &agentv1.XDSSubscription{
			Type: t.Type, Sent: t.Sent, Acked: t.Acked, Refused: t.Refused, Responses: t.Responses, Refusals: t.Refusals,
		})
	}
	return out
}
