// Package parsertest runs a parsers.Session in memory, exactly as package
// parsers says that a relay must, and checks that the session keeps its side.
package parsertest

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/headgate/headgate/parsers"
)

// Relay carries out the steps of a session. Bytes arrive by Write and
// CloseWrite; what would have left is in Out.
type Relay struct {
	Session parsers.Session
	Out     [2][]byte // what reached each side
	FIN     [2]bool   // CloseWrite reached that side
	Closed  bool      // both sides were closed
	Err     error     // why, if not by a Close
	Splits  Splits

	in    [2]input
	queue [2][]item // output to each side, first in, first out
	end   bool      // Close was given or the session failed
}

// Splits cuts what is written into the pieces that are fed.
type Splits func(n int) int

// Whole feeds everything at once, Bytewise one byte at a time.
func Whole(n int) int  { return n }
func Bytewise(int) int { return 1 }

// Random feeds pieces of a size that depends on seed, some of them empty.
func Random(seed uint64) Splits {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(n int) int {
		if r.IntN(2) == 0 {
			return r.IntN(min(n, 4) + 1)
		}
		return r.IntN(n + 1)
	}
}

type input struct {
	data    []byte // read, not consumed
	forward int64  // of the next bytes, so many are to be moved
	discard int64  // or dropped
	eof     bool
	held    []uint64 // tokens of Holds that Elapse releases
	wakes   []uint64 // of Wakes
}

// item is a part of an output: data, and then want bytes that have not arrived.
type item struct {
	data []byte
	want int64
	fin  bool
}

// ErrCut ends a connection whose input ended inside a Forward or a Discard.
var ErrCut = errors.New("parsertest: input ended before the count was reached")

// New returns a relay that feeds what it is given in one piece.
func New(s parsers.Session) *Relay { return &Relay{Session: s, Splits: Whole} }

// Write lets bytes arrive from a side.
func (r *Relay) Write(from parsers.Side, p []byte) {
	for len(p) > 0 && !r.Closed {
		n := min(r.Splits(len(p)), len(p))
		r.in[from].data = append(r.in[from].data, p[:n]...)
		p = p[n:]
		r.run(from)
	}
}

// CloseWrite lets the input of a side end.
func (r *Relay) CloseWrite(from parsers.Side) {
	r.in[from].eof = true
	r.run(from)
}

// run feeds one side once, if it may be fed.
func (r *Relay) run(from parsers.Side) {
	in := &r.in[from]
	r.pump(from)
	if r.Closed || r.end || in.forward > 0 || in.discard > 0 || len(in.held) > 0 || len(in.data) == 0 && !in.eof {
		return
	}
	r.feed(from)
	// What the other side was waiting for may have come.
	if peer := &r.in[from.Peer()]; len(peer.data) > 0 && peer.forward == 0 && peer.discard == 0 && len(peer.held) == 0 && !r.Closed && !r.end {
		r.feed(from.Peer())
	}
}

// Elapse lets the time of every Hold and Wake pass.
func (r *Relay) Elapse() {
	for side := range r.in {
		in := &r.in[side]
		elapsed := append(in.held, in.wakes...)
		for _, token := range elapsed {
			r.Session.(parsers.Holder).Release(token)
		}
		if elapsed != nil && !r.Closed && !r.end {
			in.held, in.wakes = nil, nil
			r.feed(parsers.Side(side))
		}
	}
}

func (r *Relay) feed(from parsers.Side) {
	in := &r.in[from]
	// A copy that is overwritten afterwards shows what the session keeps.
	data := append([]byte(nil), in.data...)
	steps, err := r.Session.Feed(from, data, in.eof)
	for _, s := range steps {
		if e := r.step(from, s); e != nil {
			r.fail(e)
			return
		}
	}
	for i := range data {
		data[i] = 0xAA
	}
	if err != nil {
		r.Err, r.end = err, true
	}
	if w, ok := r.Session.(interface{ Unavailable([]byte) []byte }); ok && errors.Is(err, parsers.ErrNoServer) {
		told := w.Unavailable(append([]byte(nil), r.in[parsers.Client].data...))
		r.queue[parsers.Client] = append(r.queue[parsers.Client], item{data: told})
	}
	r.pump(from)
	r.flush()
	if peer := &r.in[from.Peer()]; len(steps) > 0 && (len(peer.data) > 0 || peer.eof) {
		r.run(from.Peer()) // what is left there may mean something now
	}
}

func (r *Relay) step(from parsers.Side, s parsers.Step) error {
	in := &r.in[from]
	if r.end {
		return fmt.Errorf("step %+v after the end", s)
	}
	switch s.Op {
	case parsers.Forward, parsers.Discard:
		switch {
		case s.N <= 0:
			return fmt.Errorf("step %+v moves nothing", s)
		case in.forward > 0 || in.discard > 0:
			return fmt.Errorf("step %+v behind one that went past what was fed", s)
		}
		if s.Op == parsers.Discard {
			in.discard = s.N
		} else {
			in.forward = s.N
			to := from.Peer()
			r.queue[to] = append(r.queue[to], item{want: s.N})
		}
		r.pump(from)
	case parsers.Send:
		r.queue[s.To] = append(r.queue[s.To], item{data: append([]byte(nil), s.Data...)})
	case parsers.CloseWrite:
		r.queue[s.To] = append(r.queue[s.To], item{fin: true})
	case parsers.Close:
		r.end = true
	case parsers.Hold:
		in.held = append(in.held, s.Token)
	case parsers.Wake:
		in.wakes = []uint64{s.Token}
	default:
		return fmt.Errorf("step %+v is not known here", s)
	}
	return nil
}

// pump moves what a Forward or Discard under way waits for.
func (r *Relay) pump(from parsers.Side) {
	in := &r.in[from]
	if n := min(in.discard, int64(len(in.data))); n > 0 {
		in.data = in.data[n:]
		in.discard = less(in.discard, n)
	}
	if n := min(in.forward, int64(len(in.data))); n > 0 {
		q := r.queue[from.Peer()]
		for i := range q {
			if q[i].want > 0 {
				q[i].data = append(q[i].data, in.data[:n]...)
				q[i].want = less(q[i].want, n)
				break
			}
		}
		in.data = in.data[n:]
		in.forward = less(in.forward, n)
	}
	if in.eof && len(in.data) == 0 {
		if in.forward == parsers.Unbounded {
			q := r.queue[from.Peer()]
			for i := range q {
				q[i].want = 0
			}
			in.forward = 0
		}
		if in.discard == parsers.Unbounded {
			in.discard = 0
		}
		if in.forward > 0 || in.discard > 0 {
			r.fail(ErrCut)
			return
		}
	}
	r.flush()
}

func less(count, n int64) int64 {
	if count == parsers.Unbounded {
		return count
	}
	return count - n
}

// flush lets leave what nothing stands before.
func (r *Relay) flush() {
	if r.Closed {
		return
	}
	left := 0
	for side := range r.queue {
		q := r.queue[side]
		for len(q) > 0 {
			r.Out[side] = append(r.Out[side], q[0].data...)
			q[0].data = nil
			if q[0].want > 0 {
				break
			}
			if q[0].fin {
				r.FIN[side] = true
			}
			q = q[1:]
		}
		r.queue[side] = q
		left += len(q)
	}
	if r.end && left == 0 {
		r.Closed = true
	}
}

func (r *Relay) fail(err error) {
	r.flush()
	r.Err, r.Closed, r.end = err, true, true
}
