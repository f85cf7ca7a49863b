package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
	"github.com/headgate/headgate/xds"
)

// One stock Envoy behind the gate: the same policy tables, routes, marks and return
// path as the Go proxy has, fed by package xds.
func TestEnvoyEnforcesHTTP(t *testing.T) {
	w := newEnvoyWorld(t)
	w.enforce(1, landing("POST"))
	w.route(w.serve())
	for _, family := range w.families() {
		t.Run(family.name, func(t *testing.T) { w.requestsAreJudged(t, family) })
	}
	for _, family := range w.families() {
		t.Run("revoked "+family.name, func(t *testing.T) { w.revocationCutsOpenConnections(t, family) })
		t.Run("port taken "+family.name, func(t *testing.T) { w.clientTakesThePortOfALeg(t, family) })
	}
	t.Run("direct", w.directConnectionsAreClosed)
	t.Run("refused", w.refusedRuleIsLeftOut)
	t.Run("forgotten", w.forgottenSetsCloseTheirConnections)
	t.Run("killed", w.withoutEnvoyNothingPasses)
}

const (
	envoySet      = redirect.SetNumber(uint32(policy.ProtocolHTTP)<<24 | 7)
	envoyPort     = 8080
	clientSubject = 1
	serverSubject = 2
	clientID      = policy.Identity(300)
	serverID      = policy.Identity(301)
	envoyTimeout  = 20 * time.Second
	silence       = 1500 * time.Millisecond // a SYN and its repetition
)

// landing lets requests of some methods in, to one path.
func landing(methods ...string) []policy.HTTPRule {
	var rules []policy.HTTPRule
	for i, m := range methods {
		rules = append(rules, policy.HTTPRule{
			Method: m, Path: "/v1/request-landing",
			Ref: policy.Ref{Policy: "default/landing", Path: fmt.Sprintf("ingress[0].toPorts[0].http[%d]", i)},
		})
	}
	return rules
}

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

func (w *envoyWorld) requestsAreJudged(t *testing.T, f envoyFamily) {
	w.t = t
	w.enforce(1, landing("POST"))
	sniffed := w.sniff(f)
	c := w.dial(f)
	defer c.Close()

	answer := c.request("POST", "/v1/request-landing")
	if answer.status != 200 || answer.body != "landed" {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	for name := range answer.header {
		if n := strings.ToLower(name); n == "server" || strings.HasPrefix(n, "x-") {
			t.Errorf("the answer has the header %s", name)
		}
	}
	seen := w.lastSeen()
	if seen.from.Addr() != f.client {
		t.Errorf("the server saw %s, want the client's address %s", seen.from, f.client)
	}
	if want := []string{"Content-Length", "Host"}; !slices.Equal(seen.headers, want) {
		t.Errorf("the server saw the headers %v, want %v", seen.headers, want)
	}
	w.conntrackHasBothLegs(f, c.local(), seen.from)

	for _, request := range [][2]string{{"PUT", "/v1/request-landing"}, {"POST", "/v1/request-landing/x"}, {"POST", "/v1/request-landing?x=1"}} {
		if answer := c.request(request[0], request[1]); answer.status != 403 || answer.body != "Access denied\r\n" {
			t.Errorf("%v was answered %+v, want 403 and Access denied", request, answer)
		}
	}
	if answer := c.request("POST", "/v1/x/..//./request-landing"); answer.status != 200 {
		t.Errorf("a path with another way to write it was answered %+v, want 200", answer)
	}

	w.enforce(2, landing("PUT"))
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 403 {
		t.Errorf("after the change POST on the same connection was answered %+v, want 403", answer)
	}
	if answer := c.request("PUT", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("after the change PUT on the same connection was answered %+v, want 200", answer)
	}
	packets := sniffed()
	if packets[c.local().Port()] == 0 {
		t.Error("no packet for the client was seen at its interface")
	}
	for port, n := range packets {
		if port != c.local().Port() {
			t.Errorf("%d packets for port %d reached the client, which has %d: they are the proxy's", n, port, c.local().Port())
		}
	}
}

// conntrackHasBothLegs: the client's connection with its route, and Envoy's own
// from another port.
func (w *envoyWorld) conntrackHasBothLegs(f envoyFamily, client, leg netip.AddrPort) {
	w.t.Helper()
	server := netip.AddrPortFrom(f.server, envoyPort)
	c, ok := w.gate.Conntrack().Lookup(client, server)
	if !ok || !c.Redirected || c.ProxyLeg || c.Ingress != uint32(envoySet) {
		w.t.Errorf("conntrack has %+v (%t) for the client's connection, want it redirected with its set", c, ok)
	}
	if leg.Port() == client.Port() {
		return
	}
	c, ok = w.gate.Conntrack().Lookup(leg, server)
	if !ok || !c.Redirected || !c.ProxyLeg || !c.SeenReply {
		w.t.Errorf("conntrack has %+v (%t) for Envoy's connection from %s, want the proxy's leg", c, ok, leg)
	}
}

func (w *envoyWorld) directConnectionsAreClosed(t *testing.T) {
	w.t = t
	for _, addr := range []string{"127.0.0.1", "::1"} {
		at := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(w.port))
		c := w.dialFrom(w.nodeNS, at)
		fmt.Fprintf(c, "POST /v1/request-landing HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		if answer, err := io.ReadAll(c); len(answer) > 0 {
			t.Errorf("a connection to %s itself was answered %q (%v), want none", at, answer, err)
		}
		c.Close()
	}
}

func (w *envoyWorld) refusedRuleIsLeftOut(t *testing.T) {
	w.t = t
	w.enforce(3, landing("POST"))
	c := w.dial(w.families()[0])
	defer c.Close()
	// Go's package regexp knows names of classes that Envoy's RE2 does not.
	err := w.tryEnforce(4, append(landing("POST"), policy.HTTPRule{Path: `/\p{Letter}+`}))
	var failed *redirect.SetsError
	if !errors.As(err, &failed) || !strings.Contains(failed.Failed[envoySet], "Letter") {
		t.Fatalf("Enforce gave %v, want Envoy's words about the expression", err)
	}
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("after the refusal POST was answered %+v, want 200 as before", answer)
	}
	if answer := c.request("GET", "/abc"); answer.status != 403 {
		t.Errorf("after the refusal GET was answered %+v, want 403 as before", answer)
	}
	// The same in a set that no listener has yet: Envoy says so when it is served.
	other := redirect.NumberedSet{Number: envoySet + 1, Set: &policy.L7Set{
		ID: policy.SetID{8}, Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: `/\p{Letter}+`}},
	}}
	if err := w.tryEnforce(4, landing("POST"), other); err != nil {
		t.Fatal(err)
	}
	w.mustDo(w.nodeNS, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
		defer cancel()
		_, err := w.backend.Serve(ctx, redirect.Route{Ingress: other.Set.ID})
		return err
	})
	err = w.tryEnforce(4, landing("POST"), other)
	if !errors.As(err, &failed) || !strings.Contains(failed.Failed[other.Number], "Letter") {
		t.Errorf("Enforce gave %v, want Envoy's words about the rule that it refused when it was served", err)
	}
	// Envoy's default would refuse an expression of this size.
	w.enforce(5, append(landing("POST"), policy.HTTPRule{Path: `/big/([0-9a-f]{2,40}-){3,9}`}))
	if answer := c.request("GET", "/big/00-11-22-"); answer.status != 200 {
		t.Errorf("GET by a large expression was answered %+v, want 200", answer)
	}
}

func (w *envoyWorld) forgottenSetsCloseTheirConnections(t *testing.T) {
	w.t = t
	w.enforce(6, landing("POST"))
	c := w.dial(w.families()[0])
	defer c.Close()
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	before := w.requests.Load()
	w.mustDo(w.nodeNS, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), envoyTimeout)
		defer cancel()
		return w.backend.Enforce(ctx, redirect.Snapshot{Revision: 7})
	})
	if answer, err := c.try("POST", "/v1/request-landing"); err == nil && answer.status != 403 {
		t.Errorf("a connection of a set that is gone was answered %+v, want 403", answer)
	}
	c.SetReadDeadline(time.Now().Add(xds.DrainTime + 5*time.Second))
	if _, err := io.Copy(io.Discard, c.reader); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection of a set that is gone stays open")
	}
	if n := w.requests.Load(); n != before {
		t.Errorf("%d requests reached the server by a set that is gone", n-before)
	}
	w.enforce(8, landing("POST"))
	w.route(w.serve())
	again := w.dial(w.families()[1])
	defer again.Close()
	if answer := again.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("POST by a set that is back was answered %+v, want 200", answer)
	}
}

func (w *envoyWorld) withoutEnvoyNothingPasses(t *testing.T) {
	w.t = t
	open := w.dial(w.families()[0])
	defer open.Close()
	if answer := open.request("POST", "/v1/request-landing"); answer.status != 200 {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	accepted, requests := w.accepted.Load(), w.requests.Load()
	w.killEnvoy()
	if answer, err := open.try("POST", "/v1/request-landing"); err == nil {
		t.Errorf("without Envoy an open connection was answered %+v", answer)
	}
	for _, f := range w.families() {
		var c net.Conn
		err := w.clientNS.do(func() (err error) {
			c, err = envoyDialer(silence).Dial("tcp", netip.AddrPortFrom(f.server, envoyPort).String())
			return err
		})
		if err == nil {
			c.Close()
			t.Errorf("without Envoy a connection to %s was made", f.server)
		}
	}
	if a, r := w.accepted.Load(), w.requests.Load(); a != accepted || r != requests {
		t.Errorf("without Envoy %d connections and %d requests reached the server", a-accepted, r-requests)
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
	bootstrap, err := xds.Bootstrap(xds.BootstrapOptions{NodeID: "test", Socket: socket, Admin: filepath.Join(dir, "admin")})
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

// envoyClient is one connection, kept alive.
type envoyClient struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
}

type envoyAnswer struct {
	status int
	header http.Header
	body   string
}

func (w *envoyWorld) dial(f envoyFamily) *envoyClient {
	w.t.Helper()
	return w.dialFrom(w.clientNS, netip.AddrPortFrom(f.server, envoyPort))
}

func (w *envoyWorld) dialFrom(ns *namespace, to netip.AddrPort) *envoyClient {
	return w.dialAs(ns, netip.AddrPort{}, to)
}

// dialAs takes a certain address and port of the client's, if from is valid.
func (w *envoyWorld) dialAs(ns *namespace, from, to netip.AddrPort) *envoyClient {
	w.t.Helper()
	c := &envoyClient{t: w.t}
	d := envoyDialer(envoyTimeout)
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	w.mustDo(ns, func() (err error) {
		c.Conn, err = d.Dial("tcp", to.String())
		return err
	})
	c.reader = bufio.NewReader(c.Conn)
	c.SetDeadline(time.Now().Add(envoyTimeout))
	return c
}

func envoyDialer(timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	d.SetMultipathTCP(false)
	return d
}

func (c *envoyClient) local() netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

func (c *envoyClient) request(method, path string) envoyAnswer {
	c.t.Helper()
	answer, err := c.try(method, path)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (c *envoyClient) try(method, path string) (envoyAnswer, error) {
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: deathstar\r\nContent-Length: 0\r\n\r\n", method, path); err != nil {
		return envoyAnswer{}, err
	}
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return envoyAnswer{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return envoyAnswer{r.StatusCode, r.Header, string(body)}, err
}

// sniff counts the server's TCP packets on the client's interface, by the port
// they are for, until its result is called.
func (w *envoyWorld) sniff(f envoyFamily) func() map[uint16]int {
	w.t.Helper()
	var fd int
	w.mustDo(w.clientNS, func() (err error) {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(all)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	return func() map[uint16]int {
		defer unix.Close(fd)
		ports := map[uint16]int{}
		packet := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
			if err != nil {
				return ports
			}
			if port, ok := tcpPortFor(f, packet[:n]); ok && from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_HOST {
				ports[port]++
			}
		}
	}
}

func tcpPortFor(f envoyFamily, p []byte) (uint16, bool) {
	source, header := 12, 20
	if f.client.Is6() {
		source, header = 8, 40
	}
	length := f.server.BitLen() / 8
	if len(p) < header+4 || p[0]>>4 != map[int]byte{4: 4, 16: 6}[length] {
		return 0, false
	}
	from, _ := netip.AddrFromSlice(p[source : source+length])
	return binary.BigEndian.Uint16(p[header+2:]), from == f.server
}
