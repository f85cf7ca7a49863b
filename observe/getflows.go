package observe

import (
	"context"
	"errors"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type flowStream = grpc.ServerStreamingServer[observerpb.GetFlowsResponse]

// query is a GetFlowsRequest, checked and compiled.
type query struct {
	number        uint64 // 0: no limit
	first, follow bool
	history       bool // look back before following
	since, until  time.Time
	wanted        Filter
	mask          mask
}

// GetFlows implements the Observer API. What the ring holds is collected first and
// then sent, so that a slow client loses nothing of it; losses, which only a
// follower can have, are told as they are noticed.
func (s *Server) GetFlows(req *observerpb.GetFlowsRequest, stream flowStream) error {
	q, err := newQuery(req)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "%v", err)
	}
	if q.first {
		return s.sendAll(stream, q, s.ring.First(q.number, q.matches))
	}
	reader := s.ring.Follow()
	if q.history {
		var found []*Event
		found, reader = s.ring.Last(q.number, q.matches)
		if err := s.sendAll(stream, q, found); err != nil {
			return err
		}
	}
	if !q.follow {
		return nil
	}
	return s.sendNew(stream, q, reader)
}

func (s *Server) sendAll(stream flowStream, q *query, events []*Event) error {
	for _, e := range events {
		if err := stream.Send(s.response(q, e)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) sendNew(stream flowStream, q *query, reader *Reader) error {
	ctx, cancel := s.follow(stream.Context())
	defer cancel()
	if !q.until.IsZero() {
		var done context.CancelFunc
		ctx, done = context.WithDeadlineCause(ctx, q.until, errUntil{})
		defer done()
	}
	for {
		e, err := reader.Next(ctx)
		switch {
		case errors.Is(err, errUntil{}):
			return nil
		case err != nil:
			return streamError(err)
		case e.Lost == nil && !q.matches(e):
			continue
		}
		if err := stream.Send(s.response(q, e)); err != nil {
			return err
		}
	}
}

// errUntil ends a stream whose time is over; that is no failure.
type errUntil struct{}

func (errUntil) Error() string { return "the time asked for is over" }

func (s *Server) response(q *query, e *Event) *observerpb.GetFlowsResponse {
	if e.Lost != nil {
		return &observerpb.GetFlowsResponse{
			NodeName:      s.info.Node,
			Time:          timestamppb.Now(),
			ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: e.Lost},
		}
	}
	f := e.Flow()
	return &observerpb.GetFlowsResponse{
		NodeName:      f.GetNodeName(),
		Time:          f.GetTime(),
		ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: q.mask.apply(f)},
	}
}

func newQuery(req *observerpb.GetFlowsRequest) (*query, error) {
	q := &query{
		number: req.GetNumber(),
		first:  req.GetFirst(),
		follow: req.GetFollow(),
	}
	var err error
	if q.first && q.follow {
		return nil, errors.New("first and follow exclude each other")
	}
	if q.since, err = timeOf(req.GetSince()); err != nil {
		return nil, err
	}
	if q.until, err = timeOf(req.GetUntil()); err != nil {
		return nil, err
	}
	q.history = !q.follow || q.number > 0 || !q.since.IsZero()
	if q.wanted, err = CompileFilters(req.GetWhitelist(), req.GetBlacklist()); err != nil {
		return nil, err
	}
	q.mask, err = newMask(req.GetFieldMask())
	return q, err
}

func timeOf(ts *timestamppb.Timestamp) (time.Time, error) {
	if ts == nil {
		return time.Time{}, nil
	}
	return ts.AsTime(), ts.CheckValid()
}

// matches is for flows; news of losses is never asked for, so it does not count
// and is told to followers only.
func (q *query) matches(e *Event) bool {
	return e.Lost == nil && q.inTime(e.time()) && q.wanted(e.Flow())
}

func (q *query) inTime(at time.Time) bool {
	if q.since.IsZero() && q.until.IsZero() {
		return true
	}
	return !at.Before(q.since) && (q.until.IsZero() || !at.After(q.until))
}
