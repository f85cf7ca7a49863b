package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// sample is what a load printed when it was over, for the benchmarks.
type sample struct {
	Requests, Errors, Bytes uint64 // Requests are MB, by which processor time is divided
	Seconds                 float64
	P50, P90, P99, Max      float64 // µs from a record's being given to its acknowledgement
}

// load produces or consumes for a time, as fast as the client and the broker can.
func (f franz) load(ctx context.Context, produce bool) error {
	s, err := sample{}, error(nil)
	if produce {
		s, err = f.loadProduce(ctx)
	} else {
		s, err = f.loadConsume(ctx)
	}
	if err != nil {
		return err
	}
	s.Requests = max(1, s.Bytes/1e6)
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return err
	}
	os.Exit(0) // nothing else is to be printed
	return nil
}

func (f franz) loadProduce(ctx context.Context) (s sample, err error) {
	c, err := kgo.NewClient(f.options(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedBytes(32<<20),
		kgo.MaxBufferedRecords(20_000), kgo.ProducerLinger(2*time.Millisecond))...)
	if err != nil {
		return s, err
	}
	defer c.Close()
	value := make([]byte, f.number("size", 1000))
	for i := range value {
		value[i] = byte(rand.Uint32())
	}
	most := uint64(f.number("most", 1<<40))
	end := time.Now().Add(time.Duration(f.number("for", 1000)) * time.Millisecond)
	var mu sync.Mutex
	var times []float64
	var acked, failed atomic.Uint64
	begun := time.Now()
	topic := f.topics()[0]
	for i, given := 0, uint64(0); given < most && time.Now().Before(end); i++ {
		at, timed := time.Now(), i%16 == 0
		given += uint64(len(value))
		c.Produce(ctx, &kgo.Record{Topic: topic, Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
				return
			}
			acked.Add(uint64(len(value)))
			if timed {
				mu.Lock()
				times = append(times, float64(time.Since(at).Microseconds()))
				mu.Unlock()
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		return s, err
	}
	s.Seconds = time.Since(begun).Seconds()
	if s.Bytes, s.Errors = acked.Load(), failed.Load(); s.Bytes == 0 {
		return s, errors.New("nothing was acknowledged")
	}
	slices.Sort(times)
	at := func(q float64) float64 { return times[int(q*float64(len(times)-1))] }
	s.P50, s.P90, s.P99, s.Max = at(0.5), at(0.9), at(0.99), at(1)
	return s, nil
}

// loadConsume reads a topic from its beginning, again and again.
func (f franz) loadConsume(ctx context.Context) (s sample, err error) {
	topic := f.topics()[0]
	offsets := map[int32]kgo.Offset{}
	for i := range f.number("partitions", 1) {
		offsets[int32(i)] = kgo.NewOffset().AtStart()
	}
	c, err := kgo.NewClient(f.options(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}),
		kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20))...)
	if err != nil {
		return s, err
	}
	defer c.Close()
	begun := time.Now()
	end := begun.Add(time.Duration(f.number("for", 1000)) * time.Millisecond)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	for time.Now().Before(end) {
		fetches := c.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) {
				return s, fmt.Errorf("topic %s: %w", e.Topic, e.Err)
			}
		}
		again := map[int32]kgo.EpochOffset{}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				s.Bytes += uint64(len(r.Value))
			}
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= p.HighWatermark {
				again[p.Partition] = kgo.EpochOffset{Epoch: -1}
			}
		})
		if len(again) > 0 {
			c.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: again})
		}
	}
	s.Seconds = time.Since(begun).Seconds()
	if s.Bytes == 0 {
		return s, errors.New("nothing was consumed")
	}
	return s, nil
}
