package observe

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
)

// rate counts by the second, for a minute back.
type rate struct {
	start time.Time
	slots [61]struct {
		second int64
		n      uint64
	}
}

func (r *rate) add(now time.Time, n uint64) {
	second := int64(now.Sub(r.start) / time.Second)
	slot := &r.slots[second%int64(len(r.slots))]
	if slot.second != second {
		slot.second, slot.n = second, 0
	}
	slot.n += n
}

// over leaves out the second that is not over yet, unless there is no other.
func (r *rate) over(window time.Duration, now time.Time) float64 {
	age := now.Sub(r.start)
	current := int64(age / time.Second)
	if current == 0 {
		return float64(r.slots[0].n) / max(age.Seconds(), 0.1)
	}
	seconds := min(int64(window/time.Second), current, int64(len(r.slots)-1))
	seconds = max(seconds, 1)
	var n uint64
	for s := current - seconds; s < current; s++ {
		if slot := r.slots[s%int64(len(r.slots))]; slot.second == s {
			n += slot.n
		}
	}
	return float64(n) / float64(seconds)
}

// namespaces remembers when each namespace last had a flow.
type namespaces struct{ seen sync.Map } // namespaceKey → *atomic.Int64, Unix seconds

type namespaceKey struct{ cluster, name string }

const namespaceMemory = time.Hour

func (n *namespaces) saw(source, destination *flowpb.Endpoint, at time.Time) {
	n.touch(source, at.Unix())
	n.touch(destination, at.Unix())
}

func (n *namespaces) touch(ep *flowpb.Endpoint, second int64) {
	if ep.GetNamespace() == "" {
		return
	}
	key := namespaceKey{cmp.Or(ep.GetClusterName(), "default"), ep.GetNamespace()}
	v, ok := n.seen.Load(key)
	if !ok {
		v, _ = n.seen.LoadOrStore(key, new(atomic.Int64))
	}
	v.(*atomic.Int64).Store(second)
}

// Namespaces lists those that had flows in the last hour, sorted.
func (r *Ring) Namespaces() []*observerpb.Namespace {
	var list []*observerpb.Namespace
	oldest := time.Now().Add(-namespaceMemory).Unix()
	r.namespaces.seen.Range(func(k, v any) bool {
		key := k.(namespaceKey)
		if v.(*atomic.Int64).Load() < oldest {
			r.namespaces.seen.Delete(key)
			return true
		}
		list = append(list, &observerpb.Namespace{Cluster: key.cluster, Namespace: key.name})
		return true
	})
	slices.SortFunc(list, func(a, b *observerpb.Namespace) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Namespace, b.Namespace))
	})
	return list
}
