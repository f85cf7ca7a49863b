package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// narrow is the MTU of the link to the machine behind the outside.
const narrow = 1300

func beyondAddr(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.MustParseAddr("2001:db8:9::9")
	}
	return netip.MustParseAddr("203.0.113.9")
}

// beyond is a machine behind the outside, which routes to it by a narrow link.
func (o *outside) beyond(t *testing.T) *namespace {
	t.Helper()
	far := newNamespace(t)
	err := o.do(func() error {
		err := linkTo(far, "far0", "eth0")
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644))
		}
		// As many errors as it likes: a test is in a hurry.
		for _, name := range []string{"ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"} {
			err = errors.Join(err, os.WriteFile("/proc/sys/net/"+name, []byte("0"), 0o644))
		}
		link, up := upWith("far0", beyondAddr(4).Prev(), beyondAddr(6).Prev())
		return errors.Join(err, up, netlink.LinkSetMTU(link, narrow))
	})
	if err == nil {
		err = far.do(func() error {
			link, err := upWith("eth0", beyondAddr(4), beyondAddr(6))
			for _, v := range []ipVersion{4, 6} {
				if err == nil {
					// It sends nothing larger, but lets others believe that it takes more.
					err = netlink.RouteAdd(&netlink.Route{
						LinkIndex: link.Attrs().Index, Dst: anywhere(v), Gw: beyondAddr(v).Prev().AsSlice(), MTU: narrow, AdvMSS: 1440,
					})
				}
			}
			return err
		})
	}
	if err != nil {
		t.Fatal("add a machine beyond the outside:", err)
	}
	return far
}

// TestPaths has packets too big for a link on their way, near or far, of plain and of
// proxied connections, translated: whoever sends them learns of it.
func TestPaths(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	o := n.uplink(t)
	far := o.beyond(t)
	client := n.workload(t, "client", "app=client")
	far.serveWeb(t, 80)
	far.serveDatagrams(t, 9000)
	post := func(t *testing.T, to netip.AddrPort) {
		s := client.mustOpen(t, to)
		_ = s.SetDeadline(time.Now().Add(patience))
		const size = 3 << 20
		fmt.Fprintf(s, "POST /up HTTP/1.1\r\nHost: server\r\nContent-Length: %d\r\n\r\n", size)
		if _, err := s.Write(bytes.Repeat([]byte("x"), size)); err != nil {
			t.Fatal(err)
		}
		line, err := s.read.ReadString('\n')
		if err != nil || !strings.Contains(line, "200") {
			t.Errorf("got %q, %v", line, err)
		}
	}
	l7 := allow("rule", "client", "toEntities: [world]", 80, httpRule{"POST", "/up"})
	eachVersion(t, func(t *testing.T, v ipVersion) {
		to := netip.AddrPortFrom(beyondAddr(v), 80)
		t.Run("far", func(t *testing.T) { post(t, to) })
		t.Run("far, by the proxy", func(t *testing.T) {
			n.apply(t, l7)
			post(t, to)
			n.withdraw(t, l7)
		})
		t.Run("datagrams", func(t *testing.T) { largeDatagrams(t, client, netip.AddrPortFrom(beyondAddr(v), 9000)) })
		t.Run("traceroute", func(t *testing.T) { traces(t, client, v) })
	})
	n.mustDo(t, func() error { return setMTU(uplinkName, narrow) })
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("near", func(t *testing.T) {
			before := n.dropped(t, "Packet too big for the way out")
			client.forgetPaths(t)
			post(t, netip.AddrPortFrom(beyondAddr(v), 80))
			if n.dropped(t, "Packet too big for the way out") == before {
				t.Error("nothing was too big")
			}
			largeDatagrams(t, client, netip.AddrPortFrom(beyondAddr(v), 9000))
		})
	})
}

func setMTU(name string, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetMTU(link, mtu)
}

func (n *namespace) mustDo(t *testing.T, f func() error) {
	t.Helper()
	if err := n.do(f); err != nil {
		t.Fatal(err)
	}
}

// forgetPaths makes the namespace forget what it learned of paths.
func (n *namespace) forgetPaths(t *testing.T) {
	t.Helper()
	n.mustDo(t, func() error {
		return errors.Join(exec.Command("ip", "route", "flush", "cache").Run(), exec.Command("ip", "-6", "route", "flush", "cache").Run())
	})
}

// serveDatagrams sends every datagram back, from the address that it came to.
func (n *namespace) serveDatagrams(t *testing.T, port int) {
	t.Helper()
	for _, v := range []ipVersion{4, 6} {
		var c *net.UDPConn
		n.mustDo(t, func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(beyondAddr(v), uint16(port))))
			return err
		})
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 1<<16)
			for {
				size, from, err := c.ReadFrom(b)
				if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
					return
				}
				_, _ = c.WriteTo(b[:size], from)
			}
		}()
	}
}

// largeDatagrams go in pieces, both ways. The first may be lost while the path is
// learned.
func largeDatagrams(t *testing.T, client *workload, to netip.AddrPort) {
	t.Helper()
	c := client.mustTalk(t, to)
	b := make([]byte, 1<<16)
	for _, size := range []int{1400, 5000, 40000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		eventually(t, patience, fmt.Sprintf("%d bytes back", size), func() error {
			if _, err := c.Write(want); err != nil && !errors.Is(err, unix.EMSGSIZE) {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, err := c.Read(b)
			if err == nil && !bytes.Equal(b[:n], want) {
				err = fmt.Errorf("%d bytes came back", n)
			}
			return err
		})
	}
}

// traces wants every hop to show itself: the gate, the router, the server.
func traces(t *testing.T, client *workload, v ipVersion) {
	t.Helper()
	hops := []string{gateway(v).String(), routerAddr(v).String(), beyondAddr(v).String()}
	for _, how := range [][]string{nil, {"-I"}, {"-T", "-p", "80"}} {
		args := append([]string{"-n", "-q", "1", "-w", "30", "-m", "6"}, how...)
		cmd := exec.Command("traceroute", append(args, beyondAddr(v).String())...)
		var out []byte
		client.mustDo(t, func() (err error) {
			out, err = cmd.CombinedOutput()
			return err
		})
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != 1+len(hops) {
			t.Errorf("%v:\n%s", cmd.Args, out)
			continue
		}
		for i, hop := range hops {
			if !strings.Contains(lines[i+1], hop+" ") {
				t.Errorf("%v: hop %d is not %s:\n%s", cmd.Args, i+1, hop, out)
			}
		}
	}
}
