package proxy

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that codec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
)

// maxMessage bounds one snapshot.
const maxMessage = 256 << 20

// recordWindow is how many bytes of records may be on their way to the agent.
const recordWindow = 8 << 20

// api serves the agent.
type api struct {
	proxyv1.UnimplementedProxyServer
	p         *process
	enforcing sync.Mutex
}

func (p *process) newAPI() *grpc.Server {
	s := grpc.NewServer(grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}), grpc.MaxRecvMsgSize(maxMessage))
	proxyv1.RegisterProxyServer(s, &api{p: p})
	proxyv1.RegisterNamesServer(s, &namesAPI{p: p})
	return s
}

// encoded is a message that is sent as it is, and then put back.
type encoded struct {
	data []byte
	from mem.BufferPool
}

// codec is the protobuf codec, and passes what is encoded already.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if e, ok := v.(encoded); ok {
		return mem.BufferSlice{mem.NewBuffer(&e.data, e.from)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// Hello is the handshake.
func (a *api) Hello(context.Context, *proxyv1.HelloRequest) (*proxyv1.HelloResponse, error) {
	h := &proxyv1.HelloResponse{
		Protocol: ProtocolVersion, Version: a.p.config.Version, Pid: int32(os.Getpid()),
		Port: uint32(a.p.port), Layout: []byte(a.p.config.Layout),
	}
	if s := a.p.snapshot.Load(); s != nil {
		h.Revision = s.revision
	}
	return h, nil
}

// Enforce puts a snapshot in force. Judges are looked up for each request, so
// whoever is judged after the swap is judged by the new ones.
func (a *api) Enforce(ctx context.Context, r *proxyv1.EnforceRequest) (*proxyv1.EnforceResponse, error) {
	a.enforcing.Lock()
	defer a.enforcing.Unlock()
	if err := ctx.Err(); err != nil { // who gave up while others went first has asked for something newer since
		return nil, status.FromContextError(err).Err()
	}
	wanted, err := snapshotFromProto(r)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	next, err := a.p.snapshot.Load().next(wanted, a.p.config.Compile)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if d := a.p.dns; d != nil {
		d.before.begin(r.Before)
	}
	before := a.p.snapshot.Load()
	if next.round = newRound(); before.judgesAs(next) {
		next.round = before.round
	} else if err := a.p.setKnown(0); err != nil { // what was allowed before holds no more
		return nil, status.Error(codes.Internal, err.Error())
	}
	a.p.snapshot.Store(next)
	a.p.names.Update(wanted.Zone)
	a.p.lookAtTunnels()
	if err := a.p.enforceNames(ctx, wanted.Names); err != nil {
		return nil, err
	}
	if err := a.p.setKnown(next.round); err != nil { // every question comes here: slower, and no less right
		a.p.log.Warn("questions take the long way", "error", err)
	}
	return &proxyv1.EnforceResponse{Failed: next.failures(), StuckEndpoints: a.p.learntStats(ctx).GetStuckEndpoints()}, nil
}

func (s *snapshot) failures() []*proxyv1.SetFailure {
	if s == nil {
		return nil
	}
	var failed []*proxyv1.SetFailure
	for number, set := range s.sets {
		if set.err != nil {
			failed = append(failed, &proxyv1.SetFailure{Number: uint32(number), Error: set.err.Error()})
		}
	}
	slices.SortFunc(failed, func(a, b *proxyv1.SetFailure) int { return int(int64(a.Number) - int64(b.Number)) })
	return failed
}

// Records streams to one agent: a second takes over from the first, which is
// most likely gone without having said so.
func (a *api) Records(_ *proxyv1.RecordsRequest, stream grpc.ServerStreamingServer[proxyv1.RecordBatch]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	if before := a.p.recording.Swap(&cancel); before != nil {
		(*before)()
	}
	stop := context.AfterFunc(a.p.life, cancel)
	defer stop()
	for {
		batch, n, err := a.p.ring.take(ctx)
		if err != nil {
			return status.FromContextError(err).Err()
		}
		err = stream.SendMsg(encoded{batch, a.p.ring})
		if err == nil {
			err = ctx.Err() // nobody is there to read what was sent
		}
		if err != nil {
			a.p.ring.lose(n)
			return err
		}
	}
}

// Status for people.
func (a *api) Status(ctx context.Context, _ *proxyv1.StatusRequest) (*proxyv1.StatusResponse, error) {
	p := a.p
	s := &proxyv1.StatusResponse{
		Connections: uint64(p.open()), Accepted: p.accepted.Load(), Requests: p.requests.Load(),
		Denied: p.denied.Load(), Malformed: p.malformed.Load(), Refused: p.refused.Load(),
		Names: p.namesStatus(), RecordsLost: p.ring.lostTotal(), StartedNs: p.started.UnixNano(), Dns: p.dnsStatus(),
	}
	if snapshot := p.snapshot.Load(); snapshot != nil {
		s.Revision, s.Failed = snapshot.revision, snapshot.failures()
	}
	s.Learnt = p.learntStats(ctx)
	return s, nil
}

// Drain ends the process when its connections have ended.
func (a *api) Drain(_ context.Context, r *proxyv1.DrainRequest) (*proxyv1.DrainResponse, error) {
	a.p.leaveShortcut()
	select {
	case a.p.drain <- time.Duration(max(r.GraceNs, 0)):
	default: // another drain is being taken up
	}
	return &proxyv1.DrainResponse{}, nil
}
