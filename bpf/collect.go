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
// how many; then what such connections held of the node's ports, and their translations to
// backends. The other maps
// evict by themselves.
func (c *Conntrack) Collect(ctx context.Context) (int, error) {
	removed, err := c.collectTCP(ctx)
	if ctx.Err() != nil {
		return removed, err
	}
	_, held := c.collectHolds()
	_, serviced := c.collectServices(monotonic())
	return removed, errors.Join(err, held, serviced)
}

func (c *Conntrack) collectTCP(ctx context.Context) (int, error) {
	before := c.shares.copy()
	counted := map[uint16]int64{}
	keys, entries := make([]gateCtKey, collectBatch), make([]gateCtEntry, collectBatch)
	var cursor ebpf.MapBatchCursor
	removed := 0
	var errs error
	for {
		start := time.Now()
		n, err := c.tcp.BatchLookup(&cursor, keys, entries, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return removed, errors.Join(errs, err)
		}
		now := monotonic()
		for i := range n {
			if int64(entries[i].Expires) < now {
				gone, err := c.remove(&keys[i], now)
				errs = errors.Join(errs, err)
				if gone {
					removed++
				}
			}
			counted[entries[i].Payer]++
		}
		if last {
			if removed == 0 { // else what was counted is not what is there
				c.shares.right(before, counted)
			}
			return removed, errs
		}
		select {
		case <-ctx.Done():
			return removed, errs
		case <-time.After(min(collectRest*time.Since(start), maxRest)):
		}
	}
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
