package integration

import (
	"net/netip"
	"os/exec"
	"testing"
)

// TestOutside has workloads talk to another network, which sees the node in their
// place, under no policy, L3/L4 and L7 rules.
func TestOutside(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	client := n.workload(t, "client", "app=client")
	web := o.serveWeb(t, 80)
	echo := o.listenUDP(t, 9000)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("TCP", func(t *testing.T) { outsideTCP(t, n, client, o.at(v, 80), web, v) })
		t.Run("UDP", func(t *testing.T) {
			c := client.mustTalk(t, netip.AddrPortFrom(routerAddr(v), 9000)) // the socket answers from there
			send(t, c, "question")
			peer := datagram(t, echo, "question")
			if peer != netip.AddrPortFrom(nodeAddr(v), endOf(c.LocalAddr()).Port()) {
				t.Errorf("the server sees %s, the client is %s", peer, c.LocalAddr())
			}
			answerTo(t, echo, peer, "answer")
			datagram(t, c, "answer")
		})
		t.Run("ping", func(t *testing.T) { client.mustPing(t, farAddr(v)) })
	})
}

func outsideTCP(t *testing.T, n *node, client *workload, to netip.AddrPort, web *webServer, v ipVersion) {
	web.forget()
	s := client.mustOpen(t, to)
	s.mustAsk(t, "GET", "/free", 200)
	seenAs(t, web, "/free", netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port()))
	s.mustAsk(t, "GET", "/large?bytes=10000000", 200)

	n.apply(t, allow("rule", "client", "toEntities: [host]", 80))
	client.mustNotConnect(t, to)
	s.staysSilent(t)
	n.apply(t, allow("rule", "client", "toEntities: [world]", 80))
	s = client.mustOpen(t, to)
	s.mustAsk(t, "GET", "/world", 200)
	n.apply(t, allow("rule", "client", "toCIDR: ["+netip.PrefixFrom(to.Addr(), to.Addr().BitLen()).String()+"]", 80))
	s.mustAsk(t, "GET", "/cidr", 200)

	n.apply(t, allow("rule", "client", "toEntities: [world]", 80, httpRule{"GET", "/l7"}))
	s.isReset(t)
	web.forget()
	s = client.mustOpen(t, to)
	s.mustAsk(t, "GET", "/l7", 200)
	seenAs(t, web, "/l7", netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port()))
	s.mustAsk(t, "GET", "/other", 403)
	n.requestIsReported(t, endOf(s.LocalAddr()), "/other", "k8s:app=client", "reserved:world")
	n.withdraw(t, allow("rule", "client", "toEntities: [world]", 80))
}

// seenAs wants that the server's last request is this one, from there.
func seenAs(t *testing.T, web *webServer, path string, from netip.AddrPort) {
	t.Helper()
	seen := web.requests()
	if len(seen) == 0 {
		t.Fatal("the server saw nothing")
	}
	if r := seen[len(seen)-1]; r.path != path || r.from != from {
		t.Errorf("the server saw %s from %s, want %s from %s", r.path, r.from, path, from)
	}
}

// mustPing wants an answer.
func (n *namespace) mustPing(t *testing.T, to netip.Addr, args ...string) {
	t.Helper()
	var out []byte
	cmd := exec.Command("ping", append([]string{"-n", "-c", "1", "-W", "5", to.String()}, args...)...)
	err := n.do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}
