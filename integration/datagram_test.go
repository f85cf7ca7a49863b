package integration

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDatagrams allows UDP and revokes it: neither end gets another datagram,
// whichever of them goes on sending.
func TestDatagrams(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	socket := server.listenUDP(t, 9000)
	allowed := strings.ReplaceAll(allow("rule", "server", fromApp("client"), 9000), "TCP", "UDP")
	revoked := strings.ReplaceAll(allow("rule", "server", fromApp("nobody"), 9000), "TCP", "UDP")
	eachVersion(t, func(t *testing.T, v ipVersion) {
		n.apply(t, revoked)
		c := client.mustTalk(t, server.at(v, 9000))
		send(t, c, "too early")
		noDatagram(t, socket, "too early")

		n.apply(t, allowed)
		send(t, c, "question")
		peer := datagram(t, socket, "question")
		if peer != endOf(c.LocalAddr()) {
			t.Errorf("the server sees %s, and the client is %s", peer, c.LocalAddr())
		}
		answerTo(t, socket, peer, "answer")
		datagram(t, c, "answer")

		n.apply(t, revoked)
		answerTo(t, socket, peer, "an answer too late") // before anything else: whoever answers may be the only one who sends
		noDatagram(t, c, "an answer too late")
		send(t, c, "too late")
		noDatagram(t, socket, "too late")
	})
}

// mustTalk opens a UDP socket to somewhere.
func (n *namespace) mustTalk(t *testing.T, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := n.connect(context.Background(), unix.SOCK_DGRAM, netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func answerTo(t *testing.T, c *net.UDPConn, to netip.AddrPort, what string) {
	t.Helper()
	if _, err := c.WriteTo([]byte(what), net.UDPAddrFromAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

func send(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
}

// receive waits for one datagram.
func receive(c net.Conn, within time.Duration) (string, netip.AddrPort, error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, 2048)
	n, from, err := c.(*net.UDPConn).ReadFrom(b)
	if err != nil {
		return "", netip.AddrPort{}, err
	}
	return string(b[:n]), endOf(from), nil
}

// datagram wants this one and says from where it came.
func datagram(t *testing.T, c net.Conn, want string) netip.AddrPort {
	t.Helper()
	got, from, err := receive(c, patience)
	if err != nil || got != want {
		t.Fatalf("got datagram %q, %v, want %q", got, err, want)
	}
	return from
}

// noDatagram wants that what was sent does not arrive.
func noDatagram(t *testing.T, c net.Conn, sent string) {
	t.Helper()
	if got, _, err := receive(c, refusalTime); !isTimeout(err) {
		t.Errorf("of %q, which policy denies, arrived %q, %v", sent, got, err)
	}
}
