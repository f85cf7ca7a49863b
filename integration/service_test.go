package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// perPacket are the flags of a node on which no socket is given a backend when it
// connects.
var perPacket = []string{"--cgroup-root", "off"}

// eachWay runs a test with services translated where sockets connect, and per packet.
func eachWay(t *testing.T, f func(t *testing.T, n *node, sockets bool)) {
	for name, flags := range map[string][]string{"sockets": nil, "packets": perPacket} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, startNode(t, flags...), name == "sockets")
		})
	}
}

// virtual is an address that nothing on the node has.
func virtual(v ipVersion, port int) netip.AddrPort {
	if v == 6 {
		return netip.AddrPortFrom(netip.MustParseAddr("fd00:96::10"), uint16(port))
	}
	return netip.AddrPortFrom(netip.MustParseAddr("10.96.0.10"), uint16(port))
}

// addService adds one at both virtual addresses.
func (n *node) addService(t *testing.T, name string, port int, proto string, args ...string) {
	t.Helper()
	command := []string{"service", "add", name}
	for _, v := range []ipVersion{4, 6} {
		command = append(command, "--vip", fmt.Sprintf("%s/%s", virtual(v, port), proto))
	}
	n.headgate(t, append(command, args...)...)
}

// TestServices has workloads reach others by a virtual address, under L3/L4 and L7
// policy, which judges the backend.
func TestServices(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, sockets bool) {
		server := n.workload(t, "server", "app=server", "--port=web=8080/TCP")
		client, stranger := n.workload(t, "client", "app=client"), n.workload(t, "stranger", "app=stranger")
		web := server.serveWeb(t, 8080)
		n.addService(t, "web", 80, "TCP", "--selector", "app=server", "--target-port", "web")
		eachVersion(t, func(t *testing.T, v ipVersion) {
			to := virtual(v, 80)
			s := client.mustOpen(t, to)
			if got := endOf(s.RemoteAddr()); got != to {
				t.Errorf("the client's peer is %s, want %s", got, to)
			}
			r := s.mustAsk(t, "GET", "/a", 200)
			if from := r.header.Get("X-From"); from != s.LocalAddr().String() {
				t.Errorf("the server sees %s, the client is %s", from, s.LocalAddr())
			}
			checkCurl(t, client.namespace, "http://"+to.String()+"/curl")

			n.apply(t, allow("rule", "server", fromApp("client"), 8080))
			s.mustAsk(t, "GET", "/b", 200)
			stranger.mustNotConnect(t, to)
			n.apply(t, allow("rule", "server", fromApp("client"), 80)) // the service's port is nobody's
			client.mustNotConnect(t, to)
			n.apply(t, allow("rule", "server", fromApp("client"), 8080, httpRule{"GET", "/l7"}))
			web.forget()
			l7 := client.mustOpen(t, to)
			l7.mustAsk(t, "GET", "/l7", 200)
			l7.mustAsk(t, "GET", "/other", 403)
			l7.mustAsk(t, "GET", "/l7", 200)
			if got := endOf(l7.RemoteAddr()); got != to {
				t.Errorf("the client's peer is %s behind the proxy, want %s", got, to)
			}
			if seen := web.requests(); len(seen) != 2 || seen[0].from.String() != l7.LocalAddr().String() {
				t.Errorf("the server saw %v of %s", seen, l7.LocalAddr())
			}
			n.withdraw(t, allow("rule", "server", fromApp("client"), 8080))
			hostAsks(t, n, to, sockets)
		})
		n.headgate(t, "service", "delete", "web")
		eachVersion(t, func(t *testing.T, v ipVersion) { // nobody's address now, and no way leads there
			if c, err := client.dial(virtual(v, 80), refusalTime); err == nil {
				c.Close()
				t.Errorf("the service's address %s is still there", virtual(v, 80))
			}
		})
	})
}

// hostAsks has the node's own processes ask: they have sockets only.
func hostAsks(t *testing.T, n *node, to netip.AddrPort, sockets bool) {
	t.Helper()
	if sockets {
		n.mustAsk(t, to, "GET", "/host", 200)
		return
	}
	if c, err := n.dial(to, refusalTime); err == nil {
		c.Close()
		t.Errorf("the host reached %s without its sockets being looked at", to)
	}
}

func checkCurl(t *testing.T, n *namespace, url string) {
	t.Helper()
	cmd := exec.Command(needProgram(t, "curl"), "-sS", "-g", "-o", "/dev/null", "-m", "120", "-w", "%{http_code}", url)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	c, err := n.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if <-c.done; c.err != nil || out.String() != "200" {
		t.Errorf("curl %s: %v: %s", url, c.err, out.String())
	}
}

// TestServiceDatagrams asks over UDP, with sockets that connect and that do not:
// answers come from whom was asked.
func TestServiceDatagrams(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, _ bool) {
		server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
		socket := server.listenUDP(t, 5353)
		n.addService(t, "names", 53, "UDP", "--backend", "server:5353")
		eachVersion(t, func(t *testing.T, v ipVersion) {
			to := virtual(v, 53)
			connected := client.mustTalk(t, to)
			if got := endOf(connected.RemoteAddr()); got != to {
				t.Errorf("the peer is %s, want %s", got, to)
			}
			for _, what := range []string{"one", "two"} {
				send(t, connected, what)
				answerQuestion(t, socket, what)
				datagram(t, connected, "re: "+what)
			}
			var free *net.UDPConn
			err := client.do(func() (err error) {
				free, err = net.ListenUDP("udp", nil)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer free.Close()
			for _, what := range []string{"three", "four"} {
				// The system call must be made in the namespace's own thread: it may be anywhere.
				if _, err := free.WriteToUDPAddrPort([]byte(what), to); err != nil {
					t.Fatal(err)
				}
				answerQuestion(t, socket, what)
				if from := datagram(t, free, "re: "+what); from != to {
					t.Errorf("the answer comes from %s, want %s", from, to)
				}
			}
		})
	})
}

func answerQuestion(t *testing.T, socket *net.UDPConn, question string) {
	t.Helper()
	peer := datagram(t, socket, question)
	if _, err := socket.WriteToUDPAddrPort([]byte("re: "+question), peer); err != nil {
		t.Fatal(err)
	}
}

// TestServiceRefusals: what cannot be served is refused, and said why.
func TestServiceRefusals(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, sockets bool) {
		client := n.workload(t, "client", "app=client")
		client.serveWeb(t, 80)
		n.addService(t, "empty", 80, "TCP")
		n.addService(t, "self", 81, "TCP", "--backend", "client:80")
		eachVersion(t, func(t *testing.T, v ipVersion) {
			for port, reason := range map[int]string{80: "Service backend not found", 82: "Service has no such port"} {
				if !sockets {
					before := n.dropped(t, reason)
					client.mustNotConnect(t, virtual(v, port))
					if n.dropped(t, reason) == before {
						t.Errorf("%s is not counted as %s", virtual(v, port), reason)
					}
					continue
				}
				for _, from := range []*namespace{client.namespace, n.namespace} {
					if c, err := from.dial(virtual(v, port), patience); !errors.Is(err, unix.ECONNREFUSED) {
						if err == nil {
							c.Close()
						}
						t.Errorf("connecting to %s: %v, want a refusal", virtual(v, port), err)
					}
				}
			}
			client.mustAsk(t, virtual(v, 81), "GET", "/self", 200)
			// No policy is about a workload with itself.
			n.apply(t, allow("rule", "client", fromApp("nobody"), 1))
			client.mustAsk(t, virtual(v, 81), "GET", "/self", 200)
			n.withdraw(t, allow("rule", "client", fromApp("nobody"), 1))
		})
		for args, says := range map[string]string{
			"empty --vip 10.96.0.99:80/TCP":                             "exists",
			"other --vip 10.96.0.10:80/TCP":                             "the address of service default/empty",
			"other --vip 10.210.7.7:80/TCP":                             "an endpoint's address",
			"other --vip 10.96.0.11:80/TCP --backend nobody":            "default/nobody does not exist",
			"other --vip 10.96.0.11:80/TCP --backend 10.96.0.10:80":     "the address of service default/empty",
			"other --vip 127.0.0.1:80/TCP":                              "no address that a service can have",
			"other.x --vip 10.96.0.11:80/TCP":                           "one label",
			"other --vip 10.96.0.11:80/TCP --vip 10.96.0.11:80/TCP":     "twice",
			"other --vip 10.96.0.11:80/TCP --backend client:UPPER_CASE": "neither a port nor",
		} {
			o := n.try(t, "", append([]string{"service", "add"}, strings.Fields(args)...)...)
			if o.code != 1 || !strings.Contains(o.stderr, says) {
				t.Errorf("service add %s: exit code %d: %s", args, o.code, o.stderr)
			}
		}
	})
}

// TestServiceBackendRemoved takes backends away and gives them back under load:
// connections fail nowhere, and go on where they are.
func TestServiceBackendRemoved(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, sockets bool) {
		var servers []*workload
		var echo []*echoServer
		for _, name := range []string{"one", "two", "three"} {
			w := n.workload(t, name, "app=server")
			w.serveWeb(t, 80)
			echo = append(echo, w.serveEcho(t, 90))
			servers = append(servers, w)
		}
		c := n.workload(t, "client", "app=client")
		n.addService(t, "web", 80, "TCP", "--backend", "one", "--backend", "two", "--backend", "three")
		n.addService(t, "echo", 90, "TCP", "--backend", "one", "--backend", "two", "--backend", "three")
		l := newLoad()
		for _, v := range []ipVersion{4, 6} {
			for i := range 4 {
				l.asks(client{fmt.Sprint(v, " new ", i), c.namespace, virtual(v, 80)}, "/x", 200, false)
				l.echoes(client{fmt.Sprint(v, " kept ", i), c.namespace, virtual(v, 90)})
			}
		}
		for range 3 {
			for _, w := range servers {
				for _, s := range []string{"web", "echo"} {
					n.headgate(t, "service", "backend", "remove", s, w.name)
				}
				time.Sleep(50 * time.Millisecond)
				for _, s := range []string{"web", "echo"} {
					n.headgate(t, "service", "backend", "add", s, w.name)
				}
			}
		}
		l.end(t)
		// What is cut ends, and nothing else does.
		var cut, kept []*session
		for range 200 { // backends are drawn
			s := c.mustOpen(t, virtual(4, 90))
			s.echoes(t)
			if echo[1].end(s.LocalAddr()) != nil {
				cut = append(cut, s)
			} else {
				kept = append(kept, s)
			}
			if len(cut) >= 3 && len(kept) >= 3 {
				break
			}
		}
		if len(cut) < 3 || len(kept) < 3 {
			t.Fatalf("%d connections are with the backend that goes, and %d with others", len(cut), len(kept))
		}
		direct := c.mustOpen(t, servers[1].at(4, 90))
		direct.echoes(t)
		n.headgate(t, "service", "backend", "remove", "echo", "two", "--now")
		direct.echoes(t) // it did not ask for the service
		for _, s := range kept {
			s.echoes(t)
		}
		for _, s := range cut {
			if !sockets {
				s.staysSilent(t)
			} else if line, err := s.exchange(patience); err == nil || isTimeout(err) { // it is told
				t.Errorf("a socket that was cut: got %q, %v", line, err)
			}
		}
	})
}

// TestServiceSurvivesAgent: connections to services, new and open, need no agent, and
// the next one knows and changes nothing.
func TestServiceSurvivesAgent(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, sockets bool) {
		server, w := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
		server.serveWeb(t, 80)
		server.serveEcho(t, 90)
		n.addService(t, "web", 80, "TCP", "--backend", "server", "--affinity", "60", "--label", "tier=front")
		n.addService(t, "echo", 90, "TCP", "--selector", "app=server")
		n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/x"}), allow("echo", "server", fromApp("client"), 90))
		before := n.headgate(t, "service", "list", "-o", "json")
		kernel := n.headgate(t, "bpf", "service", "list", "-o", "json")
		l := newLoad()
		for _, v := range []ipVersion{4, 6} {
			l.asks(client{fmt.Sprint(v, " new"), w.namespace, virtual(v, 80)}, "/x", 200, false)
			l.asks(client{fmt.Sprint(v, " kept"), w.namespace, virtual(v, 80)}, "/x", 200, true)
			l.echoes(client{fmt.Sprint(v, " lines"), w.namespace, virtual(v, 90)})
		}
		for range 2 {
			time.Sleep(300 * time.Millisecond)
			n.killAgent()
			time.Sleep(500 * time.Millisecond)
			if sockets {
				n.mustAskAs(t, virtual(4, 90))
			}
			n.startAgent(t)
		}
		time.Sleep(300 * time.Millisecond)
		l.end(t)
		if after := n.headgate(t, "service", "list", "-o", "json"); after != before {
			t.Errorf("the new agent knows\n%s\nthe one before knew\n%s", after, before)
		}
		if after := n.headgate(t, "bpf", "service", "list", "-o", "json"); after != kernel {
			t.Errorf("the kernel knows\n%s\nand knew\n%s", after, kernel)
		}
	})
}

// mustAskAs has the host connect to a service: policy drops it at the backend, so it
// was translated.
func (n *node) mustAskAs(t *testing.T, to netip.AddrPort) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), refusalTime)
	defer cancel()
	if c, err := n.connect(ctx, unix.SOCK_STREAM, netip.AddrPort{}, to); err == nil {
		c.Close()
		t.Errorf("the host reached %s, which policy denies", to)
	} else if !isTimeout(err) {
		t.Errorf("the host's connection to %s was not dropped: %v", to, err)
	}
}

// TestToServices allows what is behind services, and nothing besides.
func TestToServices(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server, other, w := n.workload(t, "server", "app=server"), n.workload(t, "other", "app=other"), n.workload(t, "client", "app=client")
	server.serveWeb(t, 80)
	other.serveWeb(t, 80)
	n.serveWeb(t, 8080)
	n.addService(t, "web", 80, "TCP", "--selector", "app=server", "--label", "tier=front")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, peer := range []string{
			"toServices: [{k8sService: {serviceName: web, namespace: default}}]",
			"toServices: [{k8sServiceSelector: {selector: {matchLabels: {tier: front}}, namespace: default}}]",
		} {
			n.apply(t, allow("rule", "client", peer, 80))
			w.mustAsk(t, virtual(v, 80), "GET", "/", 200)
			w.mustAsk(t, server.at(v, 80), "GET", "/", 200)
			w.mustNotConnect(t, other.at(v, 80))
		}
	})
	for name, word := range map[string]string{"server": "allowed", "other": "denied"} {
		said := n.headgate(t, "policy", "explain", "--from", "client", "--to", name, "--port", "80/TCP")
		if !strings.HasPrefix(said, word+": ") {
			t.Errorf("the explanation of %s is %s, want %s", name, said, word)
		}
	}
	// Who comes to be behind it is allowed from then on.
	other.label(t, "app=server")
	w.mustAsk(t, other.at(4, 80), "GET", "/", 200)
	other.label(t, "app=other")
	w.mustNotConnect(t, other.at(4, 80))
	n.headgate(t, "service", "delete", "web")
	w.mustNotConnect(t, server.at(4, 80))
}
