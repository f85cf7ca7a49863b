package proxy

import (
	stdtls "crypto/tls"
	"fmt"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
)

// What TLS may carry, as ALPN names it (RFC 7301).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// reached is a server to which TLS has begun before anything is to be sent: what it can
// carry the client is offered.
type reached struct {
	sock  *epoll.Socket
	local netip.AddrPort
	tls   *stdtls.Conn
	err   error // instead, why it could not be reached; the client is told as its first request is
}

// agreed implements chooser.
func (c *conn) agreed() string { return c.alpn }

// agree chooses what the client's TLS carries, of what it offers: what the server takes,
// which is asked first. Where the server speaks plain text HTTP/1.1 comes first, which
// every server knows.
func (c *conn) agree(offered []string) (*stdtls.Config, error) {
	config := c.ending.client.Clone()
	config.GetConfigForClient = nil
	http := c.speaks == policy.ProtocolHTTP
	if !http && c.speaks != policy.ProtocolTLS {
		return config, nil
	}
	carried := offered
	if http {
		carried = slices.DeleteFunc(slices.Clone(offered), func(p string) bool { return p != alpnHTTP1 && p != alpnHTTP2 })
	}
	if len(offered) > 0 && len(carried) == 0 {
		config.NextProtos = []string{alpnHTTP1} // which the client does not offer: it is told so
		return config, nil
	}
	choice, err := c.choice(carried, http)
	if err != nil {
		return nil, err
	}
	if http && choice == "" {
		choice = alpnHTTP1
	}
	if c.alpn = choice; len(offered) > 0 && choice != "" {
		config.NextProtos = []string{choice}
	}
	return config, nil
}

// choice is what the server takes of what the client offers; empty: it does not say.
func (c *conn) choice(carried []string, http bool) (string, error) {
	if c.ending.server != nil {
		c.ahead = c.reach(carried)
		switch {
		case c.ahead.err == nil:
			return c.ahead.tls.ConnectionState().NegotiatedProtocol, nil
		case !http:
			return "", c.ahead.err
		} // otherwise the client is told in HTTP
	}
	if http && len(carried) > 0 && !slices.Contains(carried, alpnHTTP1) {
		return alpnHTTP2, nil
	}
	return "", nil
}

// reach connects to the server and begins TLS, offering what the client's does.
func (c *conn) reach(offer []string) *reached {
	sock, local, err := c.dial()
	if err != nil {
		return &reached{err: err}
	}
	over, err := c.beginTLS(sock, offer)
	if err != nil {
		sock.Close()
		return &reached{err: err}
	}
	return &reached{sock: sock, local: local, tls: over}
}

// takeServer is the connection to the server: the one that there is already, or a new one.
func (c *conn) takeServer() *reached {
	if r := c.ahead; r != nil {
		c.ahead = nil
		return r
	}
	offer := []string(nil)
	if c.speaks == policy.ProtocolHTTP && c.ending != nil && c.ending.server != nil {
		// The client speaks plain text, or said nothing: the session knows what it speaks.
		if offer = []string{alpnHTTP1}; c.protocol == "HTTP/2" {
			offer[0] = alpnHTTP2
		}
	}
	r := c.reach(offer)
	if r.err == nil && r.tls != nil && len(offer) > 0 && offer[0] == alpnHTTP2 && r.tls.ConnectionState().NegotiatedProtocol != alpnHTTP2 {
		r.sock.Close()
		r.err = fmt.Errorf("begin TLS to the server %s: it does not speak HTTP/2, which the client speaks", c.destination)
	}
	return r
}

// leaveServer closes a connection to the server that nobody needed.
func (c *conn) leaveServer() {
	if r := c.ahead; r != nil && r.sock != nil {
		r.sock.Close()
	}
	c.ahead = nil
}
