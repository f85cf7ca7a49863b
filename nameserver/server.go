// Package nameserver tells workloads the addresses of services and endpoints, and
// asks others for every other name. It is part of the proxy process, which outlives
// the agent; the agent says what the names are.
//
// Names below its domain that it does not know do not exist, and are never asked
// for elsewhere. It answers workloads and this machine alone, over UDP and TCP on the
// workloads' gateways. Policy applies as to any port of the host.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/headgate/headgate/redirect"
)

const (
	// inFlight bounds the questions that are waiting for others' answers.
	inFlight = 1024
	// connections bounds those over TCP.
	connections = 256
	// retryEvery is how often an address is tried again that cannot be listened on.
	retryEvery = 5 * time.Second
)

// Server answers as the last Update said. The zero port is 53.
type Server struct {
	Port   uint16
	Logger *slog.Logger

	zone    atomic.Pointer[zone]
	forward forwarder

	mu        sync.Mutex
	listeners map[string]*dns.Server // "udp 10.210.0.1"
	failed    error                  // why one of them is missing
	retry     *time.Timer
	closed    bool
}

// Update puts other names in force; nil: no more answers.
func (s *Server) Update(z *redirect.Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if z == nil {
		s.zone.Store(nil)
	} else {
		s.zone.Store(newZone(z))
	}
	s.listen()
}

// Close ends all, for good.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.zone.Store(nil)
	s.listen()
	s.mu.Unlock()
}

// Status says how it is: whether there is something to answer, and what is amiss.
func (s *Server) Status() (on bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.zone.Load() != nil, s.failed
}

// listen opens what the zone wants and is not open, and closes the rest.
func (s *Server) listen() {
	if s.retry != nil {
		s.retry.Stop()
	}
	want := map[string]netip.Addr{}
	if z := s.zone.Load(); z != nil {
		for _, a := range z.Listen {
			want["udp "+a.String()], want["tcp "+a.String()] = a, a
		}
	}
	for key, l := range s.listeners {
		if _, wanted := want[key]; !wanted {
			_ = l.Shutdown()
			delete(s.listeners, key)
		}
	}
	if s.listeners == nil {
		s.listeners = map[string]*dns.Server{}
	}
	before := s.failed
	s.failed = nil
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if s.listeners[key] != nil {
			continue
		}
		l, err := s.open(key[:3], want[key])
		if err != nil {
			s.failed = errors.Join(s.failed, err)
			continue
		}
		s.listeners[key] = l
	}
	if s.failed == nil {
		return
	}
	if before == nil {
		s.Logger.Error("names are not given out everywhere, and it is tried again", "error", s.failed)
	}
	s.retry = time.AfterFunc(retryEvery, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.listen()
		}
	})
}

func (s *Server) open(network string, a netip.Addr) (*dns.Server, error) {
	port := s.Port
	if port == 0 {
		port = 53
	}
	at := net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
	l := &dns.Server{Net: network, Handler: s, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxTCPQueries: 128}
	// A proxy that takes the place of another listens before that one ends.
	lc := net.ListenConfig{Control: reusePort}
	if network == "udp" {
		c, err := lc.ListenPacket(context.Background(), network, at)
		if err != nil {
			return nil, fmt.Errorf("give out names: %w", err)
		}
		l.PacketConn = c
	} else {
		c, err := lc.Listen(context.Background(), network, at)
		if err != nil {
			return nil, fmt.Errorf("give out names: %w", err)
		}
		l.Listener = limit(c, connections)
	}
	ready := make(chan struct{})
	l.NotifyStartedFunc = func() { close(ready) }
	failed := make(chan error, 1)
	go func() { failed <- l.ActivateAndServe() }()
	select {
	case <-ready:
		return l, nil
	case err := <-failed:
		return nil, fmt.Errorf("give out names at %s: %w", at, err)
	}
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z := s.zone.Load()
	var a *dns.Msg
	switch {
	case z == nil || !z.mayAsk(w.RemoteAddr()):
		a = refusal(q, dns.RcodeRefused)
	case q.Opcode != dns.OpcodeQuery:
		a = refusal(q, dns.RcodeNotImplemented)
	case q.Response || len(q.Question) != 1:
		a = refusal(q, dns.RcodeFormatError)
	case q.Question[0].Qclass != dns.ClassINET:
		a = refusal(q, dns.RcodeRefused)
	default:
		if a = z.answer(q); a == nil {
			a = s.forward.ask(z, q, w.RemoteAddr().Network())
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		a.Truncate(room(q))
	}
	_ = w.WriteMsg(a) // whoever asked may be gone
}

func refusal(q *dns.Msg, code int) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }

// room is how long an answer over UDP may be: no more than surely passes in one
// packet (DNS Flag Day 2020).
func room(q *dns.Msg) int {
	const most = 1232
	if e := q.IsEdns0(); e != nil {
		return min(max(int(e.UDPSize()), dns.MinMsgSize), most)
	}
	return dns.MinMsgSize
}
