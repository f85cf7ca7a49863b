package proxy

import (
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/tls"
	"github.com/headgate/headgate/policy"
)

// rememberHello keeps a name that was allowed: whatever comes on the connection is under
// it, and it is judged again when policy changes.
func (c *conn) rememberHello(r *policy.TLSRequest) {
	c.hello = r
	if c.speaks == policy.ProtocolTLS { // otherwise its requests are judged, and the name with them
		c.stands()
	}
}

// errDenied: the client was told, and a flow says why.
var errDenied = errors.New("the server name is denied")

// greet judges the name on a connection whose TLS ends here, or whose client speaks plain
// text (and names nobody), before anything else is done.
func (c *conn) greet(r *policy.TLSRequest) error {
	const id = 1
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.p.snapshot.Load(); s.naming(route{c.known.Egress, c.known.Ingress}) == (route{}) {
		c.hello = r // a rule about it may come
		return nil
	}
	decision := c.Request(id, r)
	c.Unanswered(id)
	if decision.Verdict != policy.Allow {
		return errDenied
	}
	return nil
}

// greeted is called by crypto/tls when it has read the hello of a client whose TLS ends
// here. That is read once more, as strictly as where it goes on, and judged; then what
// the client and the server can both carry is agreed on.
func greeted(info *stdtls.ClientHelloInfo) (*stdtls.Config, error) {
	w, ok := info.Conn.(*wire)
	if !ok || w.conn == nil {
		return nil, errors.New("end TLS: the connection is not known")
	}
	hello, whole, err := tls.ReadHello(w.hello)
	w.hello, w.heard = nil, true
	if err == nil && (!whole || !strings.EqualFold(hello.ServerName, info.ServerName)) {
		err = fmt.Errorf("the hello can be read in two ways: the server name is %q, or %q", hello.ServerName, info.ServerName)
	}
	if err != nil {
		if !w.conn.tolerates(err) {
			return nil, err
		}
		hello.ServerName = info.ServerName
	}
	if err := w.conn.greet(&policy.TLSRequest{ServerName: hello.ServerName}); err != nil {
		_, _ = w.Write(tls.AppendDenial(nil, hello))
		w.mute = true
		return nil, err
	}
	return w.conn.agree(info.SupportedProtos)
}

// tolerates says of a hello that would be refused whether TLS ends behind it all the same:
// where nothing is enforced, by the name that crypto/tls has read.
func (c *conn) tolerates(err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	pass, audited := c.passes()
	if !pass {
		return false
	}
	c.p.malformed.Add(1)
	word := observe.Forwarded
	if audited {
		word = observe.Audited
	}
	c.reportAs(word, 0, err.Error()+"; TLS ends here all the same, as no policy that enforces applies")
	return true
}

const (
	fieldTLS = 42 // of Record in proxy.proto

	tlsServerName = 1 // of TLSRecord
	maxServerName = 255
)

// appendHello appends what a hello says.
func appendHello(b []byte, r *policy.TLSRequest) []byte {
	var clean [3 * maxServerName]byte
	name := appendClean(clean[:0], r.ServerName, maxServerName)
	b = protowire.AppendTag(b, fieldTLS, protowire.BytesType)
	if len(name) == 0 {
		return protowire.AppendBytes(b, nil)
	}
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(tlsServerName)+protowire.SizeBytes(len(name))))
	b = protowire.AppendTag(b, tlsServerName, protowire.BytesType)
	return protowire.AppendBytes(b, name)
}
