package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/observe"
)

// octets is a codec that leaves messages alone.
type octets struct{}

func (octets) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (octets) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (octets) Name() string                       { return "octets" }

// startCalls starts grpc-go's server behind a proxy, and its client. Calls to /echo.S/ get
// their messages and metadata back, others UNIMPLEMENTED without a message.
func startCalls(t *testing.T, options ...grpc.ServerOption) (*running, *grpc.ClientConn) {
	t.Helper()
	g := grpc.NewServer(append(options, grpc.ForceServerCodec(octets{}), grpc.MaxHeaderListSize(1<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			if method, _ := grpc.MethodFromServerStream(stream); !strings.HasPrefix(method, "/echo.S/") {
				return status.Error(codes.Unimplemented, "not here: 100 %")
			}
			sent, _ := metadata.FromIncomingContext(stream.Context())
			echoed := metadata.MD{}
			for name, values := range sent {
				if strings.HasPrefix(name, "x-") {
					echoed[name] = values
				}
			}
			stream.SetTrailer(echoed)
			for {
				var message []byte
				if err := stream.RecvMsg(&message); err != nil {
					if errors.Is(err, io.EOF) {
						return nil
					}
					return err
				}
				if err := stream.SendMsg(&message); err != nil {
					return err
				}
			}
		}))...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	r := startProxy(t, l.Addr().String(), nil)
	r.enforce(setA)
	c, err := grpc.NewClient("passthrough:///"+r.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithMaxHeaderListSize(1<<20),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(octets{}), grpc.WaitForReady(true)), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second}))
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return r, c
}

func call(t *testing.T, c *grpc.ClientConn, method string, message []byte, options ...grpc.CallOption) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return callIn(ctx, t, c, method, message, options...)
}

func callIn(ctx context.Context, t *testing.T, c *grpc.ClientConn, method string, message []byte, options ...grpc.CallOption) error {
	t.Helper()
	var got []byte
	err := c.Invoke(ctx, method, &message, &got, options...)
	if err == nil && !bytes.Equal(got, message) {
		t.Errorf("%s: %d bytes came back of %d", method, len(got), len(message))
	}
	return err
}

// TestCalls: metadata, statuses and messages pass whole, compressed or not, and are counted.
func TestCalls(t *testing.T) {
	r, c := startCalls(t)
	records := r.records()
	metadatas := map[string]string{
		"x-text": "a b", "x-raw-bin": "\x00\x01\xff\r\n", "x-large": strings.Repeat("m", 40<<10), "x-empty": "",
	}
	for name, value := range metadatas {
		var back metadata.MD
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), name, value), patience)
		if err := callIn(ctx, t, c, "/echo.S/Metadata", []byte("m"), grpc.Trailer(&back)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if got := back.Get(name); len(got) != 1 || got[0] != value {
			t.Errorf("%s: %.20q came back", name, got)
		}
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-too-large", strings.Repeat("m", 70<<10)), patience)
	defer cancel()
	if err := callIn(ctx, t, c, "/echo.S/TooLarge", nil); err == nil || status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("more metadata than fits: %v", err)
	}
	if s := status.Convert(call(t, c, "/other.S/None", []byte("m"))); s.Code() != codes.Unimplemented || s.Message() != "not here: 100 %" {
		t.Errorf("a status alone: %v", s)
	}
	for _, size := range []int{0, 1, 1 << 20} {
		for name, options := range map[string][]grpc.CallOption{"plain": nil, "gzip": {grpc.UseCompressor(gzip.Name)}} {
			if err := call(t, c, "/echo.S/"+name, bytes.Repeat([]byte("z"), size), options...); err != nil {
				t.Errorf("%s, %d bytes: %v", name, size, err)
			}
		}
	}
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/echo.S/Stream", grpc.UseCompressor(gzip.Name))
	must(t, err)
	for i := range 7 {
		message := bytes.Repeat([]byte("s"), i*1000)
		must(t, stream.SendMsg(&message))
		must(t, stream.RecvMsg(&message))
	}
	must(t, stream.CloseSend())
	var none []byte
	if err := stream.RecvMsg(&none); !errors.Is(err, io.EOF) {
		t.Errorf("the end of a stream: %v", err)
	}
	want := map[string][3]string{
		"/other.S/None": {"12", "1", "0"}, "/echo.S/gzip": {"0", "1", "1"}, "/echo.S/Stream": {"0", "7", "7"}, "/echo.S/Metadata": {"0", "1", "1"},
	}
	for timeout := time.After(patience); len(want) > 0; {
		select {
		case record := <-records:
			if record.HTTP == nil || !record.Reply {
				continue
			}
			_, path, _ := strings.Cut(strings.TrimPrefix(record.HTTP.URL, "http://"), "/")
			if counts, ok := want["/"+path]; ok {
				if got := countsOf(record.HTTP); got != counts {
					t.Errorf("/%s: %q, want %q", path, got, counts)
				}
				delete(want, "/"+path)
			}
		case <-timeout:
			t.Fatalf("not recorded: %v", want)
		}
	}
}

func countsOf(h *observe.HTTP) (counts [3]string) {
	for _, f := range h.Headers {
		for i, name := range []string{"grpc-status", "x-grpc-messages-sent", "x-grpc-messages-received"} {
			if f[0] == name {
				counts[i] = f[1]
			}
		}
	}
	return counts
}

// TestCallsAcrossConnections: a server that wants its connections young says so by
// GOAWAY, and pings those that are silent: no call notices.
func TestCallsAcrossConnections(t *testing.T) {
	r, c := startCalls(t, grpc.KeepaliveParams(keepalive.ServerParameters{
		Time: time.Second, Timeout: patience, MaxConnectionAge: 300 * time.Millisecond, MaxConnectionAgeGrace: patience,
	}))
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/echo.S/Stream")
	must(t, err)
	message := []byte("m")
	for range 30 {
		if err := call(t, c, "/echo.S/Young", message); err != nil {
			t.Error(err)
		}
		// Begun on the first connection, which lasts until it ends.
		must(t, stream.SendMsg(&message))
		must(t, stream.RecvMsg(&message))
		time.Sleep(100 * time.Millisecond)
	}
	must(t, stream.CloseSend())
	if err := stream.RecvMsg(&message); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if n := r.connections.lookups.Load(); n < 3 {
		t.Errorf("%d connections were looked up: the server closed none", n)
	}
}
