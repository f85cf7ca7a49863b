package fqdn

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAnswersDuringChanges measures how long answers take that come in batches of four
// while changes of policy go on, with 60,000 names known.
func BenchmarkAnswersDuringChanges(b *testing.B) {
	for _, what := range []string{"name", "pattern", "prefix"} {
		b.Run(what, func(b *testing.B) { answersDuringChanges(b, what) })
	}
}

func answersDuringChanges(b *testing.B, what string) {
	s := newBench(b)
	s.update(twoEndpoints(rule(0, "*.example.com")))
	for i := range 60000 {
		if now, err := s.LearnNow(s.answer("10.0.0.1", fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("198.%d.%d.%d", 51+i>>16, i>>8&255, i&255)), nil); !now || err != nil {
			b.Fatal(now, err)
		}
	}
	runtime.GC()
	var ended atomic.Bool
	var wg sync.WaitGroup
	var updates []time.Duration
	wg.Go(func() {
		for i := 0; !ended.Load(); i++ {
			start := time.Now()
			other := map[string]string{"name": "x%d.example.org", "pattern": "*.x%d.example.org"}[what]
			if other == "" {
				other = "x%.0d.example.org"
			}
			n := twoEndpoints(rule(0, "*.example.com"), rule(1, fmt.Sprintf(other, i)))
			if what == "prefix" {
				n.Prefixes = append(n.Prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
			}
			if err := s.Update(context.Background(), n); err != nil {
				b.Error(err)
			}
			updates = append(updates, time.Since(start))
			time.Sleep(50 * time.Millisecond)
		}
	})
	took := make([]time.Duration, 0, b.N)
	queued := 0
	b.ResetTimer()
	for len(took) < b.N {
		came := time.Now()
		for k := range 4 { // a batch
			i := len(took) + k
			a := s.answer("10.0.0.1", fmt.Sprintf("n%d.example.com", i%60000), fmt.Sprintf("198.%d.%d.%d", 51+i%60000>>16, i%60000>>8&255, i%60000&255))
			if now, err := s.LearnNow(a, nil); !now {
				done := make(chan error)
				s.Learn(a, func(err error) { done <- err })
				<-done
				queued++
			} else if err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(came))
		}
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	ended.Store(true)
	wg.Wait()
	slices.Sort(took)
	slices.Sort(updates)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
	b.ReportMetric(float64(took[len(took)*999/1000].Microseconds()), "µs-p999")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "µs-most")
	b.ReportMetric(float64(queued), "queued")
	b.ReportMetric(float64(updates[len(updates)/2].Microseconds()), "µs-update")
	b.ReportMetric(float64(updates[len(updates)-1].Microseconds()), "µs-update-most")
}
