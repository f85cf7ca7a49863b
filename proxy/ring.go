package proxy

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	chunkSize = 64 << 10
	// batchDelay lets records gather, so that the agent is not woken for each. Flows are
	// seen that much later.
	batchDelay = 40 * time.Millisecond

	batchRecords = 1 // field numbers of RecordBatch
	batchLost    = 2
)

// ring holds records until an agent takes them: encoded as they are sent, in
// chunks that each are a RecordBatch, bounded in bytes. When it is full the
// oldest chunk is lost, and counted.
type ring struct {
	max   int           // chunks
	ready chan struct{} // something was added
	spare sync.Pool

	mu     sync.Mutex
	chunks []chunk // oldest first, the last is being filled
	lost   uint64  // since the last take
	total  uint64  // lost ever
}

type chunk struct {
	data    []byte
	records uint64
}

// Get and Put make the ring a mem.BufferPool, for chunks that were sent: they are
// filled again, so that requests cost no allocation and no collection.
func (r *ring) Get(int) *[]byte {
	if b, ok := r.spare.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, chunkSize+64)
	return &b
}

func (r *ring) Put(b *[]byte) {
	if cap(*b) >= chunkSize {
		*b = (*b)[:0]
		r.spare.Put(b)
	}
}

func newRing(bytes int) *ring {
	return &ring{max: max(bytes/chunkSize, 2), ready: make(chan struct{}, 1)}
}

// add appends a record given as parts of its encoding. It never blocks.
func (r *ring) add(parts ...[]byte) {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	r.mu.Lock()
	last := len(r.chunks) - 1
	if last < 0 || len(r.chunks[last].data)+size > chunkSize {
		var fresh chunk
		switch {
		case len(r.chunks) >= r.max: // the oldest makes room, with its memory
			r.lost += r.chunks[0].records
			r.total += r.chunks[0].records
			fresh.data = r.chunks[0].data[:0]
			r.chunks[0] = chunk{}
			r.chunks = r.chunks[1:]
		case last >= 0: // there is traffic: it will be filled too
			fresh.data = *r.Get(chunkSize)
		}
		r.chunks = append(r.chunks, fresh)
		last = len(r.chunks) - 1
	}
	c := &r.chunks[last]
	c.data = protowire.AppendTag(c.data, batchRecords, protowire.BytesType)
	c.data = protowire.AppendVarint(c.data, uint64(size))
	for _, p := range parts {
		c.data = append(c.data, p...)
	}
	c.records++
	r.mu.Unlock()
	select {
	case r.ready <- struct{}{}:
	default:
	}
}

// lose counts a record that could not be made or delivered.
func (r *ring) lose(n uint64) {
	r.mu.Lock()
	r.lost += n
	r.total += n
	r.mu.Unlock()
}

// lostTotal is how many records were lost since the start.
func (r *ring) lostTotal() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// take waits for records and returns the oldest as an encoded RecordBatch, and
// how many records are in it.
func (r *ring) take(ctx context.Context) ([]byte, uint64, error) {
	for {
		if batch, n := r.pop(); batch != nil {
			return batch, n, nil
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-r.ready:
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(batchDelay):
		}
	}
}

func (r *ring) pop() ([]byte, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.chunks) == 0 && r.lost == 0 {
		return nil, 0
	}
	var c chunk
	if len(r.chunks) > 0 {
		c = r.chunks[0]
		r.chunks[0] = chunk{}
		r.chunks = r.chunks[1:]
	}
	if r.lost > 0 {
		c.data = protowire.AppendTag(c.data, batchLost, protowire.VarintType)
		c.data = protowire.AppendVarint(c.data, r.lost)
		r.lost = 0
	}
	return c.data, c.records
}
