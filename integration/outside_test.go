package integration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
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
	echoes := o.serveEcho(t, 7000)
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
		t.Run("reset", func(t *testing.T) { outsideReset(t, n, client, o.at(v, 7000), echoes, v) })
	})
}

// outsideReset ends a translated connection at both ends, whoever speaks first.
func outsideReset(t *testing.T, n *node, client *workload, to netip.AddrPort, echoes *echoServer, v ipVersion) {
	n.config(t, "reset-on-revoke=on")
	defer n.config(t, "reset-on-revoke=off")
	for _, speaks := range []string{"client", "server"} {
		n.apply(t, allow("reset", "client", "toEntities: [world]", 7000))
		s := client.mustOpen(t, to)
		s.echoes(t)
		end := echoes.end(net.TCPAddrFromAddrPort(netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port())))
		n.apply(t, allow("reset", "client", "toEntities: [host]", 7000))
		if speaks == "client" {
			s.isReset(t)
			end.wasReset(t)
		} else {
			end.isReset(t)
			s.isReset(t)
		}
	}
	n.withdraw(t, allow("reset", "client", "toEntities: [world]", 7000))
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
	cmd := exec.Command("ping", append([]string{"-n", "-c", "1", "-W", "30", to.String()}, args...)...)
	err := n.do(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}

// TestFromOutside has another network talk to a workload, under no policy, L3/L4 and
// L7 rules. Both ends keep their addresses.
func TestFromOutside(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	server := n.workload(t, "server", "app=server")
	web := server.serveWeb(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		to := server.at(v, 80)
		s := o.mustOpen(t, to)
		s.mustAsk(t, "GET", "/free", 200)
		seenAs(t, web, "/free", endOf(s.LocalAddr()))
		n.apply(t, allow("rule", "server", "fromEntities: [host]", 80))
		o.mustNotConnect(t, to)
		s.staysSilent(t)
		n.mustAsk(t, to, "GET", "/host", 200)

		n.apply(t, allow("rule", "server", "fromEntities: [world]", 80))
		o.mustAsk(t, to, "GET", "/world", 200)
		n.mustNotConnect(t, to)
		n.apply(t, allow("rule", "server", "fromCIDR: ["+netip.PrefixFrom(routerAddr(v), 24).Masked().String()+"]", 80))
		s = o.mustOpen(t, to)
		s.mustAsk(t, "GET", "/cidr", 200)

		n.apply(t, allow("rule", "server", "fromEntities: [world]", 80, httpRule{"GET", "/l7"}, httpRule{"GET", "/large.*"}))
		s.isReset(t)
		s = o.mustOpen(t, to)
		s.mustAsk(t, "GET", "/l7", 200)
		seenAs(t, web, "/l7", endOf(s.LocalAddr()))
		s.mustAsk(t, "GET", "/other", 403)
		s.mustAsk(t, "GET", "/large?bytes=10000000", 200)
		n.requestIsReported(t, endOf(s.LocalAddr()), "/other", "reserved:world", "k8s:app=server")
		n.withdraw(t, allow("rule", "server", "fromEntities: [world]", 80))
		o.mustPing(t, server.addr(v))
	})
}

// TestMasqueradeOff has other networks see endpoints by their own addresses; with
// L7 rules as well.
func TestMasqueradeOff(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--masquerade", "off")
	o := n.uplink(t)
	client := n.workload(t, "client", "app=client")
	web := o.serveWeb(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		s := client.mustOpen(t, o.at(v, 80))
		s.mustAsk(t, "GET", "/free", 200)
		seenAs(t, web, "/free", endOf(s.LocalAddr()))
		n.apply(t, allow("rule", "client", "toEntities: [world]", 80, httpRule{"GET", "/l7"}))
		s = client.mustOpen(t, o.at(v, 80))
		s.mustAsk(t, "GET", "/l7", 200)
		seenAs(t, web, "/l7", endOf(s.LocalAddr()))
		s.mustAsk(t, "GET", "/other", 403)
		n.withdraw(t, allow("rule", "client", "toEntities: [world]", 80))
		client.mustPing(t, farAddr(v))
	})
}

// TestNodes has policy name other nodes and the API server, which have addresses in
// the world, in both directions; and translate to all but an excluded network.
func TestNodes(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--remote-node", farAddr(4).String(), "--remote-node", farAddr(6).String(),
		"--kube-apiserver", routerAddr(4).String(), "--kube-apiserver", routerAddr(6).String(),
		"--no-masquerade-cidr", farAddr(4).String()+"/32", "--no-masquerade-cidr", farAddr(6).String()+"/128")
	o := n.uplink(t)
	w := n.workload(t, "web", "app=web")
	w.serveWeb(t, 80)
	web := o.serveWeb(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		far, near := o.at(v, 80), netip.AddrPortFrom(routerAddr(v), 80)
		for entity, reached := range map[string][2]bool{"remote-node": {true, true}, "kube-apiserver": {false, true}, "world": {false, false}} {
			n.apply(t, allow("out", "web", "toEntities: ["+entity+"]", 80), allow("in", "web", "fromEntities: ["+entity+"]", 80))
			for i, to := range []netip.AddrPort{far, near} {
				if !reached[i] {
					w.mustNotConnect(t, to)
					continue
				}
				s := w.mustOpen(t, to)
				s.mustAsk(t, "GET", "/node", 200)
				from := netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port())
				if to == far {
					from = endOf(s.LocalAddr())
				}
				seenAs(t, web, "/node", from)
			}
			if reached[1] { // from the router's address, the API server's
				o.mustAsk(t, w.at(v, 80), "GET", "/in", 200)
			} else {
				o.mustNotConnect(t, w.at(v, 80))
			}
			n.withdraw(t, allow("out", "web", "toEntities: ["+entity+"]", 80), allow("in", "web", "fromEntities: ["+entity+"]", 80))
		}
	})
}

// TestTranslation is about the node's ports: two endpoints with the same one, none
// left, and what 'headgate bpf nat list' shows of it.
func TestTranslation(t *testing.T) {
	t.Parallel()
	n := startNode(t, "--masquerade-ports", "20000-20002")
	o := n.uplink(t)
	var clients []*workload
	for i := range 5 {
		clients = append(clients, n.workload(t, fmt.Sprintf("client-%d", i)))
	}
	o.serveEcho(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		const port = 33333
		var open []*session
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, c := range clients[:4] {
			conn, err := c.connect(ctx, unix.SOCK_STREAM, netip.AddrPortFrom(c.addr(v), port), o.at(v, 80))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			open = append(open, &session{conn, bufio.NewReader(conn)})
		}
		for _, s := range open {
			s.echoes(t)
		}
		for _, p := range []int{port, 20000, 20001, 20002} {
			if want := netip.AddrPortFrom(nodeAddr(v), uint16(p)).String(); !strings.Contains(n.headgate(t, "bpf", "nat", "list"), want+" ") {
				t.Errorf("nobody holds %s", want)
			}
		}
		before := n.dropped(t, "No mapping for NAT masquerade")
		short, stop := context.WithTimeout(context.Background(), refusalTime)
		defer stop()
		last := clients[4]
		if c, err := last.connect(short, unix.SOCK_STREAM, netip.AddrPortFrom(last.addr(v), port), o.at(v, 80)); !isTimeout(err) {
			t.Errorf("a fifth connection: %v, %v", c, err)
		}
		if now := n.dropped(t, "No mapping for NAT masquerade"); now <= before {
			t.Errorf("%d drops, before %d", now, before)
		}
		for _, s := range open {
			s.echoes(t)
		}
		last.mustOpen(t, o.at(v, 80)).echoes(t) // by a port of its own
	})
}

// TestOutsideWithoutAgent kills the agent while translated connections run, open and
// close, and starts another.
func TestOutsideWithoutAgent(t *testing.T) {
	n := startNode(t)
	o := n.uplink(t)
	w := n.workload(t, "client", "app=client")
	n.workload(t, "other", "app=other")
	o.serveEcho(t, 90)
	o.serveWeb(t, 80)
	n.apply(t, allow("http", "client", "toEntities: [world]", 80, httpRule{"GET", "/allowed"}), allow("raw", "client", "toEntities: [world]", 90))
	l := newLoad()
	for _, v := range []ipVersion{4, 6} {
		l.echoes(client{v.String(), w.namespace, o.at(v, 90)})
		l.asks(client{v.String(), w.namespace, o.at(v, 80)}, "/allowed", 200, true)
		l.asks(client{v.String(), w.namespace, o.at(v, 80)}, "/allowed", 200, false)
		l.asks(client{v.String(), w.namespace, o.at(v, 80)}, "/denied", 403, false)
	}
	for range 2 {
		time.Sleep(300 * time.Millisecond) // of load, with an agent and without
		n.killAgent()
		time.Sleep(700 * time.Millisecond)
		n.startAgent(t)
	}
	time.Sleep(300 * time.Millisecond)
	l.end(t)
}

// TestNodeAddressChanges gives the node another address while it runs: new
// connections go out by it, and policy knows it as the host's.
func TestNodeAddressChanges(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	w := n.workload(t, "client", "app=client")
	web := o.serveWeb(t, 80)
	next := netip.MustParseAddr("192.0.2.99")
	w.mustAsk(t, o.at(4, 80), "GET", "/before", 200)
	err := n.do(func() error {
		link, err := netlink.LinkByName(uplinkName)
		if err != nil {
			return err
		}
		on := func(a netip.Addr) *netlink.Addr {
			return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}}
		}
		return errors.Join(netlink.AddrAdd(link, on(next)), netlink.AddrDel(link, on(nodeAddr(4))),
			ignoreExists(netlink.AddrAdd(link, on(next))),
			netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: anywhere(4), Gw: routerAddr(4).AsSlice()}))
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*patience, "connections by the new address", func() error {
		s, err := w.open(o.at(4, 80), time.Second)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := s.ask("GET", "/after", ""); err != nil {
			return err
		}
		if seen := web.requests(); seen[len(seen)-1].from.Addr() != next {
			return fmt.Errorf("the server sees %s", seen[len(seen)-1].from)
		}
		return nil
	})
	n.serveWeb(t, 8080)
	n.apply(t, allow("rule", "client", "toEntities: [host]", 8080))
	eventually(t, patience, "the new address known as the host's", func() error {
		c, err := w.dial(netip.AddrPortFrom(next, 8080), time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func ignoreExists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
