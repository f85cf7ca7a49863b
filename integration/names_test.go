package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// lookUp asks the gateway for a name, over UDP or TCP, and says what it answers.
func lookUp(from *namespace, v ipVersion, network, name string, within time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	kind := unix.SOCK_DGRAM
	if network == "tcp" {
		kind = unix.SOCK_STREAM
	}
	c, err := from.connect(ctx, kind, netip.AddrPort{}, netip.AddrPortFrom(gateway(v), 53))
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(within))
	conn := &dns.Conn{Conn: c}
	qtype := dns.TypeA
	if v == 6 {
		qtype = dns.TypeAAAA
	}
	if err := conn.WriteMsg(new(dns.Msg).SetQuestion(name, qtype)); err != nil {
		return "", err
	}
	a, err := conn.ReadMsg()
	if err != nil {
		return "", err
	}
	out := []string{dns.RcodeToString[a.Rcode]}
	for _, rr := range a.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(out, " "), nil
}

// resolves wants an answer; it may take a moment until it is the right one.
func resolves(t *testing.T, from *namespace, v ipVersion, name, want string) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		eventually(t, patience, name+" is "+want, func() error {
			got, err := lookUp(from, v, network, name, time.Second)
			if err == nil && got != want {
				err = fmt.Errorf("%s over %s: %s", name, network, got)
			}
			return err
		})
	}
}

// TestNames has workloads ask for names of services, of endpoints and of the world,
// with an agent and without, under policy.
func TestNames(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--dns", "on", "--dns-upstream", "127.0.0.1:5300")
	serveWorld(t, n.namespace)
	server, w := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	n.addService(t, "web", 80, "TCP", "--backend", "server")
	service, endpoint := "web.default.svc.cluster.local.", "server.default.endpoint.cluster.local."
	eachVersion(t, func(t *testing.T, v ipVersion) {
		resolves(t, w.namespace, v, service, "NOERROR "+virtual(v, 80).Addr().String())
		resolves(t, w.namespace, v, endpoint, "NOERROR "+server.addr(v).String())
		resolves(t, w.namespace, v, "nobody.default.svc.cluster.local.", "NXDOMAIN")
		resolves(t, w.namespace, v, "www.example.com.", map[ipVersion]string{4: "NOERROR 192.0.2.7", 6: "NOERROR 2001:db8::7"}[v])
	})
	n.headgate(t, "service", "add", "all", "--headless", "--selector", "app=server", "--port", "http=8080/TCP")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		resolves(t, w.namespace, v, "all.default.svc.cluster.local.", "NOERROR "+server.addr(v).String())
		resolves(t, w.namespace, v, "server.all.default.svc.cluster.local.", "NOERROR "+server.addr(v).String())
		resolves(t, w.namespace, v, "_http._tcp.all.default.svc.cluster.local.", "NOERROR")
	})
	n.headgate(t, "service", "delete", "web")
	resolves(t, w.namespace, 4, service, "NXDOMAIN")
	n.addService(t, "web", 80, "TCP", "--backend", "server")

	// It is the host that answers: whoever may not reach it gets no names.
	n.apply(t, allow("rule", "client", "toEntities: [host]", 8080))
	if got, err := lookUp(w.namespace, 4, "udp", service, refusalTime); !isTimeout(err) {
		t.Errorf("got %q, %v, and policy denies it", got, err)
	}
	names := strings.ReplaceAll(allow("rule", "client", "toEntities: [host]", 53), "protocol: TCP", "protocol: ANY")
	n.apply(t, names)
	resolves(t, w.namespace, 6, service, "NOERROR "+virtual(6, 80).Addr().String())

	n.killAgent()
	resolves(t, w.namespace, 4, service, "NOERROR "+virtual(4, 80).Addr().String())
	n.startAgent(t)
	resolves(t, w.namespace, 4, service, "NOERROR "+virtual(4, 80).Addr().String())
	pid := n.proxyPID(t)
	kill(t, pid)
	eventually(t, patience, "another proxy", func() error { return n.wellWithout(t, pid) })
	resolves(t, w.namespace, 4, service, "NOERROR "+virtual(4, 80).Addr().String())
	eventually(t, patience, "status says that names are served", func() error {
		if s := n.headgate(t, "status"); !strings.Contains(s, "served") {
			return errors.New(s)
		}
		return nil
	})
}

// serveWorld is a name server for the rest of the world, on the node.
func serveWorld(t *testing.T, n *namespace) {
	t.Helper()
	var packets net.PacketConn
	var stream net.Listener
	err := n.do(func() (err error) {
		if packets, err = net.ListenPacket("udp", "127.0.0.1:5300"); err == nil {
			stream, err = net.Listen("tcp", "127.0.0.1:5300")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		for _, text := range []string{"A 192.0.2.7", "AAAA 2001:db8::7"} {
			rr, err := dns.NewRR(q.Question[0].Name + " 60 IN " + text)
			if err == nil && rr.Header().Rrtype == q.Question[0].Qtype {
				a.Answer = append(a.Answer, rr)
			}
		}
		_ = w.WriteMsg(a)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: stream, Handler: answer}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}

// TestNamesByResolvConf has a program ask as programs do, in a named namespace.
func TestNamesByResolvConf(t *testing.T) {
	t.Parallel()
	ip := needProgram(t, "ip")
	curl := needProgram(t, "curl")
	name := fmt.Sprintf("hgt-%d", os.Getpid())
	file := filepath.Join("/etc/netns", name, "resolv.conf")
	t.Cleanup(func() { // that is after the node's own, which cleans up
		if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
			t.Errorf("%s is left after cleanup: %v", filepath.Dir(file), err)
		}
	})
	n := startNode(t, "--dns", "on")
	server := n.workload(t, "deathstar", "app=server")
	server.serveWeb(t, 8080)
	n.addService(t, "deathstar", 80, "TCP", "--backend", "deathstar:8080")
	if out, err := exec.Command(ip, "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(ip, "netns", "delete", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns delete: %v: %s", err, out)
		}
	})
	n.headgate(t, "endpoint", "add", "tiefighter", "--netns", name, "--resolv-conf", "--label", "app=client")
	n.apply(t, allow("rule", "server", fromApp("client"), 8080, httpRule{"GET", "/v1/request-landing"}))
	for host, path := range map[string]string{
		"deathstar.default.svc.cluster.local": "/v1/request-landing", "deathstar.default": "/v1/request-landing", "deathstar": "/v1/request-landing",
	} {
		for _, v := range []string{"-4", "-6"} {
			out, err := exec.Command(ip, "netns", "exec", name, curl, v, "-sS", "-o", "/dev/null", "-m", "120", "-w", "%{http_code}", "http://"+host+path).CombinedOutput()
			if err != nil || string(out) != "200" {
				t.Errorf("curl %s %s: %v: %s", v, host, err, out)
			}
		}
	}
	o := n.try(t, "", "endpoint", "add", "again", "--netns", server.path, "--resolv-conf")
	if o.code != 1 || !strings.Contains(o.stderr, "with a name") {
		t.Errorf("resolv.conf for a path: exit code %d: %s", o.code, o.stderr)
	}
	n.headgate(t, "endpoint", "delete", "tiefighter")
	if _, err := os.Stat(filepath.Dir(file)); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", filepath.Dir(file), err)
	}
	n.headgate(t, "endpoint", "add", "tiefighter", "--netns", name, "--resolv-conf")
}
