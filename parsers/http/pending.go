package http

import "github.com/headgate/headgate/policy"

// pending is a request whose answer is not complete.
type pending struct {
	id      uint64
	refusal *Refusal // why it is answered here, if not by policy
	local   bool     // answered here
	head    bool     // the answer has no body
	close   bool     // the answer made here says that it is the last

	connect  bool                 // a 2xx makes it a tunnel
	switches bool                 // a 101 does
	response *policy.DenyResponse // what is answered here, instead of the usual
}

// queue holds them in order, in a ring that grows to the most that was needed.
type queue struct {
	ring  []pending
	first int
	n     int
}

func (q *queue) front() *pending { return &q.ring[q.first] }

func (q *queue) push(p pending) {
	if q.n == len(q.ring) {
		ring := make([]pending, max(4, 2*q.n))
		for i := range q.n {
			ring[i] = q.ring[(q.first+i)%q.n]
		}
		q.ring, q.first = ring, 0
	}
	q.ring[(q.first+q.n)%len(q.ring)] = p
	q.n++
}

func (q *queue) clear() {
	for q.n > 0 {
		q.pop()
	}
}

func (q *queue) pop() {
	q.ring[q.first] = pending{}
	q.first = (q.first + 1) % len(q.ring)
	q.n--
}
