package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestNamespaceGone deletes the network namespaces of endpoints, with an agent and
// without. They are forgotten, and their addresses are free again.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.workload(t, "stays", "app=stays")
	goes := n.workload(t, "goes", "app=goes", "--ip", "10.210.50.1", "--ip", "fd00:210::50")
	goes.close()
	eventually(t, patience, "the endpoint is noticed to be gone", func() error { return n.forgot(t, "goes") })
	again := n.workload(t, "again", "app=goes", "--ip", "10.210.50.1", "--ip", "fd00:210::50")
	web := again.serveWeb(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) { n.mustAsk(t, again.at(v, 80), "GET", "/", 200) })
	if len(web.requests()) != 2 {
		t.Errorf("the server saw %v", web.requests())
	}

	unseen := n.workload(t, "unseen", "app=goes")
	n.killAgent()
	unseen.close()
	eventually(t, patience, "the kernel takes the interface away", func() error { return n.hasLink(unseen.Interface) })
	n.startAgent(t)
	if err := n.forgot(t, "unseen"); err != nil {
		t.Error(err)
	}
	if got := n.status(t).Endpoints["ready"]; got != 2 {
		t.Errorf("%d endpoints are ready, want 2", got)
	}
}

// forgot says what is left of an endpoint.
func (n *node) forgot(t *testing.T, name string) error {
	t.Helper()
	if list := n.headgate(t, "endpoint", "list"); strings.Contains(list, "default/"+name+" ") {
		return fmt.Errorf("endpoints:\n%s", list)
	}
	return nil
}

func (n *node) hasLink(name string) error {
	err := n.do(func() error {
		_, err := netlink.LinkByName(name)
		return err
	})
	if err == nil {
		return fmt.Errorf("interface %s is still there", name)
	}
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	return err
}

// outsideAddresses are those of the node and of a machine outside, on a link
// between them.
var outsideAddresses = map[ipVersion][2]string{4: {"192.0.2.1/24", "192.0.2.2/24"}, 6: {"2001:db8::1/64", "2001:db8::2/64"}}

// TestUnservedDevice has a node that routes to other machines by a device that the
// agent was told to leave alone. Between them and workloads nothing passes, whatever
// policy says; the node itself may.
func TestUnservedDevice(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.stopAgent(t)
	spare := netlink.NewLinkAttrs()
	spare.Name = "spare0"
	if err := n.do(func() error { return netlink.LinkAdd(&netlink.Veth{LinkAttrs: spare, PeerName: "spare1"}) }); err != nil {
		t.Fatal(err)
	}
	n.links = append(n.links, "spare0", "spare1")
	n.flags = append(n.flags, "--device", "spare0")
	n.startAgent(t)
	w := n.workload(t, "web", "app=web")
	web := w.serveWeb(t, 80)
	outside := newNamespace(t)
	n.linkTo(t, outside)
	outsideWeb := outside.serveWeb(t, 80)
	everything := `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: everything}
spec:
  endpointSelector: {}
  ingress: [{fromEntities: [all]}]
  egress: [{toEntities: [all]}]
`
	eachVersion(t, func(t *testing.T, v ipVersion) {
		there := netip.AddrPortFrom(netip.MustParsePrefix(outsideAddresses[v][1]).Addr(), 80)
		n.mustAsk(t, there, "GET", "/from-node", 200) // so the link works
		for _, policy := range []string{"", everything} {
			if policy != "" {
				n.apply(t, policy)
			}
			w.mustNotConnect(t, there)
			outside.mustNotConnect(t, w.at(v, 80))
		}
		f := n.awaitFlow(t, "a packet to the outside", []string{"--verdict", "DROPPED"}, func(f *flowpb.Flow) bool {
			return f.GetIP().GetDestination() == there.Addr().String()
		})
		if reason := f.GetExtensions(); !strings.Contains(reason.String(), "--device") {
			t.Errorf("dropped for %s, %v", f.GetDropReasonDesc(), reason)
		}
		n.withdraw(t, everything)
	})
	if seen := web.requests(); len(seen) > 0 {
		t.Errorf("the workload saw %v", seen)
	}
	for _, r := range outsideWeb.requests() {
		if r.path != "/from-node" {
			t.Errorf("the outside saw %v", r)
		}
	}
}

// linkTo connects the node to another machine, and makes it a router.
func (n *node) linkTo(t *testing.T, outside *namespace) {
	t.Helper()
	n.links = append(n.links, "up0")
	fd, err := unix.Open(outside.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = n.do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "up0"
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "down0", PeerNamespace: netlink.NsFd(fd)})
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644))
		}
		return errors.Join(err, bringUp("up0", 0))
	})
	if err == nil {
		err = outside.do(func() error {
			err := bringUp("down0", 1)
			for v, pool := range map[ipVersion]string{4: "10.210.0.0/16", 6: "fd00:210::/64"} {
				_, to, _ := net.ParseCIDR(pool)
				gw := netip.MustParsePrefix(outsideAddresses[v][0]).Addr()
				err = errors.Join(err, netlink.RouteAdd(&netlink.Route{Dst: to, Gw: gw.AsSlice()}))
			}
			return err
		})
	}
	if err != nil {
		t.Fatal("connect the node to the outside:", err)
	}
}

// bringUp gives an interface the addresses of one side.
func bringUp(name string, side int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, both := range outsideAddresses {
		ip, subnet, _ := net.ParseCIDR(both[side])
		subnet.IP = ip
		err = errors.Join(err, netlink.AddrAdd(link, &netlink.Addr{IPNet: subnet, Flags: unix.IFA_F_NODAD}))
	}
	return errors.Join(err, netlink.LinkSetUp(link))
}
