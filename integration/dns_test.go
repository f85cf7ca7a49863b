package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// unboundConfig is a server that knows a zone by heart, and has no root to ask.
const unboundConfig = `server:
  interface: %[2]s
  interface: %[3]s
  port: 53
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "%[1]s"
  pidfile: "%[1]s/pid"
  use-syslog: no
  logfile: ""
  verbosity: 0
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  module-config: "iterator"
  rrset-roundrobin: no
  minimal-responses: no
  local-zone: "example.org." static
  local-data: "www.example.org. 60 IN A 192.0.2.80"
  local-data: "www.example.org. 60 IN AAAA 2001:db8::80"
  local-data: "other.example.org. 60 IN A 192.0.2.81"
  local-data: "deep.api.example.org. 60 IN A 192.0.2.82"
%[4]sremote-control:
  control-enable: no
`

// serveUnbound starts a name server on a workload.
func (w *workload) serveUnbound(t *testing.T, more string) {
	t.Helper()
	unbound := needProgram(t, "unbound")
	dir, err := os.MkdirTemp(baseDir, "unbound")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "unbound.conf")
	text := fmt.Sprintf(unboundConfig, dir, w.addr(4), w.addr(6), more)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.daemon(t, filepath.Join(dir, "log"), unbound, "-d", "-d", "-c", file)
	eventually(t, patience, "unbound answers", func() error {
		_, err := ask(w.namespace, w.at(4, 53), "udp", "www.example.org.", dns.TypeA, time.Second)
		return err
	})
}

// daemon runs a program on the workload until the test ends, and shows what it logged if
// that fails.
func (w *workload) daemon(t *testing.T, logFile string, command ...string) {
	t.Helper()
	log, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	c, err := w.start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.end(syscall.SIGKILL, patience)
		if text, err := os.ReadFile(logFile); t.Failed() && err == nil && len(text) > 0 {
			t.Logf("%s:\n%s", filepath.Base(command[0]), text[max(0, len(text)-2<<10):])
		}
	})
}

// ask puts one question, and wants one answer.
func ask(from *namespace, server netip.AddrPort, network, name string, qtype uint16, within time.Duration) (*dns.Msg, error) {
	return exchange(from, server, network, new(dns.Msg).SetQuestion(name, qtype), within)
}

func exchange(from *namespace, server netip.AddrPort, network string, q *dns.Msg, within time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	kind := unix.SOCK_DGRAM
	if network == "tcp" {
		kind = unix.SOCK_STREAM
	}
	c, err := from.connect(ctx, kind, netip.AddrPort{}, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return converse(c, q, within)
}

func converse(c net.Conn, q *dns.Msg, within time.Duration) (*dns.Msg, error) {
	_ = c.SetDeadline(time.Now().Add(within))
	conn := &dns.Conn{Conn: c, UDPSize: 4096}
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	a, err := conn.ReadMsg()
	if err != nil {
		return nil, err
	}
	if a.Id != q.Id || len(a.Question) != 1 || a.Question[0] != q.Question[0] {
		return a, fmt.Errorf("the answer is to %v and not to %v", a.Question, q.Question)
	}
	return a, nil
}

// dnsRules is a policy that lets an app ask names, of servers that are another app.
func dnsRules(app, server string, rules ...string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  egress:
  - toEndpoints: [{matchLabels: {app: %s}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules:
        dns: [%s]
`, app, server, strings.Join(rules, ", "))
}

// TestDNS has real clients ask a real server, under rules for names.
func TestDNS(t *testing.T) { eachBackend(t, testDNS) }

// resolving is a node with a name server and a client that may ask it for some names.
type resolving struct {
	*node
	server, client, forger *workload
}

const allowedNames = `{matchName: "www.example.org"}, {matchPattern: "*.api.example.org"}, {matchName: "big.example.org"}, {matchName: "web.example.org"}`

func testDNS(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	r := &resolving{node: n, server: n.workload(t, "resolver", "app=dns"), client: n.workload(t, "client", "app=client")}
	web := fmt.Sprintf("  local-data: \"web.example.org. 60 IN A %s\"\n  local-data: \"web.example.org. 60 IN AAAA %s\"\n", r.server.addr(4), r.server.addr(6))
	for i := range 12 {
		web += fmt.Sprintf("  local-data: 'big.example.org. 60 IN TXT \"%d%s\"'\n", i, strings.Repeat("x", 200))
	}
	r.server.serveUnbound(t, web)
	n.apply(t, dnsRules("client", "dns", allowedNames))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(network, func(t *testing.T) { judgedNames(t, r.client.namespace, r.server.at(v, 53), network) })
		}
	})
	t.Run("seen", r.seen)
	if b.name != ownBackend.name {
		return // it is the same proxy
	}
	t.Run("cut", r.cut)
	t.Run("programs", r.programs)
	t.Run("one socket", r.oneSocket)
	t.Run("hostile", r.hostile)
	t.Run("without agent", r.withoutAgent)
	t.Run("replaced", r.replaced)
	t.Run("without proxy", r.withoutProxy)
}

// judgedNames asks what is allowed, and what is not.
func judgedNames(t *testing.T, from *namespace, server netip.AddrPort, network string) {
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"www.example.org.", dns.TypeA, "NOERROR 192.0.2.80"},
		{"WwW.eXaMpLe.OrG.", dns.TypeA, "NOERROR 192.0.2.80"},
		{"www.example.org.", dns.TypeAAAA, "NOERROR 2001:db8::80"},
		{"deep.api.example.org.", dns.TypeA, "NOERROR 192.0.2.82"},
		{"none.api.example.org.", dns.TypeA, "NXDOMAIN"},
		{"other.example.org.", dns.TypeA, "REFUSED"},
		{"api.example.org.", dns.TypeA, "REFUSED"},
		{"a.deep.api.example.org.", dns.TypeA, "REFUSED"},
		{"www.example.org.evil.example.", dns.TypeA, "REFUSED"},
		{`www\\.example.org.`, dns.TypeA, "REFUSED"},
		{"org.", dns.TypeNS, "REFUSED"},
		{".", dns.TypeNS, "REFUSED"},
	} {
		a, err := ask(from, server, network, c.name, c.typ, patience)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := dns.RcodeToString[a.Rcode]
		for _, rr := range a.Answer {
			got += " " + strings.TrimPrefix(rr.String(), rr.Header().String())
		}
		if got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, dns.TypeToString[c.typ], got, c.want)
		}
	}
}
