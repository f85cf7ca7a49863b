package integration

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// envoyClient is one connection, kept alive.
type envoyClient struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
}

type envoyAnswer struct {
	status int
	header http.Header
	body   string
}

func (w *envoyWorld) dial(f envoyFamily) *envoyClient {
	w.t.Helper()
	return w.dialFrom(w.clientNS, netip.AddrPortFrom(f.server, envoyPort))
}

func (w *envoyWorld) dialFrom(ns *namespace, to netip.AddrPort) *envoyClient {
	return w.dialAs(ns, netip.AddrPort{}, to)
}

// dialAs takes a certain address and port of the client's, if from is valid.
func (w *envoyWorld) dialAs(ns *namespace, from, to netip.AddrPort) *envoyClient {
	w.t.Helper()
	c := &envoyClient{t: w.t}
	d := envoyDialer(envoyTimeout)
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	w.mustDo(ns, func() (err error) {
		c.Conn, err = d.Dial("tcp", to.String())
		return err
	})
	c.reader = bufio.NewReader(c.Conn)
	c.SetDeadline(time.Now().Add(envoyTimeout))
	return c
}

func envoyDialer(timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	d.SetMultipathTCP(false)
	return d
}

func (c *envoyClient) local() netip.AddrPort { return c.LocalAddr().(*net.TCPAddr).AddrPort() }

func (c *envoyClient) request(method, path string) envoyAnswer {
	c.t.Helper()
	answer, err := c.try(method, path)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (c *envoyClient) try(method, path string) (envoyAnswer, error) {
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: deathstar\r\nContent-Length: 0\r\n\r\n", method, path); err != nil {
		return envoyAnswer{}, err
	}
	r, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return envoyAnswer{}, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return envoyAnswer{r.StatusCode, r.Header, string(body)}, err
}

// sniff counts the server's TCP packets on the client's interface, by the port
// they are for, until its result is called.
func (w *envoyWorld) sniff(f envoyFamily) func() map[uint16]int {
	w.t.Helper()
	var fd int
	w.mustDo(w.clientNS, func() (err error) {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(all)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index})
	})
	return func() map[uint16]int {
		defer unix.Close(fd)
		ports := map[uint16]int{}
		packet := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
			if err != nil {
				return ports
			}
			if port, ok := tcpPortFor(f, packet[:n]); ok && from.(*unix.SockaddrLinklayer).Pkttype == unix.PACKET_HOST {
				ports[port]++
			}
		}
	}
}

func tcpPortFor(f envoyFamily, p []byte) (uint16, bool) {
	source, header := 12, 20
	if f.client.Is6() {
		source, header = 8, 40
	}
	length := f.server.BitLen() / 8
	if len(p) < header+4 || p[0]>>4 != map[int]byte{4: 4, 16: 6}[length] {
		return 0, false
	}
	from, _ := netip.AddrFromSlice(p[source : source+length])
	return binary.BigEndian.Uint16(p[header+2:]), from == f.server
}
