package epoll

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const patience = time.Minute // on a busy machine

func loops(t *testing.T) *Loops {
	t.Helper()
	ls, err := Start(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ls.Stop)
	return ls
}

// pair is a socket in a loop and the other end of its connection.
func pair(t *testing.T, ls *Loops, ready func(*Socket)) (*Socket, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	var s *Socket
	made := make(chan struct{})
	s, err = ls.Pick().Adopt(near.(*net.TCPConn), func() bool { <-made; ready(s); return false })
	if err != nil {
		t.Fatal(err)
	}
	close(made)
	t.Cleanup(func() { s.Close(); far.Close() })
	_ = far.SetDeadline(time.Now().Add(patience))
	return s, far.(*net.TCPConn)
}

func never(t *testing.T) func(*Socket) {
	return func(*Socket) { t.Error("called, and is not parked") }
}

// A parked socket is called once for each time that it parks, and misses nothing,
// however its events and its parking fall.
func TestParkedSocketsMissNothing(t *testing.T) {
	ls := loops(t)
	const messages = 3000
	var got atomic.Int64
	done := make(chan struct{})
	s, far := pair(t, ls, func(s *Socket) {
		b := make([]byte, 3) // less than there may be: what is left must be told again
		n, err := s.TryRead(b)
		if err != nil && err != unix.EAGAIN {
			t.Error(err)
		}
		if got.Add(int64(n)) == messages {
			close(done)
			return
		}
		if n%2 == 0 {
			s.Park()
			return
		}
		go s.Park() // by then the loop may have given up to look
	})
	s.Park()
	go func() {
		for i := range messages {
			_, _ = far.Write([]byte{byte(i)})
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%d of %d bytes were seen", got.Load(), messages)
	}
}

func TestUnparkedSocketsAreLeftAlone(t *testing.T) {
	ls := loops(t)
	s, far := pair(t, ls, never(t))
	s.Park()
	if !s.Unpark() || s.Unpark() {
		t.Fatal("a socket is unparked once")
	}
	_, _ = far.Write([]byte("x"))
	if err := s.AwaitInput(); err != nil {
		t.Fatal(err)
	}
	if n, err := s.TryRead(make([]byte, 10)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := s.TryRead(make([]byte, 10)); n != 0 || err != unix.EAGAIN {
		t.Fatal(n, err)
	}
}

// A writer waits for one who does not read, and everything arrives in order.
func TestWritesWaitForRoom(t *testing.T) {
	ls := loops(t)
	s, far := pair(t, ls, never(t))
	all := make([]byte, 20<<20)
	_, _ = rand.Read(all)
	wrote := make(chan error, 1)
	go func() {
		parts := [][]byte{nil, all[:1], all[1:1000], all[1000:1000], all[1000:]}
		err := s.WriteAll(parts)
		wrote <- errors.Join(err, s.CloseWrite())
	}()
	select {
	case err := <-wrote:
		t.Fatal("nobody has read, and all is written", err)
	case <-time.After(100 * time.Millisecond):
	}
	got, err := io.ReadAll(far)
	if err = errors.Join(err, <-wrote); err != nil || !bytes.Equal(got, all) {
		t.Fatalf("%d of %d bytes, the same: %v; %v", len(got), len(all), bytes.Equal(got, all), err)
	}
}

func TestSplice(t *testing.T) {
	ls := loops(t)
	from, writer := pair(t, ls, never(t))
	to, reader := pair(t, ls, never(t))
	all := make([]byte, 8<<20)
	_, _ = rand.Read(all)
	go func() { // in bursts, so that the pipe runs dry
		for b := all; len(b) > 0; {
			n := min(len(b), 300_000)
			_, _ = writer.Write(b[:n])
			b = b[n:]
			time.Sleep(time.Millisecond)
		}
		_ = writer.CloseWrite()
	}()
	moved := make(chan error, 1)
	go func() {
		for left := int64(len(all)); left > 0; {
			n, err := from.Splice(to, left, true)
			if err != nil {
				moved <- err
				return
			}
			left -= n
		}
		_, err := from.Splice(to, 10, false)
		to.Close()
		moved <- err
	}()
	got, err := io.ReadAll(reader)
	if !bytes.Equal(got, all) {
		t.Errorf("%d of %d bytes arrived as they were sent; %v", len(got), len(all), err)
	}
	if err := <-moved; err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// Whose end it is that fails is told.
func TestSpliceToOneWhoIsGone(t *testing.T) {
	ls := loops(t)
	from, writer := pair(t, ls, never(t))
	to, reader := pair(t, ls, never(t))
	_ = reader.SetLinger(0)
	_ = reader.Close()
	go func() { _, _ = io.Copy(writer, endless{}) }()
	for {
		_, err := from.Splice(to, 1<<20, true)
		var failed *WriteError
		if err == nil {
			continue
		}
		if !errors.As(err, &failed) {
			t.Errorf("%v, want an error of writing", err)
		}
		return
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// Close wakes who waits, and takes no descriptor away from who is using it.
func TestCloseWakes(t *testing.T) {
	ls := loops(t)
	for _, reset := range []bool{false, true} {
		s, far := pair(t, ls, never(t))
		var all sync.WaitGroup
		all.Go(func() {
			err := error(unix.EAGAIN)
			for err == unix.EAGAIN {
				if err = s.AwaitInput(); err == nil {
					_, err = s.TryRead(make([]byte, 1))
				}
			}
			if err != net.ErrClosed {
				t.Error(err)
			}
		})
		all.Go(func() {
			if err := s.WriteAll([][]byte{make([]byte, 64<<20)}); err != net.ErrClosed {
				t.Error(err)
			}
		})
		time.Sleep(20 * time.Millisecond)
		held := s.use()
		if reset {
			s.Reset()
		} else {
			s.Close()
		}
		all.Wait()
		if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0); !held || err != nil {
			t.Errorf("the descriptor was closed under its user: %v", err)
		}
		s.done()
		if err := s.Control(func(int) error { return nil }); err != net.ErrClosed {
			t.Error(err)
		}
		if _, err := io.Copy(io.Discard, far); reset != errors.Is(err, unix.ECONNRESET) {
			t.Errorf("reset %v, and the other end saw: %v", reset, err)
		}
	}
}

// What is ready and nobody wants, an end or a reset too, costs nothing.
func TestUnwantedEventsDoNotRepeat(t *testing.T) {
	ls := loops(t)
	var sockets []*Socket
	for i := range 4 {
		s, far := pair(t, ls, never(t))
		s.Park()
		s.Unpark()
		switch i {
		case 0:
			_, _ = far.Write([]byte("x"))
		case 1:
			_ = far.Close()
		case 2:
			_ = far.SetLinger(0)
			_ = far.Close()
		case 3:
			_, _ = s.CloseWrite(), far.Close()
		}
		sockets = append(sockets, s)
	}
	spent := func() time.Duration {
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	time.Sleep(50 * time.Millisecond)
	before := spent()
	time.Sleep(time.Second)
	if d := spent() - before; d > 500*time.Millisecond {
		t.Errorf("%s of processor time went by in a second without events", d)
	}
	for i, s := range sockets { // and all is there for who asks
		if err := s.AwaitInput(); err != nil {
			t.Fatal(err)
		}
		n, err := s.TryRead(make([]byte, 10))
		if i == 0 && n != 1 || i > 0 && err == nil {
			t.Errorf("socket %d: %d bytes, %v", i, n, err)
		}
	}
}

func TestConnect(t *testing.T) {
	ls := loops(t)
	begin := func(port int) *Socket {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		s := ls.Pick().Add(fd, nil)
		t.Cleanup(s.Close)
		return s
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	listener, err := ls.Pick().Adopt(l.(*net.TCPListener), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := begin(port).Connected(patience); err != nil {
		t.Error(err)
	}
	fd, remote, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	local, err := Local(fd)
	if err != nil || int(local.Port()) != port || !remote.Addr().IsLoopback() {
		t.Error(local, remote, err)
	}
	_ = unix.Close(fd)
	_, _ = l.Close(), listener.CloseWrite()
	waits := make(chan error, 1)
	go func() { _, _, err := listener.Accept(); waits <- err }()
	time.Sleep(10 * time.Millisecond)
	listener.Close()
	if err := <-waits; err == nil {
		t.Error("accepted from a closed listener")
	}
	if err := begin(port).Connected(patience); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
}

// Where no pipe can be made, splices say so and move nothing.
func TestSpliceWithoutPipes(t *testing.T) {
	ls := loops(t)
	from, writer := pair(t, ls, never(t))
	to, reader := pair(t, ls, never(t))
	_, _ = writer.Write([]byte("hello"))
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 1 // what is open stays so
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	n, err := from.Splice(to, 5, false)
	if restored := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); restored != nil {
		t.Fatal(restored)
	}
	if n != 0 || !errors.Is(err, ErrPipe) || !errors.Is(err, unix.EMFILE) {
		t.Fatalf("%d bytes moved, %v", n, err)
	}
	if n, err = from.Splice(to, 5, false); n != 5 || err != nil {
		t.Fatalf("with pipes again: %d bytes moved, %v", n, err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
}
