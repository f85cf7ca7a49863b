package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// loadOptions say what a load does.
type loadOptions struct {
	Questions   string // file of questions for dnsperf; empty: requests of HTTP
	To          netip.AddrPort
	Path        string
	Connections int
	Streams     int // of each connection; 0: HTTP/1
	Seconds     float64
	Reconnect   bool                              // a connection for each request
	drive       func(*side, work) (sample, error) // nil: by HTTP
}

// sample is what one turn of a load measured.
type sample struct {
	Requests, Errors uint64
	Bytes            uint64
	Seconds          float64
	P50, P90, P99    float64 // µs; 0: not known
	Mean, Max        float64
}

type asked struct {
	fd   int
	open bool   // connected
	at   int64  // when the request was sent, or the connection asked for
	part []byte // of the head of an answer
	left int    // bytes of a body to come
}

type load struct {
	loadOptions
	poll    *poller
	request []byte
	conns   []*asked // by descriptor
	in      [256 << 10]byte
	sample  sample
	times   histogram
	start   time.Time
}

// runLoad asks until the time is over and prints the sample.
func runLoad(o loadOptions) error {
	l := &load{loadOptions: o, request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: web\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", o.Path)}
	l.start = time.Now()
	var err error
	if l.poll, err = newPoller(); err != nil {
		return err
	}
	for range o.Connections {
		if err := l.connect(); err != nil {
			return err
		}
	}
	end := int64(o.Seconds * 1e9)
	for l.now() < end {
		ready, err := l.poll.wait()
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		for i := range ready {
			if err := l.advance(l.conns[ready[i].Fd], ready[i].Events); err != nil {
				return err
			}
		}
	}
	l.sample.Seconds = float64(l.now()) / 1e9
	l.sample.P50, l.sample.P90, l.sample.P99 = l.times.quantile(0.5), l.times.quantile(0.9), l.times.quantile(0.99)
	l.sample.Max = l.times.quantile(1)
	return json.NewEncoder(os.Stdout).Encode(l.sample)
}

// now is nanoseconds since the load began.
func (l *load) now() int64 { return int64(time.Since(l.start)) }

func (l *load) connect() error {
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(l.To.Port()), Addr: l.To.Addr().As4()}
	if l.To.Addr().Is6() {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(l.To.Port()), Addr: l.To.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	for len(l.conns) <= fd {
		l.conns = append(l.conns, &asked{})
	}
	*l.conns[fd] = asked{fd: fd, at: l.now(), part: l.conns[fd].part[:0]}
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("load: connect to %s: %w", l.To, err)
	}
	return l.poll.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLOUT)
}

// advance goes on with a connection that is ready.
func (l *load) advance(c *asked, events uint32) error {
	if !c.open {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			return l.fail(c)
		}
		c.open = true
		if err := l.poll.control(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN); err != nil {
			return err
		}
		return l.ask(c)
	}
	n, errno := rawRead(c.fd, l.in[:])
	switch {
	case errno == unix.EAGAIN:
		return nil
	case errno != 0 || n == 0:
		return l.fail(c)
	}
	l.sample.Bytes += uint64(n)
	in := l.in[:n]
	if c.left > 0 {
		if c.left -= n; c.left > 0 {
			return nil
		}
		return l.answered(c)
	}
	if len(c.part) > 0 {
		c.part = append(c.part, in...)
		in = c.part
	}
	head := bytes.Index(in, []byte("\r\n\r\n"))
	if head < 0 {
		c.part = append(c.part[:0], in...)
		return nil
	}
	if !bytes.HasPrefix(in, []byte("HTTP/1.1 200 ")) {
		l.sample.Errors++
	}
	c.left = contentLength(in[:head]) - (len(in) - head - 4)
	c.part = c.part[:0]
	if c.left > 0 {
		return nil
	}
	return l.answered(c)
}

func (l *load) ask(c *asked) error {
	if _, errno := rawWrite(c.fd, l.request); errno != 0 {
		return l.fail(c)
	}
	return nil
}

func (l *load) answered(c *asked) error {
	now := l.now()
	l.times.add(now - c.at)
	l.sample.Requests++
	if l.Reconnect {
		return l.again(c)
	}
	c.at = now
	return l.ask(c)
}

// again takes a new connection. The old one is reset, so that no TIME_WAIT is left
// to run out of ports.
func (l *load) again(c *asked) error {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(c.fd)
	return l.connect()
}

func (l *load) fail(c *asked) error {
	if l.sample.Errors++; l.sample.Errors > 1000 {
		return fmt.Errorf("load: 1000 requests to %s failed", l.To)
	}
	return l.again(c)
}

// contentLength of a head whose fields may be written in any case; 0 if there is none.
func contentLength(head []byte) int {
	for line := range bytes.Lines(head) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")) {
			n, _ := strconv.Atoi(string(bytes.TrimSpace(value)))
			return n
		}
	}
	return 0
}
