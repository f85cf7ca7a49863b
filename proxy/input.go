package proxy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
)

const bufferSize = 32 << 10

// buffers are shared by all connections: a side holds one only from the arrival
// of bytes until they are gone.
type buffers struct {
	pool  sync.Pool
	grown atomic.Int64 // bytes of the longer ones that sessions wait for more in
	most  int64        // of them
}

func newBuffers(most int64) *buffers {
	return &buffers{pool: sync.Pool{New: func() any { return new([bufferSize]byte) }}, most: most}
}

// grow makes a longer buffer, unless all connections together have as many as they may.
func (b *buffers) grow(n int) ([]byte, error) {
	if b.grown.Add(int64(n)) > b.most {
		b.grown.Add(-int64(n))
		return nil, fmt.Errorf("%w: no room for more of a message that is not complete: those of all connections have %d MB", errInput, b.most>>20)
	}
	return make([]byte, n), nil
}

// input is what was read from a side and not consumed: buf[r:w].
type input struct {
	buffers *buffers
	pooled  *[bufferSize]byte // behind buf, unless buf was grown
	buf     []byte
	r, w    int
}

func (in *input) unread() []byte { return in.buf[in.r:in.w] }

func (in *input) acquire() {
	in.pooled = in.buffers.pool.Get().(*[bufferSize]byte)
	in.buf = in.pooled[:]
}

func (in *input) release() {
	if in.pooled != nil {
		in.buffers.pool.Put(in.pooled)
	} else if in.buf != nil {
		in.buffers.grown.Add(-int64(len(in.buf)))
	}
	in.pooled, in.buf, in.r, in.w = nil, nil, 0, 0
}

// room makes room for more behind the unread bytes.
func (in *input) room(limit int) error {
	switch {
	case in.r == in.w:
		if in.buf != nil && in.pooled == nil {
			in.release() // a grown buffer is not kept
		}
		in.r, in.w = 0, 0
		return nil
	case in.r > 0:
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	if in.w < len(in.buf) {
		return nil
	}
	if len(in.buf) >= limit {
		return fmt.Errorf("%w: more than %d bytes without a complete message", errInput, limit)
	}
	grown, err := in.buffers.grow(min(2*len(in.buf), max(limit, bufferSize)))
	if err != nil {
		return err
	}
	n := copy(grown, in.buf[:in.w])
	in.release()
	in.buf, in.w = grown, n
	return nil
}

// fill reads what there is into the room behind the unread bytes. A buffer is taken
// only for that, and given back if there is nothing (EAGAIN).
func (e *end) fill() (int, error) {
	if e.buf == nil {
		e.acquire()
	}
	n, err := e.tryRead(e.buf[e.w:])
	e.w += n
	if err != nil && e.w == 0 {
		e.release()
	}
	return n, err
}

// errInput marks input that is longer than the session may leave unconsumed.
var errInput = errors.New("input limit")

// makeRoom makes room for more of side s, as much as its session may leave.
func (c *conn) makeRoom(s parsers.Side) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[s].room(c.inputLimit(s))
}

// read waits for more of side s.
func (c *conn) read(s parsers.Side) (int, error) {
	e := &c.ends[s]
	err := c.makeRoom(s)
	for err == nil {
		n := 0
		if n, err = e.fill(); err != unix.EAGAIN {
			c.activity.Add(1)
			return n, err
		}
		err = e.sock.AwaitInput()
	}
	return 0, err
}
