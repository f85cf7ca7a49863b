package integration

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestServiceFromOutside has another network reach workloads by a virtual address
// that it routes to the node, and by a port of the node itself.
func TestServiceFromOutside(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, sockets bool) {
		o := n.uplink(t)
		o.routeServices(t)
		server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
		web := server.serveWeb(t, 8080)
		n.serveWeb(t, 9090)
		n.addService(t, "web", 80, "TCP", "--backend", "server:8080", "--node-port", "30080")
		eachVersion(t, func(t *testing.T, v ipVersion) {
			for _, to := range []netip.AddrPort{virtual(v, 80), netip.AddrPortFrom(nodeAddr(v), 30080)} {
				web.forget()
				s := o.mustOpen(t, to)
				s.mustAsk(t, "GET", "/free", 200)
				seenAs(t, web, "/free", endOf(s.LocalAddr()))
				s.mustAsk(t, "GET", "/large?bytes=3000000", 200)

				n.apply(t, allow("rule", "server", fromApp("client"), 8080))
				s.staysSilent(t)
				o.mustNotConnect(t, to)
				client.mustAsk(t, to, "GET", "/inside", 200)
				n.apply(t, allow("rule", "server", "fromEntities: [world]", 8080))
				o.mustAsk(t, to, "GET", "/world", 200)
				n.apply(t, allow("rule", "server", "fromEntities: [world]", 8080, httpRule{"GET", "/l7"}))
				s = o.mustOpen(t, to)
				s.mustAsk(t, "GET", "/l7", 200)
				seenAs(t, web, "/l7", endOf(s.LocalAddr()))
				s.mustAsk(t, "GET", "/other", 403)
				n.withdraw(t, allow("rule", "server", "fromEntities: [world]", 8080))
			}
			o.mustNotConnect(t, virtual(v, 81))
			o.mustAsk(t, netip.AddrPortFrom(nodeAddr(v), 9090), "GET", "/the-host's", 200)
			if sockets {
				n.mustAsk(t, netip.AddrPortFrom(nodeAddr(v), 30080), "GET", "/host", 200)
				loopback := map[ipVersion]string{4: "127.0.0.1:30080", 6: "[::1]:30080"}[v]
				n.mustAsk(t, netip.MustParseAddrPort(loopback), "GET", "/loopback", 200)
			}
		})
	})
}

// TestServiceDatagramsFromOutside: answers carry the address that was asked, also in
// fragments.
func TestServiceDatagramsFromOutside(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	o.routeServices(t)
	server := n.workload(t, "server", "app=server")
	socket := server.listenUDP(t, 5353)
	n.addService(t, "names", 53, "UDP", "--backend", "server:5353", "--node-port", "30053")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, to := range []netip.AddrPort{virtual(v, 53), netip.AddrPortFrom(nodeAddr(v), 30053)} {
			c := o.mustTalk(t, to)
			for _, what := range []string{"one", "two", strings.Repeat("long", 700)} {
				send(t, c, what)
				if len(what) > 2000 {
					what = what[:2048] // as much as is read
				}
				answerQuestion(t, socket, what)
				datagram(t, c, ("re: " + what)[:min(len(what)+4, 2048)])
			}
		}
	})
}

// TestServiceOfOutside has workloads reach another network by a virtual address, and
// be allowed to by what is behind it.
func TestServiceOfOutside(t *testing.T) {
	eachWay(t, func(t *testing.T, n *node, _ bool) {
		o := n.uplink(t)
		client := n.workload(t, "client", "app=client")
		web := o.serveWeb(t, 8080)
		n.addService(t, "far", 80, "TCP", "--backend", o.at(4, 8080).String(), "--backend", o.at(6, 8080).String())
		eachVersion(t, func(t *testing.T, v ipVersion) {
			s := client.mustOpen(t, virtual(v, 80))
			s.mustAsk(t, "GET", "/free", 200)
			seenAs(t, web, "/free", netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port()))
			rule := allow("rule", "client", "toServices: [{k8sService: {serviceName: far, namespace: default}}]", 8080)
			n.apply(t, rule)
			s.mustAsk(t, "GET", "/service", 200)
			client.mustAsk(t, o.at(v, 8080), "GET", "/itself", 200)
			n.apply(t, allow("rule", "client", "toServices: [{k8sService: {serviceName: far, namespace: other}}]", 8080))
			client.mustNotConnect(t, virtual(v, 80))
			n.withdraw(t, rule)
		})
		// And other networks, by a port of the node: they see the node in each other's place.
		n.headgate(t, "service", "add", "ported", "--vip", "10.96.0.50:80/TCP", "--vip", "[fd00:96::50]:80/TCP",
			"--backend", o.at(4, 8080).String(), "--backend", o.at(6, 8080).String(), "--node-port", "30081")
		eachVersion(t, func(t *testing.T, v ipVersion) {
			s := o.mustOpen(t, netip.AddrPortFrom(nodeAddr(v), 30081))
			s.mustAsk(t, "GET", "/ported", 200)
			seenAs(t, web, "/ported", netip.AddrPortFrom(nodeAddr(v), endOf(s.LocalAddr()).Port()))
			s.mustAsk(t, "GET", "/large?bytes=3000000", 200)
		})
		self := n.try(t, "", "service", "add", "self", "--vip", "10.96.0.51:80/TCP", "--backend", nodeAddr(4).String()+":80", "--node-port", "30082")
		if self.code != 1 || !strings.Contains(self.stderr, "this machine itself") {
			t.Errorf("a node port to the node: exit code %d: %s", self.code, self.stderr)
		}
	})
}

// routeServices has the outside send virtual addresses to the node.
func (o *outside) routeServices(t *testing.T) {
	t.Helper()
	err := o.do(func() error {
		link, err := netlink.LinkByName("down0")
		if err != nil {
			return err
		}
		for _, v := range []ipVersion{4, 6} {
			to := &net.IPNet{IP: virtual(v, 0).Addr().AsSlice(), Mask: net.CIDRMask(virtual(v, 0).Addr().BitLen(), virtual(v, 0).Addr().BitLen())}
			err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: nodeAddr(v).AsSlice()}))
		}
		return err
	})
	if err != nil {
		t.Fatal("route virtual addresses to the node:", err)
	}
}
