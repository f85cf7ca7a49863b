package integration

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// masquerading is what a container engine or a VPN writes: who is behind the node goes
// out in its name, and ports of the node's are theirs.
const masquerading = `table inet behind {
	chain out { type nat hook postrouting priority srcnat; oifname up0 ip saddr 172.31.0.0/24 masquerade; oifname up0 ip6 saddr fd00:31::/64 masquerade; }
	chain in { type nat hook prerouting priority dstnat; iifname up0 tcp dport { 8082, 8084 } meta nfproto ipv4 dnat ip to 172.31.0.2:9999; iifname up0 tcp dport { 8082, 8084 } meta nfproto ipv6 dnat ip6 to [fd00:31::2]:9999; }
}
`

func behindAddr(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.MustParseAddr("fd00:31::2")
	}
	return netip.MustParseAddr("172.31.0.2")
}

// behind is a network behind the node that is none of headgate's: the node's kernel
// forwards and translates for it.
func (n *node) behind(t *testing.T) *namespace {
	t.Helper()
	b := newNamespace(t)
	err := n.do(func() error {
		err := linkTo(b, "behind0", "front0")
		if err == nil {
			_, err = upWith("behind0", behindAddr(4).Prev(), behindAddr(6).Prev())
		}
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644))
		}
		return err
	})
	n.links = append(n.links, "behind0")
	if err == nil {
		err = b.do(func() error {
			front, err := upWith("front0", behindAddr(4), behindAddr(6))
			for _, v := range []ipVersion{4, 6} {
				if err == nil {
					err = netlink.RouteAdd(&netlink.Route{LinkIndex: front.Attrs().Index, Dst: anywhere(v), Gw: behindAddr(v).Prev().AsSlice()})
				}
			}
			return err
		})
	}
	if err != nil {
		t.Fatal("add a network behind the node:", err)
	}
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(masquerading)
	c, err := n.start(nft)
	if err == nil {
		<-c.done
		err = c.err
	}
	if err != nil {
		t.Fatal("masquerade with nft:", err)
	}
	return b
}

// behindGoesOn: with host policies enforced, who is behind the node reaches others, and others
// reach it where policy opens the node's port.
func (n *node) behindGoesOn(t *testing.T, b *namespace, o *outside, socket *net.UDPConn, v ipVersion) {
	t.Helper()
	b.mustOpen(t, o.at(v, 7000)).echoes(t)
	b.mustPing(t, farAddr(v))
	c := b.mustTalk(t, netip.AddrPortFrom(routerAddr(v), 7001))
	send(t, c, "masked")
	answerQuestion(t, socket, "masked")
	datagram(t, c, "re: masked")
	o.mustOpen(t, netip.AddrPortFrom(nodeAddr(v), 8084)).echoes(t)
	o.mustNotConnect(t, netip.AddrPortFrom(nodeAddr(v), 8082))
}
