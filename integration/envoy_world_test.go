package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
	"github.com/headgate/headgate/xds"
)

type envoyFamily struct {
	name           string
	client, server netip.Addr
}

func (w *envoyWorld) families() []envoyFamily {
	return []envoyFamily{
		{"IPv4", w.client.IPs[0], w.server.IPs[0]},
		{"IPv6", w.client.IPs[1], w.server.IPs[1]},
	}
}

// envoyWorld is a node with a gate and an Envoy, a client and a server, each in a
// network namespace of its own.
type envoyWorld struct {
	t                          *testing.T // that is running
	nodeNS, clientNS, serverNS *namespace
	client, server             *endpoint.Endpoint
	gate                       *bpf.Gate
	backend                    *xds.Backend
	envoy                      *child
	port                       redirect.ProxyPort
	set                        policy.SetID // enforced last

	accepted, requests atomic.Int64
	mu                 sync.Mutex
	seen               envoySeen
}

type envoySeen struct {
	from    netip.AddrPort
	headers []string
}

func newEnvoyWorld(t *testing.T) *envoyWorld {
	needPrivileges(t)
	binary := envoyBinary(t)
	w := &envoyWorld{t: t, nodeNS: newNamespace(t), clientNS: newNamespace(t), serverNS: newNamespace(t)}
	w.mustDo(w.nodeNS, w.startGate)
	w.startServer()
	w.startEnvoy(binary)
	return w
}

// envoyBinary finds Envoy.
func envoyBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("HEADGATE_ENVOY")
	if path == "" {
		path = filepath.Join(moduleRoot(t), ".cache", "envoy", "envoy", "_bin", "envoy")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "this test drives Envoy (%v): 'make parts' installs it, or name it in HEADGATE_ENVOY", err)
	}
	return path
}

func (w *envoyWorld) mustDo(ns *namespace, f func() error) {
	w.t.Helper()
	if err := ns.do(f); err != nil {
		w.t.Fatal(err)
	}
}

// startGate connects both workloads. The client may send everything; the server
// takes what the L7 set lets in.
func (w *envoyWorld) startGate() error {
	gateways := []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	if err := redirect.InstallRules(); err != nil {
		return err
	}
	host, err := endpoint.EnsureHostDevice(gateways)
	if err != nil {
		return err
	}
	w.gate, err = bpf.Load(bpf.Options{
		Gateway4: gateways[0], Gateway6: gateways[1], GatewayMAC: endpoint.GatewayMAC(), HostIfindex: host,
		MaxConnections: 1024, MaxPolicy: 1024,
	}, nil)
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { w.gate.Close() })
	if err := w.gate.AttachHost(host); err != nil {
		return err
	}
	w.client = newEnvoyEndpoint("client", 1, w.clientNS, "10.77.0.2", "fd77::2")
	w.server = newEnvoyEndpoint("server", 2, w.serverNS, "10.77.0.3", "fd77::3")
	for e, subject := range map[*endpoint.Endpoint]uint32{w.client: clientSubject, w.server: serverSubject} {
		if err := endpoint.Connect(e, gateways, w.gate.AttachWorkload); err != nil {
			return err
		}
		id := map[uint32]policy.Identity{clientSubject: clientID, serverSubject: serverID}[subject]
		for _, ip := range e.IPs {
			if err := w.gate.SetEndpoint(bpf.Endpoint{
				Addr: ip, Ifindex: e.Ifindex, ID: e.ID, Identity: id, Subject: subject, MAC: e.HardwareAddr(), Ready: true,
			}); err != nil {
				return err
			}
		}
	}
	egress := policy.Key{Direction: policy.Egress}
	if err := w.gate.SyncPolicy(clientSubject, nil, bpf.PolicyTable{egress: {Verdict: policy.Allow}}); err != nil {
		return err
	}
	ingress := policy.Key{Peer: clientID, Direction: policy.Ingress, Proto: policy.ProtoTCP, Port: envoyPort, PrefixBits: 16}
	return w.gate.SyncPolicy(serverSubject, nil, bpf.PolicyTable{
		ingress: {Verdict: policy.Redirect, Set: uint32(envoySet)},
	})
}

func newEnvoyEndpoint(name string, id uint16, ns *namespace, ips ...string) *endpoint.Endpoint {
	e := &endpoint.Endpoint{ID: id, Name: name, Namespace: "default", Inside: "eth0", Netns: ns.path}
	for _, ip := range ips {
		e.IPs = append(e.IPs, netip.MustParseAddr(ip))
	}
	return e
}

func (w *envoyWorld) startServer() {
	server := &http.Server{Handler: w, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			w.accepted.Add(1)
		}
	}}
	w.t.Cleanup(func() { server.Close() })
	for _, ip := range w.server.IPs {
		w.mustDo(w.serverNS, func() error {
			l, err := net.Listen("tcp", netip.AddrPortFrom(ip, envoyPort).String())
			if err == nil {
				go server.Serve(l)
			}
			return err
		})
	}
}

// ServeHTTP remembers what it saw.
func (w *envoyWorld) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.requests.Add(1)
	seen := envoySeen{from: netip.MustParseAddrPort(r.RemoteAddr), headers: []string{"Host"}}
	for name := range r.Header {
		seen.headers = append(seen.headers, name)
	}
	slices.Sort(seen.headers)
	w.mu.Lock()
	w.seen = seen
	w.mu.Unlock()
	io.WriteString(out, "landed")
}

func (w *envoyWorld) lastSeen() envoySeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func (w *envoyWorld) startEnvoy(binary string) {
	t := w.t
	dir := t.TempDir()
	socket := filepath.Join(dir, xds.SocketName)
	var err error
	if w.backend, err = xds.New(xds.Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- w.backend.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
	bootstrap, err := xds.Bootstrap(xds.BootstrapOptions{NodeID: "test", Socket: socket, Admin: filepath.Join(dir, "interface")})
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "envoy.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, xds.Args(string(bootstrap), 1)...)
	cmd.Stdout, cmd.Stderr = log, log
	if w.envoy, err = w.nodeNS.start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.killEnvoy()
		log.Close()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			drops, _ := w.gate.Drops()
			t.Logf("drops: %+v\nEnvoy said:\n%s", drops, text)
		}
	})
	for deadline := time.Now().Add(envoyTimeout); w.backend.Status().State != "ready"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Envoy did not connect: %+v", w.backend.Status())
		}
	}
}

func (w *envoyWorld) killEnvoy() {
	w.envoy.Process.Kill()
	<-w.envoy.done
}

// tryEnforce puts rules in force under the set's number, and other sets beside it.
func (w *envoyWorld) tryEnforce(revision uint64, rules []policy.HTTPRule, others ...redirect.NumberedSet) error {
	ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
	defer cancel()
	sum := sha256.Sum256(fmt.Append(nil, rules))
	w.set = policy.SetID(sum[:len(w.set)])
	sets := map[policy.SetID]redirect.NumberedSet{
		w.set: {Number: envoySet, Set: &policy.L7Set{ID: w.set, Protocol: policy.ProtocolHTTP, HTTP: rules}},
	}
	for _, o := range others {
		sets[o.Set.ID] = o
	}
	return w.backend.Enforce(ctx, redirect.Snapshot{Revision: revision, Sets: sets})
}

func (w *envoyWorld) enforce(revision uint64, rules []policy.HTTPRule) {
	w.t.Helper()
	if err := w.tryEnforce(revision, rules); err != nil {
		w.t.Fatal(err)
	}
}

func (w *envoyWorld) serve() redirect.ProxyPort {
	w.t.Helper()
	w.mustDo(w.nodeNS, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
		defer cancel()
		w.port, err = w.backend.Serve(ctx, redirect.Route{Ingress: w.set})
		return err
	})
	return w.port
}

func (w *envoyWorld) route(port redirect.ProxyPort) {
	w.t.Helper()
	if err := w.gate.SetRoute(bpf.Route{Ingress: uint32(envoySet)}, uint16(port)); err != nil {
		w.t.Fatal(err)
	}
}
