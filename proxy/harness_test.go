package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const (
	setA = redirect.SetNumber(uint32(policy.ProtocolHTTP)<<24 | 1)
	setB = redirect.SetNumber(uint32(policy.ProtocolHTTP)<<24 | 2)
)

// fakeConnections answers every look-up the same.
type fakeConnections struct {
	revision atomic.Uint32
	lookups  atomic.Uint32
	mu       sync.Mutex
	known    Connection
	missing  bool
}

func (f *fakeConnections) Lookup(netip.AddrPort, netip.AddrPort) (Connection, bool) {
	f.lookups.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.known, !f.missing
}

func (f *fakeConnections) Revision() uint32 { return f.revision.Load() }

// set changes what is known, as a policy update of the datapath would.
func (f *fakeConnections) set(c Connection, missing bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Revision = f.revision.Add(1)
	f.known, f.missing = c, missing
}

// late changes what is known without the revision: the datapath judged the
// connection only now, at its next packet.
func (f *fakeConnections) late(c Connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Revision = f.revision.Load()
	f.known = c
}

// behind announces a revision under which the connection was not judged yet.
func (f *fakeConnections) behind() { f.revision.Add(1) }

type judgeFunc func(policy.Request) policy.Decision

func (f judgeFunc) Decide(r policy.Request) policy.Decision { return f(r) }

func loopbackListener(ctx context.Context, a netip.AddrPort) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", a.String())
}

// dialer dials one server whatever the destination.
func dialer(server string) func(local, remote netip.AddrPort) (int, error) {
	return func(netip.AddrPort, netip.AddrPort) (int, error) {
		to, err := netip.ParseAddrPort(server)
		if err != nil {
			return -1, err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil && err != unix.EINPROGRESS {
			_ = unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
}

// running is a proxy in this process.
type running struct {
	t           *testing.T
	connections *fakeConnections
	addr, sock  string
	client      proxyv1.ProxyClient
	link        *link
	stop        func() error
}

func startProxy(t *testing.T, server string, change func(*Config)) *running {
	t.Helper()
	r := &running{t: t, connections: &fakeConnections{}, sock: filepath.Join(t.TempDir(), "s")}
	r.connections.known = Connection{SourceIdentity: 1000, DestinationIdentity: 2000, Egress: setA}
	unixListener, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.sock, Net: "unix"})
	must(t, err)
	api, err := TrustedListener(unixListener)
	must(t, err)
	config := Config{
		Version: "test", Layout: "maps", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		API: api, Connections: r.connections, AllowRoot: true,
		Listen: loopbackListener, Dial: dialer(server),
		Compile: func(*policy.L7Set) (Judge, error) {
			return judgeFunc(func(policy.Request) policy.Decision { return policy.Decision{Verdict: policy.Allow} }), nil
		},
		Limits: Limits{Grace: 100 * time.Millisecond},
	}
	if change != nil {
		change(&config)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, config) }()
	var once sync.Once
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(patience):
				err = errors.New("Run did not return")
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	r.link, err = connect(t.Context(), r.sock, "test")
	must(t, err)
	t.Cleanup(r.link.close)
	r.client = r.link.client
	r.addr = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(r.link.hello.Port)).String()
	return r
}

// enforce puts sets in force; rules are of no interest to a fake Compile.
func (r *running) enforce(numbers ...redirect.SetNumber) {
	r.t.Helper()
	s := redirect.Snapshot{Revision: uint64(time.Now().UnixNano()), Sets: map[policy.SetID]redirect.NumberedSet{}}
	for _, n := range numbers {
		var id policy.SetID
		binary.BigEndian.PutUint32(id[:], uint32(n))
		s.Sets[id] = redirect.NumberedSet{Number: n, Set: &policy.L7Set{ID: id, Protocol: n.Protocol()}}
	}
	_, err := r.client.Enforce(r.t.Context(), snapshotToProto(s))
	must(r.t, err)
}

func (r *running) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	must(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

func (r *running) status() *proxyv1.StatusResponse {
	r.t.Helper()
	s, err := r.client.Status(r.t.Context(), &proxyv1.StatusRequest{})
	must(r.t, err)
	return s
}

// server accepts connections and handles each.
func server(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long something that must happen may take on a busy machine.
const patience = time.Minute

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// frames is a session of a made-up protocol that uses every step. A frame is a
// letter, a length of four bytes and a payload. From the client: F is forwarded;
// D is dropped and answered with an X frame of the same length's first 4 bytes;
// M is forwarded with the letter changed to m; K closes. From the server
// everything is forwarded frame by frame.
type frames struct{ steps []parsers.Step }

func newFrames(policy.Protocol, parsers.Hooks) parsers.Session { return &frames{} }

func (f *frames) Phase() parsers.Phase { return parsers.Idle }

func (f *frames) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	f.steps = f.steps[:0]
	for len(data) >= 5 {
		n := int64(binary.BigEndian.Uint32(data[1:]))
		whole := n + 5
		switch {
		case from == parsers.Server || data[0] == 'F':
			f.steps = append(f.steps, parsers.Step{Op: parsers.Forward, N: whole})
		case data[0] == 'D':
			answer := append([]byte{'X', 0, 0, 0, 4}, data[1:5]...)
			f.steps = append(f.steps, parsers.Step{Op: parsers.Discard, N: whole},
				parsers.Step{Op: parsers.Send, To: parsers.Client, Data: answer})
		case data[0] == 'M':
			f.steps = append(f.steps, parsers.Step{Op: parsers.Discard, N: 1},
				parsers.Step{Op: parsers.Send, To: parsers.Server, Data: []byte{'m'}},
				parsers.Step{Op: parsers.Forward, N: whole - 1})
		case data[0] == 'K':
			f.steps = append(f.steps, parsers.Step{Op: parsers.Send, To: parsers.Client, Data: []byte("Xbye.")},
				parsers.Step{Op: parsers.Close})
			return f.steps, nil
		default:
			return f.steps, errors.New("no such frame")
		}
		if whole >= int64(len(data)) {
			return f.steps, nil
		}
		data = data[whole:]
	}
	if eof && len(data) == 0 {
		f.steps = append(f.steps, parsers.Step{Op: parsers.CloseWrite, To: from.Peer()})
	}
	return f.steps, nil
}

func frame(letter byte, payload []byte) []byte {
	b := append([]byte{letter}, binary.BigEndian.AppendUint32(nil, uint32(len(payload)))...)
	return append(b, payload...)
}

func readFrame(r io.Reader) (byte, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err := io.ReadFull(r, payload)
	return head[0], payload, err
}

func TestMain(m *testing.M) {
	if os.Getenv("HEADGATE_TEST_PROXY") != "" {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}
