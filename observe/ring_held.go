package observe

// held is the memory of a Ring's events, by the batches that they came in. What a batch
// came in is there as long as its last event.
type held struct {
	max, bytes int
	batches    []heldBatch // oldest first
}

type heldBatch struct {
	end   uint64 // number of the event behind the last
	bytes int
}

// hold counts a batch that ends before event next, and gives up the oldest while there is
// too much; called with mu held. The last batch stays in any case.
func (r *Ring) hold(next uint64, bytes int) {
	h := &r.held
	h.batches = append(h.batches, heldBatch{next, bytes})
	h.bytes += bytes
	oldest, _ := r.bounds()
	for len(h.batches) > 1 && (h.batches[0].end <= oldest || h.bytes > h.max) {
		first := h.batches[0]
		h.batches, h.bytes = h.batches[1:], h.bytes-first.bytes
		if first.end <= oldest { // written over
			continue
		}
		r.floor.Store(first.end)
		for ; oldest < first.end; oldest++ {
			r.slot(oldest).Store(nil)
		}
	}
}

// Bytes is about how much memory the ring's events take, flows that were looked at not
// counted.
func (r *Ring) Bytes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held.bytes
}
