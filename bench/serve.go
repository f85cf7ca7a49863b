package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// largeBody is the size of what is answered under largePath.
const (
	largeBody = 1 << 20
	largePath = "/public/large"
	smallPath = "/public/index.html"
)

// server answers GETs, one thread for all connections.
type server struct {
	poll         *poller
	small, large []byte
	conns        map[int]*served
	in           [16 << 10]byte
}

type served struct {
	fd   int
	part []byte // of a request head
	out  []byte // what the socket had no room for
}

// serve listens on ports of every address until it is killed.
func serve(ports []uint16) error {
	s := &server{conns: map[int]*served{}, small: answer(5), large: answer(largeBody)}
	var err error
	if s.poll, err = newPoller(); err != nil {
		return err
	}
	listeners := map[int]bool{}
	for _, port := range ports {
		fd, err := listen(port)
		if err == nil {
			err = s.poll.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN)
		}
		if err != nil {
			return fmt.Errorf("serve port %d: %w", port, err)
		}
		listeners[fd] = true
	}
	fmt.Println("ready")
	for {
		ready, err := s.poll.wait()
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		for i := range ready {
			fd := int(ready[i].Fd)
			if listeners[fd] {
				s.accept(fd)
			} else if c := s.conns[fd]; c != nil && !s.advance(c) {
				_ = unix.Close(fd)
				delete(s.conns, fd)
			}
		}
	}
}

func answer(size int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
}

func listen(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet6{Port: int(port), Addr: netip.IPv6Unspecified().As16()}),
		unix.Listen(fd, 4096))
}

func (s *server) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if s.poll.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET) != nil {
			_ = unix.Close(fd)
			continue
		}
		s.conns[fd] = &served{fd: fd}
	}
}

// advance does what can be done on a connection without waiting. False: it is over.
func (s *server) advance(c *served) bool {
	if len(c.out) > 0 && !c.write(c.out) {
		return false
	}
	for {
		n, errno := rawRead(c.fd, s.in[:])
		switch {
		case errno == unix.EAGAIN:
			return true
		case errno != 0 || n == 0:
			return false
		}
		if !s.requests(c, s.in[:n]) {
			return false
		}
		if n < len(s.in) {
			return true
		}
	}
}

func (s *server) requests(c *served, in []byte) bool {
	if len(c.part) > 0 {
		c.part = append(c.part, in...)
		in = c.part
	}
	for {
		end := bytes.Index(in, []byte("\r\n\r\n"))
		if end < 0 {
			c.part = append(c.part[:0], in...)
			return true
		}
		out := s.small
		if bytes.HasPrefix(in, []byte("GET "+largePath)) {
			out = s.large
		}
		in = in[end+4:]
		if len(c.out) > 0 {
			c.out = append(c.out, out...)
		} else if !c.write(out) {
			return false
		}
	}
}

// write keeps what finds no room.
func (c *served) write(b []byte) bool {
	for len(b) > 0 {
		n, errno := rawWrite(c.fd, b)
		if errno == unix.EAGAIN {
			break
		}
		if errno != 0 {
			return false
		}
		b = b[n:]
	}
	c.out = b
	return true
}
