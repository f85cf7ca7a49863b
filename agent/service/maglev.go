package service

import (
	"hash/fnv"
	"slices"
)

// Table is Maglev's table (Eisenbud et al., "Maglev: A Fast and Reliable Software
// Network Load Balancer", NSDI 2016, 3.4): for each of size slots, which backend has
// it. Every backend takes slots in an order of its own, in turns, so that all have
// about as many; if one goes, few slots but its own change hands. Size is a prime.
// The order in which backends are given does not matter.
func Table(backends []string, size int) []int {
	if len(backends) == 0 {
		return nil
	}
	order := make([]int, len(backends)) // turns go by name
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if backends[a] < backends[b] {
			return -1
		}
		return 1
	})
	next, step := make([]uint64, len(backends)), make([]uint64, len(backends))
	n := uint64(size)
	for i, name := range backends {
		next[i], step[i] = hash(name, 0)%n, hash(name, 1)%(n-1)+1
	}
	out := make([]int, size)
	for i := range out {
		out[i] = -1
	}
	for filled := 0; ; {
		for _, b := range order {
			for out[next[b]] >= 0 {
				next[b] = (next[b] + step[b]) % n
			}
			out[next[b]] = b
			if filled++; filled == size {
				return out
			}
		}
	}
}

// hash is stable: two agents make the same table. FNV alone mixes the last bytes of
// a name little.
func hash(name string, seed byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte{seed})
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
