package bpf

import (
	"context"
	"errors"
	"time"

	"github.com/cilium/ebpf"
)

// Collection reads every connection, of which there may be a million: in batches,
// with pauses, so that it never takes more than a tenth of a processor.
const (
	collectBatch = 2048
	collectRest  = 9 // times as long as the batch took
	maxRest      = 50 * time.Millisecond
)

// Collect removes established TCP that has expired, gives back its shares, and says
// how many; then what such connections held of the node's ports, and their translations
// to backends. The other maps evict by themselves.
func (c *Conntrack) Collect(ctx context.Context) (int, error) {
	removed, err := c.collectTCP(ctx)
	if ctx.Err() != nil {
		return removed, err
	}
	_, held := c.collectHolds(ctx)
	_, serviced := c.collectServices(ctx)
	return removed, errors.Join(err, held, serviced)
}

// paced reads a map in batches, with rests. False: it was not read to its end.
func paced[K, V any](ctx context.Context, m *ebpf.Map, f func(*K, *V)) (bool, error) {
	keys, values := make([]K, collectBatch), make([]V, collectBatch)
	var cursor ebpf.MapBatchCursor
	for {
		start := time.Now()
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return false, err
		}
		for i := range n {
			f(&keys[i], &values[i])
		}
		if last {
			return true, nil
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(min(collectRest*time.Since(start), maxRest)):
		}
	}
}

func (c *Conntrack) collectTCP(ctx context.Context) (int, error) {
	before := c.shares.copy()
	counted := map[uint16]int64{}
	removed := 0
	var errs error
	whole, err := paced(ctx, c.tcp, func(k *gateCtKey, e *gateCtEntry) {
		if now := monotonic(); int64(e.Expires) < now {
			gone, err := c.remove(k, now)
			errs = errors.Join(errs, err)
			if gone {
				removed++
			}
		}
		counted[e.Payer]++
	})
	if whole && removed == 0 { // else what was counted is not what is there
		c.shares.right(before, counted)
	}
	return removed, errors.Join(errs, err)
}

// remove removes a connection if it still has expired: a tuple may have been opened
// again since it was read.
func (c *Conntrack) remove(k *gateCtKey, now int64) (bool, error) {
	var e gateCtEntry
	if c.tcp.Lookup(k, &e) != nil || int64(e.Expires) >= now {
		return false, nil
	}
	return c.take(c.tcp, k)
}

// take removes an entry, and gives its share back if it had one.
func (c *Conntrack) take(m *ebpf.Map, k *gateCtKey) (bool, error) {
	var e gateCtEntry
	if err := m.LookupAndDelete(k, &e); err != nil {
		return false, ignoreMissing(err)
	}
	if m == c.tcp {
		c.shares.give(e.Payer)
	}
	return true, nil
}
