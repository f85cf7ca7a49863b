package main

import "math/bits"

// histogram counts times in buckets that are at most 1/64 wide, so that a quantile
// is off by less than 2 %.
type histogram struct {
	counts [64 * 64]uint64
	total  uint64
	most   int64
}

func (h *histogram) add(ns int64) {
	h.counts[bucket(uint64(max(ns, 0)))]++
	h.total++
	h.most = max(h.most, ns)
}

func bucket(v uint64) int {
	if v < 64 {
		return int(v)
	}
	shift := bits.Len64(v) - 7
	return (shift+1)*64 + int(v>>shift) - 64
}

// lower is the least value of a bucket.
func lower(b int) uint64 {
	if b < 64 {
		return uint64(b)
	}
	return uint64(b%64+64) << (b/64 - 1)
}

// quantile in microseconds.
func (h *histogram) quantile(q float64) float64 {
	if q >= 1 {
		return float64(h.most) / 1e3
	}
	rank, seen := uint64(q*float64(h.total)), uint64(0)
	for b, n := range h.counts {
		if seen += n; seen > rank {
			return float64(lower(b)+lower(b+1)) / 2e3
		}
	}
	return 0
}
