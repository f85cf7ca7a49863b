package observe

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// numbered flows carry their number as the source port.
func numberedFlow(n int) *flowpb.Flow {
	return &flowpb.Flow{
		Time: timestamppb.New(testTime().Add(time.Duration(n) * time.Second)),
		L4:   &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{SourcePort: uint32(n)}}},
	}
}

func number(f *flowpb.Flow) int { return int(f.GetL4().GetTCP().GetSourcePort()) }

func numbers(events []*Event) []int {
	out := []int{}
	for _, e := range events {
		out = append(out, number(e.Flow()))
	}
	return out
}

func filledRing(size, n int) *Ring {
	r := NewRing(size)
	for i := range n {
		r.Write(numberedFlow(i))
	}
	return r
}

func equal(t *testing.T, what string, got, want []int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: got %v, want %v", what, got, want)
			return
		}
	}
}

func isFlow(e *Event) bool { return e.Lost == nil }

func TestRingHistory(t *testing.T) {
	even := func(e *Event) bool { return isFlow(e) && number(e.Flow())%2 == 0 }
	r := filledRing(8, 20)
	last := func(n uint64, match func(*Event) bool) []int {
		found, _ := r.Last(n, match)
		return numbers(found)
	}
	equal(t, "last 3", last(3, isFlow), []int{17, 18, 19})
	equal(t, "last 2 even", last(2, even), []int{16, 18})
	equal(t, "all", last(0, isFlow), []int{12, 13, 14, 15, 16, 17, 18, 19})
	equal(t, "more than all", last(1<<63, even), []int{12, 14, 16, 18})
	equal(t, "first 2", numbers(r.First(2, isFlow)), []int{12, 13})
	equal(t, "first even", numbers(r.First(0, even)), []int{12, 14, 16, 18})
	r = filledRing(8, 3)
	equal(t, "not full", last(5, isFlow), []int{0, 1, 2})
	if r.Len() != 3 || r.Cap() != 8 || r.Seen() != 3 {
		t.Errorf("len %d cap %d seen %d", r.Len(), r.Cap(), r.Seen())
	}
	if n := NewRing(0).Cap(); n != DefaultRingSize {
		t.Errorf("default capacity is %d", n)
	}
}

func TestReaderIsToldOfLosses(t *testing.T) {
	r := filledRing(8, 2)
	reader := r.Follow()
	for i := 2; i < 22; i++ {
		r.Write(numberedFlow(i))
	}
	ctx := t.Context()
	e, err := reader.Next(ctx)
	if err != nil || e.Lost.GetNumEventsLost() != 13 || e.Lost.GetSource() != flowpb.LostEventSource_HUBBLE_RING_BUFFER {
		t.Fatalf("got %v, %v; want news of 13 lost (12 written over, one for good measure)", e, err)
	}
	for want := 15; want < 22; want++ {
		if e, err := reader.Next(ctx); err != nil || number(e.Flow()) != want {
			t.Fatalf("got %v, %v, want flow %d", e, err, want)
		}
	}
	if n := r.Lost(flowpb.LostEventSource_HUBBLE_RING_BUFFER); n != 13 {
		t.Errorf("%d losses counted", n)
	}
	r.WriteLost(flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, 5)
	if e, err := reader.Next(ctx); err != nil || e.Lost.GetNumEventsLost() != 5 {
		t.Errorf("got %v, %v, want the kernel's loss", e, err)
	}
}

func TestReaderWaits(t *testing.T) {
	r := NewRing(8)
	reader := r.Follow()
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan int)
	failed := make(chan error)
	go func() {
		for {
			e, err := reader.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			got <- number(e.Flow())
		}
	}()
	for i := range 3 {
		r.Write(numberedFlow(i))
		if n := <-got; n != i {
			t.Errorf("got %d, want %d", n, i)
		}
	}
	cause := errors.New("enough")
	cancel(cause)
	if err := <-failed; !errors.Is(err, cause) {
		t.Errorf("reader ended with %v", err)
	}
}

// Every reader accounts for every event: what it did not get it was told of.
func TestRingConcurrent(t *testing.T) {
	const writers, each = 4, 5000
	r := NewRing(64)
	var readers, writing sync.WaitGroup
	for range 4 {
		reader := r.Follow()
		readers.Go(func() {
			for total := uint64(0); total < writers*each; {
				e, err := reader.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if e.Lost != nil {
					total += e.Lost.GetNumEventsLost()
				} else {
					total++
				}
			}
		})
	}
	for range writers {
		writing.Go(func() {
			for i := range each {
				r.Write(numberedFlow(i))
				if i%512 == 0 {
					r.Last(10, isFlow)
				}
			}
		})
	}
	writing.Wait()
	readers.Wait()
	if r.Seen() != writers*each {
		t.Errorf("seen %d", r.Seen())
	}
}

func TestRate(t *testing.T) {
	start := testTime()
	r := rate{start: start}
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	for range 10 {
		r.add(at(0.1), 1)
	}
	if got := r.over(time.Minute, at(0.5)); got != 20 {
		t.Errorf("first second: %v", got)
	}
	for s := range 100 {
		for range s {
			r.add(at(float64(s)+0.5), 1)
		}
	}
	for _, c := range []struct {
		window time.Duration
		at     float64
		want   float64
	}{
		{10 * time.Second, 100, 94.5}, {time.Minute, 100, 69.5}, {time.Hour, 100, 69.5},
		{10 * time.Second, 105, 48.5}, {10 * time.Second, 1000, 0}, {0, 100, 99},
	} {
		if got := r.over(c.window, at(c.at)); got != c.want {
			t.Errorf("over %v at %v: got %v, want %v", c.window, c.at, got, c.want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	r := NewRing(4)
	now := timestamppb.Now()
	old := timestamppb.New(now.AsTime().Add(-2 * time.Hour))
	ep := func(cluster, ns string) *flowpb.Endpoint {
		return &flowpb.Endpoint{ClusterName: cluster, Namespace: ns}
	}
	r.Write(&flowpb.Flow{Time: now, Source: ep("", "web"), Destination: ep("", "db")})
	r.Write(&flowpb.Flow{Time: old, Source: ep("", "gone"), Destination: ep("blue", "web")})
	r.Write(&flowpb.Flow{Time: now, Source: ep("", ""), Destination: ep("blue", "web")})
	var got []string
	for _, n := range r.Namespaces() {
		got = append(got, n.GetCluster()+"/"+n.GetNamespace())
	}
	if want := "[blue/web default/db default/web]"; len(got) != 3 || "["+got[0]+" "+got[1]+" "+got[2]+"]" != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func BenchmarkRingWrite(b *testing.B) {
	r, f := NewRing(0), numberedFlow(1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Write(f)
		}
	})
}
