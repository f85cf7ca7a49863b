package observe

import (
	"context"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestFollow(t *testing.T) {
	ring := filledRing(64, 10)
	_, conn := serve(t, ring)
	client := observerpb.NewObserverClient(conn)
	stream, err := client.GetFlows(t.Context(), &observerpb.GetFlowsRequest{
		Number: 2, Follow: true, Blacklist: []*flowpb.FlowFilter{{SourcePort: []string{"11"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	receive := func(want int) {
		t.Helper()
		res, err := stream.Recv()
		if err != nil || number(res.GetFlow()) != want {
			t.Fatalf("got %v, %v, want flow %d", res, err, want)
		}
	}
	receive(8)
	receive(9)
	for i := 10; i < 13; i++ {
		ring.Write(numberedFlow(i))
	}
	receive(10)
	receive(12)
	ring.WriteLost(flowpb.LostEventSource_OBSERVER_EVENTS_QUEUE, 7)
	if res, err := stream.Recv(); err != nil || res.GetLostEvents().GetNumEventsLost() != 7 || res.GetNodeName() != "n1" {
		t.Errorf("got %v, %v, want news of a loss", res, err)
	}
}

// Without a number a follower gets only what is new.
func TestFollowNew(t *testing.T) {
	ring := filledRing(64, 10)
	_, conn := serve(t, ring)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := observerpb.NewObserverClient(conn).GetFlows(ctx, &observerpb.GetFlowsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	waitForReader(t, ring)
	ring.Write(numberedFlow(42))
	if res, err := stream.Recv(); err != nil || number(res.GetFlow()) != 42 {
		t.Errorf("got %v, %v", res, err)
	}
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("stream ended with %v", err)
	}
}

// waitForReader returns when a reader sleeps for want of events.
func waitForReader(t *testing.T, r *Ring) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		waiting := r.wake != nil
		r.mu.Unlock()
		if waiting {
			return
		}
	}
	t.Fatal("nobody reads the ring")
}

func TestFollowUntil(t *testing.T) {
	ring := NewRing(16)
	_, conn := serve(t, ring)
	got, err := getFlows(t, conn, &observerpb.GetFlowsRequest{
		Follow: true, Until: timestamppb.New(time.Now().Add(50 * time.Millisecond)),
	})
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

// A client that does not read blocks its own stream only, and is told what it lost.
func TestSlowFollower(t *testing.T) {
	ring := NewRing(128)
	_, conn := serve(t, ring, grpc.WithInitialWindowSize(1<<16), grpc.WithInitialConnWindowSize(1<<16))
	stream, err := observerpb.NewObserverClient(conn).GetFlows(t.Context(), &observerpb.GetFlowsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	waitForReader(t, ring)
	const n = 20_000
	for i := range n {
		f := numberedFlow(i)
		f.Summary = "some text that fills the window of the stream in a while" //nolint:staticcheck // bulk
		ring.Write(f)
	}
	var flows, lost uint64
	last := -1
	for flows+lost < n {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if l := res.GetLostEvents(); l != nil {
			lost += l.GetNumEventsLost()
			continue
		}
		if i := number(res.GetFlow()); i <= last {
			t.Fatalf("flow %d after %d", i, last)
		} else {
			last = i
		}
		flows++
	}
	if lost == 0 || last != n-1 || ring.Lost(flowpb.LostEventSource_HUBBLE_RING_BUFFER) != lost {
		t.Errorf("%d flows to %d, %d lost, %d counted", flows, last, lost, ring.Lost(flowpb.LostEventSource_HUBBLE_RING_BUFFER))
	}
}

func TestCloseEndsFollowers(t *testing.T) {
	ring := NewRing(16)
	s, conn := serve(t, ring)
	stream, err := observerpb.NewObserverClient(conn).GetFlows(t.Context(), &observerpb.GetFlowsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	waitForReader(t, ring)
	s.Close()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("stream ended with %v", err)
	}
}
