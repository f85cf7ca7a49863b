package epoll

import (
	"io"
	"testing"
	"time"
)

// TestGather: what comes slowly goes on all the same, the end too, and afterwards input
// is told of however little it is.
func TestGather(t *testing.T) {
	ls := loops(t)
	ready := make(chan struct{}, 1)
	from, writer := pair(t, ls, func(*Socket) { ready <- struct{}{} })
	to, reader := pair(t, ls, never(t))
	received := make(chan int64, 100)
	go func() {
		b := make([]byte, 64<<10)
		for n, err := 0, error(nil); err == nil; {
			n, err = reader.Read(b)
			received <- int64(n)
		}
	}()
	moved := make(chan error, 1)
	splice := func(n int64) {
		from.Gather()
		for err := error(nil); n > 0; {
			var k int64
			if k, err = from.Splice(to, n, true); err != nil {
				moved <- err
				return
			}
			n -= k
		}
		from.Gathered()
		moved <- nil
	}
	arrive := func(n int64) {
		t.Helper()
		for deadline := time.After(30 * time.Second); n > 0; {
			select {
			case k := <-received:
				n -= k
			case <-deadline:
				t.Fatalf("%d bytes did not arrive", n)
			}
		}
	}
	write := func(n int) {
		t.Helper()
		if _, err := writer.Write(make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}
	go splice(1 << 20)
	for range 3 { // far less than what is waited for
		write(1000)
		arrive(1000)
	}
	write(1<<20 - 3000)
	arrive(1<<20 - 3000)
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	from.Park()
	write(1)
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		t.Fatal("a byte behind the last is not told of")
	}
	if _, err := from.TryRead(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	go splice(1 << 20)
	write(10)
	arrive(10)
	if err := writer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-moved; err != io.EOF {
		t.Errorf("cut short: %v", err)
	}
}

// TestGatherIsOver: a time that is over before anybody waits wakes the next who does.
func TestGatherIsOver(t *testing.T) {
	s, _ := pair(t, loops(t), never(t))
	s.wakeReader()
	awake := make(chan error, 1)
	go func() { awake <- s.AwaitInput() }()
	select {
	case err := <-awake:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was woken")
	}
}
