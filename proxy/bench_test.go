package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// BenchmarkRequests measures small requests over keep-alive connections. Client
// and server allocate nothing, so what is allocated is the proxy's.
func BenchmarkRequests(b *testing.B) {
	request := []byte("GET /public/index.html HTTP/1.1\r\nHost: web\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := make([]byte, 4096)
				for {
					n, err := c.Read(in)
					if err != nil || !bytes.HasSuffix(in[:n], []byte("\r\n\r\n")) {
						return
					}
					_, _ = c.Write(answer)
				}
			}()
		}
	}()
	for _, connections := range []int{1, 64} {
		for _, proxied := range []bool{false, true} {
			b.Run(fmt.Sprintf("connections=%d/proxied=%v", connections, proxied), func(b *testing.B) {
				addr := l.Addr().String()
				if proxied {
					addr = benchProxy(b, addr)
				}
				b.ReportAllocs()
				ask(b, addr, connections, request, len(answer))
			})
		}
	}
}

func ask(b *testing.B, addr string, connections int, request []byte, size int) {
	var conns []net.Conn
	for range connections {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	b.ResetTimer()
	var group sync.WaitGroup
	for i, c := range conns {
		n := b.N / connections
		if i == 0 {
			n = b.N - n*(connections-1)
		}
		group.Go(func() {
			in := make([]byte, size)
			for range n {
				_, _ = c.Write(request)
				if _, err := io.ReadFull(c, in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func benchProxy(b *testing.B, server string) string {
	sock := filepath.Join(b.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	config := Config{
		API: l, Connections: &fakeConnections{known: Connection{Egress: setA}}, AllowRoot: true,
		Listen: loopbackListener, Dial: dialer(server),
	}.withDefaults()
	p, err := newProcess(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(p.loops.Stop)
	listeners, port, err := p.listenAll(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	for _, l := range listeners {
		b.Cleanup(func() { _ = l.Close() })
		go func() { _ = p.accept(l) }()
	}
	id := policy.SetID{1}
	set := &policy.L7Set{ID: id, Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{allow("GET", "/public.*")}}
	s, err := (*snapshot)(nil).next(redirect.Snapshot{Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setA, Set: set}}}, compile)
	if err != nil {
		b.Fatal(err)
	}
	p.snapshot.Store(s)
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String()
}
