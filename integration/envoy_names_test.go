package integration

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// stampTo hands connections to names over to the listener that adds a header to answers.
func stampTo(names ...string) string {
	return toNames(`    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: ways}, name: stamp}`, names...)
}

// TestEnvoyNames has workloads go where names lead on a node whose HTTP is judged by
// Envoy: headgate's own proxy carries the questions and learns the names beside it.
func TestEnvoyNames(t *testing.T) {
	t.Parallel()
	n := startNode(t, envoyFlags(t, "--envoy-max-listeners", "6")...)
	o := n.uplink(t)
	var ttl atomic.Uint32
	ttl.Store(300)
	o.serveNames(t, &ttl)
	web := o.serveWeb(t, 80)
	client := n.workload(t, "client", "app=client")
	a := o.asker(t, client)
	plain := namePolicy("p", "client", toNames(port80, "*.example.com"))
	n.apply(t, plain)

	t.Run("ports", func(t *testing.T) {
		eachVersion(t, func(t *testing.T, v ipVersion) {
			client.mustNotConnect(t, netip.AddrPortFrom(named(v, 1), 80))
			client.mustAsk(t, netip.AddrPortFrom(a.mustAsk(t, "n1.example.com", v), 80), "GET", "/", 200)
			a.mustAsk(t, "n2.example.org", v)
			client.mustNotConnect(t, netip.AddrPortFrom(named(v, 2), 80))
		})
	})
	t.Run("requests", func(t *testing.T) {
		fqdnRequests(t, n, a, client)
		at := netip.AddrPortFrom(a.mustAsk(t, "n8.example.com", 6), 80)
		web.forget()
		client.mustAsk(t, at, "GET", "/a", 200)
		if seen := web.requests(); len(seen) != 1 || seen[0].from.Addr() != nodeAddr(6) {
			t.Errorf("the server saw %v, want one request of the node", seen)
		}
		client.mustAsk(t, at, "GET", "/c", 403)
	})
	t.Run("without agent", func(t *testing.T) {
		n.killAgent()
		at := netip.AddrPortFrom(a.mustAsk(t, "n28.example.com", 4), 80)
		client.mustAsk(t, at, "GET", "/a", 200)
		client.mustAsk(t, at, "GET", "/c", 403)
		n.startAgent(t)
		client.mustAsk(t, at, "GET", "/b", 200)
	})
	t.Run("without the proxy of questions", func(t *testing.T) {
		kill(t, n.ownProxy(t))
		at := netip.AddrPortFrom(named(4, 28), 80)
		client.mustAsk(t, at, "GET", "/a", 200) // Envoy goes on
		client.mustAsk(t, at, "GET", "/c", 403)
		eventually(t, patience, "answers by the next one", func() error {
			answer, err := ask(client.namespace, o.at(4, 53), "udp", "n38.example.com.", dns.TypeA, time.Second) // one is lost if nobody is there
			if err == nil && len(answer.Answer) != 1 {
				err = fmt.Errorf("the answer is %v", answer)
			}
			return err
		})
		client.mustAsk(t, netip.AddrPortFrom(named(4, 38), 80), "GET", "/a", 200)
	})
	t.Run("a listener", func(t *testing.T) {
		for _, stamp := range []string{"one", "two"} {
			n.apply(t, envoyConfig(stamp, netip.AddrPortFrom(farAddr(4), 80)), namePolicy("p", "client", stampTo("*.example.com")))
			for _, v := range []ipVersion{4, 6} {
				at := netip.AddrPortFrom(a.mustAsk(t, "n1.example.com", v), 80)
				if answer := client.curl(t, at, "/x"); !strings.Contains(answer, "200 OK") || !strings.Contains(answer, "x-stamp: "+stamp) {
					t.Errorf("the answer is %s", answer)
				}
			}
		}
		n.apply(t, plain)
		if answer := client.curl(t, netip.AddrPortFrom(named(4, 1), 80), "/x"); strings.Contains(answer, "x-stamp") {
			t.Errorf("without a listener the answer is %s", answer)
		}
	})
	t.Run("too many", func(t *testing.T) {
		var rules []string
		for i := range 7 {
			rules = append(rules, toNames(fmt.Sprintf(`    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: "/%d"}]}}]`, i), fmt.Sprintf("n%d.example.com", i)))
		}
		got := n.try(t, namePolicy("p", "client", rules...), "policy", "apply", "-f", "-")
		if got.code != 1 || !strings.Contains(got.stderr, "--envoy-max-listeners") {
			t.Errorf("more listeners than there may be: exit code %d, %s", got.code, got.stderr)
		}
		client.mustAsk(t, netip.AddrPortFrom(named(4, 1), 80), "GET", "/", 200)
	})
}

// ownProxy is the process of headgate's own proxy beside Envoy, as the agent last told.
func (n *node) ownProxy(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(n.agentLog())
	if err != nil {
		t.Fatal(err)
	}
	all := proxyProcess.FindAllSubmatch(text, -1)
	if len(all) == 0 {
		t.Fatal("no proxy was started")
	}
	pid, err := strconv.Atoi(string(all[len(all)-1][1]))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

var proxyProcess = regexp.MustCompile(`msg="proxy (?:started|adopted)" pid=(\d+)`)
